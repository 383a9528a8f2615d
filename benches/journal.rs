//! The journal after a year of 1,000 clusters with hourly alerts in mode `observe` and a weekly run in mode `enforce`, in
//! virtual time; and the same without a retention, for a twelfth of the time.
//!
//! `make bench-journal` runs it; `JOURNAL_CLUSTERS` and `JOURNAL_DAYS` make it shorter, `TMPDIR` is where the file is
//! written. Prints a Markdown table.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use defragd::{
    adapters::journal::{FILE_NAME, Retention, SqliteJournal},
    core::{
        cluster::MemberId,
        history::{AlertKey, Entry, Intent, MemberEnd, MemberResult, Outcome, Request, Sizes, Trigger},
        policy::{Mode, Need},
    },
    ports::{clock::Clock, journal::Journal},
};
use jiff::Timestamp;

const HOUR: Duration = Duration::from_hours(1);
const HOURS_A_WEEK: u64 = 7 * 24;
/// The part of the time that is played without a retention.
const SHORTER: u64 = 12;

struct Hand(Mutex<Timestamp>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn main() {
    // `cargo test --benches` only wants to know that it starts.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let (clusters, days) = (from_env("JOURNAL_CLUSTERS", 1_000), from_env("JOURNAL_DAYS", 365));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("{clusters} clusters, an alert an hour each in mode observe, a run a week in mode enforce.\n");
        println!("| journal | days | file | open | integrity check | resident memory |");
        println!("|---|---|---|---|---|---|");
        measure("no retention, each run kept", clusters, days.div_ceil(SHORTER), None).await;
        measure("default retention", clusters, days, Some(Retention::default())).await;
    });
}

async fn measure(what: &str, clusters: u64, days: u64, retention: Option<Retention>) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hand(Mutex::new("2026-01-01T00:00:00Z".parse().unwrap())));
    let journal = SqliteJournal::open(dir.path(), clock.clone()).unwrap();
    for hour in 0..days * 24 {
        for cluster in 0..clusters {
            let cluster_name = format!("cluster-{cluster}");
            if (hour + cluster) % HOURS_A_WEEK == 0 {
                enforced(&journal, &cluster_name).await;
            } else {
                observed(&journal, &cluster_name, retention.is_none().then_some(hour)).await;
            }
        }
        *clock.0.lock().unwrap() += HOUR;
        if let Some(retention) = retention.filter(|_| hour % 24 == 0) {
            journal.prune(retention).await.unwrap();
        }
    }
    if let Some(retention) = retention {
        journal.prune(retention).await.unwrap();
    }
    drop(journal);
    let file = fs::metadata(dir.path().join(FILE_NAME)).unwrap().len();
    let before = resident();
    let begun = Instant::now();
    let journal = SqliteJournal::open(dir.path(), clock).unwrap();
    let runs = journal.runs_of("cluster-0", 500).await.unwrap();
    let opened = begun.elapsed();
    assert!(!runs.is_empty());
    let grown = resident().saturating_sub(before);
    let begun = Instant::now();
    journal.verify().await.unwrap();
    let checked = begun.elapsed();
    println!(
        "| {what} | {days} | {} | {:.0} ms | {:.2} s | {} |",
        ByteSize(file).display().iec(),
        opened.as_secs_f64() * 1e3,
        checked.as_secs_f64(),
        ByteSize(grown).display().iec()
    );
}

/// `different` makes the result another one each time, so that it is kept.
async fn observed(journal: &SqliteJournal, cluster: &str, different: Option<u64>) {
    let members = match different {
        Some(number) => vec![format!("etcd-{number}"), "etcd-2".to_owned(), "etcd-1".to_owned()],
        None => ["etcd-3", "etcd-2", "etcd-1"].map(str::to_owned).to_vec(),
    };
    let run = accepted(journal, cluster, Mode::Observe).await;
    journal.append(run, Entry::Finished(Outcome::Observed { members, outside_window: false })).await.unwrap();
}

async fn enforced(journal: &SqliteJournal, cluster: &str) {
    let run = accepted(journal, cluster, Mode::Enforce).await;
    let before = Sizes { db_size: ByteSize(4_000_000_007), db_size_in_use: ByteSize(1_000_000_007) };
    for number in 1..=3 {
        let intent = Intent {
            member_id: MemberId(0x8e9e_05c5_2164_694d + number),
            member: format!("etcd-{number}"),
            is_leader: number == 3,
            need: Need::Fragmented,
            before,
            expected: None,
            non_blocking: false,
        };
        journal.append(run, Entry::Intent(intent.clone())).await.unwrap();
        let after = Sizes { db_size: before.db_size_in_use, ..before };
        let end = MemberEnd::Defragmented { after, took: Duration::from_secs(20), unavailable: None };
        journal.append(run, Entry::Result(MemberResult { intent, end })).await.unwrap();
    }
    journal.append(run, Entry::Finished(Outcome::Succeeded)).await.unwrap();
}

async fn accepted(journal: &SqliteJournal, cluster: &str, mode: Mode) -> defragd::core::history::RunId {
    let alerts = vec![AlertKey::new("c0ffee00c0ffee00".to_owned(), "2026-01-01T00:00:00Z")];
    let request = Request { cluster: cluster.to_owned(), trigger: Trigger::Alert, alerts, members: Vec::new() };
    let run = journal.accept(request).await.unwrap();
    journal.append(run, Entry::Started { mode, term: None, compares: false }).await.unwrap();
    run
}

/// Bytes, by /proc.
fn resident() -> u64 {
    let status = fs::read_to_string(Path::new("/proc/self/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}
