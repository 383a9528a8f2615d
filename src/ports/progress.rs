//! The observers of a run: the log, the metrics, a terminal.
//!
//! Contract: an observer never blocks and never fails; it cannot delay a run.

use std::time::Duration;

use crate::core::{
    cluster::Member,
    gate::GateResult,
    history::{Intent, MemberResult, Outcome, RunStep},
    plan::Plan,
    reason::Reason,
    verify::Verification,
};

/// See the module's contract. Every method has an empty default: observers implement what they need.
pub trait Progress: Send + Sync {
    /// What is known against the versions of etcd that the members run.
    fn versions(&self, _known: &[String]) {}
    /// The first plan of the run.
    fn planned(&self, _plan: &Plan) {}
    /// The step is in the journal, and its RPC is sent now.
    fn step(&self, _step: &RunStep) {}
    /// The intent is in the journal, and Defragment is sent now.
    fn defragmenting(&self, _intent: &Intent) {}
    /// Defragment has been in progress for this long.
    fn still_defragmenting(&self, _intent: &Intent, _elapsed: Duration) {}
    /// The server answered Defragment with success; whether the cluster is healthy is not known yet.
    fn defragmented(&self, _intent: &Intent) {}
    /// The defragmented member's cluster has been healthy for `healthy_for`, and must be for `pause`. Called about once
    /// a second.
    fn settling(&self, _healthy_for: Duration, _pause: Duration) {}
    /// The run waits for this reason.
    fn waiting(&self, _reason: &Reason) {}
    /// The policy's first choice was not possible, for this reason.
    fn fell_back(&self, _reason: &Reason) {}
    /// The attempt on a member ended, and it is in the journal.
    fn member_ended(&self, _result: &MemberResult) {}
    fn gate(&self, _result: &GateResult) {}
    /// The member computes the hash of its data.
    fn hashing(&self, _member: &Member) {}
    /// The members' data was compared, and the result is in the journal.
    fn verified(&self, _verification: &Verification) {}
    fn finished(&self, _outcome: &Outcome, _took: Duration) {}
}

impl<A: Progress + ?Sized, B: Progress + ?Sized> Progress for (&A, &B) {
    fn versions(&self, known: &[String]) {
        self.0.versions(known);
        self.1.versions(known);
    }
    fn planned(&self, plan: &Plan) {
        self.0.planned(plan);
        self.1.planned(plan);
    }
    fn step(&self, step: &RunStep) {
        self.0.step(step);
        self.1.step(step);
    }
    fn defragmenting(&self, intent: &Intent) {
        self.0.defragmenting(intent);
        self.1.defragmenting(intent);
    }
    fn still_defragmenting(&self, intent: &Intent, elapsed: Duration) {
        self.0.still_defragmenting(intent, elapsed);
        self.1.still_defragmenting(intent, elapsed);
    }
    fn defragmented(&self, intent: &Intent) {
        self.0.defragmented(intent);
        self.1.defragmented(intent);
    }
    fn settling(&self, healthy_for: Duration, pause: Duration) {
        self.0.settling(healthy_for, pause);
        self.1.settling(healthy_for, pause);
    }
    fn waiting(&self, reason: &Reason) {
        self.0.waiting(reason);
        self.1.waiting(reason);
    }
    fn fell_back(&self, reason: &Reason) {
        self.0.fell_back(reason);
        self.1.fell_back(reason);
    }
    fn member_ended(&self, result: &MemberResult) {
        self.0.member_ended(result);
        self.1.member_ended(result);
    }
    fn gate(&self, result: &GateResult) {
        self.0.gate(result);
        self.1.gate(result);
    }
    fn hashing(&self, member: &Member) {
        self.0.hashing(member);
        self.1.hashing(member);
    }
    fn verified(&self, verification: &Verification) {
        self.0.verified(verification);
        self.1.verified(verification);
    }
    fn finished(&self, outcome: &Outcome, took: Duration) {
        self.0.finished(outcome, took);
        self.1.finished(outcome, took);
    }
}
