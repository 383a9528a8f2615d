//! defragd: an etcd fragmentation exporter that also runs rolling defragmentations.
//!
//! The layers, in reading order; each may use only those above it, which `tests/architecture.rs` checks:
//!
//! | layer | what it is |
//! |---|---|
//! | [`core`] | the decisions: pure, synchronous, without clock or I/O; a crate of its own, `crates/defragd-core` |
//! | [`report`] | the capacity review of `defragd report`: pure; `crates/defragd-report` |
//! | [`ports`] | what the application needs from the outside world, and what HTTP needs from the application, as traits |
//! | `turn_limiter` | how much work runs at the same time, for the fleet that adapters and app observe |
//! | [`config`] | the configuration file, checked |
//! | [`telemetry`] | log and metrics |
//! | [`adapters`] | the real outside world: etcd, HTTP, the journal |
//! | [`app`] | observes clusters, drives runs, serves |
//! | [`cli`] | the commands |

pub mod adapters;
pub mod app;
pub mod cli;
pub mod config;
pub mod ports;
pub mod telemetry;
mod turn_limiter;

pub use defragd_core as core;
pub use defragd_report as report;
