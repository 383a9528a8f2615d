//! Tests that cannot run here.

use std::{env, fmt::Display};

/// Says that a test, or the rest of it, cannot run here, and why. `make test` lists these lines at its end.
///
/// # Panics
/// With `DEFRAGD_SKIP=never`, for a machine that has everything.
pub fn skipped(why: impl Display) {
    eprintln!("SKIPPED: {why}");
    let is_forbidden = env::var_os("DEFRAGD_SKIP").is_some_and(|word| word == "never");
    assert!(!is_forbidden, "DEFRAGD_SKIP=never, but the test cannot run here: {why}");
}
