//! The decisions: pure functions and one state machine.
//!
//! Nothing here may read a clock, the environment, a random number or a log, and nothing is async:
//! facts and times come in as values, decisions go out as values. That is what lets a test run
//! thousands of whole defragmentations in virtual time. Reading order: [`cluster`] (what was observed),
//! [`policy`] (what is wanted), [`safety`] (what forbids it, as a [`reason`]), [`plan`] (who is next),
//! [`run`] (the procedure).

pub mod alert;
pub mod cluster;
pub mod history;
pub mod plan;
pub mod policy;
pub mod reason;
pub mod run;
pub mod safety;
pub mod version;
mod wire;

#[cfg(test)]
pub(crate) mod fixture;
