//! The checks of the world outside etcd: before the first member, after each, and at the end.

use super::{Action, Phase, Run};
use crate::core::{
    gate::{GateResult, Moment},
    history::Outcome,
    reason::Reason,
};

impl Run {
    pub(super) fn has_gates(&self, moment: Moment) -> bool {
        self.brief.gates.iter().any(|gate| gate.when.contains(&moment))
    }

    pub(super) fn check_gates(&mut self, moment: Moment) -> Action {
        self.phase = Phase::Gating(moment);
        Action::CheckGates { moment }
    }

    /// Everything is done: what is left are the gates of the end.
    pub(super) fn succeed(&mut self) -> Action {
        if self.ending.is_none() && self.has_gates(Moment::After) {
            self.check_gates(Moment::After)
        } else {
            self.finish(Outcome::Succeeded)
        }
    }

    /// Nothing is sent before the gates were passed. After a crash in the middle of a run, things are compared
    /// with how they were before it.
    pub(super) fn moment_of_entry(&self) -> Moment {
        if self.acted { Moment::Between } else { Moment::Before }
    }

    pub(super) fn gates_checked(
        &mut self,
        moment: Moment,
        results: &[GateResult],
        written: Result<(), String>,
    ) -> Action {
        if let Some(reason) = self.stop.clone() {
            // Checks that a stop cut short say nothing.
            return self.finish(Outcome::Stopped { reason });
        }
        if let Err(detail) = written {
            return self.give_up(Reason::JournalFailed { detail });
        }
        if let Some(reason) = results.iter().find_map(GateResult::against) {
            return self.give_up(reason);
        }
        // A gate without an answer is not a gate that passed.
        let expected = self.brief.gates.iter().filter(|gate| gate.when.contains(&moment));
        if let Some(lost) = expected.into_iter().find(|gate| results.iter().all(|result| result.gate != gate.name)) {
            let detail = "it was not checked".to_owned();
            return self.give_up(Reason::GateFailed { gate: lost.name.clone(), moment, detail });
        }
        match moment {
            Moment::Before | Moment::Between => {
                self.entered = true;
                // Everything is observed anew: the checks may have taken minutes.
                self.choose_next()
            }
            Moment::After => self.finish(Outcome::Succeeded),
        }
    }
}
