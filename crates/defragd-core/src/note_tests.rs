use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::{
    fixture::{self, sizes},
    history::{Approval, MemberEnd, Outcome, Request, RunId, RunView, Trigger},
    hold::Hold,
    ledger::Ledger,
    order::Order,
    policy::Policy,
    reason::Reason,
};

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + hours * 3600).expect("a time")
}

fn attempt(member: u64, reason: Option<Reason>) -> MemberResult {
    let end = match reason {
        Some(reason) => MemberEnd::Failed { reason, after: None, took: None },
        None => MemberEnd::Defragmented { after: sizes(500, 250), took: Duration::from_secs(1), unavailable: None },
    };
    fixture::attempt(member, sizes(1000, 500), end)
}

fn run(id: i64, ended: i64, outcome: Outcome, members: Vec<MemberResult>) -> RunView {
    let request = Request::new("a", Trigger::Alert);
    RunView {
        started_at: Some(at(ended)),
        finished_at: Some(at(ended)),
        outcome: Some(outcome),
        members,
        starts: 1,
        ..RunView::accepted(RunId(id), at(ended), request)
    }
}

fn failed(id: i64, ended: i64) -> RunView {
    let reason = Reason::DiskFull { member: "etcd-1".to_owned(), detail: "full".to_owned() };
    run(id, ended, Outcome::Failed { reason: reason.clone() }, vec![attempt(1, Some(reason))])
}

fn succeeded(id: i64, ended: i64) -> RunView {
    run(id, ended, Outcome::Succeeded, vec![attempt(1, None)])
}

fn pause(hours: i64) -> OrderRecord {
    let order = Order::Pause { by: "ann".to_owned(), reason: "upgrade".to_owned(), until: None };
    OrderRecord { cluster: "a".to_owned(), at: at(hours), order }
}

fn resume(hours: i64, last_ended: Option<i64>) -> OrderRecord {
    let order = Order::Resume { by: "ann".to_owned(), reason: "done".to_owned(), last_ended: last_ended.map(RunId) };
    OrderRecord { cluster: "a".to_owned(), at: at(hours), order }
}

/// The state of a successor with an empty journal: through the store and back.
fn heir(ledger: &Ledger) -> Ledger {
    let note = ledger.digest().write("one", Term(7), None, None);
    let inherited = SuccessionNote::read(&note).expect("it can be read back");
    assert_eq!((inherited.holder.as_str(), inherited.term), ("one", Term(7)));
    Ledger { inherited: Some(inherited), ..Ledger::default() }
}

fn label(reason: Option<Reason>) -> Option<&'static str> {
    reason.map(|reason| reason.label())
}

#[test]
fn an_heir_keeps_the_pause_the_breaker_the_cooldown_and_the_attempts() {
    let policy = Policy { breaker_failures: 2, max_runs_per_day: 2, ..Policy::default() };
    let runs = vec![succeeded(1, 0), failed(2, 1), failed(3, 2)];
    let ledger = Ledger { runs, orders: vec![pause(3)], inherited: None };
    // And so does the successor's successor.
    for heir in [heir(&ledger), heir(&heir(&ledger))] {
        assert_eq!(label(heir.paused(at(4))), Some("paused"));
        assert_eq!(label(heir.breaker(&policy, at(4))), Some("breaker_open"));
        assert_eq!(label(heir.cooldown(&policy, at(4))), Some("cooldown"));
        assert_eq!(label(heir.daily_limit(&policy, at(4))), Some("daily_limit"));
        assert_eq!(heir.attempts(), ledger.attempts());
    }
    assert_eq!(label(heir(&ledger).cooldown(&policy, at(6))), None, "it ends as it would have");
    let failing = Ledger { runs: vec![failed(1, 1)], ..Ledger::default() };
    for heir in [heir(&failing), heir(&heir(&failing))] {
        assert_eq!(heir.cooldown(&policy, at(1)), None);
        let minute = at(1) + jiff::SignedDuration::from_mins(1);
        assert_eq!(heir.back_off(at(1)), Some(Reason::RetryPending { at: minute }));
        assert_eq!(heir.back_off(minute), None);
    }
}

#[test]
fn the_newest_action_wins_whichever_replica_recorded_it() {
    let paused = heir(&Ledger { orders: vec![pause(3)], ..Ledger::default() });
    let resumed = Ledger { orders: vec![resume(5, None)], ..paused.clone() };
    assert_eq!(resumed.paused(at(6)), None);
    let before = Ledger { orders: vec![resume(2, None)], ..paused };
    assert_eq!(label(before.paused(at(6))), Some("paused"));
    // Back at the first one, whose own pause is older than the other's resume.
    let first = Ledger { orders: vec![pause(3)], inherited: Some(resumed.digest()), ..Ledger::default() };
    assert_eq!(first.paused(at(6)), None);
}

#[test]
fn a_resume_or_a_success_of_the_heir_clears_what_it_inherited() {
    let policy = Policy { breaker_failures: 2, ..Policy::default() };
    let failing = heir(&Ledger { runs: vec![failed(1, 1), failed(2, 2)], ..Ledger::default() });
    let resumed = Ledger { orders: vec![resume(3, None)], ..failing.clone() };
    assert_eq!(resumed.breaker(&policy, at(4)), None);
    assert!(resumed.attempts().is_empty(), "who resumes says that it may be tried again");
    let succeeded = Ledger { runs: vec![succeeded(1, 3)], ..failing.clone() };
    assert_eq!(succeeded.breaker(&policy, at(4)), None);
    let once_more = Ledger { runs: vec![failed(1, 3)], ..failing };
    let Some(Reason::BreakerOpen { failures, .. }) = once_more.breaker(&policy, at(4)) else { panic!("open") };
    assert_eq!(failures, 3, "theirs and ours together");
}

#[test]
fn what_comes_back_to_the_one_who_did_it_is_not_counted_twice() {
    let policy = Policy { breaker_failures: 9, max_runs_per_day: 3, ..Policy::default() };
    let own = Ledger { runs: vec![failed(1, 1), failed(2, 2)], ..Ledger::default() };
    let back = Ledger { inherited: Some(heir(&own).digest()), ..own };
    assert_eq!(back.digest().failures.len(), 2);
    assert_eq!(back.daily_limit(&policy, at(3)), None);
    assert_eq!(back.breaker(&Policy { breaker_failures: 3, ..policy }, at(3)), None);
}

#[test]
fn the_newer_attempt_on_a_member_counts() {
    let inherited = heir(&Ledger { runs: vec![failed(1, 1)], ..Ledger::default() });
    let later = Ledger { runs: vec![succeeded(1, 5)], ..inherited.clone() };
    assert_eq!(later.attempts()[&MemberId(1)].label(), "succeeded");
    let earlier = Ledger { runs: vec![succeeded(1, 0)], ..inherited };
    assert_eq!(earlier.attempts()[&MemberId(1)].label(), "failed");
}

#[test]
fn what_was_inherited_was_over_before_the_next_run_whatever_the_clock_says() {
    let policy = Policy { breaker_failures: 2, ..Policy::default() };
    let mut ledger = heir(&Ledger { runs: vec![failed(1, 8), failed(2, 9)], ..Ledger::default() });
    ledger.inherited.as_mut().expect("there").inherited_after = Some(RunId(0));
    assert_eq!(label(ledger.breaker(&policy, at(10))), Some("breaker_open"));
    // The clock is set back by some hours.
    ledger.runs.push(succeeded(1, 5));
    assert_eq!(ledger.attempts()[&MemberId(1)].label(), "succeeded");
    assert_eq!(ledger.breaker(&policy, at(6)), None);
}

#[test]
fn a_note_of_a_newer_release_is_not_guessed_at() {
    let error = SuccessionNote::read(r#"{"version": 99, "holder": "x", "term": 1}"#).expect_err("newer");
    assert!(error.to_string().contains("version 99"), "{error}");
    assert!(SuccessionNote::read("{}").is_err());
    assert!(SuccessionNote::read("").is_err());
    let additional = SuccessionNote::read(r#"{"version": 1, "holder": "x", "term": 1, "weather": "fine"}"#);
    assert!(additional.is_ok(), "what is only added is no other version");
}

#[test]
fn a_note_claims_no_version_whose_readers_do_not_know_its_trigger() {
    /// What readers of each version know.
    const KNOWN: [&[&str]; 2] = [&["alert", "manual", "retry"], &["alert", "manual", "retry", "schedule"]];
    for trigger in Trigger::ALL {
        let request = StandingRequest {
            trigger,
            alerts: Vec::new(),
            members: Vec::new(),
            approved_by: None,
            work: EarlierWork::default(),
        };
        let note = Ledger::default().digest().write("one", Term(7), None, Some(request));
        let version = SuccessionNote::read(&note).expect("readable").version;
        let lowest = (1..).zip(KNOWN).find(|(_, known)| known.contains(&trigger.label())).expect("a version knows it");
        assert_eq!(version, lowest.0, "{trigger:?}");
    }
}

#[test]
fn a_note_with_chosen_members_is_not_for_a_release_that_would_defragment_all() {
    let request = StandingRequest {
        trigger: Trigger::Manual,
        alerts: Vec::new(),
        members: vec!["etcd-1".to_owned()],
        approved_by: None,
        work: EarlierWork::default(),
    };
    let note = Ledger::default().digest().write("one", Term(7), None, Some(request));
    assert_eq!(SuccessionNote::read(&note).expect("readable").version, 3);
}

#[test]
fn a_newer_note_is_refused_for_its_version_whatever_else_is_in_it() {
    let error = SuccessionNote::read(r#"{"version": 99, "request": {"trigger": "unheard of"}}"#).expect_err("newer");
    let error = error.to_string();
    assert!(error.contains("version 99") && error.contains("upgrade"), "{error}");
}

#[test]
fn what_was_done_under_a_request_goes_to_the_next_holder_until_it_is_over() {
    let snapshot = Reason::SnapshotOpen { member: "etcd-3".to_owned(), open: 1, waited: Duration::ZERO };
    let mut broken_off = run(1, 1, Outcome::Stopped { reason: snapshot.clone() }, vec![attempt(1, None)]);
    broken_off.request.alerts = vec![AlertKey::new("1".to_owned(), "t")];
    broken_off.uncompared = Some(true);
    let first = Ledger { runs: vec![broken_off.clone()], ..Ledger::default() };
    let note = first.digest().write("one", Term(7), None, first.standing_request(at(2)));
    let inherited =
        SuccessionNote { inherited_after: Some(RunId(0)), ..SuccessionNote::read(&note).expect("readable") };
    let mut next = Ledger { inherited: Some(inherited), ..Ledger::default() };
    let work = EarlierWork { done: BTreeSet::from([MemberId(1)]), uncompared: true };
    assert_eq!(next.earlier_work(), work);
    next.runs.push(RunView { members: vec![attempt(2, None)], uncompared: Some(false), ..broken_off });
    let both = EarlierWork { done: BTreeSet::from([MemberId(1), MemberId(2)]), uncompared: false };
    assert_eq!(next.earlier_work(), both, "compared here since");
    next.runs.push(succeeded(2, 3));
    assert_eq!(next.earlier_work(), EarlierWork::default(), "the request is over");
}

#[test]
fn what_another_holder_left_since_replaces_what_was_done_here() {
    let key = AlertKey::new("1".to_owned(), "t");
    let ended = |id, outcome, members, term| {
        let mut ended = run(id, 1, outcome, members);
        (ended.request.alerts, ended.term) = (vec![key.clone()], Some(Term(term)));
        ended
    };
    let stopped = |term| ended(1, Outcome::Stopped { reason: Reason::ShuttingDown }, vec![attempt(2, None)], term);
    let failure = failed(1, 1).outcome.expect("it ended");
    let failed = |term| ended(1, failure.clone(), vec![attempt(2, None)], term);
    let noted = |work: Option<u64>| {
        let request = work.map(|done| StandingRequest {
            trigger: Trigger::Alert,
            alerts: vec![key.clone()],
            members: Vec::new(),
            approved_by: None,
            work: EarlierWork { done: BTreeSet::from([MemberId(done)]), uncompared: false },
        });
        SuccessionNote { term: Term(2), inherited_after: Some(RunId(2)), request, ..SuccessionNote::default() }
    };
    let done = |runs: Vec<RunView>, note| {
        let done = Ledger { runs, inherited: Some(note), ..Ledger::default() }.earlier_work().done;
        done.into_iter().map(|member| member.0).collect::<Vec<_>>()
    };
    assert_eq!(done(vec![failed(1)], noted(Some(1))), [1], "it continued after the failure here");
    assert_eq!(done(vec![stopped(1)], noted(Some(1))), [1], "it failed, and all are measured again");
    assert_eq!(done(vec![stopped(1)], noted(None)), [0; 0], "it served the request");
    assert_eq!(done(vec![stopped(2)], noted(Some(1))), [1, 2], "its own note may be older than its run's end");
    for term in 2..4 {
        assert_eq!(done(vec![failed(term)], noted(Some(1))), [0; 0], "it failed since");
    }
    let resolved = Outcome::Stopped { reason: Reason::Resolved };
    assert_eq!(
        done(vec![ended(1, resolved.clone(), Vec::new(), 2)], noted(Some(1))),
        [0; 0],
        "it was over after its own note"
    );
    let goes_on = |view: RunView, is_own| {
        done(vec![view], SuccessionNote { inherited_during: Some(RunId(1)), is_own, ..noted(Some(1)) })
    };
    assert_eq!(goes_on(stopped(1), false), [1], "which of its members count is not known here");
    assert_eq!(goes_on(stopped(1), true), [1, 2], "all that this replica has left is in its journal");
    assert_eq!([false, true].map(|is_own| goes_on(failed(1), is_own)), [[0; 0]; 2], "it failed after that was left");
    let cancelled = Outcome::Stopped { reason: Reason::OperatorStop };
    let unstarted = |id| RunView { term: None, ..ended(id, cancelled.clone(), Vec::new(), 1) };
    assert_eq!(done(vec![unstarted(2)], noted(Some(1))), [1], "that request was over before");
    assert_eq!(done(vec![unstarted(3)], noted(Some(1))), [0; 0], "the request is over");

    let operators = |mut view: RunView| {
        (view.id, view.members, view.request.trigger) = (RunId(3), vec![attempt(3, None)], Trigger::Manual);
        view.approved = Some(Approval { by: "ann".to_owned(), at: at(1) });
        view
    };
    let both = vec![stopped(2), operators(stopped(2))];
    assert_eq!(done(both, noted(Some(1))), [3], "what alerts requested before does not count for an operator");
    let refused = Outcome::Refused { reason: Reason::RuleFailed { rule: String::new(), detail: String::new() } };
    let refused = operators(RunView { outcome: Some(refused), ..stopped(3) });
    let refused = RunView { members: Vec::new(), ..refused };
    let before = RunView { id: RunId(2), term: None, ..refused.clone() };
    assert_eq!(done(vec![before], noted(Some(1))), [1], "the next run is for the alerts again");
    assert_eq!(done(vec![refused.clone()], noted(Some(1))), [0; 0], "an operator has requested a run since");
    let continued = vec![operators(stopped(1)), RunView { term: None, ..refused.clone() }];
    assert_eq!(done(continued, noted(Some(1))), [1], "it was the operator's before, and another holder continued it");
    let waits = RunView { id: RunId(4), outcome: None, ..ended(4, resolved, Vec::new(), 3) };
    assert_eq!(done(vec![refused, waits], noted(Some(1))), [0; 0], "also for what alerts have requested after that");
    let mut left = noted(Some(1));
    left.request.as_mut().expect("there").trigger = Trigger::Manual;
    assert_eq!(done(vec![operators(stopped(2))], left), [1, 3], "it is the same request");
}

#[test]
fn a_rejection_is_known_to_every_later_holder() {
    let key = AlertKey::new("1".to_owned(), "t");
    let reason = Reason::Rejected { by: "ann".to_owned(), reason: "release".to_owned(), at: None };
    let alert = |run: RunView| RunView { request: Request { alerts: vec![key.clone()], ..run.request.clone() }, ..run };
    let rejected = alert(run(1, 1, Outcome::Stopped { reason: reason.clone() }, Vec::new()));
    let policy = Policy { mode: crate::policy::Mode::Approve, ..Policy::default() };
    let first = Ledger { runs: vec![rejected], ..Ledger::default() };
    for heir in [heir(&first), heir(&heir(&first))] {
        let left = |alerts: Vec<AlertKey>, hours| heir.without_rejected(alerts, &policy, at(hours));
        assert_eq!(left(vec![key.clone()], 2).expect_err("rejected").reason, reason);
        let anew = AlertKey::new("1".to_owned(), "later");
        assert_eq!(left(vec![key.clone(), anew.clone()], 2), Ok(vec![anew]), "it fires anew");
        assert_eq!(left(vec![key.clone()], 7), Ok(vec![key.clone()]), "the cooldown has passed");
        // One that waits in the heir's own journal ends, unless it was approved there.
        let waits = RunView {
            finished_at: None,
            outcome: None,
            started_at: None,
            ..alert(run(1, 0, Outcome::Succeeded, Vec::new()))
        };
        let elsewhere = Reason::Rejected { by: "ann".to_owned(), reason: "release".to_owned(), at: Some(at(1)) };
        let outcome = Outcome::Stopped { reason: elsewhere };
        assert_eq!(heir.hold(&waits, &policy, false, at(2)), Some(Hold::End(outcome.clone())));
        // That end does not make the rejection last longer.
        let ended = RunView { finished_at: Some(at(6)), outcome: Some(outcome), ..waits.clone() };
        let later = Ledger { runs: vec![ended], ..Ledger::default() };
        assert!(later.without_rejected(vec![key.clone()], &policy, at(6)).is_err());
        assert_eq!(later.without_rejected(vec![key.clone()], &policy, at(7)), Ok(vec![key.clone()]));
        let approved = Approval { by: "bob".to_owned(), at: at(1) };
        assert_eq!(heir.hold(&RunView { approved: Some(approved), ..waits }, &policy, false, at(2)), None);
    }
    // Back at the one who recorded it, it is one.
    let back = Ledger { inherited: Some(heir(&first).digest()), ..first };
    assert_eq!(back.digest().rejections.len(), 1);
}

#[test]
fn a_note_stays_small() {
    let many = (0..10_000).map(|id| failed(id, id)).collect();
    let note = Ledger { runs: many, ..Ledger::default() }.digest().write("one", Term(7), Some(at(0)), None);
    // Kubernetes takes 256 KiB of annotations, etcd 1.5 MiB.
    assert!(note.len() < 20_000, "{} bytes", note.len());
    let digest = SuccessionNote::read(&note).expect("readable");
    assert_eq!(digest.failures.last(), Some(&at(9_999)), "the newest are kept");
}

#[test]
fn a_pause_from_a_clock_that_is_ahead_is_lifted_by_a_resume_at_the_next_holder() {
    let now = "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("valid");
    let ahead = now + jiff::SignedDuration::from_hours(1);
    let pause = Order::Pause { by: "p".to_owned(), reason: "r".to_owned(), until: None };
    let left = SuccessionNote {
        order: Some(OrderRecord { cluster: "a".to_owned(), at: ahead, order: pause }),
        failures: BTreeSet::from([ahead]),
        ..SuccessionNote::default()
    };
    let resume = Order::Resume { by: "p".to_owned(), reason: "r".to_owned(), last_ended: None };
    let resumed_at = now + jiff::SignedDuration::from_secs(1);
    let resumed = OrderRecord { cluster: "a".to_owned(), at: resumed_at, order: resume };
    let ledger = |inherited| Ledger { runs: Vec::new(), orders: vec![resumed.clone()], inherited: Some(inherited) };
    assert!(ledger(left.clone()).paused(resumed_at).is_some(), "by the clocks alone the pause is the newer order");
    let ledger = ledger(left.not_after(now));
    assert_eq!(ledger.paused(resumed_at), None);
    assert_eq!(ledger.digest().failures, BTreeSet::new());
}

#[test]
fn members_that_differ_are_known_to_the_next_holder_until_an_operator_resumes() {
    let reason = Reason::HashMismatch { revision: 7, hashes: "1 on etcd-1; 2 on etcd-2".to_owned() };
    let found = run(3, 1, Outcome::Mismatched { reason: reason.clone() }, vec![attempt(1, None)]);
    let first = Ledger { runs: vec![found], ..Ledger::default() };
    let note = SuccessionNote::read(&first.digest().write("a", Term(1), None, None)).expect("readable");
    let mut next = Ledger { inherited: Some(note), ..Ledger::default() };
    assert_eq!(next.mismatch(), Some(reason));
    let resume = Order::Resume { by: "ann".to_owned(), reason: String::new(), last_ended: None };
    next.orders.push(OrderRecord { cluster: "a".to_owned(), at: at(2), order: resume });
    assert_eq!(next.mismatch(), None);
    // A release that does not know mismatches must not read such a note as one without.
    assert!(first.digest().write("a", Term(1), None, None).contains("\"version\":2"));
    assert!(Ledger::default().digest().write("a", Term(1), None, None).contains("\"version\":1"));
}

#[test]
fn a_note_that_would_be_too_large_leaves_out_the_labels_of_alerts() {
    let alerts = |count: usize| {
        let labels: crate::history::Labels = (0..20).map(|label| (format!("l{label}"), "v".repeat(200))).collect();
        let key = |number| AlertKey::new(format!("f{number}"), "t").described(&labels, "text");
        (0..count).map(key).collect::<Vec<_>>()
    };
    for (count, described) in [(1, true), (20, false)] {
        let request = StandingRequest {
            trigger: Trigger::Alert,
            members: Vec::new(),
            alerts: alerts(count),
            approved_by: None,
            work: EarlierWork::default(),
        };
        let text = SuccessionNote::default().write("one", Term(1), None, Some(request));
        assert!(text.len() <= MAX_BYTES, "{}", text.len());
        let read = SuccessionNote::read(&text).expect("a note").request.expect("a request").alerts;
        assert_eq!((read.len(), read[0].is_described()), (count, described));
    }
}
