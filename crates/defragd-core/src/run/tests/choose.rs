//! Which member is chosen, and what forbids it at the last moment.

use super::*;

#[test]
fn an_intent_that_cannot_be_written_is_not_carried_out() {
    let mut bench = Bench::new(policy());
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    bench.give(Event::Recorded(Err(NotRecorded("disk full".to_owned()))));
    assert_eq!(bench.label(), ("refused", "journal_failed"));
}

#[test]
fn another_membership_or_another_cluster_stops_the_run() {
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.step();
    bench.facts.members.push(fixture::cluster(4).members[3].clone());
    assert_eq!(bench.label(), ("failed", "membership_changed"));

    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.step();
    bench.facts.cluster_id = ClusterId(1);
    assert_eq!(bench.label(), ("failed", "cluster_changed"));
}

#[test]
fn a_change_while_the_intent_is_written_is_noticed_before_the_rpc() {
    let mut bench = Bench::new(policy());
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    // etcd-3 was chosen as a follower; the disk is slow, and meanwhile it becomes the leader.
    bench.every(|status| status.leader = Some(MemberId(3)));
    bench.ends(("succeeded", ""), [2, 1, 3]);
}

#[test]
fn a_voter_that_dies_while_the_intent_is_written_keeps_the_rpc_from_being_sent() {
    let mut bench = Bench::new(policy());
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    bench.facts.members[1].status = Err(Unknown::new(UnknownKind::Unreachable, "refused"));
    bench.ends(("refused", "member_unreachable"), []);
}

#[test]
fn a_member_whose_last_attempt_gave_nothing_is_left_alone() {
    let before = Sizes { db_size: ByteSize::mib(1000), db_size_in_use: ByteSize::mib(100) };
    let end = MemberEnd::Defragmented { after: before, took: S(1), unavailable: None };
    let last = MemberResult { intent: Intent { before, ..intent(3) }, end };
    let attempts = BTreeMap::from([(MemberId(3), last)]);
    let mut bench = Bench::with(Brief {
        policy: policy(),
        past: PlanHistory { attempts, ..PlanHistory::default() },
        ..Brief::default()
    });
    bench.ends(("succeeded", ""), [2, 1]);
}

#[test]
fn nothing_is_started_where_a_member_would_be_unavailable_for_too_long() {
    let limits = |max| Policy { liveness_budget: Some(S(1)), max_expected_stall: max, ..policy() };
    let mut bench = Bench::new(limits(None));
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    assert_eq!(bench.run.plan().map_or(0, |plan| plan.warnings.len()), 3);
    let mut bench = Bench::new(limits(Some(S(1))));
    assert_eq!(bench.label(), ("refused", "stall_exceeds_probe"));
    let mut bench = Bench::new(limits(Some(S(1))));
    no_space(&mut bench, ByteSize::gib(2));
    assert_eq!(bench.label(), ("succeeded", ""), "a cluster without space has nothing to lose by it");
    let mut bench = Bench::new(limits(Some(Duration::from_millis(1_500))));
    assert_eq!(bench.label(), ("failed", "stall_exceeds_probe"), "the first member was slower than the rule of thumb");
}

#[test]
fn a_member_that_an_old_observation_forbids_is_chosen_anew_but_not_for_ever() {
    let stale = || Err(DefragError::Withheld(Reason::StaleObservation { age: S(24) }));
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.give(returned(stale()));
    let Action::RecordResult(result) = &bench.action else { panic!("{:?}", bench.action) };
    assert!(matches!(result.end, MemberEnd::NotSent { .. }));
    bench.ends(("succeeded", ""), [3, 2, 1]);

    let mut bench = Bench::new(policy());
    for _ in 0..CHANGES_OF_MIND_BEFORE_GIVING_UP {
        bench.until_defragment();
        bench.give(returned(stale()));
    }
    bench.ends(("refused", "stale_observation"), []);
}
