//! The checks outside etcd: before the first member, after each, and at the end.

use super::{Action, NotRecorded, Phase, Run};
use crate::{
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

    /// Everything is done: only the gates at the end are left.
    pub(super) fn succeed(&mut self) -> Action {
        if self.ending.is_none() && self.has_gates(Moment::After) {
            self.check_gates(Moment::After)
        } else {
            self.finish(Outcome::Succeeded)
        }
    }

    /// Nothing is sent before the gates have passed. After a crash during a run, the state is compared with that before
    /// the run.
    pub(super) fn moment_of_entry(&self) -> Moment {
        if self.acted { Moment::Between } else { Moment::Before }
    }

    pub(super) fn gates_checked(
        &mut self,
        moment: Moment,
        results: &[GateResult],
        written: Result<(), NotRecorded>,
    ) -> Action {
        if let Some(reason) = self.stop.clone() {
            // Checks that a stop interrupted say nothing.
            return self.finish(Outcome::Stopped { reason });
        }
        if let Err(NotRecorded(detail)) = written {
            return self.give_up(Reason::JournalFailed { detail });
        }
        if let Some(reason) = results.iter().find_map(GateResult::against) {
            return self.give_up(reason);
        }
        // A gate without an answer has not passed.
        let expected = self.brief.gates.iter().filter(|gate| gate.when.contains(&moment));
        if let Some(lost) = expected.into_iter().find(|gate| results.iter().all(|result| result.gate != gate.name)) {
            let detail = "it was not checked".to_owned();
            return self.give_up(Reason::GateFailed { gate: lost.name.clone(), moment, detail });
        }
        match moment {
            Moment::Before | Moment::Between => {
                self.entered = true;
                // Everything is observed again: the checks may have taken minutes.
                self.choose_next()
            }
            Moment::After => self.finish(Outcome::Succeeded),
        }
    }
}
