//! Hostile input for everything that reads what others wrote: no panic, no answer that breaks a line of the log, no
//! memory or time without bound. One file a reader; [`target`] makes the inputs, which are whole documents with a few
//! things wrong in their structure, documents with bytes wrong, and noise.
//!
//! `make fuzz` runs more cases (`FUZZ_CASES`, of each target). A case that fails is shrunk, written to
//! `tests/fuzz/found/TARGET/`, and tried first in every later run: commit it with the mend.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod config;
mod journal;
mod rule;
mod target;
mod web;
mod webhook;
