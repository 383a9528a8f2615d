use bytesize::ByteSize;
use jiff::tz::TimeZone;

use super::*;
use crate::{
    fixture,
    history::{Approval, Entry, Intent, MemberEnd, Record, Request, RunId, Sizes},
    hold::Hold,
    plan::{Plan, PlanHistory},
    policy::Need,
    verify::{HashVerdict, Verification},
    window::{Schedule, Window},
};

const HOUR: f64 = 3_600.0;

/// Hours after a moment that is 2026-11-23 00:00 UTC.
fn at(hours: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
    let seconds = (hours * HOUR) as i64;
    Timestamp::from_second(1_795_392_000 + seconds).expect("in range")
}

fn sizes(size: u64, in_use: u64) -> Sizes {
    Sizes { db_size: ByteSize::mib(size), db_size_in_use: ByteSize::mib(in_use) }
}

fn result(before: Sizes, end: MemberEnd) -> MemberResult {
    let member_id = MemberId(1);
    let intent = Intent {
        member_id,
        member: "etcd-1".to_owned(),
        is_leader: false,
        need: Need::Fragmented,
        before,
        expected: None,
        non_blocking: false,
    };
    MemberResult { intent, end }
}

fn defragmented(before: Sizes, after: Sizes) -> MemberResult {
    result(before, MemberEnd::Defragmented { after, took: Duration::from_secs(1), unavailable: None })
}

fn keys(names: &[&str]) -> Vec<AlertKey> {
    let key = |name: &&str| AlertKey::new((*name).to_owned(), "t");
    names.iter().map(key).collect()
}

/// A run that was accepted six minutes before it ended.
fn run(trigger: Trigger, ended: f64, outcome: Outcome, touched: bool) -> RunView {
    let members = if touched { vec![defragmented(sizes(1000, 100), sizes(100, 100))] } else { Vec::new() };
    let request = Request { cluster: "a".to_owned(), trigger, alerts: keys(&["1"]), members: Vec::new() };
    RunView {
        finished_at: Some(at(ended)),
        outcome: Some(outcome),
        members,
        ..RunView::accepted(RunId(1), at(ended - 0.1), request)
    }
}

fn waiting(trigger: Trigger, accepted: f64) -> RunView {
    let ended = run(trigger, accepted + 0.1, Outcome::Succeeded, false);
    RunView { finished_at: None, outcome: None, accepted_at: at(accepted), ..ended }
}

fn failed() -> Outcome {
    Outcome::Failed { reason: Reason::NoLeader { member: "etcd-1".to_owned() } }
}

fn refused() -> Outcome {
    Outcome::Refused { reason: Reason::NoLeader { member: "etcd-1".to_owned() } }
}

fn ledger(runs: Vec<RunView>) -> Ledger {
    Ledger { runs, ..Ledger::default() }
}

fn resume(last_ended: i64) -> OrderRecord {
    let last_ended = Some(RunId(last_ended));
    let order = Order::Resume { by: "ann".to_owned(), reason: "looked at it".to_owned(), last_ended };
    OrderRecord { cluster: "a".to_owned(), at: at(0.0), order }
}

fn pause(hours: f64, until: Option<f64>) -> OrderRecord {
    let order = Order::Pause { by: "ann".to_owned(), reason: "upgrade".to_owned(), until: until.map(at) };
    OrderRecord { cluster: "a".to_owned(), at: at(hours), order }
}

fn label(reason: Option<Reason>) -> Option<&'static str> {
    reason.map(|reason| reason.label())
}

#[test]
fn the_cooldown_follows_runs_that_touched_a_member_and_no_others() {
    let policy = Policy::default();
    let book =
        ledger(vec![run(Trigger::Alert, 0.0, Outcome::Succeeded, true), run(Trigger::Alert, 5.0, refused(), false)]);
    let policy = Policy { mode: Mode::Enforce, ..policy };
    let hold = |trigger, emergency, hours| book.hold(&waiting(trigger, 5.5), &policy, emergency, at(hours));
    let cooldown = Some(Hold::Wait { reason: Reason::Cooldown { until: at(6.0) }, until: Some(at(6.0)) });
    assert_eq!(hold(Trigger::Alert, false, 5.9), cooldown);
    assert_eq!(hold(Trigger::Retry, false, 5.9), cooldown);
    assert_eq!(hold(Trigger::Alert, true, 5.9), None, "an emergency does not wait");
    assert_eq!(hold(Trigger::Manual, false, 5.9), None, "an operator knows what was done");
    assert_eq!(hold(Trigger::Alert, false, 6.0), None);
    assert_eq!(Ledger::default().hold(&waiting(Trigger::Alert, 0.0), &policy, false, at(0.0)), None);
}

#[test]
fn after_a_failure_the_back_off_holds_the_next_run_and_no_cooldown_does() {
    let policy = Policy { mode: Mode::Enforce, breaker_failures: 9, max_runs_per_day: 9, ..Policy::default() };
    let interrupted = || Outcome::Interrupted { reason: Reason::ProcessEnded };
    for outcome in [failed(), interrupted()] {
        let mut book = ledger(vec![run(Trigger::Alert, 0.0, outcome.clone(), true)]);
        let hold = |book: &Ledger, trigger, emergency, hours| {
            book.hold(&waiting(trigger, hours), &policy, emergency, at(hours))
        };
        let until = |at: Timestamp| Some(Hold::Wait { reason: Reason::RetryPending { at }, until: Some(at) });
        let (before, after) = (0.5 / 60.0, 1.0 / 60.0);
        // Also for an alert that is new: the failure was the cluster's.
        for trigger in [Trigger::Alert, Trigger::Retry, Trigger::Schedule] {
            assert_eq!(hold(&book, trigger, false, before), until(at(after)), "{outcome:?}");
            assert_eq!(hold(&book, trigger, false, after), None, "{outcome:?}");
        }
        assert_eq!(hold(&book, Trigger::Alert, true, before), None, "an emergency does not wait");
        assert_eq!(hold(&book, Trigger::Manual, false, before), None, "nor does an operator");
        book.runs.push(RunView { id: RunId(2), ..run(Trigger::Retry, 1.0, failed(), true) });
        assert_eq!(
            hold(&book, Trigger::Retry, false, 1.0),
            until(at(1.0) + 5 * Duration::from_mins(1)),
            "longer with each failure"
        );
        book.runs.push(RunView { id: RunId(3), ..run(Trigger::Retry, 2.0, Outcome::Succeeded, true) });
        assert_eq!(label_of(hold(&book, Trigger::Alert, false, 2.1)), Some("cooldown"), "now it is served");
    }
}

#[test]
fn a_time_that_lies_ahead_holds_nothing_back() {
    let policy = Policy { max_runs_per_day: 1, ..Policy::default() };
    let book = ledger(vec![run(Trigger::Alert, 1_000.0, Outcome::Succeeded, true)]);
    assert_eq!(book.cooldown(&policy, at(1.0)), None);
    assert_eq!(book.daily_limit(&policy, at(1.0)), None);
    let refused = ledger(vec![run(Trigger::Alert, 1_000.0, refused(), false)]);
    assert!(refused.next_attempt(at(1.0)).is_some_and(|next| next.at < at(1.1)));
    let policy = Policy { breaker_reset_after: Some(Duration::from_hours(24)), ..policy };
    let failing = ledger([1.0, 2.0, 1_000.0].map(|hours| run(Trigger::Alert, hours, failed(), true)).to_vec());
    assert_eq!(failing.breaker(&policy, at(3.0)), None);
}

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
fn alertmanagers_two_spellings_of_a_time_are_one() {
    let key = |starts_at: &str| AlertKey::new("f".to_owned(), starts_at);
    assert_eq!(key("2026-11-23T10:00:00.12Z"), key("2026-11-23T10:00:00.120Z"));
    assert_eq!(key("2026-11-23T10:00:00Z"), key("2026-11-23T11:00:00.000+01:00"));
    assert_ne!(key("2026-11-23T10:00:00.12Z"), key("2026-11-23T10:00:00.121Z"));
    let journalled: AlertKey =
        serde_json::from_str(r#"{"fingerprint": "f", "starts_at": "2026-11-23T10:00:00.120Z"}"#).expect("a key");
    assert_eq!(journalled, key("2026-11-23T10:00:00.12Z"));
}

#[test]
fn a_day_has_room_for_so_many_runs() {
    let policy = Policy { cooldown: Duration::ZERO, max_runs_per_day: 2, ..Policy::default() };
    let book = ledger(vec![
        run(Trigger::Alert, 0.0, Outcome::Succeeded, true),
        run(Trigger::Alert, 1.0, failed(), true),
        run(Trigger::Alert, 2.0, Outcome::NothingToDo, false),
    ]);
    let limit = |hours| book.daily_limit(&policy, at(hours));
    assert_eq!(limit(3.0), Some(Reason::DailyLimit { limit: 2, until: at(24.0) }));
    assert_eq!(limit(23.9), Some(Reason::DailyLimit { limit: 2, until: at(24.0) }));
    assert_eq!(limit(24.0), None);
    let book = ledger([0.0, 1.0, 2.0].map(|hours| run(Trigger::Manual, hours, Outcome::Succeeded, true)).to_vec());
    let until = book.daily_limit(&policy, at(3.0));
    assert_eq!(until, Some(Reason::DailyLimit { limit: 2, until: at(25.0) }), "two must still be left in the day");
}

#[test]
fn the_breaker_opens_after_failures_in_a_row_until_an_operator_resumes() {
    let policy = Policy::default();
    let (ok, bad) = (|h| run(Trigger::Alert, h, Outcome::Succeeded, true), |h| run(Trigger::Alert, h, failed(), true));
    let interrupted =
        |touched| run(Trigger::Alert, 3.0, Outcome::Interrupted { reason: Reason::ProcessEnded }, touched);
    let table = [
        (vec![bad(1.0), bad(2.0)], None),
        (vec![bad(1.0), bad(2.0), bad(3.0)], Some("breaker_open")),
        (vec![bad(1.0), ok(2.0), bad(3.0), bad(4.0)], None),
        (vec![bad(1.0), bad(2.0), run(Trigger::Alert, 3.0, refused(), false), bad(4.0)], Some("breaker_open")),
        (vec![bad(1.0), bad(2.0), bad(3.0), ok(4.0)], None),
        (vec![bad(1.0), bad(2.0), interrupted(true)], Some("breaker_open")),
        (vec![bad(1.0), bad(2.0), interrupted(false)], None),
    ];
    for (runs, expected) in table {
        assert_eq!(label(ledger(runs.clone()).breaker(&policy, at(1_000.0))), expected, "{runs:?}");
    }
    let mut book = ledger(vec![bad(1.0), bad(2.0), bad(3.0)]);
    assert_eq!(label(book.breaker(&policy, at(9.0))), Some("breaker_open"));
    for (run, id) in book.runs.iter_mut().zip(1..) {
        run.id = RunId(id);
    }
    book.orders.push(resume(3));
    assert_eq!(book.breaker(&policy, at(9.0)), None);
    let later = |id, hours| RunView { id: RunId(id), ..bad(hours) };
    // A clock that was set back makes no difference.
    book.runs.extend([later(4, 1.0), later(5, 11.0)]);
    assert_eq!(book.breaker(&policy, at(12.0)), None, "failures before an operator resumed do not count");
    book.runs.push(later(6, 12.0));
    assert_eq!(label(book.breaker(&policy, at(13.0))), Some("breaker_open"));
}

#[test]
fn a_breaker_with_a_reset_allows_one_more_try_at_a_time() {
    let policy = Policy { breaker_reset_after: Some(Duration::from_hours(24)), ..Policy::default() };
    let mut book = ledger([1.0, 2.0, 3.0].map(|hours| run(Trigger::Alert, hours, failed(), true)).to_vec());
    let open = Reason::BreakerOpen { failures: 3, since: at(3.0), until: Some(at(27.0)) };
    assert_eq!(book.breaker(&policy, at(26.9)), Some(open));
    assert_eq!(book.breaker(&policy, at(27.0)), None);
    book.runs.push(run(Trigger::Alert, 27.5, failed(), true));
    assert_eq!(label(book.breaker(&policy, at(28.0))), Some("breaker_open"));
    book.runs.push(run(Trigger::Alert, 52.0, Outcome::Succeeded, true));
    assert_eq!(book.breaker(&policy, at(52.0)), None);
}

#[test]
fn a_pause_lasts_until_its_end_or_until_an_operator_resumes() {
    let paused = |orders: &[OrderRecord], hours| {
        label(Ledger { orders: orders.to_vec(), ..Ledger::default() }.paused(at(hours))).is_some()
    };
    assert!(!paused(&[], 1.0));
    assert!(paused(&[pause(0.0, None)], 1_000.0));
    assert!(paused(&[pause(0.0, Some(2.0))], 1.9));
    assert!(!paused(&[pause(0.0, Some(2.0))], 2.0));
    assert!(!paused(&[pause(0.0, None), resume(1)], 1.0));
    assert!(paused(&[pause(0.0, None), resume(1), pause(2.0, None)], 3.0));
    assert!(!paused(&[pause(0.0, None), pause(1.0, Some(2.0))], 3.0), "an operator's last pause counts");
    let by_bob = |hours, until| {
        let order = Order::Pause { by: "bob".to_owned(), reason: "backup".to_owned(), until };
        OrderRecord { order, ..pause(hours, None) }
    };
    assert!(paused(&[pause(0.0, None), by_bob(1.0, Some(at(2.0)))], 3.0), "but not over another person's");
    assert!(paused(&[by_bob(0.0, Some(at(2.0))), pause(1.0, None)], 3.0));
    assert!(!paused(&[pause(0.0, None), by_bob(1.0, None), resume(1)], 3.0), "a resume ends them all");
}

/// Open every day from 02:00 to 04:00 UTC.
fn windowed(mode: Mode) -> Policy {
    let clock = |hour| jiff::civil::time(hour, 0, 0, 0);
    let window = Window { days: Vec::new(), start: clock(2), end: clock(4), timezone: TimeZone::UTC };
    Policy { mode, windows: Schedule(vec![window]), ..Policy::default() }
}

#[test]
fn a_request_waits_for_its_window_and_a_run_stops_at_its_end() {
    let policy = windowed(Mode::Enforce);
    let book = Ledger::default();
    let request = waiting(Trigger::Alert, 0.0);
    let wait = Hold::Wait { reason: Reason::OutsideWindow { opens: Some(at(2.0)) }, until: Some(at(2.0)) };
    assert_eq!(book.hold(&request, &policy, false, at(1.0)), Some(wait));
    assert_eq!(book.hold(&request, &policy, true, at(1.0)), None, "an emergency does not wait");
    assert_eq!(book.hold(&request, &policy, false, at(2.0)), None);
    assert_eq!(book.hold(&request, &windowed(Mode::Observe), false, at(1.0)), None);
    assert_eq!(book.stop(RunId(1), &policy, false, at(3.9)), None);
    assert_eq!(Ledger::next_stop(&policy, at(3.0)), Some(at(4.0)));
    assert_eq!(label(book.stop(RunId(1), &policy, false, at(4.0))), Some("window_closed"));
    assert_eq!(book.stop(RunId(1), &policy, true, at(4.0)), None);
}

#[test]
fn a_pause_holds_requests_and_stops_runs_even_in_an_emergency() {
    let policy = windowed(Mode::Enforce);
    let book = Ledger { orders: vec![pause(0.0, Some(3.0))], ..Ledger::default() };
    let hold = book.hold(&waiting(Trigger::Manual, 0.0), &policy, true, at(2.5));
    assert!(matches!(hold, Some(Hold::Wait { reason: Reason::Paused { .. }, until }) if until == Some(at(3.0))));
    assert_eq!(label(book.stop(RunId(1), &policy, true, at(2.5))), Some("paused"));
}

#[test]
fn mode_approve_waits_for_approval_and_expires_in_time() {
    let policy = Policy { mode: Mode::Approve, ..Policy::default() };
    let book = Ledger::default();
    let mut request = waiting(Trigger::Alert, 0.0);
    let wait = Hold::Wait { reason: Reason::AwaitingApproval { until: at(24.0) }, until: Some(at(24.0)) };
    assert_eq!(book.hold(&request, &policy, true, at(1.0)), Some(wait));
    let expired = book.hold(&request, &policy, false, at(24.0));
    assert!(matches!(expired, Some(Hold::End(Outcome::Stopped { reason: Reason::ApprovalExpired { .. } }))));
    assert_eq!(book.hold(&waiting(Trigger::Manual, 0.0), &policy, false, at(1.0)), None, "asking is agreeing");
    // One that began in another mode, before the process ended.
    request.started_at = Some(at(0.2));
    assert_eq!(label_of(book.hold(&request, &policy, false, at(1.0))), Some("awaiting_approval"));
    let book = ledger(vec![request.clone()]);
    assert_eq!(label(book.stop(RunId(1), &policy, false, at(1.0))), Some("awaiting_approval"));
    let intent = result(sizes(2, 1), MemberEnd::NotSent { reason: Reason::OperatorStop }).intent;
    request.open_intent = Some(intent);
    assert_eq!(book.hold(&request, &policy, false, at(1.0)), None, "a member that may be at it is followed");
    request.approved = Some(Approval { by: "ann".to_owned(), at: at(0.5) });
    assert_eq!(book.hold(&request, &policy, false, at(30.0)), None);
    assert_eq!(ledger(vec![request]).stop(RunId(1), &policy, false, at(1.0)), None);
}

fn label_of(hold: Option<Hold>) -> Option<&'static str> {
    match hold? {
        Hold::Wait { reason, .. } => Some(reason.label()),
        Hold::End(outcome) => Some(outcome.label()),
    }
}

#[test]
fn a_request_that_meets_an_open_breaker_waits_for_an_operator_even_in_an_emergency() {
    let book = ledger([1.0, 2.0, 3.0].map(|hours| run(Trigger::Alert, hours, failed(), true)).to_vec());
    let policy = Policy { mode: Mode::Enforce, ..Policy::default() };
    let hold = book.hold(&waiting(Trigger::Alert, 0.0), &policy, true, at(4.0));
    assert!(matches!(hold, Some(Hold::Wait { reason: Reason::BreakerOpen { .. }, until: None })));
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
    let mut inherited = SuccessionNote::default();
    inherited.request = Some(StandingRequest {
        trigger: Trigger::Alert,
        alerts: keys(&["1"]),
        members: Vec::new(),
        approved_by: None,
        work: EarlierWork { done: [MemberId(2)].into(), uncompared: false },
    });
    let heir = Ledger { inherited: Some(inherited), ..ledger(vec![resolved, next]) };
    assert!(heir.earlier_work().done.is_empty(), "what another lock holder did for it, too");
}

fn snapshot_open() -> Outcome {
    let reason = Reason::SnapshotOpen { member: "etcd-3".to_owned(), open: 1, waited: Duration::ZERO };
    Outcome::Stopped { reason }
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

#[test]
fn nospace_or_a_nearly_full_quota_is_an_emergency() {
    use crate::cluster::{Alarm, AlarmKind};
    let mut facts = fixture::cluster(3);
    assert!(!emergency(&facts));
    fixture::status_mut(&mut facts, 1).quota = Some(ByteSize::mib(1112));
    assert!(!emergency(&facts), "1000 of 1112 MiB");
    fixture::status_mut(&mut facts, 1).quota = Some(ByteSize::mib(1111));
    assert!(emergency(&facts), "1000 of 1111 MiB");
    let mut facts = fixture::cluster(3);
    facts.alarms = Ok(vec![Alarm { kind: AlarmKind::NoSpace, member: None }]);
    assert!(emergency(&facts));
    let mut facts = fixture::cluster(3);
    fixture::status_mut(&mut facts, 2).errors = vec!["memberID:77 alarm:NOSPACE ".to_owned()];
    assert!(emergency(&facts));
}

#[test]
fn an_offer_that_comes_again_counts_for_what_still_stands() {
    let offered = |runs: Vec<RunView>, alerts: &[&str], run: i64| {
        let left = ledger(runs).left_of_offer(keys(alerts), RunId(run), at(12.0));
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
fn members_that_differ_hold_every_request_until_an_operator_resumes() {
    let reason = Reason::HashMismatch { revision: 7, hashes: "1 on etcd-1; 2 on etcd-2".to_owned() };
    let found =
        RunView { id: RunId(1), ..run(Trigger::Alert, 0.0, Outcome::Mismatched { reason: reason.clone() }, true) };
    let (now, policy) = (at(91.0), Policy { mode: Mode::Enforce, ..Policy::default() });
    for trigger in [Trigger::Alert, Trigger::Manual] {
        let mut book = ledger(vec![found.clone(), RunView { id: RunId(2), ..waiting(trigger, 90.0) }]);
        let hold = book.hold(&book.runs[1], &policy, true, now);
        assert_eq!(hold, Some(Hold::Wait { reason: reason.clone(), until: None }));
        book.orders.push(resume(1));
        assert_eq!(book.hold(&book.runs[1], &policy, true, now), None);
    }
    // Its work is done: it is not retried.
    assert_eq!(ledger(vec![found]).next_attempt(now), None);
}
