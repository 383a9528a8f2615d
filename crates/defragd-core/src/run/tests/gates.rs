//! When gates are checked, and what a failed one does.

use super::*;

fn gated(failing: Option<Moment>, on_failure: OnFailure) -> Bench {
    let mut bench = Bench::with(Brief { policy: policy(), gates: vec![gate(on_failure)], ..Brief::default() });
    bench.failing = failing;
    bench
}

#[test]
fn gates_are_checked_before_after_each_member_and_at_the_end() {
    let mut bench = gated(None, OnFailure::Stop);
    assert_eq!(bench.label(), ("succeeded", ""));
    let between = Moment::Between;
    assert_eq!(bench.moments, [Moment::Before, between, between, between, Moment::After]);
}

#[test]
fn a_gate_that_fails_refuses_a_run_stops_it_or_marks_it_failed_by_its_moment() {
    for (moment, expected, order) in [
        (Moment::Before, ("refused", "gate_failed"), &[][..]),
        (Moment::Between, ("failed", "gate_failed"), &[3]),
        (Moment::After, ("failed", "gate_failed"), &[3, 2, 1]),
    ] {
        let mut bench = gated(Some(moment), OnFailure::Stop);
        assert_eq!(bench.label(), expected, "{moment:?}");
        assert_eq!(bench.order, order, "{moment:?}");
        let mut warned = gated(Some(moment), OnFailure::Warn);
        assert_eq!(warned.label(), ("succeeded", ""), "{moment:?}");
    }
}

#[test]
fn a_gate_without_an_answer_and_one_that_is_not_in_the_journal_let_nothing_pass() {
    let mut lost = gated(None, OnFailure::Stop);
    lost.until(|action| matches!(action, Action::CheckGates { .. }));
    lost.give(Event::GatesChecked { results: Vec::new(), written: Ok(()) });
    assert_eq!(lost.label(), ("refused", "gate_failed"));
    let mut unwritten = gated(None, OnFailure::Stop);
    unwritten.until(|action| matches!(action, Action::CheckGates { .. }));
    let results = vec![found(&gate(OnFailure::Stop), Moment::Before, true)];
    unwritten.give(Event::GatesChecked { results, written: Err(NotRecorded("full".to_owned())) });
    assert_eq!(unwritten.label(), ("refused", "journal_failed"));
}

#[test]
fn gates_are_not_asked_when_nothing_is_to_be_done() {
    let mut bench = gated(Some(Moment::Before), OnFailure::Stop);
    bench.every(|status| status.db_size = ByteSize::mib(110));
    assert_eq!(bench.label(), ("nothing_to_do", ""));
}

#[test]
fn a_resumed_run_that_touched_a_member_compares_with_how_things_were_before_it() {
    let done = MemberEnd::Defragmented { after: intent(2).before, took: S(1), unavailable: None };
    let view = view(vec![MemberResult { intent: intent(2), end: done }], None);
    let mut bench = gated(None, OnFailure::Stop);
    let brief = Brief { policy: policy(), gates: vec![gate(OnFailure::Stop)], ..Brief::default() };
    (bench.run, bench.action) = Run::resume(brief, &view);
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.moments.first(), Some(&Moment::Between));
}

#[test]
fn a_gate_that_failed_ends_the_run_after_a_crash_too() {
    let mut failed = view(Vec::new(), None);
    failed.gates = vec![found(&gate(OnFailure::Stop), Moment::Before, false)];
    assert_eq!(resumed(&failed).label(), ("refused", "gate_failed"));
    let done = MemberEnd::Defragmented { after: intent(2).before, took: S(1), unavailable: None };
    failed.members = vec![MemberResult { intent: intent(2), end: done }];
    assert_eq!(resumed(&failed).label(), ("failed", "gate_failed"));
}
