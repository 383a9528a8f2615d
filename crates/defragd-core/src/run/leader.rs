//! Transferring leadership to a voter that needs no defragmentation, before the leader is defragmented as a follower.

use std::time::Duration;

use super::{Action, Phase, Run, StepError};
use crate::{
    cluster::{ClusterFacts, Fact, MemberFacts, MemberId},
    history::{Outcome, RunStep},
    plan::{Decision, Plan, PlannedMember},
    policy::{LeaderPolicy, Need},
    reason::Reason,
};

/// How long the cluster must be healthy under its new leader; no longer than between members.
const STEADY: Duration = Duration::from_secs(3);
/// Leadership that keeps coming back has a cause that an operator should look into.
const MAX_TRANSFERS: u32 = 2;

#[derive(Clone, Debug)]
pub(super) struct Transfer {
    from: MemberId,
    to: String,
    detail: String,
    since: Duration,
    steady_since: Option<Duration>,
}

/// Why a leadership transfer must not be sent: only the leader can do it, and leadership has moved by itself.
pub(super) fn led_by_another(step: &RunStep, facts: &ClusterFacts) -> Option<Reason> {
    let RunStep::MoveLeader { from, .. } = step else { return None };
    let member = facts.member(*from).map_or_else(|| from.to_string(), |facts| facts.member.label());
    (facts.leader() != Some(*from)).then_some(Reason::NoLongerNext { member })
}

impl Run {
    pub(super) fn begin_transfer(&mut self, facts: &ClusterFacts, leader: PlannedMember, need: Need) -> Action {
        let Some(transfer_target) = self.transfer_target(facts, leader.member_id) else {
            if self.brief.policy.leader == LeaderPolicy::Auto {
                self.keep_leader(Reason::NoTransferTarget);
                return self.intend(facts, leader, need);
            }
            // If an operator must fix a voter first, report that.
            let by_operator = self.plan.iter().flat_map(|plan| &plan.steps).find_map(|step| match &step.decision {
                Decision::Skip { reason: reason @ Reason::NeedsOperator { .. } } => Some(reason.clone()),
                _ => None,
            });
            return self.give_up(by_operator.unwrap_or(Reason::NoTransferTarget));
        };
        let (to, member) = (transfer_target.member.id, transfer_target.member.label());
        if self.transfers >= MAX_TRANSFERS {
            let detail = format!("it was transferred {MAX_TRANSFERS} times and came back to {}", leader.member);
            let reason = Reason::TransferFailed { member, detail };
            if self.brief.policy.leader == LeaderPolicy::Auto {
                self.keep_leader(reason);
                return self.intend(facts, leader, need);
            }
            return self.give_up(reason);
        }
        self.transfers += 1;
        self.intend_step(RunStep::MoveLeader { from: leader.member_id, to, member })
    }

    fn keep_leader(&mut self, reason: Reason) {
        self.stays_leader = true;
        self.fell_back = Some(reason);
    }

    /// The most advanced voter among those that need no defragmentation (any more).
    fn transfer_target<'a>(&self, facts: &'a ClusterFacts, leader: MemberId) -> Option<&'a MemberFacts> {
        let plan = Plan::new(facts, &self.brief.policy, &self.past);
        let tight = |id: MemberId| {
            plan.steps.iter().any(|step| {
                step.member_id == id
                    && matches!(
                        step.decision,
                        Decision::Skip {
                            reason: Reason::AlreadyDone
                                | Reason::NotRequested
                                | Reason::NotNeeded { .. }
                                | Reason::RuleNotMet { .. }
                                | Reason::NoGain { .. }
                        }
                    )
            })
        };
        let applied = |facts: &MemberFacts| facts.status.as_ref().map_or(0, |status| status.raft_applied_index);
        facts
            .voters()
            .filter(|voter| voter.member.id != leader && tight(voter.member.id))
            // Ties are broken by id, so that the choice does not depend on the order of the list.
            .max_by_key(|voter| (applied(voter), voter.member.id))
    }

    pub(super) fn transfer_sent(
        &mut self,
        now: Duration,
        from: MemberId,
        to: String,
        answer: Result<(), StepError>,
    ) -> Action {
        // A lost answer says nothing: only what the members report afterwards counts.
        let detail = answer.err().map_or_else(|| "the leader did not change".to_owned(), |error| error.to_string());
        self.observe_soon(
            Phase::Transfer(Transfer { from, to, detail, since: now, steady_since: None }),
            Duration::ZERO,
        )
    }

    pub(super) fn follow_transfer(
        &mut self,
        now: Duration,
        mut transfer: Transfer,
        facts: &Fact<ClusterFacts>,
    ) -> Action {
        if let Some(reason) = self.stop.clone() {
            return self.finish(Outcome::Stopped { reason });
        }
        let trouble = self.blocking_reason(facts);
        if let Some(reason) = trouble.as_ref().filter(|reason| !reason.may_pass()) {
            return self.give_up(reason.clone());
        }
        let moved = facts.as_ref().is_ok_and(|facts| facts.leader().is_some_and(|leader| leader != transfer.from));
        if trouble.is_none() && moved {
            let steady = STEADY.min(self.brief.policy.pause_between_members);
            if now.saturating_sub(*transfer.steady_since.get_or_insert(now)) >= steady {
                // This observation makes the choice: as after a member, there is no second one.
                return self.choose(now, facts);
            }
        } else {
            transfer.steady_since = None;
        }
        if now.saturating_sub(transfer.since) >= self.brief.policy.recovery_timeout {
            // The cluster is healthy and only the leader has not changed.
            let keeps = self.brief.policy.leader == LeaderPolicy::Auto && trouble.is_none();
            let detail = trouble.map_or(transfer.detail, |trouble| trouble.to_string());
            let reason = Reason::TransferFailed { member: transfer.to, detail };
            if keeps {
                self.keep_leader(reason);
                return self.choose(now, facts);
            }
            return self.give_up(reason);
        }
        self.waiting_for = trouble;
        let waited = now.saturating_sub(transfer.since);
        self.observe_soon(Phase::Transfer(transfer), waited)
    }
}
