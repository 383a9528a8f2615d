//! Transferring leadership to a voter that needs no defragmentation, before the leader is defragmented as a follower.

use std::time::Duration;

use super::{Action, Phase, Run, StepError};
use crate::{
    cluster::{ClusterFacts, Fact, MemberFacts, MemberId},
    history::{Outcome, RunStep},
    plan::{Decision, Plan, PlannedMember},
    policy::{LeaderPolicy, Need},
    reason::Reason,
    words,
};

/// How long the cluster must be healthy under one leader after a transfer; under a new one no longer than between
/// members.
const STEADY: Duration = Duration::from_secs(3);
/// Leadership that keeps coming back, or does not move, has a cause that an operator should look into.
const MAX_TRANSFERS: u32 = 4;
/// With `auto` the leader is then defragmented as the leader, which is better than a long wait.
const MAX_TRANSFERS_WITH_AUTO: u32 = 2;

#[derive(Clone, Debug)]
pub(super) struct Transfer {
    from: MemberId,
    to: String,
    since: Duration,
    /// Who leads the healthy cluster, and since when.
    leads: Option<(MemberId, Duration)>,
}

impl Transfer {
    fn begin(from: MemberId, to: String, since: Duration) -> Self {
        Self { from, to, since, leads: None }
    }
}

fn label(facts: &ClusterFacts, member: MemberId) -> String {
    facts.member(member).map_or_else(|| member.to_string(), |facts| facts.member.label())
}

impl Run {
    pub(super) fn begin_transfer(
        &mut self,
        now: Duration,
        facts: &ClusterFacts,
        leader: PlannedMember,
        need: Need,
    ) -> Action {
        let reason = match self.transfer_target(facts, leader.member_id) {
            Some(target) if self.transfers < self.max_transfers() => {
                let (to, member) = (target.member.id, target.member.label());
                if now < self.transfer_due {
                    return self.observe_in(Phase::Transfer(Transfer::begin(leader.member_id, member, now)));
                }
                self.transfers += 1;
                return self.intend_step(RunStep::MoveLeader { from: leader.member_id, to, member });
            }
            Some(target) => self.transfer_failed(target.member.label(), &leader.member),
            None => self.no_transfer_target(),
        };
        if self.brief.policy.leader == LeaderPolicy::Auto {
            self.fell_back = Some(reason);
            return self.intend(facts, leader, need);
        }
        self.give_up(reason)
    }

    /// Why a leadership transfer must not be sent: the leader is not what is next any more. Leadership may have moved by
    /// itself, or a follower needs a defragmentation by now: the heir perhaps, and leadership would move once more.
    pub(super) fn no_longer_to_transfer(&self, step: &RunStep, facts: &ClusterFacts) -> Option<Reason> {
        let RunStep::MoveLeader { from, .. } = step else { return None };
        let plan = Plan::new(facts, &self.brief.policy, &self.past);
        let transfers =
            |next: &PlannedMember| next.member_id == *from && next.transfer_first && next.waits_for.is_none();
        let is_next = plan.pending().next().is_some_and(|(next, _)| transfers(next));
        let moved_on = || Reason::NoLongerNext { member: label(facts, *from) };
        plan.blocked.or_else(|| (!is_next).then(moved_on))
    }

    /// If an operator must fix a voter first, that is the reason.
    fn no_transfer_target(&self) -> Reason {
        let by_operator = self.plan.iter().flat_map(|plan| &plan.steps).find_map(|step| match &step.decision {
            Decision::Skip { reason: reason @ Reason::NeedsOperator { .. } } => Some(reason.clone()),
            _ => None,
        });
        by_operator.unwrap_or(Reason::NoTransferTarget)
    }

    fn transfer_failed(&self, member: String, leader: &str) -> Reason {
        let error = self.transfer_error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
        let attempts = words::count(self.transfers, "attempt");
        Reason::TransferFailed { member, detail: format!("after {attempts}, {leader} leads{error}") }
    }

    fn max_transfers(&self) -> u32 {
        match self.brief.policy.leader {
            LeaderPolicy::Auto => MAX_TRANSFERS_WITH_AUTO,
            LeaderPolicy::Last | LeaderPolicy::LastAfterTransfer | LeaderPolicy::Skip => MAX_TRANSFERS,
        }
    }

    /// How long after the last transfer the next one may be sent. What keeps a voter from leading may pass within
    /// seconds, but each transfer costs clients some writes: a wait is four times as long as the one before it, and all
    /// waits together take `recovery_timeout`.
    fn wait_for_next_transfer(&self) -> Duration {
        let left = self.max_transfers().saturating_sub(self.transfers);
        if left == 0 {
            return Duration::ZERO;
        }
        self.brief.policy.recovery_timeout * 3 / 4_u32.pow(MAX_TRANSFERS - self.transfers)
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
        // An error or a lost answer says nothing: only what the members report afterwards counts.
        self.transfer_error = answer.err();
        self.transfer_due = now.saturating_add(self.wait_for_next_transfer());
        self.observe_soon(Phase::Transfer(Transfer::begin(from, to, now)), Duration::ZERO)
    }

    /// A transfer is over when the cluster is healthy again, under another leader or until the next transfer is due:
    /// etcd does not continue one that did not succeed, and another tool or an election may have moved leadership back.
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
        let leader = facts.as_ref().ok().and_then(ClusterFacts::leader).filter(|_| trouble.is_none());
        let before = transfer.leads.filter(|(before, _)| Some(*before) == leader);
        transfer.leads = before.or(leader.map(|leader| (leader, now)));
        let mut failed = None;
        if let (Some((leader, since)), Ok(known)) = (transfer.leads, facts) {
            let moved = leader != transfer.from;
            let steady = if moved { STEADY.min(self.brief.policy.pause_between_members) } else { STEADY };
            if now.saturating_sub(since) >= steady {
                if moved || now >= self.transfer_due {
                    // This observation makes the choice: as after a member, there is no second one.
                    return self.choose(now, facts);
                }
                failed = Some(self.transfer_failed(transfer.to.clone(), &label(known, leader)));
            }
        }
        let waited = now.saturating_sub(transfer.since);
        // A cluster that has recovered just in time is watched, too.
        if waited >= self.brief.policy.recovery_timeout.saturating_add(STEADY) {
            let detail = trouble.map_or_else(|| "leadership keeps moving".to_owned(), |trouble| trouble.to_string());
            return self.give_up(Reason::TransferFailed { member: transfer.to, detail });
        }
        self.waiting_for = trouble.or(failed);
        self.observe_soon(Phase::Transfer(transfer), waited)
    }
}
