//! Remembers which revision a cluster had at what time: etcd itself does not, and a compaction by age needs it.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// This many samples cover the configured age, so that a result is only slightly older than that.
const SAMPLES: u32 = 20;

/// The revisions of one cluster, oldest first.
#[derive(Debug)]
pub(super) struct Revisions {
    age: Duration,
    seen: VecDeque<(Instant, u64)>,
}

impl Revisions {
    /// For revisions of this age.
    pub(super) fn new(age: Duration) -> Self {
        Self { age, seen: VecDeque::new() }
    }

    /// How often to sample the cluster's revision.
    pub(super) fn interval(&self) -> Duration {
        self.age / SAMPLES
    }

    /// Records the current revision. If it is lower than before, the history is another one, and earlier samples are
    /// dropped.
    pub(super) fn record(&mut self, now: Instant, revision: u64) {
        match self.seen.back() {
            Some((_, last)) if *last > revision => self.seen.clear(),
            Some((at, _)) if now.saturating_duration_since(*at) < self.interval() => return,
            _ => {}
        }
        self.seen.push_back((now, revision));
        // The newest of those that are old enough stays; earlier ones are not needed.
        while self.seen.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.age) {
            self.seen.pop_front();
        }
    }

    /// The newest revision that is known to be old enough.
    pub(super) fn old_enough(&self, now: Instant) -> Option<u64> {
        let old = |(at, _): &&(Instant, u64)| now.saturating_duration_since(*at) >= self.age;
        self.seen.iter().take_while(old).last().map(|(_, revision)| *revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_revision_that_was_seen_long_enough_ago_is_returned() {
        let (begun, minute) = (Instant::now(), Duration::from_mins(1));
        let mut revisions = Revisions::new(minute * 60);
        for passed in 0..=90 {
            let now = begun + minute * passed;
            revisions.record(now, 1_000 + u64::from(passed));
            let reported = revisions.old_enough(now);
            // A sample every three minutes.
            let expected = passed.checked_sub(60).map(|old| 1_000 + u64::from(old / 3 * 3));
            assert_eq!(reported, expected, "after {passed} min");
        }
        assert!(revisions.seen.len() <= 22, "{}", revisions.seen.len());
    }

    #[test]
    fn a_revision_that_goes_back_is_another_history() {
        let (begun, minute) = (Instant::now(), Duration::from_mins(1));
        let mut revisions = Revisions::new(minute);
        revisions.record(begun, 1_000);
        revisions.record(begun + minute, 7);
        assert_eq!(revisions.old_enough(begun + minute), None);
    }
}
