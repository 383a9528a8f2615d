use std::collections::BTreeSet;

use bytesize::ByteSize;

use super::*;
use crate::{
    cluster::{ClusterFacts, MemberId},
    fixture,
    history::{Approval, Cancellation},
    ledger::tests::{at, failed, keys, ledger, refused, run, snapshot_open, waiting},
    note::SuccessionNote,
    plan::{Plan, PlanHistory},
    policy::Policy,
};

#[test]
fn a_run_that_was_broken_off_is_continued_at_once_and_costs_nothing() {
    let paused = || Reason::Paused { by: "ann".to_owned(), reason: "upgrade".to_owned(), until: None };
    let lost = || Reason::LockLost { detail: "another replica holds it".to_owned() };
    for reason in [Reason::ShuttingDown, paused(), lost(), Reason::WindowClosed { closed: at(1.0) }] {
        for trigger in [Trigger::Alert, Trigger::Retry, Trigger::Manual] {
            let stopped = RunView {
                approved: Some(Approval { by: "ann".to_owned(), at: at(0.9) }),
                ..run(trigger, 1.0, Outcome::Stopped { reason: reason.clone() }, true)
            };
            let book = ledger(vec![stopped]);
            let next = book.next_attempt(at(1.0)).unwrap_or_else(|| panic!("{reason}, {trigger:?}"));
            assert_eq!(
                (next.at, next.alerts.clone(), next.approved_by.as_deref()),
                (at(1.0), keys(&["1"]), Some("ann"))
            );
            assert_eq!(next.trigger == Trigger::Manual, trigger == Trigger::Manual);
            assert_eq!(book.cooldown(&Policy::default(), at(1.0)), None, "{reason}");
        }
    }
    for reason in [Reason::Resolved, Reason::Removed, Reason::OperatorStop] {
        let ended = run(Trigger::Alert, 1.0, Outcome::Stopped { reason: reason.clone() }, true);
        assert_eq!(ledger(vec![ended]).next_attempt(at(1.0)), None, "{reason}");
    }
}

#[test]
fn a_refused_run_is_tried_again_ever_more_slowly_while_its_alert_stands() {
    let (alert, retry) = (|h| run(Trigger::Alert, h, refused(), false), |h| run(Trigger::Retry, h, refused(), false));
    let minutes = |runs: Vec<RunView>| {
        let ended = runs.last()?.finished_at?;
        Some(ledger(runs).next_attempt(ended)?.at.duration_since(ended).as_mins())
    };
    assert_eq!(minutes(vec![alert(0.0)]), Some(1));
    assert_eq!(minutes(vec![alert(0.0), retry(0.2)]), Some(5));
    assert_eq!(minutes(vec![alert(0.0), retry(0.2), retry(0.4)]), Some(15));
    assert_eq!(minutes(vec![alert(0.0), retry(0.2), retry(0.4), retry(1.0)]), Some(60));
    assert_eq!(minutes(vec![alert(0.0), retry(0.2), retry(0.4), retry(1.0), retry(2.0)]), Some(60));
    let succeeded = run(Trigger::Retry, 1.0, Outcome::Succeeded, true);
    assert_eq!(minutes(vec![alert(0.0), succeeded.clone()]), None);
    assert_eq!(minutes(vec![alert(0.0), succeeded, alert(9.0)]), Some(1), "a success begins anew");
    let by_operator = |hours, outcome, touched| {
        let mut run = run(Trigger::Manual, hours, outcome, touched);
        run.request.alerts.clear();
        run
    };
    assert_eq!(minutes(vec![by_operator(0.0, refused(), false)]), None, "an operator sees the refusal");
    for (outcome, next) in [(refused(), Some(1)), (failed(), Some(1)), (Outcome::Succeeded, None)] {
        let book = ledger(vec![alert(0.0), by_operator(0.2, outcome.clone(), true)]);
        let next_at = book.next_attempt(at(0.0)).map(|next| next.at.duration_since(at(0.0)).as_mins());
        assert_eq!(
            next_at, next,
            "the alert's request stands as before, unless the operator's run did the work: {outcome:?}"
        );
    }
    assert_eq!(minutes(vec![alert(0.0), retry(100.0)]), Some(5), "however long ago the alert was received");
    let many = RunView { repeats: 7, ..retry(0.2) };
    assert_eq!(minutes(vec![alert(0.0), many]), Some(60), "deleted runs with the same result count");
    let failure = |hours| run(Trigger::Alert, hours, failed(), true);
    assert_eq!(minutes(vec![failure(0.0)]), Some(1), "what failed is still needed");
    assert_eq!(minutes(vec![failure(0.0), retry(0.2), failure(0.4)]), Some(15));
}

#[test]
fn only_alerts_that_still_fire_are_tried_again() {
    let mut last = run(Trigger::Alert, 0.0, refused(), false);
    last.request.alerts = keys(&["1", "2"]);
    last.resolved = keys(&["1"]);
    assert_eq!(ledger(vec![last.clone()]).next_attempt(at(0.0)).map(|next| next.alerts), Some(keys(&["2"])));
    last.resolved = keys(&["1", "2"]);
    assert_eq!(ledger(vec![last.clone()]).next_attempt(at(0.0)), None);
    // What was resolved is not restored from an earlier run.
    let before = RunView { resolved: Vec::new(), ..last.clone() };
    assert_eq!(ledger(vec![before, last]).next_attempt(at(0.0)), None);
}

#[test]
fn what_was_done_for_alerts_that_were_resolved_does_not_count_for_a_later_one() {
    let stopped = || Outcome::Stopped { reason: Reason::ShuttingDown };
    let before = run(Trigger::Alert, 0.0, stopped(), true);
    let mut next = waiting(Trigger::Alert, 200.0);
    (next.id, next.request.alerts) = (RunId(2), keys(&["2"]));
    let done = |runs| ledger(runs).earlier_work().done.len();
    assert_eq!(done(vec![before.clone(), next.clone()]), 1, "the same request continues, and another alert joins it");
    let resolved = RunView { resolved: keys(&["1"]), ..before };
    assert_eq!(done(vec![resolved.clone(), next.clone()]), 0, "its request was over");
    let request = StandingRequest {
        trigger: Trigger::Alert,
        alerts: keys(&["1"]),
        members: Vec::new(),
        approved_by: None,
        work: EarlierWork { done: [MemberId(2)].into(), uncompared: false },
    };
    let inherited = SuccessionNote { request: Some(request), ..SuccessionNote::default() };
    let heir = Ledger { inherited: Some(inherited), ..ledger(vec![resolved, next]) };
    assert!(heir.earlier_work().done.is_empty(), "what another lock holder did for it, too");
}

#[test]
fn a_request_stands_until_the_data_is_compared_although_its_alerts_are_resolved() {
    let last =
        RunView { uncompared: Some(true), resolved: keys(&["1"]), ..run(Trigger::Alert, 0.0, snapshot_open(), true) };
    let of = |run: &RunView| ledger(vec![run.clone()]).next_attempt(at(0.0)).map(|next| next.alerts);
    assert_eq!(of(&last), Some(Vec::new()));
    assert_eq!(of(&RunView { uncompared: Some(false), ..last.clone() }), None);
    let again = |uncompared| RunView { id: RunId(2), uncompared, ..run(Trigger::Retry, 1.0, refused(), false) };
    assert!(ledger(vec![last.clone(), again(None)]).earlier_work().uncompared, "the newest that says something");
    assert!(!ledger(vec![last.clone(), again(Some(false))]).earlier_work().uncompared);
    let done = RunView { id: RunId(2), ..run(Trigger::Retry, 1.0, Outcome::NothingToDo, false) };
    assert!(!ledger(vec![last, done]).earlier_work().uncompared, "the request is over");
}

#[test]
fn members_that_a_broken_off_attempt_has_done_are_done_until_the_request_is_or_a_cooldown_begins() {
    let first = run(Trigger::Alert, 0.0, snapshot_open(), true);
    let next = |outcome, touched| RunView { id: RunId(2), ..run(Trigger::Retry, 1.0, outcome, touched) };
    let waits = RunView { id: RunId(3), ..waiting(Trigger::Retry, 2.0) };
    let done = |runs: Vec<RunView>| PlanHistory::of(&ledger(runs)).work.done;
    let one = BTreeSet::from([MemberId(1)]);
    assert_eq!(done(vec![first.clone()]), one);
    assert_eq!(done(vec![first.clone(), waits.clone()]), one);
    assert_eq!(done(vec![first.clone(), next(refused(), false), waits.clone()]), one);
    assert_eq!(done(vec![first.clone(), next(failed(), true), waits.clone()]), BTreeSet::new(), "a cooldown follows");
    assert_eq!(done(vec![first.clone(), next(Outcome::Succeeded, true), waits]), BTreeSet::new(), "another request");
    let (book, mut facts) = (ledger(vec![first]), fixture::cluster(3));
    let pending = |facts: &ClusterFacts, policy: &Policy| {
        let plan = Plan::new(facts, policy, &PlanHistory::of(&book));
        plan.pending().map(|(step, _)| step.member_id.0).collect::<Vec<_>>()
    };
    let policy = Policy { emergency: true, ..Policy::default() };
    assert_eq!(pending(&facts, &policy), [3, 2]);
    fixture::status_mut(&mut facts, 1).quota = Some(ByteSize::mib(1100));
    assert_eq!(pending(&facts, &policy), [3, 2, 1], "a file is near its quota");
    assert_eq!(pending(&facts, &Policy { emergency: false, ..policy }), [3, 2]);
}

#[test]
fn an_offer_that_comes_again_counts_for_what_still_stands() {
    let offered = |runs: Vec<RunView>, alerts: &[&str], run: i64| {
        let left = ledger(runs).left_of_offer(&keys(alerts), Some(RunId(run)), at(12.0));
        left.into_iter().map(|key| key.fingerprint).collect::<Vec<_>>()
    };
    let served = run(Trigger::Alert, 11.0, Outcome::Succeeded, true);
    assert_eq!(offered(vec![served.clone()], &["1"], 1), [""; 0]);
    assert_eq!(offered(vec![served.clone()], &["1", "2"], 1), [""; 0], "2 was in an earlier run, and not in this one");
    assert_eq!(offered(vec![served.clone()], &["1"], 2), ["1"], "it was in another journal");
    assert_eq!(offered(vec![served], &["3"], 1), ["3"], "the number is that of another journal's run");
    let tried = run(Trigger::Alert, 11.9, refused(), false);
    assert_eq!(offered(vec![tried.clone()], &["1"], 1), ["1"], "it is tried again");
    let again = RunView { id: RunId(2), ..run(Trigger::Retry, 11.95, Outcome::Succeeded, true) };
    assert_eq!(offered(vec![tried, again], &["1"], 1), [""; 0]);
    let mut waits = waiting(Trigger::Alert, 11.0);
    assert_eq!(offered(vec![waits.clone()], &["1"], 1), ["1"]);
    waits.request.alerts = keys(&["1", "2"]);
    waits.resolved = keys(&["1"]);
    assert_eq!(offered(vec![waits], &["1"], 1), [""; 0], "it was resolved here");
}

#[test]
fn a_due_time_that_is_decided_is_left_out_of_an_offer_and_the_alerts_beside_it_stay() {
    let measured = ledger(vec![run(Trigger::Alert, 11.0, Outcome::NothingToDo, false)]);
    let (decided, open) = (AlertKey::of_schedule(at(10.0)), AlertKey::of_schedule(at(11.5)));
    let offered = |alerts: &[AlertKey]| measured.left_of_offer(alerts, None, at(12.0));
    let [alert] = keys(&["9"]).try_into().expect("one");
    assert_eq!(offered(&[decided.clone(), alert.clone()]), [alert]);
    assert_eq!(offered(&[decided.clone(), open.clone()]), [open]);
    assert_eq!(offered(&[decided]), []);
}

#[test]
fn an_offer_stands_as_long_as_the_request_that_decides_its_due_time() {
    let due = |hours| vec![AlertKey::of_schedule(at(hours))];
    let answer = |runs: &[&RunView], taken_as: Option<i64>| {
        let runs = runs.iter().map(|run| (*run).clone()).collect();
        let (run, reason) = ledger(runs).answer_to_offer(&due(10.0), taken_as.map(RunId), "me", at(12.0));
        (run.0, reason.label())
    };
    let stands = |run| (run, "already_requested");
    let over = |run| (run, "forwarded");
    let mut later = waiting(Trigger::Schedule, 11.0);
    later.request.alerts = due(11.0);
    assert_eq!(answer(&[&later], None), stands(1), "a request for a later due time");
    let looks = waiting(Trigger::Alert, 11.0);
    let looks = RunView { started_at: Some(looks.accepted_at), ..looks };
    assert_eq!(answer(&[&looks], None), stands(1), "a run that was requested later and is in progress");
    assert_eq!(answer(&[&looks], Some(1)), stands(1), "offered again");
    let ended = |run: &RunView, outcome| RunView { outcome: Some(outcome), finished_at: Some(at(11.9)), ..run.clone() };
    let (served, tried) = (ended(&looks, Outcome::Succeeded), ended(&looks, refused()));
    assert_eq!(answer(&[&served], Some(1)), over(1));
    assert_eq!(answer(&[&tried], Some(1)), stands(1), "it is tried again");
    let again = RunView { id: RunId(2), ..waiting(Trigger::Retry, 11.95) };
    assert_eq!(answer(&[&tried, &again], Some(1)), stands(2));
    assert_eq!(answer(&[&RunView { resolved: keys(&["1"]), ..tried }], Some(1)), over(1));
    let next = RunView { id: RunId(2), ..later.clone() };
    assert_eq!(answer(&[&served, &next], None), over(1), "served before that request");
    let other = RunView { id: RunId(2), ..run(Trigger::Alert, 11.99, Outcome::NothingToDo, false) };
    assert_eq!(answer(&[&ended(&later, Outcome::Succeeded), &other], None), over(1), "the run that did it is named");
    let cancelled = Cancellation { by: "ann".to_owned(), reason: String::new() };
    assert_eq!(answer(&[&RunView { cancelled: Some(cancelled), ..later }], None), over(1));
}

#[test]
fn what_joins_a_request_between_two_attempts_leaves_what_an_operator_wanted() {
    let broken_off = |trigger, members: &[&str]| {
        let approved = Some(Approval { by: "ann".to_owned(), at: at(0.0) });
        let mut run = RunView { approved, ..run(trigger, 0.0, snapshot_open(), true) };
        run.request.members = members.iter().map(ToString::to_string).collect();
        run
    };
    let next = |run: &RunView| ledger(vec![run.clone()]).next_attempt(at(0.0)).expect("it stands");
    let by_alert = || StandingRequest::of_alerts(keys(&["1", "2"]));
    let is = |joined: StandingRequest| {
        assert_eq!(joined.alerts, keys(&["1", "2"]));
        (joined.trigger, joined.members, joined.approved_by)
    };
    let ann = || Some("ann".to_owned());
    let some = broken_off(Trigger::Manual, &["etcd-2"]);
    assert!(next(&some).covers(&StandingRequest::of_alerts(keys(&["1"]))) && !next(&some).covers(&by_alert()));
    assert_eq!(is(next(&some).joined_by(by_alert())), (Trigger::Manual, some.request.members.clone(), ann()));
    let approved = broken_off(Trigger::Alert, &[]);
    assert_eq!(is(next(&approved).joined_by(by_alert())), (Trigger::Alert, Vec::new(), ann()));
    // Of a request whose alerts are resolved only the comparison was approved.
    let compares = RunView { resolved: keys(&["1"]), uncompared: Some(true), ..approved.clone() };
    assert_eq!(is(next(&compares).joined_by(by_alert())), (Trigger::Alert, Vec::new(), None));
    // What another lock holder's operator requested.
    let left = || {
        let members = vec!["etcd-3".to_owned()];
        let approved_by = Some("bob".to_owned());
        StandingRequest { trigger: Trigger::Manual, members, approved_by, ..by_alert() }
    };
    assert!(!next(&approved).covers(&StandingRequest { alerts: keys(&["1"]), ..left() }));
    let unapproved = RunView { approved: None, ..approved.clone() };
    let bob = Some("bob".to_owned());
    assert_eq!(is(next(&unapproved).joined_by(left())), (Trigger::Manual, vec!["etcd-3".to_owned()], bob));
    assert_eq!(is(next(&approved).joined_by(left())), (Trigger::Manual, Vec::new(), ann()), "all was approved");
    let both = vec!["etcd-2".to_owned(), "etcd-3".to_owned()];
    assert_eq!(is(next(&some).joined_by(left())), (Trigger::Manual, both, ann()));
}
