//! A token bucket for all requests together.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::ports::web::RateLimit;

/// See the module. It stores the time at which it will be full, so that no task has to refill it.
pub(in crate::adapters::http) struct Bucket {
    limit: RateLimit,
    full_at: Mutex<Instant>,
}

impl Bucket {
    pub(in crate::adapters::http) fn new(limit: RateLimit) -> Self {
        Self { limit, full_at: Mutex::new(Instant::now()) }
    }

    pub(super) fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes a token, if there is one.
    pub(in crate::adapters::http) fn allows(&self, now: Instant) -> bool {
        let mut full_at = self.full_at.lock();
        let after = (*full_at).max(now).checked_add(self.limit.interval);
        let room = self.limit.interval.saturating_mul(self.limit.burst);
        match after {
            Some(after) if after.saturating_duration_since(now) <= room => {
                *full_at = after;
                true
            }
            _ => false,
        }
    }

    /// How long until a token is available, in whole seconds for `Retry-After`.
    pub(in crate::adapters::http) fn retry_after(&self) -> u64 {
        self.limit.interval.max(Duration::from_secs(1)).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_request_an_interval() {
        let interval = Duration::from_millis(100);
        let bucket = Bucket::new(RateLimit { interval, burst: 3 });
        let start = Instant::now();
        let allowed = |at: Duration| bucket.allows(start + at);
        assert_eq!([0; 4].map(|_| allowed(Duration::ZERO)), [true, true, true, false]);
        assert!(!allowed(Duration::from_millis(99)));
        assert!(allowed(Duration::from_millis(101)));
        assert!(!allowed(Duration::from_millis(102)));
        assert_eq!(
            [0; 4].map(|_| allowed(Duration::from_secs(9))),
            [true, true, true, false],
            "never more than the burst"
        );
    }
}
