use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::*;
use crate::{
    app::{
        fake::{FakeEtcd, FakeJournal},
        run_lines::{RunLine, TextProgress},
    },
    core::{
        history::{AlertKey, Request, Trigger},
        plan::Plan,
        policy::Mode,
    },
    ports::etcd::Permitted,
};

fn drive<'a>(
    run: RunId,
    etcd: &'a FakeEtcd,
    journal: &'a FakeJournal,
    claims: &'a Claims,
) -> Drive<'a, FakeEtcd, FakeJournal> {
    let policy = Policy { mode: Mode::Enforce, ..Policy::default() };
    Drive {
        run,
        policy,
        gates: &[],
        old_revision: None,
        outside_window: false,
        snapshot_patience: Duration::from_mins(10),
        etcd,
        journal,
        progress: &[],
        claims,
        term: None,
        permit: &Permitted,
    }
}

async fn accepted(journal: &FakeJournal) -> RunId {
    let request = Request::new("a", Trigger::Manual);
    journal.accept(request).await.expect("the journal works")
}

#[tokio::test(start_paused = true)]
async fn a_whole_run_is_driven_and_every_step_is_in_the_journal() {
    let (etcd, journal) = (FakeEtcd::new(3), FakeJournal::default());
    let (run, claims) = (accepted(&journal).await, Claims::default());
    let (_stop, stopped) = watch::channel(None);
    let outcome = drive(run, &etcd, &journal, &claims).to_its_end(stopped).await;
    assert_eq!(outcome, Outcome::Succeeded);
    assert_eq!(etcd.order(), [3, 2, 1]);
    assert_eq!(etcd.most_in_flight(), 1);
    let kinds: Vec<_> = journal
        .entries()
        .iter()
        .map(|entry| match entry {
            Entry::Accepted(_) => "accepted",
            Entry::Started { .. } => "started",
            Entry::Step(_) => "step",
            Entry::Gate(_) => "gate",
            Entry::Verified(_) => "verified",
            Entry::Intent(_) => "intent",
            Entry::Result(_) => "result",
            Entry::Finished(_) => "finished",
            Entry::Joined { .. }
            | Entry::Resolved { .. }
            | Entry::Approved { .. }
            | Entry::Cancelled(_)
            | Entry::Forwarded(_)
            | Entry::Repeats { .. } => "admission",
        })
        .collect();
    let expected = ["accepted", "started", "intent", "result", "intent", "result", "intent", "result", "finished"];
    assert_eq!(kinds, expected);
}

/// An alert joins the run when its plan is known.
struct Joining<'a> {
    journal: &'a FakeJournal,
    run: RunId,
    alerts: Mutex<Vec<AlertKey>>,
}

impl Progress for Joining<'_> {
    fn planned(&self, _: &Plan) {
        let alerts = std::mem::take(&mut *self.alerts.lock());
        if !alerts.is_empty() {
            let joined = self.journal.append(self.run, Entry::Joined { alerts }).now_or_never();
            joined.expect("it is in memory").expect("the journal works");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_begins_with_what_is_known_against_the_versions() {
    let (etcd, journal) = (FakeEtcd::new(3), FakeJournal::default());
    etcd.report(|(id, status)| {
        if *id == 2 {
            status.version = "3.5.16".to_owned();
        }
    });
    let (run, claims) = (accepted(&journal).await, Claims::default());
    let lines = Mutex::new(Vec::new());
    let progress = TextProgress::new(|line: RunLine<'_>| lines.lock().extend(line.kept().map(str::to_owned)));
    let (_stop, stopped) = watch::channel(None);
    let drive = Drive { progress: &progress, ..drive(run, &etcd, &journal, &claims) };
    assert_eq!(drive.to_its_end(stopped).await, Outcome::Succeeded);
    let lines = lines.lock();
    let warns: Vec<_> = (0..lines.len()).filter(|at| lines[*at].contains("warning: etcd 3.5.16 (etcd-2): ")).collect();
    let ordered = lines.iter().position(|line| line.starts_with("order: ")).expect("planned");
    assert!(lines.iter().any(|line| line.contains("#20271")), "{lines:?}");
    assert!(!warns.is_empty() && warns.iter().all(|at| *at < ordered), "before the plan: {lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_without_an_alert_touches_no_member_unless_one_joins_it() {
    let alert = AlertKey::new("f".to_owned(), "2026-09-21T14:00:00Z");
    for (alerts, expected) in
        [(Vec::new(), (Outcome::NothingToDo, Vec::new())), (vec![alert], (Outcome::Succeeded, vec![3, 2, 1]))]
    {
        let (etcd, journal, claims) = (FakeEtcd::new(3), FakeJournal::default(), Claims::default());
        let request = Request::new("a", Trigger::Retry);
        let run = journal.accept(request).await.expect("the journal works");
        let progress = Joining { journal: &journal, run, alerts: Mutex::new(alerts) };
        let (_stop, stopped) = watch::channel(None);
        let drive = Drive { progress: &progress, ..drive(run, &etcd, &journal, &claims) };
        assert_eq!((drive.to_its_end(stopped).await, etcd.order()), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_current_member_and_starts_no_other() {
    let (etcd, journal) = (FakeEtcd::new(3), FakeJournal::default());
    let (run, claims) = (accepted(&journal).await, Claims::default());
    let (stop, stopped) = watch::channel(None);
    let driven = drive(run, &etcd, &journal, &claims).to_its_end(stopped);
    let stopping = async {
        sleep(Duration::from_secs(1)).await;
        stop.send(Some(Reason::ShuttingDown)).expect("the run listens");
    };
    let (outcome, ()) = tokio::join!(driven, stopping);
    assert_eq!(outcome, Outcome::Stopped { reason: Reason::ShuttingDown });
    assert_eq!(etcd.order(), [3]);
}

#[tokio::test(start_paused = true)]
async fn without_a_journal_nothing_is_started() {
    let (etcd, journal) = (FakeEtcd::new(3), FakeJournal::default());
    let (run, claims) = (accepted(&journal).await, Claims::default());
    journal.break_down();
    // An ending process leaves the end of the run to the next start; any other keeps retrying.
    let (_stop, stopped) = watch::channel(Some(Reason::ShuttingDown));
    let outcome = drive(run, &etcd, &journal, &claims).to_its_end(stopped).await;
    assert_eq!(outcome.reason().map(Reason::label), Some("journal_failed"));
    assert!(etcd.order().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_is_written_as_soon_as_the_journal_works_again() {
    let (etcd, journal) = (FakeEtcd::new(3), FakeJournal::default());
    let (run, claims) = (accepted(&journal).await, Claims::default());
    let (_stop, stopped) = watch::channel(None);
    let trouble = async {
        sleep(Duration::from_secs(1)).await;
        journal.break_down();
        sleep(Duration::from_mins(10)).await;
        assert_eq!(journal.open_runs().await.expect("read").len(), 1);
        journal.recover();
    };
    let (outcome, ()) = tokio::join!(drive(run, &etcd, &journal, &claims).to_its_end(stopped), trouble);
    assert_eq!(outcome.reason().map(Reason::label), Some("journal_failed"));
    assert!(journal.open_runs().await.expect("read").is_empty());
    assert_eq!(etcd.order(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_ends_the_run_after_the_server_is_done() {
    let (etcd, journal) = (FakeEtcd::new(3), FakeJournal::default());
    etcd.take(Duration::from_hours(1));
    let (run, claims) = (accepted(&journal).await, Claims::default());
    let (_stop, stopped) = watch::channel(None);
    // The fake ends with its future, like a server that is killed: the member stays busy forever.
    let release = async {
        sleep(Duration::from_mins(20)).await;
        etcd.set_busy(3, false);
    };
    let (outcome, ()) = tokio::join!(drive(run, &etcd, &journal, &claims).to_its_end(stopped), release);
    assert_eq!(outcome.reason().map(Reason::label), Some("deadline_exceeded"));
    assert_eq!(etcd.order(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_another_entry_is_at_work_on_is_left_alone() {
    let (etcd, journal) = (FakeEtcd::new(3), FakeJournal::default());
    let (run, claims) = (accepted(&journal).await, Claims::default());
    let id = etcd.members().await.expect("it is up").cluster_id;
    let _other = claims.take(id, "b").expect("free");
    let (_stop, stopped) = watch::channel(None);
    let outcome = drive(run, &etcd, &journal, &claims).to_its_end(stopped).await;
    assert_eq!((outcome.label(), outcome.reason().map(Reason::label)), ("refused", Some("same_cluster")));
    assert!(etcd.order().is_empty());
}
