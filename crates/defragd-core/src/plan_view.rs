//! A cluster's plan as people read it before they decide: what would be done, for how long, and everything that holds
//! it back now.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    cluster::{AlarmKind, ClusterFacts, Status, ratio},
    gate::GateResult,
    history::{RunId, RunView, Sizes, Trigger},
    hold::{self, HoldView},
    ledger::Ledger,
    plan::{Decision, Plan, PlanHistory, PlannedMember},
    policy::{MIN_GAIN_UNDER_NO_SPACE, Mode, Need, Policy, QUOTA_MARGIN},
    reason::Reason,
    story, version, wire,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    #[serde(flatten)]
    pub planned: PlannedMember,
    pub is_learner: bool,
    /// The version of etcd, if the member answered.
    pub version: Option<String>,
    pub sizes: Option<Sizes>,
}

/// Over all members that would be defragmented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanTotals {
    pub members: usize,
    /// How much space would be freed, at most.
    #[serde(rename = "reclaimable_bytes", with = "wire::number")]
    pub reclaimable: ByteSize,
    /// How long the members are unavailable, one after the other.
    #[serde(rename = "unavailable_seconds", with = "wire::number")]
    pub unavailable: Duration,
    /// The same with the pauses between the members.
    #[serde(rename = "run_seconds", with = "wire::number")]
    pub run: Duration,
}

/// What would be done with a cluster, and what holds it back now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    pub cluster: String,
    /// When the members and the gates were measured.
    pub at: Timestamp,
    /// How old that is.
    #[serde(rename = "age_seconds", with = "wire::number")]
    pub age: Duration,
    pub mode: Mode,
    /// The run that waits for this, if there is one.
    pub run: Option<RunId>,
    /// Whether it is about a run that an operator requests; otherwise about an automatic one.
    pub as_manual: bool,
    /// First the members to defragment, in order, then those that are left out.
    pub steps: Vec<PlanStep>,
    pub totals: PlanTotals,
    /// What happens to the leader, in a sentence.
    pub leader: String,
    /// The checks outside etcd, as of now.
    pub gates: Vec<GateResult>,
    /// Everything that holds a run back now, the first cause first.
    pub holds: Vec<HoldView>,
    /// Holds that could not be checked from here, such as `pause`.
    pub unknown_holds: Vec<String>,
    /// What does not forbid a run, but the operator should know before.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct PlanInputs<'a> {
    pub cluster: &'a str,
    /// When the members and the gates were measured.
    pub at: Timestamp,
    pub now: Timestamp,
    pub facts: &'a ClusterFacts,
    pub policy: &'a Policy,
    pub ledger: &'a Ledger,
    /// The run that waits for this, if there is one.
    pub run: Option<&'a RunView>,
    /// Whether an operator requests it.
    pub as_manual: bool,
    pub gates: Vec<GateResult>,
    /// Holds that neither the journal nor the members show, such as the lock.
    pub others: Vec<Reason>,
    pub unknown_holds: Vec<String>,
}

impl PlanView {
    pub fn new(inputs: PlanInputs<'_>) -> Self {
        let PlanInputs { cluster, at, now, facts, policy, ledger, run, as_manual, gates, others, unknown_holds } =
            inputs;
        let (past, trigger) = match run {
            _ if as_manual => (PlanHistory::of_operator(ledger, run.map(|run| run.id)), Trigger::Manual),
            Some(run) => (PlanHistory::of_run(ledger, run), run.request.trigger),
            None => (PlanHistory::of(ledger), Trigger::Alert),
        };
        let plan = Plan::new(facts, policy, &past);
        let emergency = policy.emergency && plan.emergency;
        let mut holds = ledger.hold_views(run.filter(|_| !as_manual), trigger, policy, emergency, now);
        if policy.mode == Mode::Observe {
            holds.insert(0, HoldView::new(Reason::ObserveMode, None));
            // A run in mode observe does not wait for it; after a change to enforce, it would.
            let shut = (!emergency && !policy.windows.open_at(now)).then(|| policy.windows.next_opening(now));
            holds.extend(shut.map(|opens| HoldView::new(Reason::OutsideWindow { opens }, None)));
        }
        let retry = ledger.next_attempt(now).filter(|next| !as_manual && run.is_none() && next.at > now);
        if let Some(next) = retry {
            hold::join_retry(&mut holds, next.at);
        }
        let snapshots = plan.pending().filter_map(|(step, _)| step.waits_for.clone());
        let found = others.into_iter().chain(plan.blocked.clone()).chain(snapshots);
        let found = found.chain(gates.iter().filter_map(GateResult::against));
        holds.extend(found.map(|reason| HoldView::new(reason, None)));
        let own = tried_once(&plan, facts).into_iter().chain(stays_armed(facts));
        let warnings = own.chain(plan.warnings.iter().map(ToString::to_string));
        let warnings = warnings.chain(version::of_cluster(facts)).collect();
        Self {
            cluster: cluster.to_owned(),
            at,
            age: Duration::try_from(now.duration_since(at)).unwrap_or_default(),
            mode: policy.mode,
            run: run.map(|run| run.id),
            as_manual,
            totals: totals(&plan, facts, policy),
            leader: of_leader(&plan),
            steps: plan.steps.into_iter().map(|planned| step(planned, facts)).collect(),
            gates,
            holds,
            unknown_holds,
            warnings,
        }
    }

    pub fn is_held(&self) -> bool {
        !self.holds.is_empty()
    }
}

fn step(planned: PlannedMember, facts: &ClusterFacts) -> PlanStep {
    let member = facts.member(planned.member_id);
    let status = member.and_then(|member| member.status.as_ref().ok());
    PlanStep {
        planned,
        is_learner: member.is_some_and(|member| member.member.is_learner),
        version: status.map(|status| status.version.clone()),
        sizes: status.map(|status| Sizes { db_size: status.db_size, db_size_in_use: status.db_size_in_use }),
    }
}

fn totals(plan: &Plan, facts: &ClusterFacts, policy: &Policy) -> PlanTotals {
    let mut totals = PlanTotals::default();
    for (step, _) in plan.pending() {
        let status = facts.member(step.member_id).and_then(|member| member.status.as_ref().ok());
        let expected = step.expected.map_or(Duration::ZERO, |estimate| estimate.expected);
        totals.members += 1;
        totals.reclaimable += status.map_or(ByteSize(0), Status::reclaimable);
        totals.unavailable = totals.unavailable.saturating_add(expected);
        totals.run = totals.run.saturating_add(expected).saturating_add(policy.pause_between_members);
    }
    totals
}

/// Why the alarm NOSPACE is probably not disarmed after a run.
fn stays_armed(facts: &ClusterFacts) -> Option<String> {
    let over = facts.members.iter().filter(|_| facts.has_alarm(AlarmKind::NoSpace)).filter_map(|member| {
        let status = member.status.as_ref().ok()?;
        let usage = ratio(status.db_size_in_use, status.quota.filter(|quota| quota.0 > 0)?);
        (usage >= QUOTA_MARGIN).then(|| (member.member.label(), usage))
    });
    let (member, usage) = over.reduce(|fullest, next| if next.1 > fullest.1 { next } else { fullest })?;
    Some(format!(
        "NOSPACE will probably stay armed: {member} has {:.0} % of its quota in use, and its file must be below {:.0} % \
         after the run; delete keys and compact first, or raise `--quota-backend-bytes` on every member",
        usage * 100.0,
        QUOTA_MARGIN * 100.0
    ))
}

/// Why members are defragmented in which little seems free.
fn tried_once(plan: &Plan, facts: &ClusterFacts) -> Option<String> {
    let reclaimable = |step: &PlannedMember| Some(facts.member(step.member_id)?.status.as_ref().ok()?.reclaimable());
    let is_full = |step: &PlannedMember| reclaimable(step).is_some_and(|free| free < MIN_GAIN_UNDER_NO_SPACE);
    let full = plan.pending().filter(|(step, need)| *need == Need::NoSpace && is_full(step));
    let full: Vec<_> = full.map(|(step, _)| step.member.as_str()).collect();
    let be = if full.len() == 1 { "is" } else { "are" };
    (!full.is_empty()).then(|| {
        format!(
            "{} {be} defragmented once although little seems free: etcd recounts the size in use only when it writes, \
             and under NOSPACE it may not",
            full.join(", ")
        )
    })
}

fn of_leader(plan: &Plan) -> String {
    let Some(leader) = plan.steps.iter().find(|step| step.is_leader) else {
        return "The members do not agree on a leader.".to_owned();
    };
    let name = &leader.member;
    match (&leader.decision, leader.transfer_first, leader.expected) {
        (Decision::Skip { .. }, ..) => format!("{name} is the leader; it is left out and stays the leader."),
        (Decision::Defragment { .. }, true, _) => {
            format!("{name} is the leader; it transfers leadership to another member before it is defragmented, last.")
        }
        (Decision::Defragment { .. }, false, expected) => {
            let time =
                expected.map_or(String::new(), |estimate| format!(" for {}", story::about_seconds(estimate.expected)));
            format!(
                "{name} is the leader and is defragmented last, as the leader: writes through it and lease renewals \
                 wait{time}."
            )
        }
    }
}

#[cfg(test)]
#[path = "plan_view_tests.rs"]
mod tests;
