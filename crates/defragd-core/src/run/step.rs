//! A step besides defragmenting: recorded, confirmed, then sent.

use std::time::Duration;

use super::{Action, CHANGES_OF_MIND_BEFORE_GIVING_UP, NotRecorded, Phase, Run, StepError, alarms};
use crate::{
    cluster::{ClusterFacts, Fact},
    history::{Outcome, RunStep},
    reason::Reason,
};

impl Run {
    /// A step is to be sent: it is recorded first.
    pub(super) fn intend_step(&mut self, step: RunStep) -> Action {
        self.phase = Phase::StepIntending(step.clone());
        Action::RecordStep(step)
    }

    pub(super) fn step_intended(&mut self, step: RunStep, written: Result<(), NotRecorded>) -> Action {
        if let Err(NotRecorded(detail)) = written {
            let reason = Reason::JournalFailed { detail };
            return match step {
                RunStep::DisarmNoSpace { member_id, .. } => self.disarm_later(member_id, reason),
                RunStep::Compact { .. } | RunStep::MoveLeader { .. } => self.give_up(reason),
            };
        }
        self.phase = Phase::StepConfirming(step);
        self.observe(Duration::ZERO)
    }

    /// The last observation: while the record was written, CORRUPT may have been armed, or a member may have died.
    pub(super) fn confirm_step(&mut self, step: RunStep, facts: &Fact<ClusterFacts>) -> Action {
        if let Some(reason) = self.stop.clone() {
            return self.finish(Outcome::Stopped { reason });
        }
        let near_quota = || facts.as_ref().ok().and_then(alarms::near_quota);
        let is_disarm = matches!(step, RunStep::DisarmNoSpace { .. });
        let against = self
            .blocking_reason(facts)
            .or_else(|| near_quota().filter(|_| is_disarm))
            .or_else(|| self.no_longer_to_transfer(&step, facts.as_ref().ok()?));
        if let Some(reason) = against {
            return self.choose_step_anew(&step, reason);
        }
        self.phase = Phase::StepPerforming(step.clone());
        Action::Perform(step)
    }

    /// The step was not sent: what is next is decided anew, if the trouble may pass, but not for ever.
    pub(super) fn choose_step_anew(&mut self, step: &RunStep, reason: Reason) -> Action {
        self.changes_of_mind += 1;
        if !reason.may_pass() || self.changes_of_mind >= CHANGES_OF_MIND_BEFORE_GIVING_UP {
            return self.give_up(reason);
        }
        match step {
            RunStep::Compact { .. } => self.compacted = false,
            RunStep::MoveLeader { .. } => self.transfers = self.transfers.saturating_sub(1),
            RunStep::DisarmNoSpace { member_id, .. } => {
                self.disarmed.remove(member_id);
            }
        }
        self.waiting_for = Some(reason);
        self.observe_in(Phase::Choosing)
    }

    pub(super) fn performed(&mut self, now: Duration, step: RunStep, answer: Result<(), StepError>) -> Action {
        self.acted = true;
        match step {
            RunStep::Compact { revision } => self.compacted_to(now, revision, answer),
            RunStep::MoveLeader { from, member, .. } => self.transfer_sent(now, from, member, answer),
            RunStep::DisarmNoSpace { member, .. } => self.disarmed(now, member, answer),
        }
    }
}
