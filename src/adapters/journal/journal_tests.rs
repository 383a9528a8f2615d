#[path = "journal_tests/retention.rs"]
mod retention;

use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::*;
use crate::{
    adapters::clock::SystemClock,
    core::{
        fixture::{self, intent},
        history::{AlertKey, Labels, MemberEnd, MemberResult, Outcome, Sizes, Trigger},
        policy::Mode,
        reason::Reason,
    },
};

fn open(dir: &Path) -> SqliteJournal {
    SqliteJournal::open(dir, Arc::new(SystemClock)).expect("the journal opens")
}

fn request() -> Request {
    Request::new("a", Trigger::Manual)
}

async fn ended(journal: &SqliteJournal, cluster: &str, outcome: Outcome) -> RunId {
    let request = Request { cluster: cluster.to_owned(), ..request() };
    let run = journal.accept(request).await.expect("accepted");
    journal.append(run, Entry::Finished(outcome)).await.expect("written");
    run
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    let run = journal.accept(request()).await.expect("accepted");
    let after = Sizes { db_size: ByteSize(1_001), ..intent().before };
    let end = MemberEnd::Defragmented { after, took: Duration::from_millis(1_500), unavailable: None };
    let result = MemberResult { intent: intent(), end };
    let outcome = Outcome::Failed { reason: Reason::CorruptAlarm };
    journal.append(run, Entry::Started { mode: Mode::Enforce, term: None, compares: false }).await.expect("written");
    journal.append(run, Entry::Intent(intent())).await.expect("written");
    journal.append(run, Entry::Result(result.clone())).await.expect("written");
    assert_eq!(journal.open_runs().await.expect("read").len(), 1);
    journal.append(run, Entry::Finished(outcome.clone())).await.expect("written");
    drop(journal);

    let journal = open(dir.path());
    let view = journal.run(run).await.expect("read").expect("the run is there");
    assert_eq!(view.members, [result]);
    assert_eq!(view.outcome, Some(outcome));
    assert_eq!(view.open_intent, None);
    assert!(journal.open_runs().await.expect("read").is_empty());
    assert_ne!(journal.accept(request()).await.expect("accepted"), run, "numbers are never used twice");
}

#[tokio::test]
async fn alerts_keep_their_labels_and_text_in_the_journal() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    let labels = Labels::from([("alertname".to_owned(), "EtcdFragmentationHigh".to_owned())]);
    let alert = AlertKey::new("f".to_owned(), "2026-11-23T10:00:00.120Z").described(&labels, "much is free");
    let request = Request { trigger: Trigger::Alert, alerts: vec![alert.clone()], ..request() };
    let run = journal.accept(request).await.expect("accepted");
    drop(journal);
    let view = open(dir.path()).run(run).await.expect("read").expect("there");
    let read = &view.request.alerts[0];
    assert_eq!((&read.labels, read.summary.as_str(), read), (&alert.labels, "much is free", &alert));
}

#[tokio::test]
async fn every_reason_survives_the_journal_without_loss() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    let run = journal.accept(request()).await.expect("accepted");
    let reason = Reason::NotNeeded {
        fragmentation_ratio: 0.123_456,
        reclaimable: ByteSize(123_456_789),
        min_ratio: 0.45,
        min_reclaimable: ByteSize::mib(100),
    };
    let end = MemberEnd::NotSent { reason: reason.clone() };
    journal.append(run, Entry::Result(MemberResult { intent: intent(), end: end.clone() })).await.expect("written");
    assert_eq!(journal.run(run).await.expect("read").expect("there").members[0].end, end);
}

#[tokio::test]
async fn what_a_gate_found_survives_in_the_journal_even_while_the_run_is_in_progress() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    let run = journal.accept(request()).await.expect("accepted");
    let result = fixture::gate_result();
    journal.append(run, Entry::Gate(result.clone())).await.expect("written");
    let view = journal.run(run).await.expect("an open run can be read").expect("it is there");
    assert_eq!(view.gates, [result]);
    assert_eq!(view.baselines()["pods"], serde_json::json!({"kind": "any"}));
}

#[tokio::test]
async fn actions_and_approvals_are_there_after_reopening_and_clusters_are_kept_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    let run = journal.accept(request()).await.expect("accepted");
    journal.accept(Request { cluster: "b".to_owned(), ..request() }).await.expect("accepted");
    let alerts = vec![AlertKey::new("f".to_owned(), "t")];
    journal.append(run, Entry::Joined { alerts: alerts.clone() }).await.expect("written");
    journal.append(run, Entry::approved("ann".to_owned())).await.expect("written");
    journal.append(run, Entry::Resolved { alerts: alerts.clone() }).await.expect("written");
    let pause = Order::Pause { by: "ann".to_owned(), reason: "upgrade".to_owned(), until: None };
    journal.order("a", pause.clone()).await.expect("written");
    drop(journal);

    let journal = open(dir.path());
    let runs = journal.runs_of("a", 10).await.expect("read");
    assert_eq!(runs.len(), 1);
    assert_eq!((&runs[0].request.alerts, &runs[0].resolved), (&alerts, &alerts));
    assert_eq!(runs[0].approved.as_ref().map(|approval| approval.by.as_str()), Some("ann"));
    assert_eq!(runs[0].open_alerts().count(), 0);
    let orders = journal.orders("a").await.expect("read");
    assert_eq!(orders.into_iter().map(|record| record.order).collect::<Vec<_>>(), [pause]);
    assert!(journal.orders("b").await.expect("read").is_empty());
}

#[test]
fn a_second_process_is_kept_out_but_may_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let _journal = open(dir.path());
    let second = SqliteJournal::open(dir.path(), Arc::new(SystemClock));
    assert!(matches!(second, Err(JournalError::InUse { .. })));
    assert!(SqliteJournal::open_read_only(dir.path()).is_ok());
}

#[test]
fn a_damaged_or_newer_journal_is_refused_with_its_path() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(FILE_NAME);
    std::fs::write(&path, "this is no database, however long it may be".repeat(100)).expect("written");
    let error = SqliteJournal::open(dir.path(), Arc::new(SystemClock)).err().expect("refused").to_string();
    assert!(error.contains("journal.db") && error.contains("not a database"), "{error}");

    std::fs::remove_file(&path).expect("removed");
    drop(open(dir.path()));
    Connection::open(&path).expect("opens").pragma_update(None, "user_version", 99).expect("set");
    assert!(matches!(
        SqliteJournal::open(dir.path(), Arc::new(SystemClock)),
        Err(JournalError::Newer { found: 99, .. })
    ));
}

#[tokio::test]
async fn an_entry_of_an_unknown_run_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(
        open(dir.path())
            .append(RunId(7), Entry::Started { mode: Mode::Observe, term: None, compares: false })
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_unreadable_entry_of_an_ended_run_is_left_out_and_of_an_open_one_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    let ended = journal.accept(request()).await.expect("accepted");
    journal.append(ended, Entry::Finished(Outcome::Succeeded)).await.expect("written");
    let strange = |run: RunId| {
        let foreign = Connection::open(dir.path().join(FILE_NAME)).expect("opens");
        let row = params![run.0, "2026-11-23T00:00:00Z", r#"{"kind":"of_the_future"}"#];
        foreign.execute("INSERT INTO entry (run, at, body) VALUES (?1, ?2, ?3)", row).expect("written");
    };
    strange(ended);
    assert_eq!(journal.runs(10).await.expect("read").len(), 1);
    let open = journal.accept(request()).await.expect("accepted");
    strange(open);
    let error = journal.open_runs().await.expect_err("unreadable").to_string();
    assert!(error.contains("of_the_future"), "{error}");
}

#[tokio::test]
async fn a_write_waits_for_another_writer_of_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    let mut foreign = Connection::open(dir.path().join(FILE_NAME)).expect("opens");
    let held = foreign.transaction_with_behavior(IMMEDIATE).expect("locked");
    let writing = tokio::spawn({
        let journal = journal.clone();
        async move { journal.accept(request()).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writing.is_finished());
    drop(held);
    writing.await.expect("no panic").expect("accepted");
}

#[tokio::test]
async fn what_is_made_here_is_its_owners_alone_and_what_was_there_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("new/journal");
    let journal = open(&dir);
    journal.accept(request()).await.expect("accepted");
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<_> = std::fs::read_dir(&dir).expect("listed").map(|entry| entry.expect("listed").path()).collect();
    assert!(files.len() >= 3, "the journal, its log and the lock: {files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    drop(journal);

    let shared = dir.join(FILE_NAME);
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o640)).expect("changed");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750)).expect("changed");
    drop(open(&dir));
    assert_eq!((mode(&dir), mode(&shared)), (0o750, 0o640));
}

/// The tables of version 1, as they were.
const VERSION_1: &str = "
    CREATE TABLE run (id INTEGER PRIMARY KEY AUTOINCREMENT, cluster TEXT NOT NULL, open INTEGER NOT NULL DEFAULT 1) STRICT;
    CREATE INDEX run_open ON run (open) WHERE open = 1;
    CREATE TABLE entry (seq INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES run (id),
                        at TEXT NOT NULL, body TEXT NOT NULL) STRICT;
    CREATE INDEX entry_run ON entry (run);
    CREATE INDEX run_cluster ON run (cluster, id);
    CREATE TABLE person_order (seq INTEGER PRIMARY KEY AUTOINCREMENT, cluster TEXT NOT NULL, at TEXT NOT NULL,
                               body TEXT NOT NULL) STRICT;
    CREATE INDEX person_order_cluster ON person_order (cluster);
    INSERT INTO run (cluster) VALUES ('a');
    INSERT INTO entry (run, at, body) VALUES
        (1, '2026-11-23T00:00:00Z', '{\"kind\":\"accepted\",\"cluster\":\"a\",\"trigger\":\"manual\",\"alerts\":[]}'),
        (1, '2026-11-23T00:00:01Z', '{\"kind\":\"started\",\"mode\":\"enforce\"}');
    PRAGMA user_version = 1;
";

fn digest(holder: &str) -> SuccessionNote {
    let note = SuccessionNote::default().write(holder, crate::core::lock::Term(7), None, None);
    // As it comes from the store.
    SuccessionNote::read(&note).expect("readable")
}

#[tokio::test]
async fn what_other_holders_left_is_kept_and_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    assert_eq!(journal.inherited("a").await.expect("read"), None);
    journal.inherit("a", digest("one")).await.expect("written");
    journal.inherit("b", digest("two")).await.expect("written");
    journal.inherit("a", digest("three")).await.expect("written");
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(journal.inherited("a").await.expect("read"), Some(digest("three")));
    assert_eq!(journal.inherited("b").await.expect("read"), Some(digest("two")));
}

/// What version 2 added.
const VERSION_2: &str = "
    CREATE TABLE inherited (cluster TEXT PRIMARY KEY, at TEXT NOT NULL, body TEXT NOT NULL) STRICT;
    INSERT INTO run (cluster, open) VALUES ('b', 0), ('b', 0);
    INSERT INTO entry (run, at, body) VALUES
        (2, '2026-11-23T00:00:00Z', '{\"kind\":\"accepted\",\"cluster\":\"b\",\"trigger\":\"alert\",\"alerts\":[]}'),
        (2, '2026-11-23T00:00:01Z', '{\"kind\":\"finished\",\"outcome\":\"elsewhere\",\"holder\":\"one\",\"holders_run\":7,\"ended\":\"succeeded\",\"detail\":null}'),
        (3, '2026-11-23T00:00:00Z', '{\"kind\":\"accepted\",\"cluster\":\"b\",\"trigger\":\"manual\",\"alerts\":[]}'),
        (3, '2026-11-23T00:00:01Z', '{\"kind\":\"finished\",\"outcome\":\"elsewhere\",\"holder\":\"one\",\"holders_run\":null,\"ended\":\"refused\",\"detail\":\"busy\"}');
    PRAGMA user_version = 2;
";

#[tokio::test]
async fn journals_of_earlier_versions_are_brought_to_this_one_with_all_that_is_in_them() {
    for added in ["", VERSION_2] {
        let dir = tempfile::tempdir().expect("a directory");
        let old = Connection::open(dir.path().join(FILE_NAME)).expect("opens");
        old.execute_batch(&format!("{VERSION_1}{added}")).expect("written");
        drop(old);
        // A reader takes it as it is.
        let reader = SqliteJournal::open_read_only(dir.path()).expect("opens");
        assert_eq!(reader.inherited("a").await.expect("read"), None);
        assert_eq!(reader.open_runs().await.expect("read").len(), 1);
        drop(reader);
        for _ in 0..2 {
            let journal = open(dir.path());
            journal.prune(Retention::default()).await.expect("pruned");
            let runs = journal.open_runs().await.expect("read");
            assert!(runs[0].started_at.is_some(), "{runs:?}");
            let forwarded_to = journal.runs_of("b", 9).await.expect("read");
            let outcomes: Vec<_> = forwarded_to.into_iter().map(|run| run.outcome).collect();
            let holder = || "one".to_owned();
            let taken = Outcome::Stopped { reason: Reason::Forwarded { holder: holder(), run: RunId(7) } };
            let reason = Reason::NotForwarded { holder: holder(), detail: "busy".to_owned() };
            let expected = [Some(taken), Some(Outcome::Refused { reason })];
            assert_eq!(outcomes, if added.is_empty() { &[][..] } else { &expected });
            journal.inherit("a", digest("one")).await.expect("written");
        }
        let now = Connection::open(dir.path().join(FILE_NAME)).expect("opens");
        let number = |pragma| now.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).expect("read");
        assert_eq!((number("user_version"), number("auto_vacuum")), (6, 2));
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_inside_takes_nothing_more_once_that_is_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    for _ in 0..200 {
        ended(&journal, "a", Outcome::Failed { reason: Reason::ClusterUnreachable { detail: "x".repeat(500) } }).await;
    }
    journal.verify().await.expect("it is whole");
    drop(journal);
    let path = dir.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0x55);
    std::fs::write(&path, bytes).expect("written");
    let journal = open(dir.path());
    let error = journal.verify().await.expect_err("damaged").to_string();
    assert!(error.contains("journal.db is damaged") && error.contains("move the file away"), "{error}");
    let refused = journal.accept(request()).await.expect_err("damaged").to_string();
    assert_eq!(refused, error);
    assert!(journal.writable().await.is_err());
}
