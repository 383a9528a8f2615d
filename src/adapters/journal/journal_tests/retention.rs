//! What is deleted, and what never is.

use super::*;

/// A clock that a test sets.
struct Hand(Mutex<Timestamp>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

impl Hand {
    fn on(&self, time: Duration) {
        *self.0.lock() += time;
    }
}

fn by_hand(dir: &Path) -> (Arc<Hand>, SqliteJournal) {
    let clock = Arc::new(Hand(Mutex::new("2026-01-01T00:00:00Z".parse().expect("a time"))));
    (Arc::clone(&clock), SqliteJournal::open(dir, clock).expect("the journal opens"))
}

/// What is in the log is in no file yet.
async fn settle(journal: &SqliteJournal) {
    let checkpoint =
        |connection: &mut Connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    journal.blocking(checkpoint).await.expect("written");
}

fn numbers(runs: &[RunView]) -> Vec<i64> {
    runs.iter().map(|run| run.id.0).collect()
}

#[tokio::test]
async fn what_is_past_its_retention_goes_but_the_newest_run_of_each_cluster_and_what_is_open() {
    const DAY: Duration = Duration::from_hours(24);
    let dir = tempfile::tempdir().expect("a directory");
    let (clock, journal) = by_hand(dir.path());
    let open = journal.accept(request()).await.expect("accepted");
    for cluster in ["a", "a", "b", "b"] {
        ended(&journal, cluster, Outcome::Succeeded).await;
    }
    clock.on(DAY * 10);
    ended(&journal, "a", Outcome::Succeeded).await;
    let retention = Retention { age: DAY * 5, ..Retention::default() };
    assert_eq!(journal.prune(retention).await.expect("pruned"), 3);
    assert_eq!(numbers(&journal.runs(100).await.expect("read")), [open.0, 5, 6], "5 is the newest of b");
    assert_eq!(journal.records(RunId(2)).await.expect("read"), []);
    assert_eq!(journal.prune(retention).await.expect("pruned"), 0);

    for _ in 0..9 {
        ended(&journal, "a", Outcome::Succeeded).await;
    }
    let retention = Retention { runs_of_a_cluster: 3, ..Retention::default() };
    assert_eq!(journal.prune(retention).await.expect("pruned"), 7);
    assert_eq!(numbers(&journal.runs(100).await.expect("read")), [open.0, 5, 13, 14, 15]);
    assert_eq!(ended(&journal, "a", Outcome::Succeeded).await.0, 16, "numbers are never used twice");
}

#[tokio::test]
async fn a_journal_that_grew_too_large_is_cut_and_its_file_gets_smaller() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, journal) = by_hand(dir.path());
    let detail = "x".repeat(10_000);
    for _ in 0..700 {
        ended(&journal, "a", Outcome::Failed { reason: Reason::ClusterUnreachable { detail: detail.clone() } }).await;
    }
    let size = || std::fs::metadata(dir.path().join(FILE_NAME)).expect("it is there").len();
    settle(&journal).await;
    let before = size();
    let limit = 2_000_000;
    assert!(before > 3 * limit, "{before}");
    let retention = Retention { size: limit, ..Retention::default() };
    assert!(journal.prune(retention).await.expect("pruned") > 400);
    assert!(size() <= limit, "{} of {limit}, {before} before", size());
    assert!(!journal.runs(1).await.expect("read").is_empty());
    assert_eq!(journal.prune(retention).await.expect("pruned"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_gets_smaller_once_no_reader_is_open_and_writes_do_not_wait_for_that() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, journal) = by_hand(dir.path());
    let detail = "x".repeat(10_000);
    for _ in 0..300 {
        ended(&journal, "a", Outcome::Failed { reason: Reason::ClusterUnreachable { detail: detail.clone() } }).await;
    }
    settle(&journal).await;
    let size = || std::fs::metadata(dir.path().join(FILE_NAME)).expect("it is there").len();
    let before = size();
    let other = || Connection::open(dir.path().join(FILE_NAME)).expect("it opens");
    let (reader, watcher) = (other(), other());
    reader.execute_batch("BEGIN; SELECT count(*) FROM run").expect("read");
    let pruning = tokio::spawn({
        let journal = journal.clone();
        async move { journal.prune(Retention { runs_of_a_cluster: 3, ..Retention::default() }).await }
    });
    let number = |query: &str| watcher.query_row(query, [], |row| row.get::<_, i64>(0)).expect("read");
    while number("SELECT count(*) FROM run") > 3 || number("PRAGMA freelist_count") > 0 {
        tokio::time::sleep(STEP_INTERVAL).await;
    }
    journal.accept(request()).await.expect("accepted");
    assert_eq!(size(), before);
    reader.execute_batch("COMMIT").expect("read");
    assert_eq!(pruning.await.expect("no panic").expect("pruned"), 297);
    assert!(size() * 10 < before, "{} of {before}", size());
}

#[tokio::test]
async fn runs_that_found_the_same_are_one_with_a_count() {
    const HOUR: Duration = Duration::from_hours(1);
    let observed = |member: &str| Outcome::Observed { members: vec![member.to_owned()], outside_window: false };
    let dir = tempfile::tempdir().expect("a directory");
    let (clock, journal) = by_hand(dir.path());
    let begun = clock.now();
    for _ in 0..3 {
        ended(&journal, "a", observed("m1")).await;
        ended(&journal, "b", observed("m1")).await;
        clock.on(HOUR);
    }
    let runs = journal.runs(100).await.expect("read");
    assert_eq!(numbers(&runs), [5, 6]);
    assert_eq!((runs[0].repeats, runs[0].repeats_since), (2, Some(begun)));
    // Another result, one that changed something, and one that was only just found.
    for outcome in [observed("m2"), Outcome::Succeeded, Outcome::Succeeded, Outcome::NothingToDo] {
        ended(&journal, "a", outcome).await;
        clock.on(HOUR);
    }
    // Two Alertmanagers.
    ended(&journal, "a", Outcome::NothingToDo).await;
    ended(&journal, "a", Outcome::NothingToDo).await;
    let runs = journal.runs_of("a", 100).await.expect("read");
    assert_eq!(numbers(&runs), [5, 7, 8, 9, 11, 12]);
    assert_eq!(runs.iter().map(|run| run.repeats).collect::<Vec<_>>(), [2, 0, 0, 0, 1, 0]);
    clock.on(HOUR);
    ended(&journal, "a", Outcome::NothingToDo).await;
    let runs = journal.runs_of("a", 100).await.expect("read");
    assert_eq!(numbers(&runs), [5, 7, 8, 9, 13]);
    assert_eq!(runs.last().map(|run| run.repeats), Some(3));
}

#[tokio::test]
async fn a_schedule_is_known_since_it_was_first_there_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(Hand(Mutex::new(Timestamp::UNIX_EPOCH)));
    let at = |hours: i64| Timestamp::from_second(hours * 3_600).expect("in range");
    let mut journal = SqliteJournal::open(dir.path(), clock.clone()).expect("the journal opens");
    for (hours, schedule, since) in [
        (1, "0 3 * * * UTC", 1),
        (2, "0 3 * * * UTC", 1),
        (3, "0 4 * * * UTC", 3),
        (4, "0 4 * * * UTC", 3),
        // The clock is set back: a time in the future is ignored.
        (2, "0 4 * * * UTC", 2),
        (5, "0 4 * * * UTC", 2),
    ] {
        *clock.0.lock() = at(hours);
        let known = journal.scheduled_since("a", schedule).await.expect("written");
        assert_eq!(known, at(since), "{schedule} at {hours} h");
        drop(journal);
        journal = SqliteJournal::open(dir.path(), clock.clone()).expect("the journal opens");
    }
    assert_eq!(
        journal.scheduled_since("b", "0 4 * * * UTC").await.expect("written"),
        at(5),
        "each cluster has its own"
    );
}

#[tokio::test]
async fn a_run_after_which_the_members_differed_is_kept_and_found_however_many_came_after_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (clock, journal) = by_hand(dir.path());
    let reason = Reason::HashMismatch { revision: 7, hashes: "1 on etcd-1; 2 on etcd-2".to_owned() };
    let found = ended(&journal, "a", Outcome::Mismatched { reason: reason.clone() }).await;
    ended(&journal, "b", Outcome::Mismatched { reason }).await;
    for _ in 0..9 {
        ended(&journal, "a", Outcome::Succeeded).await;
    }
    clock.on(Duration::from_hours(24 * 10));
    let retention = Retention { age: Duration::from_hours(24), runs_of_a_cluster: 3, ..Retention::default() };
    while journal.prune(retention).await.expect("pruned") > 0 {}
    assert_eq!(numbers(&journal.runs_of("a", 1).await.expect("read")), [found.0, 11]);
    assert_eq!(numbers(&journal.runs_of("b", 0).await.expect("read")), [2]);
}
