//! From samples to figures. Pure.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;

use crate::{
    load::{Kind, Sample},
    trial::Trial,
};

/// A request that takes longer is slow.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// One figure of one trial, for the rows of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// What it is, with its unit.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: f64,
}

/// All figures of a trial, in the order of the table.
pub(crate) fn of(trial: &Trial) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut add = |name: &str, value: f64| figures.push(Figure { name: name.to_owned(), value });
    add("roll, s", trial.roll.as_secs_f64());
    add("servers' own sum, s", trial.servers.as_secs_f64());
    add("roll / servers' sum", trial.roll.as_secs_f64() / trial.servers.as_secs_f64().max(1e-9));
    add("reclaimed, MiB", mib(trial.reclaimed));
    add("elections", count(trial.elections));
    let samples: Vec<_> = trial.clients.samples.iter().filter(|sample| concerns(sample, trial.window)).collect();
    if samples.is_empty() {
        add("calls to etcd", count(trial.calls));
        add("bytes to etcd, KiB", count(trial.bytes_received) / 1024.0);
    } else {
        let failover = |sample: &&&Sample| {
            matches!(sample.kind, Kind::FailoverPut | Kind::FailoverRange | Kind::FailoverKeepalive)
        };
        let failed = |only_failover: bool| {
            let failed = samples.iter().filter(|sample| !sample.ok && failover(sample) == only_failover);
            count(failed.count())
        };
        add("failed, pinned", failed(false));
        add("failed, failover", failed(true));
        let slow = |only_failover: bool| {
            let slow = samples.iter().filter(|sample| sample.took > SLOW && failover(sample) == only_failover);
            count(slow.count())
        };
        add("slower than 1 s, pinned", slow(false));
        add("slower than 1 s, failover", slow(true));
        add("longest gap without a write, failover, s", longest_gap(trial).as_secs_f64());
        add("leases lost, pinned", count(trial.clients.pinned_leases_lost));
        add("leases lost, failover", count(trial.clients.failover_leases_lost));
        let kinds: BTreeSet<_> = samples.iter().map(|sample| sample.kind).collect();
        for kind in kinds {
            let mut took: Vec<_> =
                samples.iter().filter(|sample| sample.kind == kind).map(|sample| sample.took).collect();
            took.sort_unstable();
            for (name, share) in [("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
                add(&format!("{} {name}, ms", kind.label()), quantile(&took, share).as_secs_f64() * 1e3);
            }
        }
    }
    add("calls of Maintenance and Cluster", count(trial.maintenance_calls));
    add("CPU of the tool, s", trial.cpu.as_secs_f64());
    add("CPU of the tool / roll, %", 100.0 * trial.cpu.as_secs_f64() / trial.roll.as_secs_f64().max(1e-9));
    add("CPU of the tool while it waits, %", 100.0 * trial.cpu_waiting);
    add("memory of the tool, MiB", count(trial.rss_kib) / 1024.0);
    figures
}

/// Whether a request was due, or under way, while the contender was at work.
fn concerns(sample: &Sample, (from, to): (Duration, Duration)) -> bool {
    sample.due <= to && sample.due + sample.took >= from
}

/// The longest time in which no put through a failover client succeeded.
fn longest_gap(trial: &Trial) -> Duration {
    let (from, to) = trial.window;
    let puts = trial.clients.samples.iter().filter(|sample| sample.kind == Kind::FailoverPut && sample.ok);
    let mut ends: Vec<_> =
        puts.map(|sample| sample.due + sample.took).filter(|end| (from..=to).contains(end)).collect();
    ends.extend([from, to]);
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
}

/// The smallest value that is not below that share of all. `sorted` is not empty.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The middle, and both ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one of the sorted values; of an even number, the mean of the two in the middle.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of some values, if there are any.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<_> = values.collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median, min, max })
    }
}

fn mib(bytes: u64) -> f64 {
    count(bytes) / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn count<N: TryInto<u64>>(number: N) -> f64 {
    number.try_into().unwrap_or(u64::MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Report;

    fn put(due_ms: u64, took_ms: u64, ok: bool) -> Sample {
        let (due, took) = (Duration::from_millis(due_ms), Duration::from_millis(took_ms));
        Sample { kind: Kind::FailoverPut, due, took, ok }
    }

    fn trial(samples: Vec<Sample>) -> Trial {
        Trial {
            roll: Duration::from_secs(2),
            servers: Duration::from_secs(1),
            defrags: Vec::new(),
            window: (Duration::from_secs(1), Duration::from_secs(3)),
            cpu: Duration::ZERO,
            cpu_waiting: 0.0,
            rss_kib: 0,
            elections: 0,
            maintenance_calls: 0,
            calls: 0,
            bytes_received: 0,
            reclaimed: 0,
            clients: Report { samples, ..Report::default() },
        }
    }

    #[test]
    fn a_gap_ends_with_the_next_write_that_succeeds() {
        let samples = vec![put(1_000, 1, true), put(1_100, 1, true), put(1_200, 1, false), put(1_900, 100, true)];
        // 2.0 s to the end at 3 s is longer than 1.101 s to 2.0 s.
        assert_eq!(longest_gap(&trial(samples)), Duration::from_millis(1_000));
        assert_eq!(longest_gap(&trial(Vec::new())), Duration::from_secs(2));
    }

    #[test]
    fn requests_before_and_after_the_roll_do_not_count() {
        let samples = vec![put(100, 1, false), put(900, 200, false), put(2_000, 1, false), put(3_500, 1, false)];
        let figures = of(&trial(samples));
        let failed = figures.iter().find(|figure| figure.name == "failed, failover").expect("is there");
        assert!((failed.value - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let sorted: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&sorted, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&sorted, 1.0), Duration::from_millis(100));
        assert_eq!(quantile(&sorted[..1], 0.5), Duration::from_millis(1));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0].into_iter()).expect("values");
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
