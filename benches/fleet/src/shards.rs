//! The cost of a scrape of thousands of clusters, in one process and divided among several that share one configuration.

use std::time::Duration;

use anyhow::{Result, ensure};
use fleet::plan::MEMBERS;
use serde::Serialize;

use crate::{
    Common,
    figures::{Goal, Machine, Spread, mebibytes},
    output::{Findings, Table},
    scraper::Scraper,
    subject::{Shape, Subject, Usage},
};

/// What is measured: how many clusters, in how many processes.
const FLEETS: [(usize, u32); 4] = [(1_000, 1), (5_000, 1), (10_000, 2), (10_000, 10)];
/// Far above what a scrape takes on a busy machine: nothing is cut off.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Scrapes of each process, one process after the other; each is a round
    #[arg(long, default_value_t = 5)]
    scrapes: usize,
}

/// What was found for one fleet.
#[derive(Serialize)]
struct Row {
    clusters: usize,
    processes: u32,
    /// Of the smallest and of the largest process.
    clusters_of_a_process: Spread,
    cpu_microseconds_per_member: Spread,
    peak_rss_bytes: Spread,
    peak_rss_kib_per_cluster: f64,
    open_files: Spread,
    members_missing: usize,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    ensure!(args.scrapes > 0, "at least one scrape");
    let machine = Machine::look();
    let mut rows = Vec::new();
    for (clusters, processes) in FLEETS {
        eprintln!("measuring {clusters} clusters in {processes} processes");
        rows.push(measure(&args, clusters, processes).await?);
    }
    let (table, goals) = (table(&rows), goals(&rows));
    Findings { name: "shards", machine, goals, figures: rows }.report(&args.common, &table)
}

async fn measure(args: &Args, clusters: usize, processes: u32) -> Result<Row> {
    let subject =
        Subject::start_shards(&args.common.defragd, Shape { clusters, ..Shape::default() }, processes).await?;
    let (mut owned, mut cpu, mut peaks, mut files, mut missing) = (vec![], vec![], vec![], vec![], 0);
    for defragd in &subject.defragd {
        let scraper = Scraper::new(defragd.url(), SCRAPE_TIMEOUT)?;
        // The first scrapes connect.
        scraper.scrape().await?;
        let own = scraper.scrape().await?.clusters();
        for _ in 0..args.scrapes {
            let before = Usage::of(defragd.pid())?.cpu;
            let scrape = scraper.scrape().await?;
            let took = Usage::of(defragd.pid())?.cpu.saturating_sub(before);
            cpu.push(took.as_secs_f64() * 1e6 / number(own * MEMBERS));
            missing += (own * MEMBERS).saturating_sub(scrape.members_up());
        }
        let usage = Usage::of(defragd.pid())?;
        owned.push(own);
        peaks.push(usage.peak_rss_bytes);
        files.push(number(usage.open_files));
    }
    ensure!(owned.iter().sum::<usize>() == clusters, "{owned:?} clusters are watched, of {clusters}");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let peaks: Vec<f64> = peaks.into_iter().map(|bytes| bytes as f64).collect();
    Ok(Row {
        clusters,
        processes,
        clusters_of_a_process: Spread::of(owned.into_iter().map(number).collect()),
        cpu_microseconds_per_member: Spread::of(cpu),
        peak_rss_kib_per_cluster: peaks.iter().sum::<f64>() / 1024.0 / number(clusters),
        peak_rss_bytes: Spread::of(peaks),
        open_files: Spread::of(files),
        members_missing: missing,
    })
}

fn number(of: usize) -> f64 {
    f64::from(u32::try_from(of).unwrap_or(u32::MAX))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "fleet",
        "clusters of a process",
        "CPU/member (spread)",
        "peak RSS of a process",
        "peak RSS/cluster",
        "files of a process",
    ]);
    for row in rows {
        let range = |of: Spread, show: &dyn Fn(f64) -> String| {
            if row.processes == 1 { show(of.median) } else { format!("{} to {}", show(of.lowest), show(of.highest)) }
        };
        let plain = |value: f64| format!("{value:.0}");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "made of an integer")]
        let size = |bytes: f64| mebibytes(bytes as u64);
        let Spread { median, lowest, highest } = row.cpu_microseconds_per_member;
        let processes =
            if row.processes == 1 { "1 process".to_owned() } else { format!("{} processes", row.processes) };
        table.row(&[
            &format!("{} clusters, {processes}", row.clusters),
            &range(row.clusters_of_a_process, &plain),
            &format!("{median:.0} µs ({lowest:.0}–{highest:.0})"),
            &range(row.peak_rss_bytes, &size),
            &format!("{:.0} KiB", row.peak_rss_kib_per_cluster),
            &range(row.open_files, &plain),
        ]);
    }
    table
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let missing: usize = rows.iter().map(|row| row.members_missing).sum();
    let mut goals = vec![Goal::new("every member is in every scrape", format!("{missing} missing"), missing == 0)];
    let Some((first, others)) = rows.split_first() else { return goals };
    for row in others {
        let what = format!(
            "no more than {} clusters in 1 process cost, {} in {}",
            first.clusters, row.clusters, row.processes
        );
        let (base, cpu) = (first.cpu_microseconds_per_member.median, row.cpu_microseconds_per_member.median);
        // A tenth is what rounds differ by.
        goals.push(Goal::new(format!("CPU/member: {what}"), format!("{base:.0} µs to {cpu:.0} µs"), cpu <= base * 1.1));
        let (base, rss) = (first.peak_rss_kib_per_cluster, row.peak_rss_kib_per_cluster);
        goals.push(Goal::new(
            format!("RSS/cluster: {what}"),
            format!("{base:.0} KiB to {rss:.0} KiB"),
            rss <= base * 1.1,
        ));
    }
    goals
}
