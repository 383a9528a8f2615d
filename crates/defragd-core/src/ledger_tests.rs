use super::*;
pub(crate) use crate::fixture::sizes;
use crate::{
    fixture,
    history::{AlertKey, Entry, Record, Request, Sizes, Trigger},
    plan::PlanHistory,
    policy::Mode,
    verify::{HashVerdict, Verification},
};

const HOUR: f64 = 3_600.0;

/// Hours after a moment that is 2026-11-23 00:00 UTC.
pub(crate) fn at(hours: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
    let seconds = (hours * HOUR) as i64;
    Timestamp::from_second(1_795_392_000 + seconds).expect("in range")
}

pub(crate) fn result(before: Sizes, end: MemberEnd) -> MemberResult {
    fixture::attempt(1, before, end)
}

pub(crate) fn defragmented(before: Sizes, after: Sizes) -> MemberResult {
    result(before, MemberEnd::Defragmented { after, took: Duration::from_secs(1), unavailable: None })
}

pub(crate) fn keys(names: &[&str]) -> Vec<AlertKey> {
    let key = |name: &&str| AlertKey::new((*name).to_owned(), "t");
    names.iter().map(key).collect()
}

/// A run that was accepted six minutes before it ended.
pub(crate) fn run(trigger: Trigger, ended: f64, outcome: Outcome, touched: bool) -> RunView {
    let members = if touched { vec![defragmented(sizes(1000, 100), sizes(100, 100))] } else { Vec::new() };
    let request = Request { cluster: "a".to_owned(), trigger, alerts: keys(&["1"]), members: Vec::new() };
    RunView {
        finished_at: Some(at(ended)),
        outcome: Some(outcome),
        members,
        ..RunView::accepted(RunId(1), at(ended - 0.1), request)
    }
}

pub(crate) fn waiting(trigger: Trigger, accepted: f64) -> RunView {
    let ended = run(trigger, accepted + 0.1, Outcome::Succeeded, false);
    RunView { finished_at: None, outcome: None, accepted_at: at(accepted), ..ended }
}

pub(crate) fn failed() -> Outcome {
    Outcome::Failed { reason: Reason::NoLeader { member: "etcd-1".to_owned() } }
}

pub(crate) fn refused() -> Outcome {
    Outcome::Refused { reason: Reason::NoLeader { member: "etcd-1".to_owned() } }
}

pub(crate) fn ledger(runs: Vec<RunView>) -> Ledger {
    Ledger { runs, ..Ledger::default() }
}

pub(crate) fn resume(last_ended: i64) -> OrderRecord {
    let last_ended = Some(RunId(last_ended));
    let order = Order::Resume { by: "ann".to_owned(), reason: "looked at it".to_owned(), last_ended };
    OrderRecord { cluster: "a".to_owned(), at: at(0.0), order }
}

pub(crate) fn pause(hours: f64, until: Option<f64>) -> OrderRecord {
    let order = Order::Pause { by: "ann".to_owned(), reason: "upgrade".to_owned(), until: until.map(at) };
    OrderRecord { cluster: "a".to_owned(), at: at(hours), order }
}

pub(crate) fn label(reason: Option<Reason>) -> Option<&'static str> {
    reason.map(|reason| reason.label())
}

pub(crate) fn snapshot_open() -> Outcome {
    let reason = Reason::SnapshotOpen { member: "etcd-3".to_owned(), open: 1, waited: Duration::ZERO };
    Outcome::Stopped { reason }
}

#[test]
fn the_journal_tells_whether_a_comparison_is_due() {
    let request =
        Request { cluster: "a".to_owned(), trigger: Trigger::Alert, alerts: keys(&["1"]), members: Vec::new() };
    let verification = Verification { revision: 7, hashes: Vec::new(), verdict: HashVerdict::Equal };
    let defragmented = || Entry::Result(defragmented(sizes(9, 1), sizes(1, 1)));
    let not_sent = || Entry::Result(result(sizes(9, 1), MemberEnd::NotSent { reason: Reason::OperatorStop }));
    let started = |compares| Entry::Started { mode: Mode::Enforce, term: None, compares };
    for (entries, expected) in [
        (vec![started(false), defragmented()], None),
        (vec![started(true), not_sent()], None),
        (vec![started(true), defragmented()], Some(true)),
        (vec![started(true), defragmented(), Entry::Verified(verification.clone())], Some(false)),
        (vec![started(true), Entry::Verified(verification.clone()), defragmented()], Some(true)),
    ] {
        let all = std::iter::once(Entry::Accepted(request.clone())).chain(entries.clone());
        let view = RunView::fold(all.map(|entry| Record { run: RunId(1), at: at(0.0), entry })).remove(0);
        assert_eq!(view.uncompared, expected, "{entries:?}");
    }
}
#[test]
fn the_last_attempt_is_the_newest_that_was_sent_since_an_operator_resumed() {
    let mut first = run(Trigger::Alert, 0.0, Outcome::Succeeded, true);
    first.members.push(result(sizes(7, 7), MemberEnd::NotSent { reason: Reason::OperatorStop }));
    let mut book = ledger(vec![first.clone()]);
    assert_eq!(book.attempts(), BTreeMap::from([(MemberId(1), first.members[0].clone())]));
    let order = Order::Resume { by: "ann".to_owned(), reason: String::new(), last_ended: Some(RunId(1)) };
    book.orders.push(OrderRecord { cluster: "a".to_owned(), at: Timestamp::MAX, order });
    assert_eq!(book.attempts(), BTreeMap::new());
}

#[test]
fn what_may_answer_while_it_defragments_is_what_the_last_attempt_says() {
    let answering = |run: &mut RunView, non_blocking| run.members[0].intent.non_blocking = non_blocking;
    let mut first = run(Trigger::Alert, 0.0, Outcome::Succeeded, true);
    let mut second = RunView { id: RunId(2), ..run(Trigger::Alert, 1.0, Outcome::Succeeded, true) };
    answering(&mut first, true);
    assert_eq!(PlanHistory::of(&ledger(vec![first.clone()])).non_blocking, BTreeSet::from([MemberId(1)]));
    assert_eq!(PlanHistory::of(&ledger(vec![first.clone(), second.clone()])).non_blocking, BTreeSet::new());
    answering(&mut first, false);
    answering(&mut second, true);
    assert_eq!(PlanHistory::of(&ledger(vec![first, second])).non_blocking, BTreeSet::from([MemberId(1)]));
}
