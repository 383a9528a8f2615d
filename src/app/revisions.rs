//! Remembers which revision a cluster had when: etcd itself does not tell, and a compaction by age has to know.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// So many samples cover the age that is asked for, so that the answer is at most a part of it older.
const SAMPLES: u32 = 20;

/// The revisions of one cluster, oldest first.
#[derive(Debug)]
pub(super) struct Revisions {
    age: Duration,
    seen: VecDeque<(Instant, u64)>,
}

impl Revisions {
    /// For answers about this long ago.
    pub(super) fn new(age: Duration) -> Self {
        Self { age, seen: VecDeque::new() }
    }

    /// How often the cluster is to be looked at.
    pub(super) fn interval(&self) -> Duration {
        self.age / SAMPLES
    }

    /// Takes what was seen now. A revision that goes back is another history: what was known no longer counts.
    pub(super) fn record(&mut self, now: Instant, revision: u64) {
        match self.seen.back() {
            Some((_, last)) if *last > revision => self.seen.clear(),
            Some((at, _)) if now.saturating_duration_since(*at) < self.interval() => return,
            _ => {}
        }
        self.seen.push_back((now, revision));
        // The newest of those that are old enough stays; those before it are of no use.
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
    fn only_a_revision_that_was_seen_long_enough_ago_is_told() {
        let (begun, minute) = (Instant::now(), Duration::from_mins(1));
        let mut revisions = Revisions::new(minute * 60);
        for passed in 0..=90 {
            let now = begun + minute * passed;
            revisions.record(now, 1_000 + u64::from(passed));
            let told = revisions.old_enough(now);
            // A sample every three minutes.
            let expected = passed.checked_sub(60).map(|old| 1_000 + u64::from(old / 3 * 3));
            assert_eq!(told, expected, "after {passed} min");
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
