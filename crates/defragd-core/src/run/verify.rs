//! Comparing the members' data, when nothing is left to defragment. It comes before NOSPACE is disarmed and before the
//! gates at the end: data that differs must not get writes, and matters more than what a gate finds.

use super::{Action, NotRecorded, Phase, Run};
use crate::{
    cluster::{ClusterFacts, Fact, MemberId, Unknown, UnknownKind},
    history::Outcome,
    policy::VerifyPolicy,
    reason::Reason,
    verify::{Comparison, DataHash, HashVerdict, Verification},
};

impl Run {
    /// Whether the members' data still has to be compared. `disarm` is whether NOSPACE is to be disarmed next.
    pub(super) fn has_to_verify(&self, disarm: bool) -> bool {
        self.brief.policy.verify == VerifyPolicy::Hash
            && !self.verified
            && (self.acted || disarm || self.past.work.uncompared)
    }

    /// Learners refuse `HashKV`. The plan has found that all voters answer.
    pub(super) fn verify(&mut self, facts: &ClusterFacts) -> Action {
        if let Some(verification) = Verification::not_comparable(facts) {
            return self.record_verification(verification);
        }
        let Some(revision) = facts.oldest_revision() else { return self.give_up(Reason::InternalError) };
        let voters: Vec<_> = facts.voters().map(|voter| (voter.member.id, voter.member.label())).collect();
        let members = voters.iter().map(|(id, _)| *id).collect();
        self.phase = Phase::Hashing { revision, voters };
        Action::Hash { revision, members, limit: self.brief.policy.defrag_deadline }
    }

    pub(super) fn hashed(
        &mut self,
        revision: u64,
        voters: Vec<(MemberId, String)>,
        mut answers: Vec<(MemberId, Fact<DataHash>)>,
    ) -> Action {
        let mut answer_of = |id: MemberId| {
            let at = answers.iter().position(|(member, _)| *member == id)?;
            Some(answers.swap_remove(at).1)
        };
        let not_asked = || Err(Unknown::new(UnknownKind::Other, "it was not queried"));
        let answers = voters.into_iter().map(|(id, name)| (id, name, answer_of(id).unwrap_or_else(not_asked)));
        let reading = Verification::of(revision, answers.collect());
        match (self.comparison.result(reading), self.stop.clone()) {
            (Some(verification), _) if verification.verdict == HashVerdict::Different => {
                self.record_verification(verification)
            }
            // A reading that a stop cut short says nothing.
            (_, Some(reason)) => self.finish(Outcome::Stopped { reason }),
            (Some(verification), None) => self.record_verification(verification),
            // At the revision that all have by then: with writes, another one.
            (None, None) => self.observe_in(Phase::Choosing),
        }
    }

    fn record_verification(&mut self, verification: Verification) -> Action {
        self.phase = Phase::Verifying(verification.clone());
        Action::RecordVerification(verification)
    }

    /// A failed comparison is recorded in the journal, and fails nothing: the defragmentation is done.
    pub(super) fn verified(&mut self, verification: &Verification, written: Result<(), NotRecorded>) -> Action {
        match (verification.mismatch(), written) {
            (Some(reason), _) => {
                // A mismatch matters more than why the run failed before.
                self.ending = None;
                self.finish(Outcome::Mismatched { reason })
            }
            (None, written) => {
                (self.verified, self.comparison) = (true, Comparison::default());
                match written {
                    // What has failed already disarms NOSPACE all the same.
                    Err(NotRecorded(detail)) if self.ending.is_none() => self.give_up(Reason::JournalFailed { detail }),
                    _ => self.choose_next(),
                }
            }
        }
    }
}
