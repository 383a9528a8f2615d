//! Hostile input for every parser of foreign data: no panic, no message that breaks a log line, no unbounded memory or time.
//! One file per parser, with a [`Target`] and its test.
//!
//! `make test` makes inputs without looking at the code ([`generated`]): documents with a few structural mistakes, documents
//! with wrong bytes, and noise. It also tries what is in `found/TARGET/`, where failing cases are kept, and in
//! `corpus/TARGET/`, which has an input for each part of the code that coverage-guided fuzzing has reached.
//!
//! `make fuzz` is that: libFuzzer changes inputs, and keeps those that reach code which no other has reached (`guided`,
//! `guided.rs`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod config;
#[cfg(test)]
mod generated;
mod http;
mod journal;
mod rule;
mod status;
mod target;
mod web;
mod webhook;

pub use target::{Judge, Target};

/// A target's name, and what makes it.
pub type Maker = (&'static str, fn() -> Target);

/// All targets, by name.
pub const TARGETS: [Maker; 12] = [
    ("alertmanager", answers::alertmanager),
    ("config", config::target),
    ("gauges", answers::gauges),
    ("http", http::target),
    ("journal", journal::entries_target),
    ("journal-file", journal::file_target),
    ("promql", answers::promql),
    ("rule", rule::target),
    ("status", status::target),
    ("tables", journal::tables_target),
    ("web", web::target),
    ("webhook", webhook::target),
];

/// A file of the repository.
fn repository(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
