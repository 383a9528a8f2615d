//! Seeds that showed a defect, each with what it showed. They stay as tests.

/// Mended: the seed, and what was wrong.
pub const REGRESSIONS: &[(u64, &str)] = &[
    (71, "I7: while the journal is slow to take the intent, the observation grows old, and Defragment goes out on it"),
    (2773, "I7: the same, 33 s old"),
    (1746, "I5: killed right after a send and restarted at once, while the Defragment is still on its way"),
];
