//! Members that are sending a snapshot.

use super::*;

#[test]
fn a_member_that_sends_a_snapshot_lets_the_others_go_first_and_comes_when_it_ends() {
    let mut bench = Bench::new(policy());
    bench.facts.members[2].gauges = Some(Ok(page(|gauges| gauges.open_snapshots = Some(1))));
    bench.until_defragment();
    bench.step();
    assert_eq!(bench.order, [2], "etcd-3 would be first");
    bench.until(|action| matches!(action, Action::Observe { after, .. } if *after == SNAPSHOT_OBSERVE_INTERVAL));
    let began = bench.now;
    bench.step();
    let waits = |bench: &Bench| bench.run.waiting_for().map(ToString::to_string).unwrap_or_default();
    assert!(waits(&bench).contains("etcd-3 is sending 1 snapshot, for at least 5 s"), "{}", waits(&bench));
    bench.facts.members[2].gauges = Some(Ok(page(|_| ())));
    bench.ends(("succeeded", ""), [2, 3, 1]);
    assert!(bench.now.saturating_sub(began) < S(60));
}

#[test]
fn a_snapshot_that_stays_open_ends_the_run_which_is_then_broken_off() {
    let mut bench = Bench::new(policy());
    for member in &mut bench.facts.members {
        member.gauges = Some(Ok(page(|gauges| gauges.open_snapshots = Some(2))));
    }
    let outcome = bench.outcome();
    assert_eq!((outcome.label(), outcome.reason().map(Reason::label)), ("stopped", Some("snapshot_open")));
    assert!(outcome.is_broken_off() && bench.order.is_empty());
    assert!((PATIENCE..PATIENCE * 2).contains(&bench.now), "{:?}", bench.now);

    let ignoring = Policy { on_open_snapshot: OpenSnapshotPolicy::Ignore, ..policy() };
    let mut bench = Bench::new(ignoring);
    bench.facts.members[2].gauges = Some(Ok(page(|gauges| gauges.open_snapshots = Some(1))));
    bench.ends(("succeeded", ""), [3, 2, 1]);
}

#[test]
fn a_snapshot_that_begins_while_the_intent_is_written_is_waited_for() {
    let mut bench = Bench::new(policy());
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    bench.facts.members[2].gauges = Some(Ok(page(|gauges| gauges.open_snapshots = Some(1))));
    bench.until(|action| matches!(action, Action::RecordResult(_)));
    let Action::RecordResult(result) = &bench.action else { unreachable!() };
    assert!(matches!(&result.end, MemberEnd::NotSent { .. }), "{:?}", result.end);
    assert!(bench.order.is_empty());
}

#[test]
fn a_snapshot_that_was_seen_is_open_until_a_page_says_otherwise() {
    let mut bench = Bench::new(policy());
    for member in &mut bench.facts.members {
        member.gauges = Some(Ok(page(|gauges| gauges.open_snapshots = Some(1))));
    }
    bench.until(|action| matches!(action, Action::Observe { after, .. } if *after == SNAPSHOT_OBSERVE_INTERVAL));
    for member in &mut bench.facts.members {
        member.gauges = Some(Err(Unknown::new(UnknownKind::TimedOut, "no answer")));
    }
    for _ in 0..10 {
        bench.step();
        assert!(matches!(bench.action, Action::Observe { .. }), "{:?}", bench.action);
    }
    for member in &mut bench.facts.members {
        member.gauges = Some(Ok(page(|_| ())));
    }
    assert_eq!(bench.label(), ("succeeded", ""));
}

#[test]
fn without_space_a_member_that_waits_for_a_snapshot_does_not_keep_the_alarm_armed() {
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::gib(2));
    bench.facts.members[2].gauges = Some(Ok(page(|gauges| gauges.open_snapshots = Some(1))));
    bench.until(|action| matches!(action, Action::Perform(RunStep::DisarmNoSpace { .. })));
    assert_eq!(bench.order, [2], "the other follower was done, and the file of the third is below its quota");
    bench.until(|action| matches!(action, Action::Observe { after, .. } if *after == SNAPSHOT_OBSERVE_INTERVAL));
    bench.facts.members[2].gauges = Some(Ok(page(|_| ())));
    bench.ends(("succeeded", ""), [2, 3, 1]);
}
