//! How often files that may have changed are looked at.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How old what was read may be when its file has changed. A check costs a few system calls.
const RECHECK_AFTER: Duration = Duration::from_secs(1);

/// When the files were last looked at.
pub(super) struct Recheck(Mutex<Instant>);

impl Recheck {
    /// They have just been read.
    pub(super) fn begun() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Whether it is time to look again. Of several callers, one gets `true`, and looks.
    pub(super) fn is_due(&self) -> bool {
        let mut looked_at = self.0.lock();
        let due = looked_at.elapsed() >= RECHECK_AFTER;
        if due {
            *looked_at = Instant::now();
        }
        due
    }
}
