//! defragd: the etcd fragmentation exporter that also cures what it measures.
//!
//! The layers, in reading order; each may use those above it, and `tests/architecture.rs` holds that:
//!
//! | layer | what it is |
//! |---|---|
//! | [`core`] | the decisions: pure, synchronous, without clock or I/O |
//! | [`ports`] | what the application needs of the outside world, and what HTTP needs of it, as traits |
//! | [`config`] | the configuration file, checked |
//! | [`telemetry`] | log and metrics |
//! | [`adapters`] | the real outside world: etcd, HTTP, the journal |
//! | [`app`] | observes clusters, drives runs, serves |
//! | [`cli`] | the commands |

pub mod adapters;
pub mod app;
pub mod cli;
pub mod config;
pub mod core;
pub mod ports;
pub mod telemetry;
