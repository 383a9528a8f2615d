//! Scripted runs; the simulation of whole clusters is in `tests/`. What they share is here, and the runs that are about
//! no single part.

mod choose;
mod defragment;
mod gates;
mod pages;
mod resume;
mod snapshot;
mod step;
mod verify;

use std::collections::BTreeMap;

use bytesize::ByteSize;

use super::*;
use crate::{
    cluster::{Alarm, AlarmKind, Gauges, Status, Unknown, UnknownKind},
    fixture,
    gate::{GateKind, GateResult, GateRule, OnFailure},
    history::{AlertKey, Request, RunId, RunView, Trigger},
    policy::{Compaction, LeaderPolicy, Mode, OpenSnapshotPolicy, Policy},
    verify::DataHash,
};

const S: fn(u64) -> Duration = Duration::from_secs;
const PATIENCE: Duration = Duration::from_mins(10);

fn policy() -> Policy {
    Policy { mode: Mode::Enforce, pause_between_members: S(10), ..Policy::default() }
}

/// A run with a clock, and a cluster that shrinks a member on request.
struct Bench {
    run: Run,
    action: Action,
    now: Duration,
    facts: ClusterFacts,
    order: Vec<u64>,
    steps: Vec<RunStep>,
    moments: Vec<Moment>,
    /// Which pages each observation included.
    pages: Vec<Pages>,
    /// When the gates fail.
    failing: Option<Moment>,
    /// What members answer to `HashKV`, by their id; else 7.
    hashes: BTreeMap<u64, Option<u32>>,
    verifications: Vec<Verification>,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Self::with(Brief { policy, ..Brief::default() })
    }

    fn with(brief: Brief) -> Self {
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

    fn give(&mut self, event: Event) -> &Action {
        self.action = self.run.next(self.now, event);
        &self.action
    }

    /// Performs the action as a healthy cluster would.
    fn step(&mut self) {
        let event = match self.action.clone() {
            Action::Observe { after, pages } => {
                self.pages.push(pages);
                self.now += after;
                let mut facts = self.facts.clone();
                for member in &mut facts.members {
                    if member.status.is_ok() && !pages.include(member.member.id) {
                        member.gauges = None;
                    }
                }
                Event::Observed(Ok(facts))
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

    fn until(&mut self, what: impl Fn(&Action) -> bool) -> Action {
        for _ in 0..20_000 {
            if what(&self.action) {
                return self.action.clone();
            }
            self.step();
        }
        panic!("never came; the last action is {:?}", self.action);
    }

    fn until_defragment(&mut self) {
        self.until(|action| matches!(action, Action::Defragment { .. }));
    }

    fn outcome(&mut self) -> Outcome {
        match self.until(|action| matches!(action, Action::Finish(_))) {
            Action::Finish(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn label(&mut self) -> (&'static str, &'static str) {
        let outcome = self.outcome();
        (outcome.label(), outcome.reason().map_or("", Reason::label))
    }

    /// The run ends with this outcome and reason, after these members were defragmented.
    #[track_caller]
    fn ends<const N: usize>(&mut self, label: (&str, &str), order: [u64; N]) {
        assert_eq!(self.label(), label);
        assert_eq!(self.order, order);
    }

    /// Changes what all members report.
    fn every(&mut self, change: impl FnMut(&mut Status)) {
        self.facts.members.iter_mut().filter_map(|member| member.status.as_mut().ok()).for_each(change);
    }
}

fn no_space(bench: &mut Bench, quota: ByteSize) {
    bench.facts.alarms = Ok(vec![Alarm { kind: AlarmKind::NoSpace, member: Some(MemberId(2)) }]);
    bench.every(|status| status.quota = Some(quota));
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
    fixture::attempt(id, fixture::sizes(1000, 100), MemberEnd::Unconfirmed { after: None }).intent
}

fn resumed(view: &RunView) -> Bench {
    let mut bench = Bench::new(policy());
    (bench.run, bench.action) = Run::resume(Brief { policy: policy(), ..Brief::default() }, view);
    bench
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

fn page(change: impl Fn(&mut Gauges)) -> Gauges {
    let mut gauges = Gauges { defrag_in_flight: Some(false), open_snapshots: Some(0), ..Gauges::default() };
    change(&mut gauges);
    gauges
}

#[test]
fn a_healthy_cluster_is_defragmented_leader_last_with_a_pause_after_each_member() {
    let mut bench = Bench::new(policy());
    bench.ends(("succeeded", ""), [3, 2, 1]);
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
        bench.ends(("succeeded", ""), [3, 2, 1]);
    }
}

#[test]
fn leadership_that_moves_in_the_run_is_followed() {
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.step();
    bench.every(|status| status.leader = Some(MemberId(2)));
    bench.ends(("succeeded", ""), [3, 1, 2]);
}

#[test]
fn observe_mode_names_the_members_and_sends_nothing() {
    for (outside_window, emergency, shown) in [(false, false, false), (true, false, true), (true, true, false)] {
        let mut bench = Bench::with(Brief { outside_window, ..Brief::default() });
        if emergency {
            no_space(&mut bench, ByteSize::gib(8));
        }
        let members = ["etcd-3", "etcd-2", "etcd-1"].map(str::to_owned).to_vec();
        assert_eq!(bench.outcome(), Outcome::Observed { members, outside_window: shown });
        assert!(bench.order.is_empty());
    }
}

#[test]
fn a_member_that_no_longer_needs_it_is_left_alone() {
    let mut bench = Bench::new(policy());
    fixture::status_mut(&mut bench.facts, 2).db_size = ByteSize::mib(110);
    bench.ends(("succeeded", ""), [2, 1]);
}

#[test]
fn nothing_is_done_when_no_member_needs_it() {
    let mut bench = Bench::new(policy());
    bench.every(|status| status.db_size = ByteSize::mib(110));
    assert_eq!(bench.label(), ("nothing_to_do", ""));
}

#[test]
fn a_member_that_is_down_before_the_run_refuses_it() {
    let mut bench = Bench::new(policy());
    bench.facts.members[1].status = Err(Unknown::new(UnknownKind::Unreachable, "refused"));
    bench.ends(("refused", "member_unreachable"), []);
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
    bench.now += Duration::from_millis(700);
    bench.ends(("failed", "not_recovered"), [3]);
    assert!(bench.now >= policy().recovery_timeout);
    let outcome = bench.outcome();
    let reason = outcome.reason().map(ToString::to_string).unwrap_or_default();
    assert!(reason.contains("within 300 s (recovery_timeout) after member etcd-3"), "{reason}");
}

#[test]
fn a_stop_lets_the_current_member_finish_and_starts_no_other() {
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.run.stop(Reason::ShuttingDown);
    bench.ends(("stopped", "shutting_down"), [3]);
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
    bench.ends(("stopped", "shutting_down"), []);
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
        bench.ends(("failed", label), []);
    }
}

#[test]
fn an_answer_to_nothing_ends_the_run() {
    let mut bench = Bench::new(policy());
    bench.give(returned(Ok(())));
    assert_eq!(bench.label(), ("failed", "internal_error"));
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
