//! One real etcd cluster: how much memory at rest, how long to the first good scrape, how large a binary.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use testkit::{Defragd, EtcdCluster, EtcdSpec, EtcdVersion, Tools, Transport};
use tokio::time::sleep;

use crate::{
    Common,
    figures::{Goal, Machine, Spread, mebibytes},
    output::{Findings, Table},
    scraper::Scraper,
    subject::Usage,
};

const MIN_VERSION: EtcdVersion = EtcdVersion::V3_5;
/// How often a scrape is tried until it is good.
const POLL: Duration = Duration::from_millis(5);
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Starts of defragd for each figure
    #[arg(long, default_value_t = 9)]
    starts: usize,
    /// Scrapes before memory is read
    #[arg(long, default_value_t = 40)]
    scrapes: usize,
}

#[derive(Serialize)]
struct Figures {
    etcd: String,
    binary_bytes: u64,
    rows: Vec<Row>,
}

/// One way of running.
#[derive(Serialize)]
struct Row {
    way: String,
    rss_bytes: Spread,
    threads: u64,
    start_to_good_scrape_milliseconds: Spread,
    etcd_up_to_good_scrape_milliseconds: Option<Spread>,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let machine = Machine::look();
    let tools = Tools::find()?;
    let mut rows = Vec::new();
    for (way, transport, full) in [
        ("exporter only, plain", Transport::Plain, false),
        ("exporter only, mutual TLS", Transport::Tls, false),
        ("with receiver and journal, mutual TLS", Transport::Tls, true),
    ] {
        eprintln!("measuring {way}");
        let cluster = EtcdCluster::start(&tools, &EtcdSpec::new(MIN_VERSION).transport(transport)).await?;
        cluster.ready().await?;
        rows.push(measure(&args, &cluster, way, full).await?);
    }
    let binary_bytes = std::fs::metadata(&args.common.defragd)?.len();
    let highest = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).fold(0.0, f64::max);
    let rss = highest(&|row| row.rss_bytes.median);
    let start = highest(&|row| row.start_to_good_scrape_milliseconds.highest);
    let back = highest(&|row| row.etcd_up_to_good_scrape_milliseconds.map_or(0.0, |spread| spread.highest));
    let goals = vec![
        Goal::new("RSS below 20 MB with one cluster, in every way of running", of_float(rss), rss < 20e6),
        Goal::new("start to the first good scrape below 300 ms", format!("{start:.0} ms at most"), start < 300.0),
        Goal::new("etcd answers to good scrape below 300 ms", format!("{back:.0} ms at most"), back < 300.0),
        Goal::new("binary below 20 MB, stripped", mebibytes(binary_bytes), binary_bytes < 20_000_000),
    ];
    let table = table(&rows);
    let figures = Figures { etcd: MIN_VERSION.as_str().to_owned(), binary_bytes, rows };
    Findings { name: "idle", machine, goals, figures }.report(&args.common, &table)
}

fn of_float(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["one cluster", "RSS", "threads", "start to good scrape", "etcd up to good scrape"]);
    let spread = |Spread { median, lowest, highest }: Spread| format!("{median:.0} ms ({lowest:.0}–{highest:.0})");
    for row in rows {
        table.row(&[
            &row.way,
            &of_float(row.rss_bytes.median),
            &row.threads.to_string(),
            &spread(row.start_to_good_scrape_milliseconds),
            &row.etcd_up_to_good_scrape_milliseconds.map_or_else(|| "-".to_owned(), spread),
        ]);
    }
    table
}

async fn measure(args: &Args, cluster: &EtcdCluster, way: &str, full: bool) -> Result<Row> {
    let (mut rss, mut starts, mut threads, mut backs) = (Vec::new(), Vec::new(), 0, Vec::new());
    for number in 0..args.starts {
        let dir = tempfile::tempdir()?;
        let begun = Instant::now();
        let defragd = start(&args.common.defragd, cluster, dir.path(), full).await?;
        let scraper = Scraper::new(defragd.url(), Duration::from_secs(10))?;
        good_scrape(&scraper, cluster.len()).await?;
        starts.push(begun.elapsed().as_secs_f64() * 1e3);
        for _ in 0..args.scrapes {
            scraper.scrape().await?;
        }
        sleep(Duration::from_secs(1)).await;
        let usage = Usage::of(defragd.pid())?;
        threads = usage.threads;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        rss.push(usage.rss_bytes as f64);
        // Restarts of etcd take seconds: some are enough.
        if number < 3 {
            backs.push(etcd_comes_back(cluster, &scraper).await?.as_secs_f64() * 1e3);
        }
        defragd.terminate(Duration::from_secs(30)).await?;
    }
    Ok(Row {
        way: way.to_owned(),
        rss_bytes: Spread::of(rss),
        threads,
        start_to_good_scrape_milliseconds: Spread::of(starts),
        etcd_up_to_good_scrape_milliseconds: Some(Spread::of(backs)),
    })
}

async fn start(binary: &Path, cluster: &EtcdCluster, dir: &Path, full: bool) -> Result<Defragd> {
    let mut args = cluster.connection_flags();
    args.push("--cluster-name=one".to_owned());
    if full {
        args.push(format!("--data-dir={}", dir.join("journal").display()));
    } else {
        args.push("--exporter-only".to_owned());
    }
    Defragd::start(binary, &args, &dir.join("log")).await
}

pub(crate) async fn good_scrape(scraper: &Scraper, members: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        // One that fails is one that is not good.
        if let Ok(scrape) = scraper.scrape().await
            && scrape.members_up() == members
        {
            return Ok(());
        }
        if begun.elapsed() > GIVE_UP_AFTER {
            bail!("no good scrape in {GIVE_UP_AFTER:?}");
        }
        sleep(POLL).await;
    }
}

/// All members stop, so that defragd reaches none, and start again: from when each answers to the first good scrape.
async fn etcd_comes_back(cluster: &EtcdCluster, scraper: &Scraper) -> Result<Duration> {
    for member in 0..cluster.len() {
        cluster.kill(member).await?;
    }
    let mut quick = scraper.clone();
    quick.timeout = Duration::from_secs(1);
    let down = quick.scrape().await.context("a scrape while etcd is down")?;
    anyhow::ensure!(down.members_up() == 0, "members are up that were killed");
    let restarts = (0..cluster.len()).map(|member| cluster.restart(member));
    for restarted in join_all(restarts).await {
        restarted?;
    }
    cluster.ready().await?;
    let begun = Instant::now();
    good_scrape(&quick, cluster.len()).await?;
    Ok(begun.elapsed())
}

async fn join_all<F: Future<Output = Result<()>>>(futures: impl Iterator<Item = F>) -> Vec<Result<()>> {
    // Three of them, polled together.
    let mut pinned: Vec<_> = futures.map(Box::pin).collect();
    let mut results: Vec<Option<Result<()>>> = pinned.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in pinned.iter_mut().zip(&mut results) {
            if result.is_none()
                && let std::task::Poll::Ready(ended) = future.as_mut().poll(context)
            {
                *result = Some(ended);
            }
        }
        if results.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}
