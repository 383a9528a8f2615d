//! Seeds that showed a defect, each with what it showed. They stay as tests.

/// Mended: the seed, and what was wrong.
pub const REGRESSIONS: &[(u64, &str)] = &[
    (71, "I7: while the journal is slow to take the intent, the observation grows old, and Defragment goes out on it"),
    (2773, "I7: the same, 33 s old"),
    (1746, "I5: killed right after a send and restarted at once, while the Defragment is still on its way"),
    (105_555, "I2: a run whose end could not be written while its window was closed stayed open beside the next one"),
    (113_158, "I6: a request that was cancelled while the journal was slow was ended once more, as not approved"),
    (323_072, "gates: killed between a gate's failure and the end of the run, it went on after the restart"),
];
