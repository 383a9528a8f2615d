//! Resuming a run whose process ended in the middle. Nothing is guessed: a member whose Defragment may be in progress
//! is watched until it is idle, and everything is measured again.

use std::time::Duration;

use super::{
    Action, Brief, Phase, Run, Watch, compact,
    defragment::{DefragProgress, held_by_snapshot},
};
use crate::{
    cluster::{ClusterFacts, Fact},
    gate::GateResult,
    history::{Intent, MemberEnd, Outcome, RunStep, RunView},
    reason::Reason,
    verify::Verification,
};

/// A run that has interrupted this many processes is ended.
const MAX_STARTS: u32 = 5;

impl Run {
    /// Resumes where the journal ends; the same as [`Run::start`] for a run that has not started.
    pub fn resume(brief: Brief, view: &RunView) -> (Self, Action) {
        let (mut run, first) = Self::start(brief);
        run.acted = view.touched_a_member() || !view.steps.is_empty();
        for step in &view.steps {
            match step {
                RunStep::Compact { .. } => run.compacted = true,
                RunStep::MoveLeader { .. } => run.transfers += 1,
                // It may never have been sent. If the alarm is still armed it is disarmed again, which does no harm:
                // leaving it would leave the cluster without writes.
                RunStep::DisarmNoSpace { .. } => run.unproven = true,
            }
        }
        // The process ended between the last result and the end of the run that follows from it.
        let ended = view.members.last().and_then(|last| match &last.end {
            MemberEnd::Failed { reason, .. } => Some(Outcome::Failed { reason: reason.clone() }),
            MemberEnd::Defragmented { .. } | MemberEnd::Unconfirmed { .. } | MemberEnd::NotSent { .. } => None,
        });
        // … or between hashes that differ and that end.
        let differs = view.verification.as_ref().and_then(Verification::mismatch);
        let ended = differs.map(|reason| Outcome::Mismatched { reason }).or(ended);
        // … or between a gate that failed and the end that follows from that.
        let against = view.gates.iter().find_map(GateResult::against);
        let ended = ended.or_else(|| {
            let acted = run.acted;
            against.map(|reason| if acted { Outcome::Failed { reason } } else { Outcome::Refused { reason } })
        });
        run.past.done = view
            .members
            .iter()
            .filter(|member| matches!(member.end, MemberEnd::Defragmented { .. }))
            .map(|member| member.intent.member_id)
            .collect();
        run.exhausted = view.starts >= MAX_STARTS;
        if let Some(intent) = &view.open_intent {
            run.phase = Phase::Resuming { intent: intent.clone(), watch: Watch::begin(Duration::ZERO) };
            return (run, first);
        }
        // It is unknown whether it was sent; if it was, the pages are still being freed.
        if run.compacted && view.members.is_empty() {
            run.phase = Phase::Settling(compact::Settling::since(Duration::ZERO));
        }
        match ended.or_else(|| run.end_of_patience()) {
            // That process may have been about to disarm NOSPACE: whether it is armed is not known yet.
            Some(outcome @ Outcome::Failed { .. }) if run.may_disarm() => {
                (run.phase, run.ending) = (Phase::Choosing, Some(outcome));
                (run, first)
            }
            Some(outcome) => {
                let action = run.finish(outcome);
                (run, action)
            }
            None => (run, first),
        }
    }

    /// A run that crashes the process each time must not do so forever.
    fn end_of_patience(&self) -> Option<Outcome> {
        self.exhausted.then_some(Outcome::Interrupted { reason: Reason::ProcessEnded })
    }

    pub(super) fn resume_watching(
        &mut self,
        now: Duration,
        intent: Intent,
        watch: Watch,
        facts: &Fact<ClusterFacts>,
    ) -> Action {
        match self.watch(now, &intent, watch, facts) {
            DefragProgress::Idle(after, _) => {
                let then = self.end_of_patience();
                self.record(intent, MemberEnd::Unconfirmed { after }, then)
            }
            DefragProgress::Unknown(reason) => self.fail(intent, reason, None),
            // When it returns, it may answer and still be defragmenting.
            DefragProgress::Gone if intent.non_blocking => {
                let detail = "it stayed out of reach after a restart of defragd".to_owned();
                let member = intent.member.clone();
                self.fail(intent, Reason::DefragUnknown { member, detail }, None)
            }
            DefragProgress::Gone => {
                let detail = "it stayed out of reach after a restart of defragd".to_owned();
                let reason = Reason::MemberUnreachable { member: intent.member.clone(), detail };
                self.record(intent, MemberEnd::Unconfirmed { after: None }, Some(Outcome::Interrupted { reason }))
            }
            DefragProgress::Busy(watch) => {
                let in_flight = || Reason::DefragInFlight { member: intent.member.clone() };
                self.waiting_for = Some(held_by_snapshot(&intent, facts).unwrap_or_else(in_flight));
                self.observe_in(Phase::Resuming { intent, watch })
            }
        }
    }
}
