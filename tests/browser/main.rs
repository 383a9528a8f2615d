//! The status page in a real browser, as operators use it: live during a real run, with its actions, with unhealthy
//! clusters, dark, narrow, without scripts; and an accessibility checker finds nothing. The same for the report.
//!
//! Needs `make tools-browser`; without it every test is skipped. Screenshots are in `target/browser/`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod actions;
mod fleet;
mod forgery;
mod night;
mod report;
mod rig;
mod roll;
