//! Very many scrapes of an unhealthy fleet, compressed: members hang, refuse and restart all the time. Memory and open
//! files of the last tenth are compared with those of the first.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    Common,
    figures::{Goal, Machine, Spread, mebibytes},
    output::{Findings, Table},
    scraper::Scraper,
    subject::{Shape, Subject, Usage},
};

/// Short, so that hundreds of scrapes fit into a second: half of it is the members'.
const SHORT_TIMEOUT: Duration = Duration::from_millis(60);
/// Now and then one that is long enough for what a scrape does with members that hang.
const LONG_TIMEOUT: Duration = Duration::from_millis(1_500);
const LONG_EVERY: usize = 50;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// How many scrapes
    #[arg(long, default_value_t = 100_000)]
    scrapes: usize,
    /// How many at the same time
    #[arg(long, default_value_t = 8)]
    scrapers: usize,
    /// Clusters, of three members each
    #[arg(long, default_value_t = 5)]
    clusters: usize,
    /// Restarts one member after the other, each so long after the one before
    #[arg(long, default_value_t = 300)]
    restart_every_ms: u64,
    /// Mutual TLS
    #[arg(long)]
    tls: bool,
    /// Keeps defragd's log here
    #[arg(long)]
    log: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figures {
    scrapes: usize,
    failed_scrapes: usize,
    took_seconds: f64,
    cpu_seconds: f64,
    member_restarts_at_least: u64,
    tenths: Vec<Tenth>,
}

/// A tenth of the scrapes.
#[derive(Serialize)]
struct Tenth {
    rss_bytes: Spread,
    open_files: Spread,
    threads: u64,
    members_up: Spread,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let machine = Machine::look();
    let shape = Shape {
        clusters: args.clusters,
        hung: 2,
        refusing: 1,
        tls: args.tls,
        restart_every_ms: Some(args.restart_every_ms),
    };
    let subject = Subject::start(&args.common.defragd, shape).await?;
    let pid = subject.defragd[0].pid();
    let begun = Instant::now();
    let (done, failed, up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let up = Arc::new(up);
    let mut scrapers = JoinSet::new();
    for _ in 0..args.scrapers {
        let (done, failed, up) = (Arc::clone(&done), Arc::clone(&failed), Arc::clone(&up));
        let mut scraper = Scraper::new(subject.defragd[0].url(), SHORT_TIMEOUT)?;
        let wanted = args.scrapes;
        scrapers.spawn(async move {
            loop {
                let number = done.fetch_add(1, Ordering::Relaxed);
                if number >= wanted {
                    return;
                }
                scraper.timeout = if number.is_multiple_of(LONG_EVERY) { LONG_TIMEOUT } else { SHORT_TIMEOUT };
                match scraper.scrape().await {
                    Ok(scrape) => up.store(scrape.members_up(), Ordering::Relaxed),
                    Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
                }
            }
        });
    }
    let mut samples: Vec<(usize, Usage, usize)> = Vec::new();
    loop {
        sleep(Duration::from_millis(200)).await;
        subject.defragd[0].ensure_running()?;
        let at = done.load(Ordering::Relaxed).min(args.scrapes);
        samples.push((at, Usage::of(pid)?, up.load(Ordering::Relaxed)));
        if samples.len().is_multiple_of(150) {
            eprintln!("{at} scrapes, {}", mebibytes(samples.last().map_or(0, |(_, usage, _)| usage.rss_bytes)));
        }
        while scrapers.try_join_next().is_some() {}
        if scrapers.is_empty() {
            break;
        }
    }
    let took = begun.elapsed();
    if let Some(path) = &args.log {
        subject.keep_log(path)?;
    }
    let tenths = (0..10).map(|tenth| tenth_of(&samples, args.scrapes, tenth)).collect::<Result<Vec<_>>>()?;
    let figures = Figures {
        scrapes: args.scrapes,
        failed_scrapes: failed.load(Ordering::Relaxed),
        took_seconds: took.as_secs_f64(),
        cpu_seconds: Usage::of(pid)?.cpu.as_secs_f64(),
        // Each is away for 200 ms.
        member_restarts_at_least: u64::try_from(took.as_millis())? / (args.restart_every_ms + 200) * 9 / 10,
        tenths,
    };
    let (table, goals) = (table(&figures), goals(&figures)?);
    Findings { name: "soak", machine, goals, figures }.report(&args.common, &table)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn tenth_of(samples: &[(usize, Usage, usize)], scrapes: usize, tenth: usize) -> Result<Tenth> {
    let (from, to) = (scrapes * tenth / 10, scrapes * (tenth + 1) / 10);
    let within: Vec<_> = samples.iter().filter(|(at, ..)| (from..=to).contains(at)).collect();
    ensure!(!within.is_empty(), "too few scrapes for tenths");
    let spread = |value: &dyn Fn(&Usage) -> f64| Spread::of(within.iter().map(|(_, usage, _)| value(usage)).collect());
    Ok(Tenth {
        rss_bytes: spread(&|usage| usage.rss_bytes as f64),
        open_files: spread(&|usage| usage.open_files as f64),
        threads: within.iter().map(|(_, usage, _)| usage.threads).max().unwrap_or(0),
        members_up: Spread::of(within.iter().map(|(.., up)| *up as f64).collect()),
    })
}

fn table(figures: &Figures) -> Table {
    let mut table = Table::new(&["tenth of the scrapes", "RSS (spread)", "files (spread)", "threads", "members up"]);
    for (number, tenth) in figures.tenths.iter().enumerate() {
        let Spread { median, lowest, highest } = tenth.rss_bytes;
        let mib = f64::from(1 << 20);
        let rss = format!("{:.1} MiB ({:.1}–{:.1})", median / mib, lowest / mib, highest / mib);
        let Spread { median, lowest, highest } = tenth.open_files;
        let files = format!("{median:.0} ({lowest:.0}–{highest:.0})");
        let up =
            format!("{:.0} ({:.0}–{:.0})", tenth.members_up.median, tenth.members_up.lowest, tenth.members_up.highest);
        table.row(&[&(number + 1).to_string(), &rss, &files, &tenth.threads.to_string(), &up]);
    }
    table
}

fn goals(figures: &Figures) -> Result<Vec<Goal>> {
    let (first, last) = figures.tenths.first().zip(figures.tenths.last()).context("there are tenths")?;
    let mib = f64::from(1 << 20);
    let (rss_before, rss_after) = (first.rss_bytes.median, last.rss_bytes.median);
    let (files_before, files_after) = (first.open_files.median, last.open_files.median);
    Ok(vec![
        Goal::new(
            format!("all of {} scrapes are answered", figures.scrapes),
            format!("{} failed, in {:.0} s", figures.failed_scrapes, figures.took_seconds),
            figures.failed_scrapes == 0,
        ),
        Goal::new(
            "RSS of the last tenth at most 10 % above the first's",
            format!("{:.1} to {:.1} MiB", rss_before / mib, rss_after / mib),
            rss_after <= rss_before * 1.1,
        ),
        // Each scraper and each member has some, and members restart: a handful may differ.
        Goal::new(
            "open files of the last tenth at most 5 above the first's",
            format!("{files_before:.0} to {files_after:.0}"),
            files_after <= files_before + 5.0,
        ),
    ])
}
