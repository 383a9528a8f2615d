//! The status page in a real browser, as people use it: live during a real run, with orders, in trouble, dark, narrow,
//! without scripts; and that its accessibility checker finds nothing. The report is looked at in the same way.
//!
//! Needs `make tools-browser`; without, every test says SKIPPED. Pictures of what was seen are in `target/browser/`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fleet;
mod forgery;
mod orders;
mod report;
mod rig;
mod roll;
