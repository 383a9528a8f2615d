//! What a run continues that an earlier process began.

use super::*;

#[test]
fn a_resumed_run_waits_for_the_member_that_may_be_busy_and_measures_it_again() {
    let mut bench = resumed(&view(Vec::new(), Some(intent(2))));
    bench.facts.members[1].status = Err(Unknown::new(UnknownKind::TimedOut, "hangs"));
    bench.facts.members[1].gauges = Some(Ok(Gauges { defrag_in_flight: Some(true), ..Gauges::default() }));
    for _ in 0..1_000 {
        bench.step();
        assert!(matches!(bench.action, Action::Observe { .. }), "{:?}", bench.action);
    }
    bench.facts.members[1] = fixture::cluster(3).members[1].clone();
    fixture::status_mut(&mut bench.facts, 1).db_size = ByteSize::mib(101);
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [3, 1], "etcd-2 had come to its end, and needs nothing more");
}

#[test]
fn a_resumed_run_begins_again_with_a_member_that_was_killed_in_the_middle() {
    let mut bench = resumed(&view(Vec::new(), Some(intent(2))));
    bench.ends(("succeeded", ""), [3, 2, 1]);
}

#[test]
fn a_resumed_run_does_not_repeat_what_is_done_and_ends_what_had_failed() {
    let after = Sizes { db_size: ByteSize::mib(101), db_size_in_use: ByteSize::mib(100) };
    let done =
        MemberResult { intent: intent(2), end: MemberEnd::Defragmented { after, took: S(1), unavailable: None } };
    let mut bench = resumed(&view(vec![done.clone()], None));
    bench.ends(("succeeded", ""), [3, 1]);

    let failed = MemberResult {
        intent: intent(3),
        end: MemberEnd::Failed { reason: Reason::CorruptAlarm, after: None, took: None },
    };
    let mut bench = resumed(&view(vec![done, failed], None));
    bench.ends(("failed", "corrupt_alarm"), []);
}

#[test]
fn a_run_that_ends_process_after_process_is_ended_itself() {
    let mut bench = resumed(&RunView { starts: 5, ..view(Vec::new(), None) });
    assert_eq!(bench.label(), ("interrupted", "process_ended"));

    // The current member is still awaited, but no further one is started.
    let mut bench = resumed(&RunView { starts: 5, ..view(Vec::new(), Some(intent(2))) });
    bench.ends(("interrupted", "process_ended"), []);
}

#[test]
fn a_disarm_that_may_never_have_been_sent_is_sent_by_the_resumed_run() {
    let after = Sizes { db_size: ByteSize::mib(101), db_size_in_use: ByteSize::mib(100) };
    let done =
        |id| MemberResult { intent: intent(id), end: MemberEnd::Defragmented { after, took: S(1), unavailable: None } };
    let disarm = RunStep::DisarmNoSpace { member_id: Some(MemberId(2)), member: "etcd-2".into() };
    let view = RunView { steps: vec![disarm.clone()], ..view([3, 2, 1].map(done).to_vec(), None) };
    let mut bench = resumed(&view);
    no_space(&mut bench, ByteSize::mib(1000));
    bench.every(|status| status.db_size = ByteSize::mib(101));
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.steps, [disarm]);
    assert!(bench.order.is_empty());
}

#[test]
fn a_disarm_of_an_earlier_process_is_watched_until_it_has_stayed_clear() {
    let mut view = view(Vec::new(), None);
    view.steps = vec![RunStep::DisarmNoSpace { member_id: Some(MemberId(1)), member: "etcd-1".to_owned() }];
    let tight = |bench: &mut Bench| {
        bench.every(|status| status.db_size = ByteSize::mib(110));
    };
    let mut bench = resumed(&view);
    tight(&mut bench);
    assert_eq!(bench.label(), ("succeeded", ""));
    assert!(bench.now >= S(5), "it was watched");
    let mut again = resumed(&view);
    tight(&mut again);
    again.until(|action| matches!(action, Action::Observe { after, .. } if *after > Duration::ZERO));
    again.step();
    again.facts.alarms = Ok(vec![Alarm { kind: AlarmKind::NoSpace, member: None }]);
    assert_eq!(again.label(), ("succeeded", ""));
    assert_eq!(again.steps.len(), 1, "it came back, and is disarmed once more by this process");
}

#[test]
fn a_run_that_had_failed_before_a_crash_still_disarms_nospace_unless_it_only_observes_now() {
    let end = MemberEnd::Failed { reason: Reason::CorruptAlarm, after: None, took: None };
    let failed = view(vec![MemberResult { intent: intent(3), end }], None);
    for (mode, disarmed) in [(Mode::Enforce, 1), (Mode::Observe, 0)] {
        let policy = Policy { mode, ..policy() };
        let mut bench = Bench::new(policy.clone());
        (bench.run, bench.action) = Run::resume(Brief { policy, ..Brief::default() }, &failed);
        no_space(&mut bench, ByteSize::mib(2000));
        bench.ends(("failed", "corrupt_alarm"), []);
        assert_eq!(bench.steps.len(), disarmed, "{mode:?}");
    }
}
