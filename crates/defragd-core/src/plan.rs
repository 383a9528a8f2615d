//! Which members would be defragmented, in which order, and for all others why not.
//!
//! `defragd plan` shows this; the run makes a new plan before every member and uses only its first row.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    admission::emergency,
    backoff,
    cluster::{AlarmKind, ClusterFacts, Member, MemberFacts, MemberId},
    estimate::{Estimate, Speeds},
    explain,
    history::{MemberResult, RunId, RunView, Trigger},
    ledger::Ledger,
    note::EarlierWork,
    policy::{LeaderPolicy, Need, OpenSnapshotPolicy, Policy},
    reason::Reason,
    safety,
};

/// What happened before, as far as a plan needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanHistory {
    /// The only members that the request is about, by name or id; all of them if empty.
    pub requested: Vec<String>,
    /// The members that this run has dealt with.
    pub done: BTreeSet<MemberId>,
    /// What earlier attempts at the same request have done.
    pub work: EarlierWork,
    /// The last attempt on each member in earlier runs, which limits automation.
    pub attempts: BTreeMap<MemberId, MemberResult>,
    /// How fast members were defragmented before.
    pub speeds: Speeds,
    /// The members that may have answered `Status` in the last attempt on them: see [`MemberFacts::may_answer`].
    pub non_blocking: BTreeSet<MemberId>,
    /// How many snapshots members were sending when their metrics page was last read. A page that is not read says
    /// nothing of their end.
    pub snapshots: BTreeMap<MemberId, u64>,
}

impl PlanHistory {
    /// From the journal.
    pub fn of(ledger: &Ledger) -> Self {
        let attempts = ledger.attempts();
        let non_blocking = attempts.values().filter(|last| last.intent.non_blocking);
        let non_blocking = non_blocking.map(|last| last.intent.member_id).collect();
        Self { attempts, non_blocking, speeds: ledger.speeds(), work: ledger.earlier_work(), ..Self::default() }
    }

    /// The same for one run.
    pub fn of_run(ledger: &Ledger, run: &RunView) -> Self {
        let past = match run.request.trigger {
            Trigger::Manual => Self::of_operator(ledger, Some(run.id)),
            Trigger::Alert | Trigger::Retry | Trigger::Schedule => Self::of(ledger),
        };
        Self { requested: run.request.members.clone(), ..past }
    }

    /// The same for a run that an operator requests: this one, or a new one.
    pub fn of_operator(ledger: &Ledger, run: Option<RunId>) -> Self {
        let mut past = Self::of(ledger);
        // The operator knows of earlier attempts, but not whether one is still under way.
        past.attempts.clear();
        if !ledger.continues(run) {
            past.work.done.clear();
        }
        past
    }

    fn is_requested(&self, member: &Member) -> bool {
        self.requested.is_empty() || self.requested.iter().any(|name| names(name, member))
    }

    /// A requested member that the cluster does not have.
    fn unknown_member(&self, facts: &ClusterFacts) -> Option<Reason> {
        let members = || facts.members.iter().map(|facts| &facts.member);
        let member = self.requested.iter().find(|name| !members().any(|member| names(name, member)))?.clone();
        let mut known: Vec<_> = members().map(Member::label).collect();
        known.sort_unstable();
        let known = known.join(", ");
        Some(Reason::UnknownMember { member, known })
    }

    /// Records the snapshots on the metrics pages.
    pub fn record(&mut self, facts: &ClusterFacts) {
        let reported = facts.members.iter().filter_map(|facts| Some((facts.member.id, facts.open_snapshots()?)));
        self.snapshots.extend(reported);
    }
}

fn names(name: &str, member: &Member) -> bool {
    member.name == name || member.id.to_string() == name
}

/// The decision about one member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    Defragment {
        need: Need,
    },
    Skip {
        #[serde(serialize_with = "explain::serialize")]
        reason: Reason,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedMember {
    pub member_id: MemberId,
    pub member: String,
    pub is_leader: bool,
    #[serde(flatten)]
    pub decision: Decision,
    /// What its turn waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Reason>,
    pub transfer_first: bool,
    /// How long it will be unavailable; `None` if it is skipped.
    pub expected: Option<Estimate>,
}

/// The plan for one cluster at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Why nothing at all may start now, whatever the steps say.
    pub blocked: Option<Reason>,
    /// Whether NOSPACE is armed or a file is near its quota: see [`emergency`].
    pub emergency: bool,
    /// First the members to defragment, in order and with the leader last, then the skipped ones.
    pub steps: Vec<PlannedMember>,
    /// What does not forbid a run, but the operator should know before.
    pub warnings: Vec<Reason>,
}

impl Plan {
    pub fn new(facts: &ClusterFacts, policy: &Policy, past: &PlanHistory) -> Self {
        let leader = facts.leader();
        let mut steps: Vec<PlannedMember> = facts
            .members
            .iter()
            .map(|member| {
                let is_leader = leader == Some(member.member.id);
                let mut decision = decide(facts, member, policy, past);
                if is_leader && policy.leader == LeaderPolicy::Skip && matches!(decision, Decision::Defragment { .. }) {
                    decision = Decision::Skip { reason: Reason::LeaderSkipped };
                }
                let mut step = PlannedMember {
                    member_id: member.member.id,
                    member: member.member.label(),
                    is_leader,
                    decision,
                    waits_for: None,
                    transfer_first: false,
                    expected: None,
                };
                if let (Decision::Defragment { .. }, Ok(status)) = (&step.decision, &member.status) {
                    let expected = past.speeds.estimate(step.member_id, status.db_size_in_use);
                    step.waits_for = open_snapshot(member, policy, past);
                    step.transfer_first = is_leader && transfers_first(policy, &expected);
                    step.expected = Some(expected);
                }
                step
            })
            .collect();
        let leader = steps.iter().find(|step| step.is_leader).map(|step| step.member.clone());
        steps.sort_by(|a, b| Place::of(a, leader.as_deref()).cmp(&Place::of(b, leader.as_deref())));
        let too_long: Vec<_> = stalls(&steps, policy.max_expected_stall, "max_expected_stall").collect();
        let blocked = past
            .unknown_member(facts)
            .or_else(|| safety::cluster_danger(facts, policy))
            .or_else(|| unknown_end(facts, past))
            // A cluster without space has nothing to lose.
            .or_else(|| too_long.first().filter(|_| !facts.has_alarm(AlarmKind::NoSpace)).cloned());
        let mut warnings: Vec<_> = stalls(&steps, policy.liveness_budget, "liveness_budget").collect();
        if warnings.is_empty() {
            warnings = too_long;
        }
        warnings.extend(leader_first(facts, policy, past, &steps));
        Self { blocked, emergency: emergency(facts), steps, warnings }
    }

    /// Whether nothing is left to do: no member needs it, and none is skipped because of a missing answer or for an
    /// operator.
    pub fn is_satisfied(&self) -> bool {
        let settled = |reason: &Reason| {
            matches!(
                reason,
                Reason::NotNeeded { .. }
                    | Reason::NotRequested
                    | Reason::AlreadyDone
                    | Reason::RuleNotMet { .. }
                    | Reason::NoGain { .. }
                    | Reason::LeaderSkipped
                    | Reason::Learner
            )
        };
        self.steps.iter().all(|step| matches!(&step.decision, Decision::Skip { reason } if settled(reason)))
    }

    /// The members to defragment, in order.
    pub fn pending(&self) -> impl Iterator<Item = (&PlannedMember, Need)> {
        self.steps.iter().filter_map(|step| match step.decision {
            Decision::Defragment { need } => Some((step, need)),
            Decision::Skip { .. } => None,
        })
    }
}

/// The position of a member in the plan.
///
/// Followers are taken backwards from the leader, by name and wrapping around: of four with the second as leader, 1, 4,
/// 3, then 2. So a client that leaves a stalling member for the next one of its list, and stays there, moves to one
/// that is done, or to the leader. In the other direction it would meet the next stall, and all such clients the last
/// one, the leader's, when no member accepts their writes (measured: `benches/ROLL.md`).
///
/// A follower that waits lets the others go first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Follower { waits: bool, beyond_leader: bool, name: Reverse<&'a str>, id: Reverse<MemberId> },
    Leader,
    LeftAlone { name: &'a str, id: MemberId },
}

impl<'a> Place<'a> {
    fn of(step: &'a PlannedMember, leader: Option<&str>) -> Self {
        let (name, id) = (step.member.as_str(), step.member_id);
        match step.decision {
            Decision::Skip { .. } => Self::LeftAlone { name, id },
            Decision::Defragment { .. } if step.is_leader => Self::Leader,
            Decision::Defragment { .. } => Self::Follower {
                waits: step.waits_for.is_some(),
                beyond_leader: leader.is_some_and(|leader| name > leader),
                name: Reverse(name),
                id: Reverse(id),
            },
        }
    }
}

fn decide(facts: &ClusterFacts, member: &MemberFacts, policy: &Policy, past: &PlanHistory) -> Decision {
    let last = past.attempts.get(&member.member.id);
    // There is no cooldown between the attempts at one request; what overrides it, overrides this.
    let done_before = past.work.done.contains(&member.member.id) && !(policy.emergency && emergency(facts));
    let wanted = if !past.is_requested(&member.member) {
        Err(Reason::NotRequested)
    } else if done_before || past.done.contains(&member.member.id) {
        Err(Reason::AlreadyDone)
    } else if member.member.is_learner {
        Err(Reason::Learner)
    } else {
        match &member.status {
            Ok(status) => policy.need(status, facts.has_alarm(AlarmKind::NoSpace)).and_then(|need| {
                last.and_then(|last| backoff::held_back(last, status, policy, need)).map_or(Ok(need), Err)
            }),
            Err(unknown) => {
                Err(Reason::MemberUnreachable { member: member.member.label(), detail: unknown.detail.clone() })
            }
        }
    };
    match wanted {
        Ok(need) => Decision::Defragment { need },
        Err(reason) => Decision::Skip { reason },
    }
}

/// An operator named the leader, but not all others that need it.
fn leader_first(facts: &ClusterFacts, policy: &Policy, past: &PlanHistory, steps: &[PlannedMember]) -> Option<Reason> {
    if past.requested.is_empty() {
        return None;
    }
    let leader = steps.iter().find(|step| step.is_leader && matches!(step.decision, Decision::Defragment { .. }))?;
    let anyone = PlanHistory { requested: Vec::new(), ..past.clone() };
    let others = facts.members.iter().filter(|member| {
        !past.is_requested(&member.member)
            && matches!(decide(facts, member, policy, &anyone), Decision::Defragment { .. })
    });
    let others: Vec<_> = others.map(|member| member.member.label()).collect();
    let (member, others) = (leader.member.clone(), others.join(", "));
    (!others.is_empty()).then_some(Reason::LeaderFirst { member, others })
}

/// Whether leadership is transferred before the leader is defragmented.
fn transfers_first(policy: &Policy, expected: &Estimate) -> bool {
    match policy.leader {
        LeaderPolicy::Auto => expected.expected > policy.transfer_above,
        LeaderPolicy::LastAfterTransfer => true,
        LeaderPolicy::Last | LeaderPolicy::Skip => false,
    }
}

/// The members that are expected to be unavailable for longer than this.
fn stalls<'a>(steps: &'a [PlannedMember], limit: Option<Duration>, what: &'a str) -> impl Iterator<Item = Reason> + 'a {
    steps.iter().filter_map(move |step| {
        let (expected, limit) = (step.expected?.expected, limit?);
        let (member, what) = (step.member.clone(), what.to_owned());
        (expected > limit).then_some(Reason::StallExceedsProbe { member, expected, limit, what })
    })
}

/// A member that may be defragmenting although it answers: only its metrics page shows that, and it cannot be read.
/// Then no member is started: another replica, or another tool, may have sent it a Defragment.
fn unknown_end(facts: &ClusterFacts, past: &PlanHistory) -> Option<Reason> {
    let mut answering = facts.voters().filter(|voter| voter.status.is_ok());
    let unknown = answering.find(|voter| voter.in_flight(past.non_blocking.contains(&voter.member.id)).is_none())?;
    Some(Reason::DefragUnknown { member: unknown.member.label(), detail: page_trouble(unknown) })
}

/// Why the member's metrics page does not show it.
pub(super) fn page_trouble(member: &MemberFacts) -> String {
    match &member.gauges {
        Some(Err(unknown)) => unknown.detail.clone(),
        // The page has all of etcd's metrics or, behind a proxy that filters it, some of them.
        Some(Ok(_)) => "etcd_disk_defrag_inflight is not on it".to_owned(),
        None => String::new(),
    }
}

/// Whether the member is sending a snapshot. Defragment holds all of etcd's locks while it waits for the stream to end:
/// the member would serve no client until then. If its metrics page is unknown, so is this.
fn open_snapshot(member: &MemberFacts, policy: &Policy, past: &PlanHistory) -> Option<Reason> {
    let before = || past.snapshots.get(&member.member.id).copied();
    let open = member.open_snapshots().or_else(before);
    sending(&member.member.label(), open).filter(|_| policy.on_open_snapshot == OpenSnapshotPolicy::Wait)
}

/// The reason, if this member is sending snapshots.
pub(super) fn sending(member: &str, open: Option<u64>) -> Option<Reason> {
    let open = open.filter(|open| *open > 0)?;
    Some(Reason::SnapshotOpen { member: member.to_owned(), open, waited: Duration::ZERO })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
