//! The cost of a scrape of 10, 100 and 1,000 clusters: all healthy, with members that hang and refuse, and with TLS.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use fleet::plan::MEMBERS;
use serde::Serialize;

use crate::{
    Common,
    figures::{Goal, Machine, Spread, mebibytes, milliseconds, percentile},
    output::{Findings, Table},
    profile::Profile,
    scraper::Scraper,
    subject::{Shape, Subject, Usage},
};

/// defragd's default, which is what is measured.
const OFFSET: Duration = Duration::from_millis(500);

/// From so many clusters on, the rounds that are asked for are long enough.
const SETTLED_CLUSTERS: usize = 500;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Clusters, of three members each
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000])]
    sizes: Vec<usize>,
    /// The size with TLS; 0 leaves it out
    #[arg(long, default_value_t = 100)]
    tls_clusters: usize,
    /// Scrapes of each fleet, in rounds
    #[arg(long, default_value_t = 100)]
    scrapes: usize,
    /// Processor time is the median of so many rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Members that hang, and members that refuse, out of a thousand, where not all is well; 0 leaves that out
    #[arg(long, default_value_t = 10)]
    faults_per_mille: usize,
    /// The scrape timeout where not all is well, in seconds: every scrape lasts until it is nearly over
    #[arg(long, default_value_t = 2.0)]
    timeout: f64,
    /// Has perf watch the rounds of the last fleet, and writes what it saw into this file
    #[arg(long)]
    profile: Option<PathBuf>,
}

/// What was found for one fleet.
#[derive(Serialize)]
struct Row {
    fleet: String,
    clusters: usize,
    hung: usize,
    refusing: usize,
    tls: bool,
    scrapes: usize,
    scrape_timeout_seconds: f64,
    first_scrape_seconds: f64,
    first_scrape_cpu_seconds: f64,
    p50_seconds: f64,
    p99_seconds: f64,
    cpu_seconds_per_scrape: Spread,
    cpu_microseconds_per_member: Spread,
    rss_bytes: u64,
    peak_rss_bytes: u64,
    rss_bytes_before_the_first_scrape: u64,
    open_files: usize,
    page_bytes: usize,
    compressed_bytes: usize,
    /// Members of clusters without a fault that were missing in any scrape, in sum.
    healthy_members_missing: usize,
    slowest_healthy_probe_seconds: f64,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    ensure!(args.rounds > 0 && args.scrapes >= args.rounds, "at least one scrape a round");
    let machine = Machine::look();
    let mut shapes = Vec::new();
    for clusters in args.sizes.iter().copied() {
        shapes.push(Shape { clusters, ..Shape::default() });
        if args.faults_per_mille > 0 {
            let faults = (clusters * MEMBERS * args.faults_per_mille / 1_000).max(1);
            shapes.push(Shape { clusters, hung: faults, refusing: faults, ..Shape::default() });
        }
    }
    shapes.sort_by_key(|shape| (shape.hung > 0, shape.clusters));
    if args.tls_clusters > 0 {
        shapes.push(Shape { clusters: args.tls_clusters, tls: true, ..Shape::default() });
    }
    let mut rows = Vec::new();
    for shape in shapes {
        eprintln!("measuring {}", name(shape));
        rows.push(measure(&args, shape).await.with_context(|| name(shape))?);
    }
    let (table, goals) = (table(&rows), goals(&rows));
    Findings { name: "growth", machine, goals, figures: rows }.report(&args.common, &table)
}

fn name(shape: Shape) -> String {
    let kind = match shape {
        Shape { tls: true, .. } => "mutual TLS",
        Shape { hung: 0, .. } => "all healthy",
        _ => "some hang, some refuse",
    };
    format!("{} clusters, {kind}", shape.clusters)
}

async fn measure(args: &Args, shape: Shape) -> Result<Row> {
    let subject = Subject::start(&args.common.defragd, shape).await?;
    let pid = subject.defragd[0].pid();
    // Where all is well, the timeout must not cut anything off, however busy the machine.
    let timeout = if shape.hung > 0 { Duration::from_secs_f64(args.timeout) } else { Duration::from_secs(60) };
    let mut scraper = Scraper::new(subject.defragd[0].url(), Duration::from_secs(10))?;
    let started = Usage::of(pid)?;
    let first = scraper.scrape().await?;
    let after_first = Usage::of(pid)?;
    scraper.timeout = timeout;
    let (mut took, mut cpu, mut missing, mut slowest) = (Vec::new(), Vec::new(), 0, 0.0);
    let mut last = scraper.scrape().await?;
    // The kernel counts processor time in 10 ms: where all is well and quick, more scrapes make a round long enough.
    let more = if shape.hung > 0 { 1 } else { (SETTLED_CLUSTERS / shape.clusters.max(1)).clamp(1, 20) };
    let per_round = args.scrapes / args.rounds * more;
    let profile = if args.profile.is_some() { Some(Profile::start(pid).await?) } else { None };
    for _ in 0..args.rounds {
        let before = Usage::of(pid)?.cpu;
        for _ in 0..per_round {
            last = scraper.scrape().await?;
            took.push(last.took);
            missing += last.healthy_members_missing(&subject.plan);
            slowest = f64::max(slowest, last.slowest_healthy_probe(&subject.plan));
        }
        cpu.push(Usage::of(pid)?.cpu.saturating_sub(before).as_secs_f64() / f64::from(u32::try_from(per_round)?));
    }
    if let (Some(profile), Some(file)) = (profile, &args.profile) {
        profile.end(file).await?;
    }
    let up = last.members_up();
    ensure!(up <= subject.answering(), "{up} members are reported up, of {}", subject.answering());
    let end = Usage::of(pid)?;
    let members = f64::from(u32::try_from(shape.clusters * MEMBERS)?);
    Ok(Row {
        fleet: name(shape),
        clusters: shape.clusters,
        hung: shape.hung,
        refusing: shape.refusing,
        tls: shape.tls,
        scrapes: took.len(),
        scrape_timeout_seconds: timeout.as_secs_f64(),
        first_scrape_seconds: first.took.as_secs_f64(),
        first_scrape_cpu_seconds: (after_first.cpu.saturating_sub(started.cpu)).as_secs_f64(),
        p50_seconds: percentile(&took, 50).as_secs_f64(),
        p99_seconds: percentile(&took, 99).as_secs_f64(),
        cpu_microseconds_per_member: Spread::of(cpu.iter().map(|seconds| seconds * 1e6 / members).collect()),
        cpu_seconds_per_scrape: Spread::of(cpu),
        rss_bytes: end.rss_bytes,
        peak_rss_bytes: end.peak_rss_bytes,
        rss_bytes_before_the_first_scrape: started.rss_bytes,
        open_files: end.open_files,
        page_bytes: last.page.len(),
        compressed_bytes: last.compressed_bytes,
        healthy_members_missing: missing,
        slowest_healthy_probe_seconds: slowest,
    })
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "fleet",
        "p50",
        "p99",
        "CPU/scrape",
        "CPU/member (spread)",
        "RSS",
        "peak",
        "files",
        "page",
        "compressed",
        "first scrape (CPU)",
        "slowest healthy member",
    ]);
    for row in rows {
        let ms = |seconds: f64| milliseconds(Duration::from_secs_f64(seconds));
        let Spread { median, lowest, highest } = row.cpu_microseconds_per_member;
        table.row(&[
            &row.fleet,
            &ms(row.p50_seconds),
            &ms(row.p99_seconds),
            &ms(row.cpu_seconds_per_scrape.median),
            &format!("{median:.0} µs ({lowest:.0}–{highest:.0})"),
            &mebibytes(row.rss_bytes),
            &mebibytes(row.peak_rss_bytes),
            &row.open_files.to_string(),
            &format!("{} kB", row.page_bytes / 1_000),
            &format!("{} kB", row.compressed_bytes / 1_000),
            &format!("{} ({})", ms(row.first_scrape_seconds), ms(row.first_scrape_cpu_seconds)),
            &ms(row.slowest_healthy_probe_seconds),
        ]);
    }
    table
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let plain = || rows.iter().filter(|row| !row.tls);
    let largest = plain().map(|row| row.clusters).max().unwrap_or(0);
    let peak = plain().map(|row| row.peak_rss_bytes).max().unwrap_or(0);
    goals.push(Goal::new(
        format!("RSS of at most 90 MiB with {largest} clusters, at its peak"),
        mebibytes(peak),
        peak <= 90 << 20,
    ));
    let dearest = plain().filter(|row| row.clusters == largest).map(|row| row.cpu_microseconds_per_member.median);
    let dearest = dearest.fold(0.0, f64::max);
    goals.push(Goal::new("CPU of at most 80 µs a member and scrape", format!("{dearest:.0} µs"), dearest <= 80.0));
    for row in rows.iter().filter(|row| row.hung > 0) {
        let bound = Duration::from_secs_f64(row.scrape_timeout_seconds).saturating_sub(OFFSET);
        goals.push(Goal::new(
            format!("p99 within timeout - offset ({}), {}", milliseconds(bound), row.fleet),
            milliseconds(Duration::from_secs_f64(row.p99_seconds)),
            row.p99_seconds <= bound.as_secs_f64(),
        ));
    }
    let missing: usize = rows.iter().map(|row| row.healthy_members_missing).sum();
    goals.push(Goal::new(
        "every member of a healthy cluster is in every scrape",
        format!("{missing} missing"),
        missing == 0,
    ));
    for hung in [false, true] {
        let mut same = plain().filter(|row| (row.hung > 0) == hung);
        let (Some(smallest), Some(largest)) = (same.next(), same.next_back()) else { continue };
        let (small, large) = (smallest.cpu_microseconds_per_member.median, largest.cpu_microseconds_per_member.median);
        // A tenth is what rounds differ by.
        goals.push(Goal::new(
            format!("no more CPU a member, {} to {}", smallest.clusters, largest.fleet),
            format!("{small:.0} µs to {large:.0} µs"),
            large <= small * 1.1,
        ));
    }
    goals
}
