use bytesize::ByteSize;
use jiff::tz::TimeZone;

use super::*;
use crate::{
    fixture,
    history::{Approval, MemberEnd, Outcome},
    hold::Hold,
    ledger::tests::{at, failed, label, ledger, pause, refused, result, resume, run, sizes, waiting},
    order::OrderRecord,
    window::{Schedule, Window},
};

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
