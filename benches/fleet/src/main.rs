//! `fleet`: starts simulated members, and measures what it costs defragd to watch them. `make bench-fleet`, `make
//! bench-idle` and `make soak` call it; figures go to standard output and into `benches/FLEET.md`.
//!
//! Measures the real binary in a process of its own, from the outside: its responses as Prometheus gets them, its memory,
//! processor time and files from /proc. Fails only if it could not measure; a missed goal is reported.

mod figures;
mod growth;
mod idle;
mod output;
mod past;
mod profile;
mod reload;
mod scraper;
mod shards;
mod soak;
mod start;
mod subject;

use std::{io::Write, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use fleet::{Fleet, Plan};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Only the simulated members, until the standard input ends
    Members(Members),
    /// What a scrape costs, and how that grows with the fleet
    Growth(growth::Args),
    /// Thousands of clusters, in one process and in several
    Shards(shards::Args),
    /// One real etcd cluster: memory at rest, time to the first good scrape, size of the binary
    Idle(idle::Args),
    /// Time until it is ready and shows every member, with a full journal
    Start(start::Args),
    /// Time of a reload, with a full journal
    Reload(reload::Args),
    /// Many scrapes of an unhealthy fleet: does anything grow?
    Soak(soak::Args),
}

/// What every measurement is asked.
#[derive(clap::Args, Clone)]
pub(crate) struct Common {
    /// The binary to measure
    #[arg(long, default_value = "target/release/defragd")]
    defragd: PathBuf,
    /// How the figures are printed
    #[arg(short, long, value_enum, default_value_t)]
    output: output::Format,
    /// Also writes them into this file, in place of those that are there
    #[arg(long)]
    write: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Members {
    #[arg(long)]
    clusters: usize,
    /// Only the members of the clusters from this one …
    #[arg(long, default_value_t = 0)]
    from: usize,
    /// … up to, but not including, this one: the others are in other processes
    #[arg(long, default_value_t = usize::MAX)]
    to: usize,
    #[arg(long)]
    port: u16,
    /// Members that do not answer: frozen and busy in turn
    #[arg(long, default_value_t = 0)]
    hung: usize,
    /// Members whose ports are closed
    #[arg(long, default_value_t = 0)]
    refusing: usize,
    /// Mutual TLS
    #[arg(long)]
    tls: bool,
    /// Where the client's certificates go
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Restarts one member after the other, each so long after the one before
    #[arg(long)]
    restart_every_ms: Option<u64>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    raise_file_limit()?;
    // It fails only if another task was first, which is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Members(args) => simulate(args).await,
            Command::Growth(args) => growth::run(args).await,
            Command::Shards(args) => shards::run(args).await,
            Command::Idle(args) => idle::run(args).await,
            Command::Start(args) => start::run(args).await,
            Command::Reload(args) => reload::run(args).await,
            Command::Soak(args) => soak::run(args).await,
        }
    });
    // A read of the standard input may still be under way.
    runtime.shutdown_background();
    ended
}

/// A member takes three files here: a listener and two connections.
fn raise_file_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the limit of open files")
}

async fn simulate(args: Members) -> Result<()> {
    let plan = Plan::new(args.clusters, args.port, args.tls, args.hung, args.refusing);
    let mut fleet = Fleet::start_part(plan, &args.dir, args.from..args.to).await?;
    println!("ready");
    std::io::stdout().flush()?;
    let restarts = async {
        match args.restart_every_ms {
            Some(every) => fleet.restart_members(Duration::from_millis(every)).await,
            None => std::future::pending().await,
        }
    };
    // The parent process has ended when its end of the pipe closes.
    let (mut input, mut nowhere) = (tokio::io::stdin(), tokio::io::sink());
    tokio::select! {
        ended = restarts => ended,
        _ = tokio::io::copy(&mut input, &mut nowhere) => Ok(()),
    }
}
