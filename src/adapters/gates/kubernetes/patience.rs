//! Who has been in new trouble for how long, over the looks of one check. Pure: times are given.
//!
//! In a busy cluster some pod is always starting, so a check cannot wait for a moment of perfect peace: it
//! follows the workloads that are in trouble when it begins or come to be within its grace, each for a grace of
//! its own, and leaves what begins later to the next check. So it ends within twice the grace.

use std::{collections::BTreeMap, time::Duration};

use super::census::Worse;

/// The workloads that are followed, with the time of the check at which their trouble was first seen.
#[derive(Debug)]
pub(super) struct Patience {
    grace: Duration,
    since: BTreeMap<String, Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GraceOutcome {
    /// Nobody that is followed is in trouble any more.
    Passed,
    /// Somebody is, but not long enough to be sure.
    Waiting,
    /// These workloads were in trouble at every look for the whole grace.
    Lasting(Vec<String>),
}

impl Patience {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, since: BTreeMap::new() }
    }

    /// Takes in what was seen so long after the check's begin.
    pub(super) fn record(&mut self, at: Duration, worse: &[Worse]) -> GraceOutcome {
        self.since.retain(|workload, _| worse.iter().any(|worse| worse.workload == *workload));
        if at <= self.grace {
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
        let mut patience = Patience::new(Duration::ZERO);
        let worse = Worse { workload: "a".to_owned(), now: 1, before: 0, pods: Vec::new() };
        assert_eq!(patience.record(Duration::ZERO, &[worse]), GraceOutcome::Lasting(vec!["a".to_owned()]));
    }
}
