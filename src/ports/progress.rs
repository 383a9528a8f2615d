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

/// Each method once: all observers of a list get the same calls.
macro_rules! progress {
    ($($(#[$about:meta])* fn $name:ident($($value:ident: $type:ty),*);)*) => {
        /// See the module's contract. Every method has an empty default: observers implement what they need.
        pub trait Progress: Send + Sync {
            $($(#[$about])* fn $name(&self, $($value: $type),*) { let _ = ($($value,)*); })*
        }

        impl<const N: usize> Progress for [&dyn Progress; N] {
            $(fn $name(&self, $($value: $type),*) {
                for observer in self {
                    observer.$name($($value),*);
                }
            })*
        }
    };
}

progress! {
    /// What is known against the versions of etcd that the members run.
    fn versions(known: &[String]);
    /// The first plan of the run.
    fn planned(plan: &Plan);
    /// The step is in the journal, and its RPC is sent now.
    fn step(step: &RunStep);
    /// The intent is in the journal, and Defragment is sent now.
    fn defragmenting(intent: &Intent);
    /// Defragment has been in progress for this long.
    fn still_defragmenting(intent: &Intent, elapsed: Duration);
    /// The server answered Defragment with success; whether the cluster is healthy is not known yet.
    fn defragmented(intent: &Intent);
    /// The defragmented member's cluster has been healthy for `healthy_for`, and must be for `pause`. Called about once
    /// a second.
    fn settling(healthy_for: Duration, pause: Duration);
    /// The run waits for this reason.
    fn waiting(reason: &Reason);
    /// The policy's first choice was not possible, for this reason.
    fn fell_back(reason: &Reason);
    /// The attempt on a member ended, and it is in the journal.
    fn member_ended(result: &MemberResult);
    fn gate(result: &GateResult);
    /// The member computes the hash of its data.
    fn hashing(member: &Member);
    /// The members' data was compared, and the result is in the journal.
    fn verified(verification: &Verification);
    fn finished(outcome: &Outcome, took: Duration);
}
