//! When the members' data is compared, and the consequences.

use super::*;
use crate::{
    cluster::Alarm,
    history::{Request, RunId, RunView, Trigger},
    note::EarlierWork,
    policy::VerifyPolicy,
    verify::HashVerdict,
};

fn verifying() -> Policy {
    Policy { verify: VerifyPolicy::Hash, ..policy() }
}

#[test]
fn equal_data_is_recorded_once_after_the_last_member() {
    let mut bench = Bench::new(verifying());
    bench.until(|action| matches!(action, Action::Hash { .. }));
    assert_eq!(bench.order, [3, 2, 1]);
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.verifications.iter().map(|one| one.verdict.clone()).collect::<Vec<_>>(), [HashVerdict::Equal]);
    // Not without the key, and not when nothing was done.
    let mut bench = Bench::new(policy());
    assert_eq!((bench.label(), bench.verifications.len()), (("succeeded", ""), 0));
    let mut bench = Bench::new(verifying());
    bench.every(|status| status.db_size = bytesize::ByteSize::mib(110));
    assert_eq!((bench.label(), bench.verifications.len()), (("nothing_to_do", ""), 0));
}

#[test]
fn data_that_differs_ends_the_run_as_mismatched_whatever_else_is_asked_for() {
    let mut bench = Bench::new(verifying());
    bench.hashes.insert(2, Some(8));
    assert_eq!(bench.label(), ("mismatched", "hash_mismatch"));
    // Also when the third does not answer.
    let mut bench = Bench::new(verifying());
    bench.hashes.extend([(2, Some(8)), (3, None)]);
    assert_eq!(bench.label(), ("mismatched", "hash_mismatch"));
    // And when a stop comes while the result is written.
    let mut bench = Bench::new(verifying());
    bench.hashes.insert(2, Some(8));
    bench.until(|action| matches!(action, Action::RecordVerification(_)));
    bench.run.stop(Reason::ShuttingDown);
    assert_eq!(bench.label(), ("mismatched", "hash_mismatch"));
}

#[test]
fn what_an_earlier_attempt_left_uncompared_is_compared_although_no_member_needs_anything() {
    let work = EarlierWork { uncompared: true, ..EarlierWork::default() };
    for (policy, comparisons) in [(verifying(), 1), (policy(), 0)] {
        let mut bench = Bench::with(Brief {
            policy,
            past: PlanHistory { work: work.clone(), ..PlanHistory::default() },
            ..Brief::default()
        });
        bench.every(|status| status.db_size = bytesize::ByteSize::mib(110));
        assert_eq!((bench.label(), bench.verifications.len()), (("nothing_to_do", ""), comparisons));
    }
}

#[test]
fn a_request_whose_alerts_are_resolved_compares_and_touches_no_member() {
    let work = EarlierWork { uncompared: true, ..EarlierWork::default() };
    let past = PlanHistory { work, ..PlanHistory::default() };
    let mut bench = Bench::with(Brief { policy: verifying(), past, only_compares: true, ..Brief::default() });
    assert_eq!((bench.label(), bench.verifications.len()), (("nothing_to_do", ""), 1));
    assert!(bench.order.is_empty(), "members that need a defragmentation are left alone");
}

#[test]
fn one_reading_is_no_mismatch() {
    let mut bench = Bench::new(verifying());
    bench.hashes.insert(2, Some(8));
    bench.until(|action| matches!(action, Action::Hash { .. }));
    bench.step();
    bench.hashes.clear();
    assert_eq!(bench.label(), ("succeeded", ""));
    assert!(matches!(&bench.verifications[..], [Verification { verdict: HashVerdict::Unknown { .. }, .. }]));
    // Nor when a stop comes before the second one, or cuts it short. A whole one counts.
    for (second, expected) in [
        (None, ("stopped", "shutting_down")),
        (Some(None), ("stopped", "shutting_down")),
        (Some(Some(8)), ("mismatched", "hash_mismatch")),
    ] {
        let mut bench = Bench::new(verifying());
        bench.hashes.insert(2, Some(8));
        bench.until(|action| matches!(action, Action::Hash { .. }));
        if let Some(hash) = second {
            bench.step();
            bench.until(|action| matches!(action, Action::Hash { .. }));
            bench.hashes.insert(2, hash);
        }
        bench.run.stop(Reason::ShuttingDown);
        assert_eq!(bench.label(), expected, "{second:?}");
        assert_eq!(bench.verifications.is_empty(), expected.0 == "stopped");
    }
}

#[test]
fn what_is_not_learned_is_asked_for_again_and_then_left() {
    let mut bench = Bench::new(verifying());
    bench.hashes.insert(2, None);
    bench.until(|action| matches!(action, Action::Hash { .. }));
    bench.step();
    bench.hashes.clear();
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.verifications.iter().map(|one| one.verdict.clone()).collect::<Vec<_>>(), [HashVerdict::Equal]);

    let mut bench = Bench::new(verifying());
    bench.hashes.insert(2, None);
    assert_eq!(bench.label(), ("succeeded", ""));
    assert!(matches!(&bench.verifications[..], [Verification { verdict: HashVerdict::Unknown { .. }, .. }]));
}

#[test]
fn no_space_stays_armed_where_the_data_differs() {
    let armed = |bench: &mut Bench| {
        bench.facts.alarms = Ok(vec![Alarm { kind: AlarmKind::NoSpace, member: Some(MemberId(1)) }]);
        bench.every(|status| status.quota = Some(bytesize::ByteSize::gib(2)));
    };
    let mut bench = Bench::new(verifying());
    armed(&mut bench);
    bench.hashes.insert(2, Some(8));
    assert_eq!(bench.label(), ("mismatched", "hash_mismatch"));
    assert!(bench.steps.is_empty(), "{:?}", bench.steps);
    let mut bench = Bench::new(verifying());
    armed(&mut bench);
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!((bench.steps.len(), bench.verifications.len()), (1, 1));
}

#[test]
fn a_comparison_that_cannot_be_recorded_does_not_leave_no_space_armed() {
    for (fails, expected) in [(false, ("failed", "journal_failed")), (true, ("failed", "defrag_failed"))] {
        let mut bench = Bench::new(verifying());
        no_space(&mut bench, bytesize::ByteSize::mib(2000));
        if fails {
            bench.until_defragment();
            bench.give(returned(Err(DefragError::Answered("no".to_owned()))));
        }
        bench.until(|action| matches!(action, Action::RecordVerification(_)));
        bench.give(Event::Recorded(Err(NotRecorded("disk full".to_owned()))));
        assert_eq!(bench.label(), expected);
        assert_eq!((bench.steps.len(), bench.verifications.len()), (1, 0), "the data is not compared once more");
    }
}

#[test]
fn a_mismatch_in_the_journal_ends_a_run_that_a_crash_left_open() {
    let mut bench = Bench::new(verifying());
    bench.hashes.insert(2, Some(8));
    bench.until(|action| matches!(action, Action::Finish(_)));
    let request = Request::new("a", Trigger::Alert);
    let record = |entry| crate::history::Record { run: RunId(1), at: jiff::Timestamp::UNIX_EPOCH, entry };
    let entries =
        [crate::history::Entry::Accepted(request), crate::history::Entry::Verified(bench.verifications[0].clone())];
    let view = RunView::fold(entries.map(record)).remove(0);
    let (_, action) = Run::resume(Brief { policy: verifying(), ..Brief::default() }, &view);
    assert!(matches!(action, Action::Finish(Outcome::Mismatched { .. })), "{action:?}");
}
