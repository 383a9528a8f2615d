//! How much of a scrape's time is reserved for what comes after the members' answers: formatting and compressing the
//! page of a large fleet takes a good part of a second, and the page must be sent in time even if members hang.
//!
//! Learned from earlier scrapes; times come in as values.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A busy machine is late by this much, even with a small page.
const SLACK: Duration = Duration::from_millis(15);
/// … and the same page occasionally takes longer by this part of its time.
const SPREAD: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct ScrapeReserve {
    lately_micros: AtomicU64,
}

impl ScrapeReserve {
    /// How much of this budget is left for the members. Never less than half: members matter more than the last digits.
    pub(super) fn leave(&self, budget: Duration) -> Duration {
        let lately = Duration::from_micros(self.lately_micros.load(Ordering::Relaxed));
        budget.saturating_sub(SLACK + lately + lately / SPREAD).max(budget / 2)
    }

    /// Records how long the rest took this time. The longest counts, and fades with later scrapes.
    pub(super) fn took(&self, rest: Duration) {
        let rest = u64::try_from(rest.as_micros()).unwrap_or(u64::MAX);
        let faded = self.lately_micros.load(Ordering::Relaxed) / 16 * 15;
        // Two scrapes at the same time: the time of either will do.
        self.lately_micros.store(rest.max(faded), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_took_long_leaves_the_members_less_next_time_and_less_and_less_so() {
        let (reserve, budget) = (ScrapeReserve::default(), Duration::from_secs(2));
        assert_eq!(reserve.leave(budget) + SLACK, budget);
        reserve.took(Duration::from_millis(400));
        assert_eq!(reserve.leave(budget) + SLACK, Duration::from_millis(1_500));
        for _ in 0..100 {
            reserve.took(Duration::from_millis(1));
        }
        assert!(reserve.leave(budget) + Duration::from_millis(20) > budget);
    }

    #[test]
    fn the_members_keep_at_least_half() {
        let reserve = ScrapeReserve::default();
        reserve.took(Duration::from_secs(60));
        assert_eq!(reserve.leave(Duration::from_secs(1)), Duration::from_millis(500));
        assert_eq!(ScrapeReserve::default().leave(Duration::from_millis(20)), Duration::from_millis(10));
    }
}
