//! Deterministic simulation: the real core, driver, worker and recovery of defragd, in virtual time, through the
//! ports, against a model of etcd that behaves as measured. Every schedule is drawn from a seed.
//!
//! - `SIM_SCHEDULES=n` sets how many schedules are played, `SIM_FIRST` the first seed.
//! - `SIM_REPLICAS=percent` sets how many of a hundred have several replicas under a lock; 0 for none.
//! - `SIM_SEED=n cargo test --test sim replay -- --nocapture` plays one and prints everything that happens in it.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking")]
#![allow(clippy::struct_excessive_bools, clippy::needless_pass_by_value, reason = "a model's state is many flags")]
#![allow(clippy::unchecked_time_subtraction, reason = "virtual time does not go back")]

mod due;
mod faults;
mod finale;
mod fleet;
mod gates;
mod invariants;
mod journal;
mod lives;
mod lock;
mod model;
mod peers;
mod people;
mod policy;
mod replicas;
mod requests;
mod rng;
mod seeds;
mod seen;
mod servers;
mod sim;
mod stopped;
mod succession;
mod truth;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fleet::SHARE_PERCENT;
use lives::{FleetReport, Report, play};
use succession::How;

/// How many schedules a plain `cargo test` plays.
const SCHEDULES: u64 = 10_000;
/// The machines that run the tests have two cores.
const THREADS: usize = 2;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// What is wrong with a seed, if anything.
fn trouble(seed: u64, replicas_percent: u64) -> Result<Report, String> {
    let report = catch_unwind(AssertUnwindSafe(|| play(seed, false, replicas_percent))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "panic".to_owned())
    })?;
    match &report.violation {
        Some(violation) => {
            Err(format!("{} at {:.3} s: {}", violation.invariant, violation.at.as_secs_f64(), violation.what))
        }
        None => Ok(report),
    }
}

#[derive(Default)]
struct Totals {
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
    sends: u64,
    calls: u64,
    virtual_seconds: u64,
    extra_starts: u64,
    leases_lost: u64,
    compactions: u64,
    transfers: u64,
    disarms: u64,
    /// Some seeds in which a run stayed open until a start more.
    left_open: Vec<u64>,
    faults: BTreeMap<String, u64>,
    fleets: Fleets,
}

/// Of the schedules with several replicas.
#[derive(Default)]
struct Fleets {
    schedules: u64,
    strays: [u64; 4],
    pauses: [u64; 3],
    locked_out: Vec<u64>,
    gains: BTreeMap<(How, Duration), Vec<Duration>>,
    acts: BTreeMap<(How, Duration), Vec<Duration>>,
}

impl Fleets {
    fn add(&mut self, seed: u64, report: FleetReport) {
        self.schedules += 1;
        self.strays.iter_mut().zip(report.strays).for_each(|(all, these)| *all += these);
        self.pauses.iter_mut().zip(report.pauses).for_each(|(all, these)| *all += these);
        self.locked_out.extend(report.locked_out.then_some(seed));
        for (times, of) in [(report.gains, &mut self.gains), (report.acts, &mut self.acts)] {
            for (how, time) in times {
                of.entry((how, report.ttl)).or_default().push(time);
            }
        }
    }

    fn print(&mut self) {
        println!("{} schedules with several replicas", self.schedules);
        let [strays, without, overlaps, stale] = self.strays;
        println!("{strays} Defragments sent by a process that was stopped between the permit and the sending:");
        println!(
            "  {without} of them when the lock was not its any more, {overlaps} Defragments at once because of it"
        );
        println!("{stale} Defragments on facts that had grown old in a stop between the last look and the sending");
        let [pauses, left, again] = self.pauses;
        println!(
            "{pauses} pauses acknowledged, {left} of them got into the lock's note; {again} times a person had to resume once more"
        );
        let locked_out = &self.locked_out;
        println!(
            "locked out by NOSPACE in the lock's own cluster: {} {:?}",
            locked_out.len(),
            locked_out.iter().take(5).collect::<Vec<_>>()
        );
        for (what, times) in [("holds the lock", &mut self.gains), ("begins its first run", &mut self.acts)] {
            for ((how, ttl), times) in times {
                times.sort();
                let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64();
                println!(
                    "{how:?}, TTL {} s: the next {what} after {:.1} s (least {:.1}, 95 % {:.1}, most {:.1}; {} times)",
                    ttl.as_secs(),
                    at(50),
                    at(0),
                    at(95),
                    at(100),
                    times.len()
                );
            }
        }
    }
}

#[test]
fn every_schedule_keeps_every_invariant() {
    let (schedules, first) = (from_env("SIM_SCHEDULES").unwrap_or(SCHEDULES), from_env("SIM_FIRST").unwrap_or(1));
    let most_failures = from_env("SIM_FAILURES").unwrap_or(1);
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let (failures, totals) = (Mutex::new(Vec::new()), Mutex::new(Totals::default()));
    let replicas_percent = from_env("SIM_REPLICAS").unwrap_or(SHARE_PERCENT);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + schedules {
                        return;
                    }
                    match trouble(seed, replicas_percent) {
                        Ok(report) => {
                            let mut totals = totals.lock().unwrap();
                            report.fleet.into_iter().for_each(|fleet| totals.fleets.add(seed, fleet));
                            for outcome in report.outcomes {
                                *totals.outcomes.entry(outcome).or_default() += 1;
                            }
                            for fault in report.faults {
                                *totals.faults.entry(fault).or_default() += 1;
                            }
                            totals.sends += report.sends;
                            totals.calls += report.calls;
                            totals.leases_lost += report.leases_lost;
                            totals.compactions += report.compactions;
                            totals.transfers += report.transfers;
                            totals.disarms += report.disarms;
                            totals.virtual_seconds += report.virtual_time.as_secs();
                            totals.extra_starts += u64::from(report.extra_starts);
                            if report.extra_starts > 0 && totals.left_open.len() < 5 {
                                totals.left_open.push(seed);
                            }
                        }
                        Err(what) => {
                            let mut failures = failures.lock().unwrap();
                            failures.push((seed, what));
                            stop.store(failures.len() as u64 >= most_failures, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut totals = totals.into_inner().unwrap();
    println!("{schedules} schedules in {:.1} s", begun.elapsed().as_secs_f64());
    println!(
        "{} Defragments sent, {} calls, {} virtual hours, {} extra starts",
        totals.sends,
        totals.calls,
        totals.virtual_seconds / 3600,
        totals.extra_starts
    );
    println!("{} compactions, {} transfers, {} disarms", totals.compactions, totals.transfers, totals.disarms);
    println!("clients' leases ran out {} times", totals.leases_lost);
    for ((outcome, reason), count) in &totals.outcomes {
        println!("{count:>8}  {outcome} {reason}");
    }
    println!("faults: {:?}", totals.faults);
    totals.fleets.print();
    println!("seeds that needed an extra start: {:?}", totals.left_open);
    let failures = failures.into_inner().unwrap();
    for (seed, what) in &failures {
        println!("seed {seed}: {what}");
    }
    if let Some((seed, what)) = failures.first() {
        panic!("seed {seed}: {what}\nreplay: SIM_SEED={seed} cargo test --test sim replay -- --nocapture");
    }
}

#[test]
fn seeds_that_failed_once_pass() {
    let alone = seeds::REGRESSIONS.iter().map(|seed| (seed, 0));
    for ((seed, was), replicas_percent) in alone.chain(seeds::OF_REPLICAS.iter().map(|seed| (seed, 100))) {
        if let Err(what) = trouble(*seed, replicas_percent) {
            panic!("seed {seed} ({was}): {what}");
        }
    }
}

#[test]
fn a_seed_always_plays_the_same() {
    for seed in 1..=60 {
        let (first, second) = (play(seed, false, SHARE_PERCENT), play(seed, false, SHARE_PERCENT));
        assert_eq!((first.digest, first.calls), (second.digest, second.calls), "seed {seed}");
    }
}

/// Without `SIM_SEED` there is nothing to replay.
#[test]
fn replay() {
    let Some(seed) = from_env("SIM_SEED") else { return };
    let report = play(seed, true, from_env("SIM_REPLICAS").unwrap_or(SHARE_PERCENT));
    for line in &report.trace {
        println!("{line}");
    }
    println!("outcomes: {:?}", report.outcomes);
    if let Some(violation) = report.violation {
        panic!("seed {seed}: {violation:?}");
    }
}
