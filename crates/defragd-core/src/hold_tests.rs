use std::time::Duration;

use super::*;
use crate::{
    fixture::{self, sizes},
    history::{Entry, Labels, MemberEnd, MemberResult, Record},
    order::{Order, OrderRecord},
};

const START: i64 = 1_795_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).expect("in range")
}

fn alert(fingerprint: &str, name: &str) -> AlertKey {
    let labels = Labels::from([("alertname".to_owned(), name.to_owned())]);
    AlertKey::new(fingerprint.to_owned(), &at(-60).to_string()).described(&labels, "much is free")
}

fn ledger(entries: Vec<(i64, i64, Entry)>) -> Ledger {
    let records = entries.into_iter().map(|(run, seconds, entry)| Record { run: RunId(run), at: at(seconds), entry });
    Ledger { runs: RunView::fold(records), ..Ledger::default() }
}

fn requested(run: i64, seconds: i64, alerts: Vec<AlertKey>) -> (i64, i64, Entry) {
    (
        run,
        seconds,
        Entry::Accepted(Request { cluster: "a".to_owned(), trigger: Trigger::Alert, alerts, members: Vec::new() }),
    )
}

fn defragmented() -> MemberResult {
    let end = MemberEnd::Defragmented { after: sizes(100, 100), took: Duration::from_secs(1), unavailable: None };
    fixture::attempt(1, sizes(1_000, 100), end)
}

fn shown(ledger: &Ledger, policy: &Policy, now: Timestamp) -> Option<RequestView> {
    ledger.request_view(None, &ledger.firing(), policy, now)
}

fn observed() -> Outcome {
    Outcome::Observed { members: vec!["m1".to_owned()], outside_window: false }
}

#[test]
fn an_alert_fires_until_it_is_resolved_however_its_run_ended() {
    let fragmented = alert("f1", "EtcdFragmentationHigh");
    let cancelled = Outcome::Stopped { reason: Reason::Cancelled { by: "anna".to_owned(), reason: String::new() } };
    let refused = Outcome::Refused { reason: Reason::CorruptAlarm };
    let failed = Outcome::Failed { reason: Reason::NoSpaceAgain };
    for (outcome, code) in [
        (observed(), "served"),
        (cancelled, "served"),
        (Outcome::NothingToDo, "served"),
        (refused, "retry_pending"),
        (failed, "retry_pending"),
    ] {
        let mut entries = vec![requested(1, 0, vec![fragmented.clone()]), (1, 10, Entry::Finished(outcome.clone()))];
        let view = shown(&ledger(entries.clone()), &Policy::default(), at(11)).expect("it fires");
        assert_eq!(view.alerts[0].name(), Some("EtcdFragmentationHigh"), "{outcome:?}");
        assert_eq!(view.hold.expect("held").reason.label(), code, "{outcome:?}");
        assert_eq!(view.served_by.map(|served| (served.run, served.outcome)), Some((RunId(1), outcome.label().into())));
        entries.push((1, 20, Entry::Resolved { alerts: vec![fragmented.clone()] }));
        assert_eq!(shown(&ledger(entries), &Policy::default(), at(21)), None, "{outcome:?}");
    }
}

#[test]
fn a_request_is_shown_as_soon_as_it_is_in_the_journal() {
    let refused = Entry::Finished(Outcome::Refused { reason: Reason::CorruptAlarm });
    let first = vec![requested(1, 0, vec![alert("f1", "A")]), (1, 10, refused)];
    let next = requested(2, 11, vec![alert("f1", "A"), alert("f2", "B")]);
    let ledger = ledger(first.into_iter().chain([next]).collect());
    let view = |mode| shown(&ledger, &Policy { mode, ..Policy::default() }, at(12)).expect("it is requested");
    let free = view(Mode::Enforce);
    assert_eq!((free.phase, free.run, free.alerts.len(), free.hold), (RequestPhase::Waiting, Some(RunId(2)), 2, None));
    assert!(view(Mode::Approve).awaits_approval());
}

#[test]
fn a_rejected_alert_is_said_to_request_nothing_until_the_cooldown_has_passed() {
    let rejected = Reason::Rejected { by: "anna".to_owned(), reason: "not now".to_owned(), at: None };
    let ended = Entry::Finished(Outcome::Stopped { reason: rejected });
    let ledger = ledger(vec![requested(1, 0, vec![alert("f1", "A")]), (1, 10, ended)]);
    let view = shown(&ledger, &Policy::default(), at(11)).expect("it fires");
    let hold = view.hold.clone().expect("held");
    assert_eq!((hold.reason.label(), hold.until), ("rejected", Some(at(10 + 6 * 3600))));
    let words = view.words();
    assert!(words.contains(". Rejected by anna: not now; no run is requested until 2026-11-18 "), "{words}");
    let view = shown(&ledger, &Policy::default(), at(7 * 3600)).expect("it fires");
    assert_eq!(view.hold.expect("held").reason.label(), "served");
}

#[test]
fn the_one_hold_of_a_served_alert_is_what_would_hold_its_next_run() {
    let policy = Policy { max_runs_per_day: 1, ..Policy::default() };
    let mut entries = vec![requested(1, 0, vec![alert("f1", "EtcdFragmentationHigh")])];
    entries.push((1, 5, Entry::Result(defragmented())));
    entries.push((1, 10, Entry::Finished(Outcome::Succeeded)));
    let words = |policy: &Policy, now| shown(&ledger(entries.clone()), policy, now).expect("one").words();
    let shown = words(&policy, at(60));
    assert!(shown.starts_with("EtcdFragmentationHigh firing since 2026-11-18 "), "{shown}");
    assert!(
        shown.contains("Run 1 ended at 2026-11-18 ") && shown.contains("succeeded. Waiting: the cluster was"),
        "{shown}"
    );
    // After the cooldown the daily limit still holds.
    let shown = words(&policy, at(7 * 3600));
    assert!(
        shown.contains("Waiting: daily limit reached (1 of 1, max_runs_per_day), next run after 2026-11-19 "),
        "{shown}"
    );
    // After that nothing does, but only a notification requests a run.
    let shown = words(&policy, at(25 * 3600));
    assert!(
        shown.ends_with(
            "Run 1 for the alert ended: succeeded; the next notification of the alert requests another run."
        ),
        "{shown}"
    );
}

#[test]
fn an_alert_that_fires_anew_and_one_of_an_earlier_version_are_not_counted_twice_or_for_ever() {
    let old = AlertKey::new("f0".to_owned(), "t");
    let again = AlertKey { starts_at: at(50).to_string(), ..alert("f1", "A") };
    let ledger = ledger(vec![
        requested(1, 0, vec![old]),
        (1, 1, Entry::Finished(observed())),
        requested(2, 2, vec![alert("f1", "A")]),
        (2, 3, Entry::Finished(observed())),
        requested(3, 60, vec![again.clone(), AlertKey::of_schedule(at(60))]),
        (3, 61, Entry::Finished(observed())),
    ]);
    assert_eq!(ledger.firing(), [(again, RunId(3))]);
}

#[test]
fn all_holds_are_listed_and_an_operators_run_is_held_by_fewer() {
    let mut ledger = ledger(vec![
        requested(1, 0, vec![alert("f1", "A")]),
        (1, 5, Entry::Result(defragmented())),
        (1, 10, Entry::Finished(Outcome::Succeeded)),
    ]);
    let pause = Order::Pause { by: "anna".to_owned(), reason: "release".to_owned(), until: None };
    ledger.orders.push(OrderRecord { cluster: "a".to_owned(), at: at(20), order: pause });
    let policy = Policy { max_runs_per_day: 1, mode: Mode::Enforce, ..Policy::default() };
    let held = |trigger, policy: &Policy, emergency| -> Vec<_> {
        let holds = ledger.hold_views(None, trigger, policy, emergency, at(30));
        holds.into_iter().map(|hold| (hold.reason.label(), hold.since)).collect()
    };
    let paused = ("paused", Some(at(20)));
    assert_eq!(held(Trigger::Alert, &policy, false), [paused, ("cooldown", None), ("daily_limit", None)]);
    assert_eq!(held(Trigger::Alert, &policy, true), [paused]);
    assert_eq!(held(Trigger::Manual, &policy, false), [paused]);
    // What an approval overrides is not listed behind it.
    let approve = Policy { mode: Mode::Approve, ..policy };
    assert_eq!(held(Trigger::Alert, &approve, false), [("awaiting_approval", None), paused]);
}

#[test]
fn labels_and_texts_of_alerts_are_bounded_and_do_not_identify_them() {
    let labels: Labels = (0..100).map(|number| (format!("a{number:03}"), "v".repeat(1_000))).collect();
    let labels = labels.into_iter().chain([("alertname".to_owned(), "A".to_owned())]).collect::<Labels>();
    let key = AlertKey::new("f".to_owned(), "t").described(&labels, &"é".repeat(1_000));
    assert_eq!((key.labels.len(), key.name(), key.summary.chars().count()), (20, Some("A"), 200));
    assert!(serde_json::to_string(&key).expect("JSON").len() < 10_000);
    assert_eq!(key, key.bare());
}
