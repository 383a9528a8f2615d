//! What a run does besides defragmenting: leadership, compaction, the alarm.

use super::*;

#[test]
fn a_leader_hands_over_to_a_tight_voter_and_is_then_a_follower() {
    let mut bench = Bench::new(Policy { leader: LeaderPolicy::LastAfterTransfer, ..policy() });
    bench.until(|action| matches!(action, Action::Perform(_)));
    assert_eq!(bench.order, [3, 2]);
    bench.ends(("succeeded", ""), [3, 2, 1]);
    assert!(matches!(bench.steps[..], [RunStep::MoveLeader { from: MemberId(1), to: MemberId(3), .. }]));
    assert_eq!(bench.facts.leader(), Some(MemberId(3)));
}

#[test]
fn what_changes_while_a_transfer_is_written_down_is_decided_anew() {
    let last_after_transfer = || Policy { leader: LeaderPolicy::LastAfterTransfer, ..policy() };
    let is_transfer = |action: &Action| matches!(action, Action::RecordStep(RunStep::MoveLeader { .. }));
    // The heir needs a defragmentation by now, and leadership would have to move once more.
    let mut bench = Bench::new(last_after_transfer());
    fixture::status_mut(&mut bench.facts, 2).db_size = ByteSize::mib(101);
    bench.until(is_transfer);
    fixture::status_mut(&mut bench.facts, 2).db_size = ByteSize::mib(1000);
    bench.ends(("succeeded", ""), [2, 3, 1]);
    assert_eq!(bench.steps.len(), 1);

    // Leadership moves by itself.
    let mut bench = Bench::new(last_after_transfer());
    bench.until(is_transfer);
    bench.every(|status| status.leader = Some(MemberId(2)));
    bench.ends(("succeeded", ""), [3, 2, 1]);
    assert!(bench.steps.is_empty());

    // An upgrade begins.
    let mut bench = Bench::new(last_after_transfer());
    bench.until(is_transfer);
    fixture::status_mut(&mut bench.facts, 0).version = "3.7.0".to_owned();
    bench.ends(("failed", "upgrade_in_progress"), [3, 2]);
    assert!(bench.steps.is_empty());
}

/// Answers the transfers so many times that leadership does not move.
fn refuse_transfers(bench: &mut Bench, times: usize) {
    for _ in 0..times {
        bench.until(|action| matches!(action, Action::Perform(RunStep::MoveLeader { .. })));
        let error = "etcdserver: request timed out, leader transfer took too long";
        bench.give(Event::Performed(Err(StepError::Answered(error.into()))));
    }
}

#[test]
fn transfers_that_fail_are_spread_over_the_time_for_recovery_before_the_run_ends() {
    let mut bench = Bench::new(Policy { leader: LeaderPolicy::LastAfterTransfer, ..policy() });
    let mut sent = Vec::new();
    for attempt in 1..=4 {
        refuse_transfers(&mut bench, 1);
        sent.push(bench.now);
        // The first observations; then the cluster is healthy, and the wait has a reason.
        while attempt < 4 && bench.now < sent[attempt - 1] + S(5) {
            bench.step();
        }
        let waits_for = bench.run.waiting_for().map(ToString::to_string).unwrap_or_default();
        let expected = if attempt < 4 { format!("after {attempt} attempt") } else { String::new() };
        assert!(waits_for.contains(&expected), "{waits_for}");
    }
    bench.ends(("failed", "transfer_failed"), [3, 2]);
    let waits: Vec<_> = sent.windows(2).map(|sent| sent[1].saturating_sub(sent[0])).collect();
    assert!(waits.windows(2).all(|waits| waits[1] > waits[0] * 3), "{waits:?}");
    let all = sent[3].saturating_sub(sent[0]);
    assert!((S(290)..=policy().recovery_timeout + S(5)).contains(&all), "{waits:?}");
    let outcome = bench.outcome();
    let reason = outcome.reason().map(ToString::to_string).unwrap_or_default();
    assert!(reason.contains("after 4 attempts, etcd-1 leads (etcdserver: request timed out"), "{reason}");
}

#[test]
fn leadership_that_moves_by_itself_while_the_next_transfer_is_due_later_is_as_good() {
    let mut bench = Bench::new(Policy { leader: LeaderPolicy::LastAfterTransfer, ..policy() });
    refuse_transfers(&mut bench, 3);
    bench.every(|status| status.leader = Some(MemberId(2)));
    let since = bench.now;
    bench.until_defragment();
    assert!(bench.now < since + S(5), "at {:?}, since {since:?}", bench.now);
    bench.ends(("succeeded", ""), [3, 2, 1]);
}

#[test]
fn leadership_that_does_not_move_or_comes_back_is_transferred_again_when_the_cluster_has_had_time() {
    for comes_back in [None, Some("at once"), Some("later")] {
        let mut bench = Bench::new(Policy { leader: LeaderPolicy::LastAfterTransfer, ..policy() });
        if let Some(when) = comes_back {
            bench.until(|action| matches!(action, Action::Perform(RunStep::MoveLeader { .. })));
            bench.step();
            bench.step();
            if when == "later" {
                bench.until(|action| matches!(action, Action::RecordIntent(_)));
            }
            bench.every(|status| status.leader = Some(MemberId(1)));
        } else {
            refuse_transfers(&mut bench, 1);
        }
        let since = bench.now;
        bench.until(|action| matches!(action, Action::Perform(_)));
        assert!((since + S(10)..since + S(20)).contains(&bench.now), "at {:?}, since {since:?}", bench.now);
        bench.ends(("succeeded", ""), [3, 2, 1]);
        assert_eq!(bench.facts.leader(), Some(MemberId(3)));
    }
}

#[test]
fn leadership_that_keeps_moving_ends_the_run() {
    let mut bench = Bench::new(Policy { leader: LeaderPolicy::LastAfterTransfer, ..policy() });
    bench.until(|action| matches!(action, Action::Perform(_)));
    let mut leader = 0;
    bench.step();
    while !matches!(bench.action, Action::Finish(_)) {
        leader = leader % 3 + 1;
        bench.every(|status| status.leader = Some(MemberId(leader)));
        bench.step();
    }
    bench.ends(("failed", "transfer_failed"), [3, 2]);
    assert!(bench.now >= policy().recovery_timeout);
}

#[test]
fn a_leader_that_is_skipped_is_left_alone() {
    let mut bench = Bench::new(Policy { leader: LeaderPolicy::Skip, ..policy() });
    bench.ends(("succeeded", ""), [3, 2]);
}

#[test]
fn nospace_is_disarmed_after_every_member_is_well_below_its_quota() {
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(1000));
    bench.ends(("succeeded", ""), [3, 2, 1]);
    assert!(matches!(bench.steps[..], [RunStep::DisarmNoSpace { member_id: Some(MemberId(2)), .. }]));
}

#[test]
fn nospace_stays_armed_while_a_member_is_near_its_quota_or_the_quota_is_not_known() {
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(110));
    assert_eq!(bench.label(), ("failed", "still_near_quota"));
    assert!(bench.steps.is_empty());

    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(1000));
    fixture::status_mut(&mut bench.facts, 0).quota = None;
    assert_eq!(bench.label(), ("failed", "quota_unknown"));
    assert!(bench.steps.is_empty());
}

#[test]
fn a_quota_that_is_not_known_for_a_moment_only_delays_the_disarming() {
    for failed in [false, true] {
        let mut bench = Bench::new(policy());
        no_space(&mut bench, ByteSize::mib(2000));
        for _ in 0..if failed { 1 } else { 3 } {
            bench.until_defragment();
            bench.step();
        }
        if failed {
            bench.until_defragment();
            bench.give(returned(Err(DefragError::Answered("no".to_owned()))));
        }
        // A metrics page of etcd 3.4 or 3.5 that comes too late.
        fixture::status_mut(&mut bench.facts, 0).quota = None;
        for _ in 0..2 {
            bench.step();
            while bench.run.waiting_for().map(Reason::label) != Some("quota_unknown") {
                bench.step();
            }
        }
        fixture::status_mut(&mut bench.facts, 0).quota = Some(ByteSize::mib(2000));
        assert_eq!(bench.label(), if failed { ("failed", "defrag_failed") } else { ("succeeded", "") });
        assert_eq!(bench.steps.len(), 1, "NOSPACE is disarmed");
    }
}

#[test]
fn one_lost_answer_after_a_failure_does_not_leave_nospace_armed() {
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(2000));
    bench.until_defragment();
    bench.give(returned(Err(DefragError::Answered("no".to_owned()))));
    bench.step();
    bench.give(Event::Observed(Err(Unknown::new(UnknownKind::TimedOut, "hangs"))));
    assert_eq!((bench.label(), bench.steps.len()), (("failed", "defrag_failed"), 1));
}

#[test]
fn nospace_that_comes_back_fails_the_run() {
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(1000));
    bench.until(|action| matches!(action, Action::Perform(_)));
    bench.step();
    bench.step();
    no_space(&mut bench, ByteSize::mib(1000));
    assert_eq!(bench.label(), ("failed", "no_space_again"));
}

#[test]
fn nospace_is_disarmed_after_a_failure_too_if_every_file_is_small_enough() {
    // The quota, in MiB, of members with 1000 each, and how many alarms are disarmed.
    for (quota, disarmed) in [(2000, 1), (1000, 0)] {
        let mut bench = Bench::new(policy());
        no_space(&mut bench, ByteSize::mib(quota));
        bench.until_defragment();
        bench.give(returned(Err(DefragError::Answered("no".to_owned()))));
        assert_eq!(bench.label(), ("failed", "defrag_failed"));
        assert_eq!((bench.order.len(), bench.steps.len()), (0, disarmed), "quota {quota} MiB");
    }
    // A stop counts at once.
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(2000));
    bench.until_defragment();
    bench.run.stop(Reason::ShuttingDown);
    bench.give(returned(Err(DefragError::Answered("no".to_owned()))));
    assert_eq!(bench.label(), ("failed", "defrag_failed"));
    assert!(bench.steps.is_empty());
}

#[test]
fn nospace_is_disarmed_once_the_journal_works_again() {
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(1000));
    for _ in 0..100 {
        bench.until(|action| matches!(action, Action::RecordStep(_)));
        bench.give(Event::Recorded(Err(NotRecorded("disk full".to_owned()))));
        assert_eq!(bench.run.waiting_for().map(Reason::label), Some("journal_failed"));
        assert!(bench.steps.is_empty(), "nothing is sent without a record");
    }
    bench.ends(("failed", "journal_failed"), [3, 2, 1]);
    assert_eq!(bench.steps.len(), 1);

    // A stop does not wait for it.
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(1000));
    bench.until(|action| matches!(action, Action::RecordStep(_)));
    bench.give(Event::Recorded(Err(NotRecorded("disk full".to_owned()))));
    bench.run.stop(Reason::ShuttingDown);
    bench.ends(("failed", "journal_failed"), [3, 2, 1]);
    assert!(bench.steps.is_empty());
}

#[test]
fn with_corrupt_armed_as_well_nothing_is_touched() {
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(1000));
    bench.facts.alarms.as_mut().expect("known").push(Alarm { kind: AlarmKind::Corrupt, member: None });
    assert_eq!(bench.label(), ("refused", "corrupt_alarm"));
    assert!(bench.order.is_empty() && bench.steps.is_empty());
}

#[test]
fn a_compaction_comes_first_and_its_end_is_awaited() {
    let mut bench = Bench::new(Policy { compaction: Some(Compaction::KeepRevisions(1000)), ..policy() });
    bench.every(|status| status.db_size_in_use = ByteSize::mib(990));
    bench.until(|action| matches!(action, Action::Perform(_)));
    bench.step();
    assert_eq!(bench.steps, [RunStep::Compact { revision: 39_000 }]);
    // Each member frees its pages in its own time.
    for index in 0..3 {
        bench.step();
        bench.step();
        fixture::status_mut(&mut bench.facts, index).db_size_in_use = ByteSize::mib(100);
    }
    bench.ends(("succeeded", ""), [3, 2, 1]);
}

#[test]
fn a_compaction_by_age_goes_up_to_the_revision_that_is_old_enough_and_without_one_there_is_none() {
    let policy = Policy { compaction: Some(Compaction::OlderThan(Duration::from_hours(1))), ..policy() };
    for (old_revision, steps) in [(Some(777), vec![RunStep::Compact { revision: 777 }]), (None, vec![])] {
        let mut bench = Bench::with(Brief { policy: policy.clone(), old_revision, ..Brief::default() });
        assert_eq!(bench.label(), ("succeeded", ""));
        assert_eq!(bench.steps, steps);
    }
}

#[test]
fn corrupt_that_is_armed_while_the_disarm_is_written_down_keeps_it_from_being_sent() {
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(1000));
    bench.until(|action| matches!(action, Action::RecordStep(_)));
    bench.facts.alarms.as_mut().expect("known").push(Alarm { kind: AlarmKind::Corrupt, member: None });
    assert_eq!(bench.label(), ("failed", "corrupt_alarm"));
    assert!(bench.steps.is_empty());
}

#[test]
fn a_trouble_that_passes_while_a_step_is_written_down_only_delays_it() {
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(1000));
    bench.until(|action| matches!(action, Action::RecordStep(_)));
    bench.step();
    bench.give(Event::Observed(Err(Unknown::new(UnknownKind::TimedOut, "hangs"))));
    assert!(bench.steps.is_empty());
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.steps.len(), 1);
}

#[test]
fn with_auto_the_leader_hands_over_only_where_it_would_be_unavailable_for_long() {
    // 100 MiB in use, and 50 MiB a second in the two runs before it.
    for (transfer_above, transfers) in [(S(1), 1), (S(30), 0)] {
        let mut bench = Bench::new(Policy { leader: LeaderPolicy::Auto, transfer_above, ..policy() });
        assert_eq!(bench.label(), ("succeeded", ""));
        assert_eq!((bench.order.as_slice(), bench.steps.len()), ([3, 2, 1].as_slice(), transfers));
    }
}

#[test]
fn with_auto_a_leader_without_an_heir_is_defragmented_as_the_leader() {
    let auto = Policy { leader: LeaderPolicy::Auto, transfer_above: Duration::ZERO, ..policy() };
    let mut bench = Bench::new(Policy { allow_without_quorum_slack: true, ..auto });
    bench.facts.members.truncate(1);
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    assert_eq!(bench.run.take_fallback(), Some(Reason::NoTransferTarget));
    assert_eq!(bench.label(), ("succeeded", ""));
}

#[test]
fn with_auto_a_leader_that_leadership_does_not_leave_is_defragmented_as_the_leader() {
    let auto = Policy { leader: LeaderPolicy::Auto, transfer_above: Duration::ZERO, ..policy() };
    let mut bench = Bench::new(auto);
    refuse_transfers(&mut bench, 2);
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    assert_eq!(bench.run.take_fallback().map(|reason| reason.label()), Some("transfer_failed"));
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!((bench.order.as_slice(), bench.steps.len()), ([3, 2, 1].as_slice(), 0));
}

#[test]
fn a_step_that_an_old_observation_forbids_is_decided_anew() {
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(1000));
    bench.until(|action| matches!(action, Action::Perform(_)));
    bench.give(Event::Withheld(Reason::StaleObservation { age: S(24) }));
    assert!(matches!(bench.action, Action::Observe { .. }) && bench.steps.is_empty());
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.steps.len(), 1);
}
