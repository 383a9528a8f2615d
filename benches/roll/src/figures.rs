//! From samples to figures. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use crate::{
    load::{Clients, Sample},
    trial::Trial,
};

/// A request that takes longer is slow.
pub(crate) const SLOW: Duration = Duration::from_secs(1);
/// Begins the name of a figure that only runs with such failures have: in the others it is 0.
pub(crate) const FAILED_WITH: &str = "failed with ";

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
    add("longest defragmentation, s", longest_defrag(trial).as_secs_f64());
    let samples: Vec<_> = trial.clients.samples.iter().filter(|sample| concerns(sample, trial.window)).collect();
    if samples.is_empty() {
        add("calls to etcd", count(trial.calls));
        add("bytes to etcd, KiB", count(trial.bytes_received) / 1024.0);
    }
    for clients in samples.iter().map(|sample| sample.kind.clients()).collect::<BTreeSet<_>>() {
        let of = || samples.iter().filter(move |sample| sample.kind.clients() == clients);
        let label = clients.label();
        add(&format!("requests, {label}"), count(of().count()));
        add(&format!("failed, {label}"), count(of().filter(|sample| !sample.ok()).count()));
        let mut codes: BTreeMap<&str, u64> = BTreeMap::new();
        for sample in of().filter(|sample| !sample.ok()) {
            *codes.entry(&sample.error).or_default() += 1;
        }
        for (code, failed) in codes.into_iter().filter(|_| ![Clients::Pinned, Clients::Failover].contains(&clients)) {
            add(&format!("{FAILED_WITH}{code}, {label}"), count(failed));
        }
        add(&format!("slower than 1 s, {label}"), count(of().filter(|sample| sample.took > SLOW).count()));
        if clients != Clients::Pinned && of().any(|sample| sample.kind.is_write()) {
            add(&format!("longest gap without a write, {label}, s"), longest_gap(trial, clients).as_secs_f64());
        }
        let leases: Vec<_> = trial.clients.leases.iter().filter(|lease| lease.clients == clients).collect();
        let lost = |ttl: Option<i64>| {
            let of = leases.iter().filter(|lease| lease.lost && ttl.is_none_or(|ttl| ttl == lease.ttl_seconds));
            count(of.count())
        };
        if !leases.is_empty() {
            add(&format!("leases lost, {label}"), lost(None));
        }
        let ttls: BTreeSet<_> = leases.iter().map(|lease| lease.ttl_seconds).collect();
        for ttl in ttls.iter().filter(|_| ttls.len() > 1) {
            add(&format!("leases of {ttl} s lost, {label}"), lost(Some(*ttl)));
        }
        if clients == Clients::Api {
            add("elections lost, API server", count(trial.clients.elections_lost));
            add("watch restarts, API server", count(trial.clients.watch_restarts));
        }
    }
    for kind in samples.iter().map(|sample| sample.kind).collect::<BTreeSet<_>>() {
        let mut took: Vec<_> = samples.iter().filter(|sample| sample.kind == kind).map(|sample| sample.took).collect();
        took.sort_unstable();
        for (name, share) in [("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            add(&format!("{} {name}, ms", kind.label()), quantile(&took, share).as_secs_f64() * 1e3);
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

/// The longest time in which no write of these clients succeeded.
fn longest_gap(trial: &Trial, clients: Clients) -> Duration {
    let (from, to) = trial.window;
    let of = |sample: &&Sample| sample.kind.is_write() && sample.kind.clients() == clients && sample.ok();
    let writes = trial.clients.samples.iter().filter(of);
    let mut ends: Vec<_> =
        writes.map(|sample| sample.due + sample.took).filter(|end| (from..=to).contains(end)).collect();
    ends.extend([from, to]);
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
}

/// For how long one member was unavailable at most.
fn longest_defrag(trial: &Trial) -> Duration {
    trial.defrags.iter().map(|(begin, end)| end.saturating_sub(*begin)).max().unwrap_or_default()
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
    use crate::{
        load::{Kind, Lease, Report},
        trial::example,
    };

    fn put(due_ms: u64, took_ms: u64, ok: bool) -> Sample {
        let (due, took) = (Duration::from_millis(due_ms), Duration::from_millis(took_ms));
        Sample { kind: Kind::FailoverPut, due, took, error: if ok { "" } else { "failed" }.to_owned() }
    }

    fn trial(samples: Vec<Sample>) -> Trial {
        Trial { clients: Report { samples, ..Report::default() }, ..example() }
    }

    fn value(figures: &[Figure], name: &str) -> f64 {
        figures.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("no {name}: {figures:?}")).value
    }

    #[test]
    fn a_gap_ends_with_the_next_write_that_succeeds() {
        let samples = vec![put(1_000, 1, true), put(1_100, 1, true), put(1_200, 1, false), put(1_900, 100, true)];
        // 2.0 s to the end at 3 s is longer than 1.101 s to 2.0 s.
        let other = Sample { kind: Kind::ApiWrite, ..put(2_500, 1, true) };
        let trial = trial(samples.into_iter().chain([other]).collect());
        assert_eq!(longest_gap(&trial, Clients::Failover), Duration::from_millis(1_000));
        assert_eq!(longest_gap(&trial, Clients::Go), Duration::from_secs(2));
    }

    #[test]
    fn requests_before_and_after_the_roll_do_not_count() {
        let samples = vec![put(100, 1, false), put(900, 200, false), put(2_000, 1, false), put(3_500, 1, false)];
        let figures = of(&trial(samples));
        assert!((value(&figures, "failed, failover") - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn an_api_servers_errors_are_counted_by_code_and_leases_by_their_time() {
        let api = |error: &str| Sample { kind: Kind::ApiWrite, error: error.to_owned(), ..put(1_500, 1, true) };
        let lease = |ttl_seconds, lost| Lease { ttl_seconds, clients: Clients::Failover, lost };
        let mut trial = trial(vec![put(1_500, 1, true), api("504"), api(""), api("504"), api("timeout")]);
        trial.clients.leases = vec![lease(5, true), lease(5, true), lease(60, false)];
        trial.clients.elections_lost = 3;
        let figures = of(&trial);
        for (name, wanted) in [
            ("requests, API server", 4.0),
            ("failed, API server", 3.0),
            ("failed with 504, API server", 2.0),
            ("failed with timeout, API server", 1.0),
            ("elections lost, API server", 3.0),
            ("failed, failover", 0.0),
            ("leases lost, failover", 2.0),
            ("leases of 5 s lost, failover", 2.0),
            ("leases of 60 s lost, failover", 0.0),
        ] {
            assert!((value(&figures, name) - wanted).abs() < f64::EPSILON, "{name}: {figures:?}");
        }
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
