//! How soon defragd is ready and shows every member of a large fleet, with a journal at its size limit.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fleet::plan::MEMBERS;
use serde::Serialize;
use testkit::Defragd;
use tokio::time::sleep;

use crate::{
    Common,
    figures::{Goal, Machine, Spread, mebibytes},
    idle::good_scrape,
    output::{Findings, Table},
    past,
    scraper::Scraper,
    subject::{Rig, Shape, Usage},
};

const POLL: Duration = Duration::from_millis(5);
/// Processor time that has not grown for so long: the start is over.
const CALM: Duration = Duration::from_secs(2);
const GOAL_MILLISECONDS: f64 = 1e3;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Another binary to measure in the same run, in turn with the first
    #[arg(long)]
    before: Option<PathBuf>,
    /// Clusters, of three members each
    #[arg(long, default_value_t = 1_000)]
    clusters: usize,
    /// Starts of each binary
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Size of the journal; the default is the default limit
    #[arg(long, default_value_t = 256)]
    journal_mib: u64,
    /// Mutual TLS
    #[arg(long)]
    tls: bool,
}

/// What was found for one binary.
#[derive(Serialize)]
struct Row {
    binary: String,
    milliseconds_to_ready: Spread,
    milliseconds_to_good_scrape: Spread,
    milliseconds_to_both: Spread,
    cpu_milliseconds_to_both: Spread,
    members_cpu_milliseconds_to_both: Spread,
    cpu_milliseconds_until_calm: Spread,
    rss_bytes_when_calm: Spread,
}

/// One start.
struct Start {
    ready: Duration,
    good: Duration,
    cpu: Duration,
    members_cpu: Duration,
    calm: Usage,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let machine = Machine::look();
    let rig = Rig::start(Shape { clusters: args.clusters, tls: args.tls, ..Shape::default() }).await?;
    let data_dir = rig.dir().join("journal");
    let runs = past::make(&args.common.defragd, &rig, &data_dir, args.journal_mib).await?;
    let binaries: Vec<_> =
        args.before.iter().map(|path| ("before", path)).chain([("now", &args.common.defragd)]).collect();
    let mut starts: Vec<Vec<Start>> = binaries.iter().map(|_| Vec::new()).collect();
    for number in 0..args.starts {
        for ((name, binary), starts) in binaries.iter().zip(&mut starts) {
            eprintln!("start {} of {}, {name}", number + 1, args.starts);
            starts.push(measure(binary, &rig, &data_dir).await.with_context(|| (*name).to_owned())?);
        }
    }
    let rows: Vec<Row> = binaries.iter().zip(starts).map(|((name, _), starts)| row(name, &starts)).collect();
    let last = rows.last().context("one binary at least")?.milliseconds_to_both;
    let wanted = format!("ready, with a good scrape, in less than 1 s: {} clusters, {runs} runs", args.clusters);
    let measured = format!("{:.0} ms ({:.0}–{:.0})", last.median, last.lowest, last.highest);
    let goals = vec![Goal::new(wanted, measured, last.median < GOAL_MILLISECONDS)];
    let table = table(&rows);
    Findings { name: if args.tls { "start-tls" } else { "start" }, machine, goals, figures: rows }
        .report(&args.common, &table)
}

/// `defragd serve` with the rig's configuration.
pub(crate) async fn serve(binary: &Path, rig: &Rig, data_dir: &Path) -> Result<Defragd> {
    let args = [format!("--config={}", rig.config().display()), format!("--data-dir={}", data_dir.display())];
    Defragd::start(binary, &args, &rig.dir().join("defragd.log")).await
}

async fn measure(binary: &Path, rig: &Rig, data_dir: &Path) -> Result<Start> {
    let members = rig.plan.clusters * MEMBERS;
    let members_before = rig.members_cpu()?;
    let begun = Instant::now();
    let defragd = serve(binary, rig, data_dir).await?;
    let scraper = Scraper::new(defragd.url(), Duration::from_secs(10))?;
    let ready = async {
        while defragd.get("/-/ready").await?.status != 200 {
            sleep(POLL).await;
        }
        anyhow::Ok(begun.elapsed())
    };
    let good = async {
        good_scrape(&scraper, members).await?;
        anyhow::Ok(begun.elapsed())
    };
    let (ready, good) = tokio::try_join!(ready, good)?;
    let cpu = Usage::of(defragd.pid())?.cpu;
    let members_cpu = rig.members_cpu()?.saturating_sub(members_before);
    let calm = calm(defragd.pid()).await?;
    let log = defragd.log()?;
    ensure!(!log.contains("leaving out an entry"), "the journal has entries that this binary cannot read");
    defragd.terminate(Duration::from_secs(60)).await?;
    Ok(Start { ready, good, cpu, members_cpu, calm })
}

/// What it has used when it has nothing to do any more.
pub(crate) async fn calm(pid: u32) -> Result<Usage> {
    let mut last = Usage::of(pid)?;
    loop {
        sleep(CALM).await;
        let now = Usage::of(pid)?;
        // One tick is for the timers.
        if now.cpu.saturating_sub(last.cpu) <= Duration::from_millis(10) {
            return Ok(now);
        }
        last = now;
    }
}

fn row(binary: &str, starts: &[Start]) -> Row {
    let milliseconds = |of: &dyn Fn(&Start) -> Duration| {
        Spread::of(starts.iter().map(|start| of(start).as_secs_f64() * 1e3).collect())
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rss = Spread::of(starts.iter().map(|start| start.calm.rss_bytes as f64).collect());
    Row {
        binary: binary.to_owned(),
        milliseconds_to_ready: milliseconds(&|start| start.ready),
        milliseconds_to_good_scrape: milliseconds(&|start| start.good),
        milliseconds_to_both: milliseconds(&|start| start.ready.max(start.good)),
        cpu_milliseconds_to_both: milliseconds(&|start| start.cpu),
        members_cpu_milliseconds_to_both: milliseconds(&|start| start.members_cpu),
        cpu_milliseconds_until_calm: milliseconds(&|start| start.calm.cpu),
        rss_bytes_when_calm: rss,
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "binary",
        "ready",
        "good scrape",
        "both",
        "CPU to both",
        "members' CPU to both",
        "CPU until calm",
        "RSS when calm",
    ]);
    let spread = |Spread { median, lowest, highest }: Spread| format!("{median:.0} ms ({lowest:.0}–{highest:.0})");
    for row in rows {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes")]
        let rss = mebibytes(row.rss_bytes_when_calm.median as u64);
        table.row(&[
            &row.binary,
            &spread(row.milliseconds_to_ready),
            &spread(row.milliseconds_to_good_scrape),
            &spread(row.milliseconds_to_both),
            &spread(row.cpu_milliseconds_to_both),
            &spread(row.members_cpu_milliseconds_to_both),
            &spread(row.cpu_milliseconds_until_calm),
            &rss,
        ]);
    }
    table
}
