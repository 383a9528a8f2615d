//! Seeds that once showed a defect, each with what it showed. They stay as tests.

/// The seed, and what was wrong.
pub const REGRESSIONS: &[(u64, &str)] = &[];
