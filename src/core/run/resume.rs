//! Going on with a run whose process ended in the middle. Nothing is guessed: a member whose Defragment may
//! be under way is watched until it is idle, and everything is measured again.

use std::time::Duration;

use super::{Action, Phase, Run, Watch, defragment::Seen};
use crate::core::{
    cluster::{ClusterFacts, Fact},
    history::{Intent, MemberEnd, Outcome, RunView, Step},
    policy::Policy,
    reason::Reason,
};

/// A run that has ended so many processes is ended itself.
const MAX_STARTS: u32 = 5;

impl Run {
    /// Goes on where the journal ends; the same as [`Run::start`] for a run that was not begun.
    pub fn resume(policy: Policy, view: &RunView) -> (Self, Action) {
        let (mut run, first) = Self::start(policy);
        run.acted = view.touched_a_member() || !view.steps.is_empty();
        for step in &view.steps {
            match step {
                Step::Compact { .. } => run.compacted = true,
                Step::MoveLeader { .. } => run.transfers += 1,
                Step::DisarmNoSpace { member_id, .. } => {
                    run.disarmed.insert(*member_id);
                }
            }
        }
        // The process ended between the last result and the end of the run that follows from it.
        let ended = view.members.last().and_then(|last| match &last.end {
            MemberEnd::Failed { reason, .. } => Some(Outcome::Failed { reason: reason.clone() }),
            MemberEnd::Defragmented { .. } | MemberEnd::Unconfirmed { .. } | MemberEnd::NotSent { .. } => None,
        });
        run.done = view
            .members
            .iter()
            .filter(|member| matches!(member.end, MemberEnd::Defragmented { .. }))
            .map(|member| member.intent.member_id)
            .collect();
        if let Some(intent) = &view.open_intent {
            let watch = Watch { busy_at: Duration::ZERO, idle_since: None };
            run.phase = Phase::Resuming { intent: intent.clone(), watch };
            return (run, first);
        }
        let exhausted = (view.starts >= MAX_STARTS).then_some(Outcome::Interrupted { reason: Reason::ProcessEnded });
        match ended.or(exhausted) {
            Some(outcome) => {
                let action = run.finish(outcome);
                (run, action)
            }
            None => (run, first),
        }
    }

    pub(super) fn look_back(
        &mut self,
        now: Duration,
        intent: Intent,
        watch: Watch,
        facts: &Fact<ClusterFacts>,
    ) -> Action {
        match self.watch(now, &intent, watch, facts) {
            Seen::Idle(after) => self.record(intent, MemberEnd::Unconfirmed { after }, None),
            Seen::Gone => {
                let detail = "it stayed out of reach after a restart of defragd".to_owned();
                let reason = Reason::MemberUnreachable { member: intent.member.clone(), detail };
                self.record(intent, MemberEnd::Unconfirmed { after: None }, Some(Outcome::Interrupted { reason }))
            }
            Seen::Busy(watch) => {
                self.waiting_for = Some(Reason::DefragInFlight { member: intent.member.clone() });
                self.look_at(Phase::Resuming { intent, watch })
            }
        }
    }
}
