//! Which workloads have been newly unhealthy for how long, over the listings of one check. Pure: times are given.
//!
//! In a busy cluster some pod is always starting, so a check cannot wait for a moment without any unhealthy pod: it
//! follows the workloads that are unhealthy when it begins or become so within its grace period, each for a grace
//! period of its own, and leaves what begins later to the next check. So it ends within twice the grace period after
//! its first listing. That one counts however long it took: with a short grace period, or a slow API server, it would
//! be too late otherwise, and everything would pass.

use std::{collections::BTreeMap, time::Duration};

use super::census::Worse;

/// The followed workloads, with the time of the check at which each was first seen unhealthy.
#[derive(Debug)]
pub(super) struct Patience {
    grace: Duration,
    since: BTreeMap<String, Duration>,
    /// There was a listing.
    has_begun: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GraceOutcome {
    /// No followed workload is unhealthy any more.
    Passed,
    /// Some are, but not long enough to be sure.
    Waiting,
    /// These workloads were unhealthy at every listing for the whole grace period.
    Lasting(Vec<String>),
}

impl Patience {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, since: BTreeMap::new(), has_begun: false }
    }

    /// Records the listing at this time since the check's begin.
    pub(super) fn record(&mut self, at: Duration, worse: &[Worse]) -> GraceOutcome {
        self.since.retain(|workload, _| worse.iter().any(|worse| worse.workload == *workload));
        if at <= self.grace || !self.has_begun {
            self.has_begun = true;
            for worse in worse {
                self.since.entry(worse.workload.clone()).or_insert(at);
            }
        }
        let lasts = |since: &Duration| at.saturating_sub(*since) >= self.grace;
        let lasting: Vec<_> = self.since.iter().filter(|(_, since)| lasts(since)).map(|(key, _)| key.clone()).collect();
        match (lasting.is_empty(), self.since.is_empty()) {
            (false, _) => GraceOutcome::Lasting(lasting),
            (true, false) => GraceOutcome::Waiting,
            (true, true) => GraceOutcome::Passed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn looks(looks: &[(u64, &[&str])]) -> Vec<GraceOutcome> {
        let mut patience = Patience::new(GRACE);
        let worse = |name: &&str| Worse { workload: (*name).to_owned(), now: 1, before: 0, pods: Vec::new() };
        let record = |(at, names): &(u64, &[&str])| {
            patience.record(Duration::from_secs(*at), &names.iter().map(worse).collect::<Vec<_>>())
        };
        looks.iter().map(record).collect()
    }

    #[test]
    fn no_trouble_passes_at_once() {
        assert_eq!(looks(&[(0, &[])]), [GraceOutcome::Passed]);
    }

    #[test]
    fn trouble_must_last_for_the_whole_grace() {
        let lasting = GraceOutcome::Lasting(vec!["a".to_owned()]);
        assert_eq!(
            looks(&[(0, &["a"]), (59, &["a"]), (60, &["a"])]),
            [GraceOutcome::Waiting, GraceOutcome::Waiting, lasting]
        );
        assert_eq!(looks(&[(0, &["a"]), (59, &[])]), [GraceOutcome::Waiting, GraceOutcome::Passed]);
    }

    #[test]
    fn trouble_that_was_over_in_between_begins_anew() {
        let lasting = GraceOutcome::Lasting(vec!["a".to_owned()]);
        assert_eq!(
            looks(&[(0, &["a", "b"]), (30, &["b"]), (40, &["a"]), (70, &["a"]), (100, &["a"])]),
            [GraceOutcome::Waiting, GraceOutcome::Waiting, GraceOutcome::Waiting, GraceOutcome::Waiting, lasting]
        );
    }

    #[test]
    fn each_workload_has_a_grace_of_its_own_and_what_begins_late_is_left_to_the_next_check() {
        assert_eq!(
            looks(&[(0, &["a"]), (50, &["b"]), (70, &["b", "c"]), (90, &["c"])]),
            [GraceOutcome::Waiting, GraceOutcome::Waiting, GraceOutcome::Waiting, GraceOutcome::Passed]
        );
        assert_eq!(looks(&[(0, &["a"]), (50, &["b"]), (110, &["b"])])[2], GraceOutcome::Lasting(vec!["b".to_owned()]));
    }

    #[test]
    fn without_grace_the_first_look_decides() {
        // A listing takes its time.
        for at in [Duration::ZERO, Duration::from_millis(20)] {
            let mut patience = Patience::new(Duration::ZERO);
            let worse = Worse { workload: "a".to_owned(), now: 1, before: 0, pods: Vec::new() };
            assert_eq!(patience.record(at, &[worse]), GraceOutcome::Lasting(vec!["a".to_owned()]), "{at:?}");
        }
    }

    #[test]
    fn a_first_listing_that_took_longer_than_the_grace_counts() {
        let lasting = GraceOutcome::Lasting(vec!["a".to_owned()]);
        assert_eq!(
            looks(&[(70, &["a"]), (129, &["a", "b"]), (130, &["a", "b"])])[1..],
            [GraceOutcome::Waiting, lasting]
        );
        assert_eq!(looks(&[(70, &["a"]), (80, &["b"])]), [GraceOutcome::Waiting, GraceOutcome::Passed]);
        assert_eq!(looks(&[(70, &[]), (80, &["b"])]), [GraceOutcome::Passed, GraceOutcome::Passed]);
    }
}
