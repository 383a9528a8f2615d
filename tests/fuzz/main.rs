//! Hostile input for every parser of foreign data: no panic, no message that breaks a log line, no unbounded memory or time.
//! One file per parser; [`target`] makes the inputs: documents with a few structural mistakes, documents with wrong bytes,
//! and noise.
//!
//! `make fuzz` runs more cases (`FUZZ_CASES`, of each target). A case that fails is shrunk, written to
//! `tests/fuzz/found/TARGET/`, and tried first in every later run: commit it with the fix.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod config;
mod journal;
mod rule;
mod target;
mod web;
mod webhook;
