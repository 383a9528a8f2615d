//! The decisions: pure functions and one state machine.
//!
//! Nothing here may read a clock, the environment, a random number or a log, and nothing is async: facts and times are
//! passed in as values, and decisions are returned as values. So a test can run thousands of whole defragmentations in
//! virtual time. Reading order: [`cluster`] (what was observed), [`policy`] (what is wanted), [`history`] (the
//! journal's content), [`ledger`] (what follows from it for one cluster), [`standing`] (which request is open, and when
//! it is tried again), [`admission`] and [`hold`] (whether and when a run may begin), [`schedule`] and [`due`] (when
//! one is requested without an alert), [`safety`] (what forbids it, as a [`reason`], and [`explain`], what an operator
//! does about it), [`backoff`] (when the last attempt forbids another), [`estimate`] (how long it will take), [`plan`]
//! (which member is next) and [`plan_view`] (the same for people, with all holds), [`state`] (a cluster's state in a
//! word) and [`status_view`] (its members for people), [`gate`] (checks outside etcd), [`run`] (the procedure),
//! [`story`] (the same in sentences), [`lock`] (which replica may), [`note`] and [`rejection`] (what its successor must
//! know). Apart from them: [`page`], where metrics pages are, [`shard`], which process a cluster belongs to,
//! [`sizes`], for the charts of the status page, and [`time`], how people write how long.

pub mod admission;
mod advice;
pub mod alert;
pub mod backoff;
pub mod check;
pub mod cluster;
pub mod due;
pub mod estimate;
pub mod expect;
pub mod explain;
pub mod gate;
pub mod history;
pub mod hold;
pub mod ledger;
pub mod lock;
pub mod note;
pub mod order;
pub mod page;
pub mod plan;
pub mod plan_view;
pub mod policy;
pub mod reason;
pub mod rejection;
mod request;
pub mod rule;
pub mod run;
pub mod safety;
pub mod schedule;
pub mod shard;
pub mod sizes;
pub mod standing;
pub mod state;
pub mod status_view;
pub mod story;
pub mod time;
pub mod verify;
pub mod version;
pub mod window;
pub mod wire;
mod words;

#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
