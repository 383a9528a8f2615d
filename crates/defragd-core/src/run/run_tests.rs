//! Scripted runs; the simulation of whole clusters is in `tests/`.

use std::collections::BTreeMap;

use bytesize::ByteSize;

use super::*;
use crate::{
    cluster::{Alarm, AlarmKind, Gauges, Unknown, UnknownKind},
    fixture,
    gate::{GateKind, OnFailure},
    history::{AlertKey, Request, RunId, RunView, Trigger},
    policy::{Compaction, LeaderPolicy, Mode, Need, OpenSnapshotPolicy},
};

const S: fn(u64) -> Duration = Duration::from_secs;
const PATIENCE: Duration = Duration::from_mins(10);

pub(super) fn policy() -> Policy {
    Policy { mode: Mode::Enforce, pause_between_members: S(10), ..Policy::default() }
}

/// A run with a clock, and a cluster that shrinks a member on request.
pub(super) struct Bench {
    pub(super) run: Run,
    pub(super) action: Action,
    now: Duration,
    pub(super) facts: ClusterFacts,
    pub(super) order: Vec<u64>,
    pub(super) steps: Vec<RunStep>,
    pub(super) moments: Vec<Moment>,
    /// Which pages each observation included.
    pub(super) pages: Vec<Pages>,
    /// When the gates fail.
    failing: Option<Moment>,
    /// What members answer to `HashKV`, by their id; else 7.
    pub(super) hashes: BTreeMap<u64, Option<u32>>,
    pub(super) verifications: Vec<Verification>,
}

impl Bench {
    pub(super) fn new(policy: Policy) -> Self {
        Self::with(Brief { policy, ..Brief::default() })
    }

    pub(super) fn with(brief: Brief) -> Self {
        let (run, action) = Run::start(Brief { snapshot_patience: PATIENCE, ..brief });
        Self {
            run,
            action,
            now: Duration::ZERO,
            facts: fixture::cluster(3),
            order: Vec::new(),
            steps: Vec::new(),
            moments: Vec::new(),
            pages: Vec::new(),
            failing: None,
            hashes: BTreeMap::new(),
            verifications: Vec::new(),
        }
    }

    pub(super) fn give(&mut self, event: Event) -> &Action {
        self.action = self.run.next(self.now, event);
        &self.action
    }

    /// Performs the action as a healthy cluster would.
    pub(super) fn step(&mut self) {
        let event = match self.action.clone() {
            Action::Observe { after, pages } => {
                self.pages.push(pages);
                self.now += after;
                Event::Observed(Ok(self.facts.clone()))
            }
            Action::RecordVerification(verification) => {
                self.verifications.push(verification);
                Event::Recorded(Ok(()))
            }
            Action::RecordStep(_) | Action::RecordIntent(_) | Action::RecordResult(_) => Event::Recorded(Ok(())),
            Action::Perform(step) => {
                self.perform(&step);
                Event::Performed(Ok(()))
            }
            Action::Defragment { member, .. } => {
                self.order.push(member.0);
                self.now += S(2);
                let index = usize::try_from(member.0).expect("small") - 1;
                fixture::status_mut(&mut self.facts, index).db_size = ByteSize::mib(101);
                returned(Ok(()))
            }
            Action::CheckGates { moment } => {
                self.moments.push(moment);
                let results = self.run.brief.gates.iter().filter(|gate| gate.when.contains(&moment));
                let results = results.map(|gate| found(gate, moment, self.failing != Some(moment))).collect();
                Event::GatesChecked { results, written: Ok(()) }
            }
            Action::Hash { members, .. } => {
                Event::Hashed(members.into_iter().map(|id| (id, self.hash_of(id))).collect())
            }
            Action::Finish(_) => panic!("the run is over"),
        };
        self.give(event);
    }

    fn perform(&mut self, step: &RunStep) {
        match step {
            RunStep::Compact { .. } => {}
            RunStep::MoveLeader { to, .. } => {
                for index in 0..3 {
                    fixture::status_mut(&mut self.facts, index).leader = Some(*to);
                }
            }
            RunStep::DisarmNoSpace { member_id, .. } => {
                if let Ok(alarms) = &mut self.facts.alarms {
                    alarms.retain(|alarm| alarm.member != *member_id);
                }
            }
        }
        self.steps.push(step.clone());
    }

    fn hash_of(&self, id: MemberId) -> Fact<DataHash> {
        let hash = self.hashes.get(&id.0).copied().unwrap_or(Some(7));
        let lost = || Unknown::new(UnknownKind::TimedOut, "no answer");
        hash.map(|hash| DataHash { hash, compact_revision: 3 }).ok_or_else(lost)
    }

    pub(super) fn until(&mut self, what: impl Fn(&Action) -> bool) -> Action {
        for _ in 0..20_000 {
            if what(&self.action) {
                return self.action.clone();
            }
            self.step();
        }
        panic!("never came; the last action is {:?}", self.action);
    }

    pub(super) fn until_defragment(&mut self) {
        self.until(|action| matches!(action, Action::Defragment { .. }));
    }

    pub(super) fn outcome(&mut self) -> Outcome {
        match self.until(|action| matches!(action, Action::Finish(_))) {
            Action::Finish(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn label(&mut self) -> (&'static str, &'static str) {
        let outcome = self.outcome();
        (outcome.label(), outcome.reason().map_or("", Reason::label))
    }
}

#[test]
fn a_healthy_cluster_is_defragmented_leader_last_with_a_pause_after_each_member() {
    let mut bench = Bench::new(policy());
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [3, 2, 1]);
    assert_eq!(bench.now, S(3 * (2 + 10)));
}

#[test]
fn the_look_after_a_member_chooses_the_next_one_unless_it_is_old_by_then() {
    for (write_takes, looks_again) in [(Duration::ZERO, false), (S(2), true)] {
        let mut bench = Bench::new(policy());
        bench.until(|action| matches!(action, Action::RecordResult(_)));
        bench.now += write_takes;
        bench.step();
        assert_eq!(matches!(bench.action, Action::Observe { .. }), looks_again, "{:?}", bench.action);
        assert_eq!(bench.label(), ("succeeded", ""));
        assert_eq!(bench.order, [3, 2, 1]);
    }
}

#[test]
fn leadership_that_moves_in_the_run_is_followed() {
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.step();
    for index in 0..3 {
        fixture::status_mut(&mut bench.facts, index).leader = Some(MemberId(2));
    }
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [3, 1, 2]);
}

#[test]
fn observe_mode_names_the_members_and_sends_nothing() {
    let mut bench = Bench::new(Policy::default());
    let members = ["etcd-3", "etcd-2", "etcd-1"].map(str::to_owned).to_vec();
    assert_eq!(bench.outcome(), Outcome::Observed { members });
    assert!(bench.order.is_empty());
}

#[test]
fn a_member_that_no_longer_needs_it_is_left_alone() {
    let mut bench = Bench::new(policy());
    fixture::status_mut(&mut bench.facts, 2).db_size = ByteSize::mib(110);
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [2, 1]);
}

#[test]
fn nothing_is_done_when_no_member_needs_it() {
    let mut bench = Bench::new(policy());
    for index in 0..3 {
        fixture::status_mut(&mut bench.facts, index).db_size = ByteSize::mib(110);
    }
    assert_eq!(bench.label(), ("nothing_to_do", ""));
}

#[test]
fn a_member_that_is_down_before_the_run_refuses_it() {
    let mut bench = Bench::new(policy());
    bench.facts.members[1].status = Err(Unknown::new(UnknownKind::Unreachable, "refused"));
    assert_eq!(bench.label(), ("refused", "member_unreachable"));
    assert!(bench.order.is_empty());
}

#[test]
fn one_lost_answer_does_not_refuse_a_run() {
    let mut bench = Bench::new(policy());
    bench.give(Event::Observed(Err(Unknown::new(UnknownKind::TimedOut, "hangs"))));
    assert_eq!(bench.label(), ("succeeded", ""));
}

#[test]
fn a_member_that_dies_during_the_run_stops_it() {
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.step();
    bench.facts.members[1].status = Err(Unknown::new(UnknownKind::Unreachable, "refused"));
    assert_eq!(bench.label(), ("failed", "not_recovered"));
    assert_eq!(bench.order, [3]);
    assert!(bench.now >= policy().recovery_timeout);
}

#[test]
fn a_stop_lets_the_current_member_finish_and_starts_no_other() {
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.run.stop(Reason::ShuttingDown);
    assert_eq!(bench.label(), ("stopped", "shutting_down"));
    assert_eq!(bench.order, [3]);
}

#[test]
fn a_stop_between_intent_and_rpc_sends_nothing_and_says_so() {
    let mut bench = Bench::new(policy());
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    bench.run.stop(Reason::ShuttingDown);
    bench.step();
    bench.step();
    let Action::RecordResult(result) = &bench.action else { panic!("{:?}", bench.action) };
    assert_eq!(result.label(), "not_sent");
    assert_eq!(bench.label(), ("stopped", "shutting_down"));
    assert!(bench.order.is_empty());
}

#[test]
fn an_intent_that_cannot_be_written_is_not_carried_out() {
    let mut bench = Bench::new(policy());
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    bench.give(Event::Recorded(Err(NotRecorded("disk full".to_owned()))));
    assert_eq!(bench.label(), ("refused", "journal_failed"));
}

#[test]
fn an_error_of_the_server_stops_the_run_at_once() {
    for (error, label) in [
        (DefragError::Answered("auth: permission denied".into()), "defrag_failed"),
        (DefragError::DiskFull("no space left on device".into()), "disk_full"),
    ] {
        let mut bench = Bench::new(policy());
        bench.until_defragment();
        bench.give(returned(Err(error)));
        assert_eq!(bench.label(), ("failed", label));
        assert!(bench.order.is_empty());
    }
}

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
fn an_answer_to_nothing_ends_the_run() {
    let mut bench = Bench::new(policy());
    bench.give(returned(Ok(())));
    assert_eq!(bench.label(), ("failed", "internal_error"));
}

#[test]
fn a_change_while_the_intent_is_written_is_noticed_before_the_rpc() {
    let mut bench = Bench::new(policy());
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    // etcd-3 was chosen as a follower; the disk is slow, and meanwhile it becomes the leader.
    for index in 0..3 {
        fixture::status_mut(&mut bench.facts, index).leader = Some(MemberId(3));
    }
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [2, 1, 3]);
}

#[test]
fn a_voter_that_dies_while_the_intent_is_written_keeps_the_rpc_from_being_sent() {
    let mut bench = Bench::new(policy());
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    bench.facts.members[1].status = Err(Unknown::new(UnknownKind::Unreachable, "refused"));
    assert_eq!(bench.label(), ("refused", "member_unreachable"));
    assert!(bench.order.is_empty());
}

#[test]
fn a_leader_hands_over_to_a_tight_voter_and_is_then_a_follower() {
    let mut bench = Bench::new(Policy { leader: LeaderPolicy::LastAfterTransfer, ..policy() });
    bench.until(|action| matches!(action, Action::Perform(_)));
    assert_eq!(bench.order, [3, 2]);
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [3, 2, 1]);
    assert!(matches!(bench.steps[..], [RunStep::MoveLeader { from: MemberId(1), to: MemberId(3), .. }]));
    assert_eq!(bench.facts.leader(), Some(MemberId(3)));
}

#[test]
fn leadership_that_does_not_move_ends_the_run() {
    let mut bench = Bench::new(Policy { leader: LeaderPolicy::LastAfterTransfer, ..policy() });
    bench.until(|action| matches!(action, Action::Perform(_)));
    bench.give(Event::Performed(Err(StepError::Answered(
        "etcdserver: request timed out, leader transfer took too long".into(),
    ))));
    assert_eq!(bench.label(), ("failed", "transfer_failed"));
    assert_eq!(bench.order, [3, 2]);
}

#[test]
fn a_leader_that_is_skipped_is_left_alone() {
    let mut bench = Bench::new(Policy { leader: LeaderPolicy::Skip, ..policy() });
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [3, 2]);
}

fn no_space(bench: &mut Bench, quota: ByteSize) {
    bench.facts.alarms = Ok(vec![Alarm { kind: AlarmKind::NoSpace, member: Some(MemberId(2)) }]);
    for index in 0..3 {
        fixture::status_mut(&mut bench.facts, index).quota = Some(quota);
    }
}

#[test]
fn nospace_is_disarmed_after_every_member_is_well_below_its_quota() {
    let mut bench = Bench::new(policy());
    no_space(&mut bench, ByteSize::mib(1000));
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [3, 2, 1]);
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
fn refused_says_that_nothing_was_changed_and_failed_that_something_was() {
    let denied = || returned(Err(DefragError::Denied("no".to_owned())));
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.give(denied());
    assert_eq!(bench.label(), ("refused", "denied"));

    let mut bench = Bench::new(Policy { compaction: Some(Compaction::KeepRevisions(1000)), ..policy() });
    bench.until_defragment();
    assert_eq!(bench.steps.len(), 1, "it was compacted before");
    bench.give(denied());
    assert_eq!(bench.label(), ("failed", "denied"));
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
    for index in 0..3 {
        fixture::status_mut(&mut bench.facts, index).db_size_in_use = ByteSize::mib(990);
    }
    bench.until(|action| matches!(action, Action::Perform(_)));
    bench.step();
    assert_eq!(bench.steps, [RunStep::Compact { revision: 39_000 }]);
    // Each member frees its pages in its own time.
    for index in 0..3 {
        bench.step();
        bench.step();
        fixture::status_mut(&mut bench.facts, index).db_size_in_use = ByteSize::mib(100);
    }
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [3, 2, 1]);
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

/// What the journal holds of a run whose process ended.
fn view(members: Vec<MemberResult>, open_intent: Option<Intent>) -> RunView {
    let key = AlertKey::new("f".into(), "t");
    let request = Request { cluster: "a".into(), trigger: Trigger::Alert, alerts: vec![key], members: Vec::new() };
    RunView {
        started_at: Some(jiff::Timestamp::UNIX_EPOCH),
        open_intent,
        members,
        starts: 1,
        ..RunView::accepted(RunId(1), jiff::Timestamp::UNIX_EPOCH, request)
    }
}

fn returned(answer: Result<(), DefragError>) -> Event {
    Event::DefragReturned { answer, unavailable: None }
}

fn intent(id: u64) -> Intent {
    let before = Sizes { db_size: ByteSize::mib(1000), db_size_in_use: ByteSize::mib(100) };
    Intent {
        member_id: MemberId(id),
        member: format!("etcd-{id}"),
        is_leader: false,
        need: Need::Fragmented,
        before,
        expected: None,
        non_blocking: false,
    }
}

fn resumed(view: &RunView) -> Bench {
    let mut bench = Bench::new(policy());
    (bench.run, bench.action) = Run::resume(Brief { policy: policy(), ..Brief::default() }, view);
    bench
}

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
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [3, 2, 1]);
}

#[test]
fn a_resumed_run_does_not_repeat_what_is_done_and_ends_what_had_failed() {
    let after = Sizes { db_size: ByteSize::mib(101), db_size_in_use: ByteSize::mib(100) };
    let done =
        MemberResult { intent: intent(2), end: MemberEnd::Defragmented { after, took: S(1), unavailable: None } };
    let mut bench = resumed(&view(vec![done.clone()], None));
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [3, 1]);

    let failed = MemberResult {
        intent: intent(3),
        end: MemberEnd::Failed { reason: Reason::CorruptAlarm, after: None, took: None },
    };
    let mut bench = resumed(&view(vec![done, failed], None));
    assert_eq!(bench.label(), ("failed", "corrupt_alarm"));
    assert!(bench.order.is_empty());
}

#[test]
fn a_run_that_ends_process_after_process_is_ended_itself() {
    let mut bench = resumed(&RunView { starts: 5, ..view(Vec::new(), None) });
    assert_eq!(bench.label(), ("interrupted", "process_ended"));

    // The current member is still awaited, but no further one is started.
    let mut bench = resumed(&RunView { starts: 5, ..view(Vec::new(), Some(intent(2))) });
    assert_eq!(bench.label(), ("interrupted", "process_ended"));
    assert!(bench.order.is_empty());
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
    for index in 0..3 {
        fixture::status_mut(&mut bench.facts, index).db_size = ByteSize::mib(101);
    }
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.steps, [disarm]);
    assert!(bench.order.is_empty());
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

fn gate(on_failure: OnFailure) -> GateRule {
    GateRule { name: "ingress".to_owned(), kind: GateKind::Http, when: Moment::ALL.into(), on_failure }
}

fn found(gate: &GateRule, moment: Moment, passed: bool) -> GateResult {
    GateResult {
        gate: gate.name.clone(),
        kind: gate.kind,
        moment,
        passed,
        on_failure: gate.on_failure,
        detail: "503".to_owned(),
        evidence: serde_json::Map::new(),
        baseline: None,
        took: S(1),
    }
}

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
    for index in 0..3 {
        fixture::status_mut(&mut bench.facts, index).db_size = ByteSize::mib(110);
    }
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
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [2, 1]);
}

#[test]
fn a_disarm_of_an_earlier_process_is_watched_until_it_has_stayed_clear() {
    let mut view = view(Vec::new(), None);
    view.steps = vec![RunStep::DisarmNoSpace { member_id: Some(MemberId(1)), member: "etcd-1".to_owned() }];
    let tight = |bench: &mut Bench| {
        for index in 0..3 {
            fixture::status_mut(&mut bench.facts, index).db_size = ByteSize::mib(110);
        }
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
fn a_gate_that_failed_ends_the_run_after_a_crash_too() {
    let mut failed = view(Vec::new(), None);
    failed.gates = vec![found(&gate(OnFailure::Stop), Moment::Before, false)];
    assert_eq!(resumed(&failed).label(), ("refused", "gate_failed"));
    let done = MemberEnd::Defragmented { after: intent(2).before, took: S(1), unavailable: None };
    failed.members = vec![MemberResult { intent: intent(2), end: done }];
    assert_eq!(resumed(&failed).label(), ("failed", "gate_failed"));
}

fn page(change: impl Fn(&mut Gauges)) -> Gauges {
    let mut gauges = Gauges { defrag_in_flight: Some(false), open_snapshots: Some(0), ..Gauges::default() };
    change(&mut gauges);
    gauges
}

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
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [2, 3, 1]);
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
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [3, 2, 1]);
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
fn a_lost_page_says_nothing_of_a_member_that_blocks() {
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.facts.members[2].gauges = Some(Err(Unknown::new(UnknownKind::Unreachable, "refused")));
    bench.give(returned(Err(DefragError::Lost("reset".to_owned()))));
    assert_eq!(bench.label(), ("failed", "connection_lost"), "it answered Status, so it was idle");
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
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!(bench.order, [2, 3, 1]);
}

#[test]
fn with_auto_a_leader_that_leadership_does_not_leave_is_defragmented_as_the_leader() {
    let auto = Policy { leader: LeaderPolicy::Auto, transfer_above: Duration::ZERO, ..policy() };
    let mut bench = Bench::new(auto);
    bench.until(|action| matches!(action, Action::Perform(_)));
    bench.give(Event::Performed(Err(StepError::Answered(
        "etcdserver: request timed out, leader transfer took too long".into(),
    ))));
    bench.until(|action| matches!(action, Action::RecordIntent(_)));
    assert_eq!(bench.run.take_fallback().map(|reason| reason.label()), Some("transfer_failed"));
    assert_eq!(bench.label(), ("succeeded", ""));
    assert_eq!((bench.order.as_slice(), bench.steps.len()), ([3, 2, 1].as_slice(), 0));
}
