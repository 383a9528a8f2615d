//! Which member defragmented when, from samples of the members' own metrics. Pure.

use std::time::Duration;

/// What one look at a member's metrics showed. Times count from the start of the watch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Look {
    /// When the question was sent.
    pub(crate) asked: Duration,
    /// When the answer was there.
    pub(crate) answered: Duration,
    /// `etcd_disk_defrag_inflight` was 1.
    pub(crate) inflight: bool,
    /// `…_defrag_duration_seconds_count`.
    pub(crate) done: u64,
    /// `…_defrag_duration_seconds_sum`.
    pub(crate) seconds: f64,
}

/// One defrag that a member finished while it was watched. Times count from the start of the watch.
#[derive(Debug, Clone, PartialEq)]
pub struct Defrag {
    /// The member's index.
    pub member: usize,
    /// When it ended at the earliest: the last look that did not count it yet.
    pub ended_after: Duration,
    /// When it ended at the latest: the first look that counted it.
    pub ended_before: Duration,
    /// How long it took, by the member's own clock.
    pub took: Duration,
}

/// What was seen of a whole cluster.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    finished: Vec<Defrag>,
    /// Spans in which a member was certainly defragmenting: (from, to, member).
    certain: Vec<(Duration, Duration, usize)>,
}

impl Timeline {
    /// Builds it from each member's looks, which must be in the order of time.
    pub(crate) fn build(members: &[Vec<Look>]) -> Self {
        let mut timeline = Self::default();
        for (member, looks) in members.iter().enumerate() {
            timeline.add(member, looks);
        }
        timeline.finished.sort_by_key(|defrag| defrag.ended_before);
        timeline
    }

    fn add(&mut self, member: usize, looks: &[Look]) {
        for pair in looks.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if before.inflight && after.inflight && after.done <= before.done {
                // Seen at both looks with none finished in between: it ran all the time.
                self.certain.push((before.answered, after.asked, member));
            }
            // A count that falls is a restarted member: a new beginning, not a defrag.
            let more = u32::try_from(after.done.saturating_sub(before.done)).unwrap_or(u32::MAX);
            let took = Duration::try_from_secs_f64((after.seconds - before.seconds) / f64::from(more.max(1)))
                .unwrap_or_default();
            if more == 1 {
                // It ended after `before.asked` and began before `after.answered - took`.
                self.certain.push((after.answered.saturating_sub(took), before.asked, member));
            }
            for _ in 0..more {
                self.finished.push(Defrag { member, ended_after: before.asked, ended_before: after.answered, took });
            }
        }
        self.certain.retain(|(from, to, _)| from < to);
    }

    /// Every finished defrag, in the order of their ends.
    pub fn finished(&self) -> &[Defrag] {
        &self.finished
    }

    /// The members in the order in which their defrags ended; one that was defragmented twice is there twice.
    pub fn order(&self) -> Vec<usize> {
        self.finished.iter().map(|defrag| defrag.member).collect()
    }

    /// How many members were certainly defragmenting at the same time, at most. Counts only what two looks
    /// at a member prove, so anything above one is an overlap and no artefact of the polling.
    pub fn max_in_flight(&self) -> usize {
        let members_at = |at: Duration| {
            let mut members: Vec<usize> =
                self.certain.iter().filter(|(from, to, _)| *from <= at && at < *to).map(|span| span.2).collect();
            members.sort_unstable();
            members.dedup();
            members.len()
        };
        let proven = self.certain.iter().map(|span| members_at(span.0)).max().unwrap_or(0);
        proven.max(usize::from(!self.finished.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at_ms: u64, inflight: bool, done: u64, seconds: f64) -> Look {
        let asked = Duration::from_millis(at_ms);
        Look { asked, answered: asked + Duration::from_millis(2), inflight, done, seconds }
    }

    #[test]
    fn one_after_the_other_is_one_in_flight() {
        let first =
            vec![look(0, false, 0, 0.0), look(30, true, 0, 0.0), look(60, true, 0, 0.0), look(90, false, 1, 0.05)];
        let second =
            vec![look(0, false, 0, 0.0), look(100, true, 0, 0.0), look(130, true, 0, 0.0), look(160, false, 1, 0.05)];
        let timeline = Timeline::build(&[second, first]);
        assert_eq!(timeline.order(), [1, 0]);
        assert_eq!(timeline.max_in_flight(), 1);
        assert_eq!(timeline.finished()[0].took, Duration::from_millis(50));
    }

    #[test]
    fn members_seen_in_flight_at_once_are_an_overlap() {
        let one = vec![look(0, true, 0, 0.0), look(50, true, 0, 0.0)];
        let two = vec![look(10, true, 0, 0.0), look(40, true, 0, 0.0)];
        assert_eq!(Timeline::build(&[one, two]).max_in_flight(), 2);
    }

    #[test]
    fn overlapping_durations_are_an_overlap_even_if_never_seen_in_flight() {
        let one = vec![look(0, false, 0, 0.0), look(400, false, 0, 0.0), look(420, false, 1, 0.4)];
        let two = vec![look(0, false, 0, 0.0), look(410, false, 0, 0.0), look(430, false, 1, 0.4)];
        assert_eq!(Timeline::build(&[one, two]).max_in_flight(), 2);
    }

    #[test]
    fn a_quick_defrag_between_two_looks_is_counted_and_a_restart_is_not() {
        let looks = vec![look(0, false, 3, 9.0), look(30, false, 0, 0.0), look(60, false, 2, 0.02)];
        let timeline = Timeline::build(&[looks]);
        assert_eq!(timeline.order(), [0, 0]);
        assert_eq!(timeline.max_in_flight(), 1);
    }

    #[test]
    fn nothing_seen_is_nothing_in_flight() {
        assert_eq!(Timeline::build(&[vec![], vec![look(0, false, 5, 1.0)]]).max_in_flight(), 0);
    }
}
