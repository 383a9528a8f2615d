//! A member that is being defragmented, with and without an answer.

use super::*;

/// Sends the first Defragment and loses its answer, with the member busy.
fn past_the_deadline() -> Bench {
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.now += policy().defrag_deadline;
    bench.facts.members[2].status = Err(Unknown::new(UnknownKind::TimedOut, "hangs"));
    bench.facts.members[2].gauges = Some(Ok(Gauges { defrag_in_flight: Some(true), ..Gauges::default() }));
    bench.give(returned(Err(DefragError::Deadline)));
    bench
}

#[test]
fn past_the_deadline_the_server_is_followed_to_its_end_and_the_run_stops() {
    let mut bench = past_the_deadline();
    for _ in 0..20_000 {
        bench.step();
        assert!(matches!(bench.action, Action::Observe { .. }), "{:?}", bench.action);
    }
    bench.facts.members[2] = fixture::cluster(3).members[2].clone();
    fixture::status_mut(&mut bench.facts, 2).db_size = ByteSize::mib(101);
    let Action::RecordResult(result) = bench.until(|action| matches!(action, Action::RecordResult(_))) else {
        panic!("no result");
    };
    assert_eq!(result.reclaimed(), ByteSize::mib(899));
    assert_eq!(bench.label(), ("failed", "deadline_exceeded"));
    assert!(bench.order.is_empty(), "a second member was started");
}

#[test]
fn how_long_it_took_is_known_without_an_answer_only_if_begin_and_end_were_seen() {
    let lost = |busy: u64, restarted: bool| {
        let mut bench = Bench::new(policy());
        bench.until_defragment();
        bench.now += S(1);
        bench.give(returned(Err(DefragError::Lost("reset".to_owned()))));
        bench.facts.members[2].status = Err(Unknown::new(UnknownKind::TimedOut, "hangs"));
        bench.facts.members[2].gauges = Some(Ok(Gauges { defrag_in_flight: Some(true), ..Gauges::default() }));
        for _ in 0..busy {
            bench.step();
        }
        bench.facts.members[2] = fixture::cluster(3).members[2].clone();
        if !restarted {
            fixture::status_mut(&mut bench.facts, 2).db_size = ByteSize::mib(101);
        }
        let Action::RecordResult(result) = bench.until(|action| matches!(action, Action::RecordResult(_))) else {
            panic!("no result");
        };
        let MemberEnd::Failed { took, .. } = result.end else { panic!("{result:?}") };
        assert_eq!(bench.label(), ("failed", "connection_lost"));
        took
    };
    assert_eq!(lost(20, false), Some(S(22)), "1 s until the connection broke, 20 looks, and the one that saw the end");
    assert_eq!(lost(0, false), None, "not seen at work");
    assert_eq!(lost(20, true), None, "its file is as before");
}

#[test]
fn a_member_that_vanishes_while_it_is_followed_ends_the_run_after_the_recovery_timeout() {
    let mut bench = past_the_deadline();
    bench.facts.members[2].gauges = Some(Err(Unknown::new(UnknownKind::Unreachable, "refused")));
    bench.facts.members[2].status = Err(Unknown::new(UnknownKind::Unreachable, "refused"));
    let before = bench.now;
    assert_eq!(bench.label(), ("failed", "deadline_exceeded"));
    assert!(bench.now.checked_sub(before).unwrap() >= policy().recovery_timeout);
}

#[test]
fn without_a_metrics_page_a_hanging_member_is_given_several_deadlines() {
    let mut bench = past_the_deadline();
    bench.facts.members[2].gauges = Some(Err(Unknown::new(UnknownKind::Unreachable, "refused")));
    let before = bench.now;
    assert_eq!(bench.label(), ("failed", "deadline_exceeded"));
    assert!(bench.now.checked_sub(before).unwrap() >= policy().defrag_deadline * DEADLINES_TO_FOLLOW);
}

#[test]
fn a_short_idle_look_after_a_lost_answer_is_not_the_end() {
    let mut bench = past_the_deadline();
    let busy = bench.facts.clone();
    bench.facts = fixture::cluster(3);
    bench.step();
    bench.facts = busy;
    for _ in 0..100 {
        bench.step();
    }
    assert!(matches!(bench.action, Action::Observe { .. }), "{:?}", bench.action);
}

/// Member 3 answers `Status` while it defragments; its page shows it, until the page is lost.
fn without_blocking() -> Bench {
    let mut bench = Bench::new(policy());
    bench.facts.members[2].gauges = Some(Ok(page(|gauges| gauges.non_blocking_defrag = Some(true))));
    bench.until_defragment();
    bench.facts.members[2].gauges = Some(Err(Unknown::new(UnknownKind::Unreachable, "refused")));
    bench
}

#[test]
fn a_member_that_answers_at_work_and_hides_its_page_does_not_count_as_done() {
    let mut bench = without_blocking();
    bench.give(returned(Err(DefragError::Lost("reset".to_owned()))));
    assert_eq!(bench.label(), ("failed", "defrag_unknown"));

    // No other member is started while that is unknown, not even for an operator.
    let past = PlanHistory { non_blocking: BTreeSet::from([MemberId(3)]), ..PlanHistory::default() };
    let brief = || Brief { policy: policy(), past: past.clone(), ..Brief::default() };
    let mut bench = Bench::with(brief());
    assert_eq!(bench.label(), ("refused", "defrag_unknown"));
    let mut bench = Bench::with(brief());
    bench.facts.members[2].gauges = Some(Ok(page(|_| ())));
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(Bench::new(policy()).label(), ("succeeded", ""), "an operator's run knows of no attempts");
}

#[test]
fn a_page_without_the_gauge_says_nothing_of_a_member_that_answers_at_work() {
    let mut bench = Bench::with(Brief { policy: policy(), ..Brief::default() });
    let filtered = Gauges { non_blocking_defrag: Some(true), ..Gauges::default() };
    bench.facts.members[1].gauges = Some(Ok(filtered));
    assert_eq!(bench.label(), ("refused", "defrag_unknown"));
    let reason = format!("{:?}", bench.action);
    assert!(reason.contains("etcd_disk_defrag_inflight is not on it"), "{reason}");
}

#[test]
fn a_lost_page_says_nothing_of_a_member_that_blocks() {
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.facts.members[2].gauges = Some(Err(Unknown::new(UnknownKind::Unreachable, "refused")));
    bench.give(returned(Err(DefragError::Lost("reset".to_owned()))));
    assert_eq!(bench.label(), ("failed", "connection_lost"), "it answered Status, so it was idle");
}

#[test]
fn a_connection_that_breaks_once_does_not_end_the_look_out_for_a_member_that_hangs() {
    let brief = Policy { recovery_timeout: S(10), defrag_deadline: S(60), ..policy() };
    let mut bench = Bench::new(brief);
    bench.until_defragment();
    let kind = |kind| Err(Unknown::new(kind, "no answer"));
    bench.facts.members[2].status = kind(UnknownKind::TimedOut);
    bench.give(returned(Err(DefragError::Deadline)));
    let after = |bench: &mut Bench, time| {
        let end = bench.now + time;
        while bench.now < end {
            assert!(matches!(bench.action, Action::Observe { .. }), "{:?}", bench.action);
            bench.step();
        }
    };
    after(&mut bench, S(20));
    bench.facts.members[2].status = kind(UnknownKind::Unreachable);
    after(&mut bench, S(5));
    bench.facts.members[2].status = kind(UnknownKind::TimedOut);
    after(&mut bench, S(20));
    bench.facts.members[2].status = kind(UnknownKind::Unreachable);
    let gone = bench.now;
    assert_eq!(bench.label(), ("failed", "deadline_exceeded"));
    assert!((S(10)..S(13)).contains(&(bench.now.saturating_sub(gone))), "{:?}", bench.now.saturating_sub(gone));
}
