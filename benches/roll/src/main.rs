//! `make bench` and `make bench-large`: a rolling defragmentation by defragd, compared with the alternatives, on real etcd under load. Prints
//! tables and writes them with the machine and the versions to `benches/RESULTS.md`.
//!
//! Exits non-zero only if it could not measure: a missed goal is a result.

mod archive;
mod chart;
mod contender;
mod dataset;
mod estimates;
mod figures;
mod history;
mod load;
mod markdown;
mod needs;
mod page;
mod results;
mod scenario;
mod trial;
mod webhook;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use testkit::{EtcdVersion, Tools};

use archive::Archive;
use contender::Contender;
use dataset::{Database, Dataset, Size};
use load::Go;
use needs::Needs;
use results::Results;
use scenario::Scenario;
use trial::Trial;

#[derive(Debug, Parser)]
struct Args {
    /// How often each tool meets each load
    #[arg(long, env = "BENCH_RUNS", default_value_t = 5)]
    runs: u32,
    /// Which loads
    #[arg(long, env = "BENCH_LOADS", value_delimiter = ',', default_values = ["kubernetes", "idle", "write-heavy", "short-leases"])]
    loads: Vec<Scenario>,
    /// Which tools
    #[arg(long, env = "BENCH_TOOLS", value_delimiter = ',', default_values = ["etcdctl-loop", "etcdctl-cluster", "etcd-defrag", "etcd-defrag-move-leader", "defragd", "defragd-transfer", "defragd-auto-below", "defragd-auto-above"])]
    tools: Vec<Contender>,
    /// Which etcd: 3.4 to 3.7
    #[arg(long, env = "BENCH_ETCD", default_value = "3.5")]
    etcd: String,
    /// How many webhooks are timed; 0 leaves that out
    #[arg(long, env = "BENCH_WEBHOOKS", default_value_t = 5)]
    webhooks: u32,
    /// Compare expected and taken times per member, on two more rolls under each load
    #[arg(long, env = "BENCH_ESTIMATES", default_value_t = true, action = clap::ArgAction::Set)]
    estimates: bool,
    /// Members sync their files, as in production
    #[arg(long, env = "BENCH_FSYNC", default_value_t = false, action = clap::ArgAction::Set)]
    fsync: bool,
    /// Print what it needs of the machine, and whether that is there
    #[arg(long)]
    needs: bool,
    /// The file of each member under the loads with large files, MiB
    #[arg(long, env = "BENCH_LARGE_FILE_MIB", default_value_t = 1500)]
    large_file_mib: u64,
    /// How much of it is in use, MiB
    #[arg(long, env = "BENCH_LARGE_IN_USE_MIB", default_value_t = 1000)]
    large_in_use_mib: u64,
    /// The program that is measured
    #[arg(long, env = "DEFRAGD_BIN", default_value = "target/release/defragd")]
    defragd: PathBuf,
    /// Where the results go
    #[arg(long, env = "BENCH_RESULTS", default_value = "benches/RESULTS.md")]
    results: PathBuf,
    /// Where the members' data goes. Databases and finished trials stay there for the next bench; without it, nothing stays
    #[arg(long, env = "BENCH_DIR")]
    dir: Option<PathBuf>,
    /// How the results are printed
    #[arg(short, long, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let tools = Tools::find()?;
    let version = version(&args.etcd, &tools)?;
    let contenders = available(&args.tools, Contender::label, Contender::missing);
    let loads = available(&args.loads, Scenario::label, |load| load.missing(&tools, version));
    ensure!(!contenders.is_empty() && !loads.is_empty() && args.runs > 0, "nothing to measure");
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let databases: Vec<_> = loads.iter().map(|load| args.database(load.size(), version)).collect();
    let api_server = loads.iter().any(|load| load.load().go.is_some_and(Go::has_api_server));
    // It also removes what a bench that was killed has left.
    let _lock = own(&dir)?;
    let needs = Needs::of(&databases, &dir, api_server);
    eprintln!("{} MiB in use: this {needs}", args.large_in_use_mib);
    needs.check(&dir)?;
    if args.needs {
        return Ok(());
    }

    let commit = page::commit();
    let what = [commit.clone(), args.etcd.clone(), args.large_file_mib.to_string(), args.large_in_use_mib.to_string()];
    let what = format!("{}{}", what.join("-"), if args.fsync { "-fsync" } else { "" });
    let archive = Archive::open(&dir, &what, &args.defragd)?;
    let (begin, results, pictures) = (Instant::now(), Results::default(), Vec::new());
    let mut bench = Bench { begin, commit, results, pictures, latencies: None };
    let mut unmeasured = Vec::new();
    for (scenario, database) in loads.iter().zip(&databases) {
        if let Err(error) = Box::pin(bench.measure(&args, (*scenario, database), &contenders, (&dir, &archive))).await {
            bench.say(&format!("FAILED: {error:#}"));
            unmeasured.push(scenario.label());
        }
    }
    ensure!(bench.results.measured() > 0, "no trial came to its end");
    match args.output {
        Output::Table => println!("{}", bench.text(&args)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&bench.results.lines())?),
    }
    ensure!(unmeasured.is_empty(), "not measured in whole: {}", unmeasured.join(", "));
    Ok(())
}

/// Takes the directory for this bench alone: members' data go there too, and what a killed one left behind is removed.
fn own(dir: &Path) -> Result<File> {
    let lock = File::create(dir.join("lock")).with_context(|| format!("no directory {}", dir.display()))?;
    lock.try_lock().with_context(|| format!("another bench uses {}", dir.display()))?;
    let members = dir.join("members");
    if members.exists() {
        std::fs::remove_dir_all(&members)?;
    }
    std::fs::create_dir(&members)?;
    tempfile::env::override_temp_dir(&members).map_err(|first| anyhow::anyhow!("it is {} already", first.display()))?;
    Ok(lock)
}

impl Args {
    /// What members have at the beginning.
    fn database(&self, size: Size, version: EtcdVersion) -> Database {
        let (file_mib, in_use_mib) = match size {
            Size::Small | Size::History => (400, 60),
            Size::Large => (self.large_file_mib, self.large_in_use_mib),
        };
        Database { version, size, file_mib, in_use_mib }
    }
}

/// What is measured so far.
struct Bench {
    begin: Instant,
    /// As it was at the beginning.
    commit: String,
    results: Results,
    pictures: Vec<PathBuf>,
    latencies: Option<String>,
}

impl Bench {
    /// One load. What was measured is written afterwards: the large ones take long.
    async fn measure(
        &mut self,
        args: &Args,
        (scenario, database): (Scenario, &Database),
        contenders: &[Contender],
        (dir, archive): (&Path, &Archive),
    ) -> Result<()> {
        let tools = Tools::find()?;
        let defragd = args.defragd.canonicalize().with_context(|| format!("no {}", args.defragd.display()))?;
        let version = database.version;
        self.say(&format!("{}: a cluster of etcd {version}, {:?}", scenario.label(), database.size));
        let database = database.prepare(&tools, dir).await?;
        let data = Dataset::start(&tools, (version, database), args.fsync, scenario.etcd_arg(version)).await?;
        if scenario.size() == Size::Small && args.webhooks > 0 && self.latencies.is_none() {
            self.say("timing webhooks");
            self.latencies = Some(webhook::latencies(&data, &defragd, args.webhooks).await?);
        }
        let (load, mut last) = (scenario.load(), BTreeMap::new());
        // Turn by turn, so that a slow minute of the machine meets all of them.
        for run in 1..=args.runs {
            for who in contenders {
                let known = archive.get(scenario, *who, run)?;
                let again = if known.is_some() { " (measured before)" } else { "" };
                let trial = match known {
                    Some(trial) => Ok(trial),
                    None => {
                        let journal = tempfile::tempdir()?;
                        Box::pin(trial::run(&data, *who, &load, &tools, &defragd, journal.path())).await
                    }
                };
                let said = match &trial {
                    Ok(trial) => {
                        format!(
                            "{:.2} s, servers {:.2} s{again}",
                            trial.roll.as_secs_f64(),
                            trial.servers.as_secs_f64()
                        )
                    }
                    Err(error) => format!("failed: {error:#}"),
                };
                self.say(&format!("{} {run}/{} {}: {said}", scenario.label(), args.runs, who.label()));
                match trial {
                    Ok(trial) => {
                        archive.put(scenario, *who, run, &trial)?;
                        self.results.add(scenario, *who, &trial);
                        last.insert(*who, trial);
                    }
                    Err(error) => self.results.failed(scenario, *who, format!("{error:#}")),
                }
            }
        }
        if args.estimates {
            self.say(&format!("{}: expected and taken times on two rolls", scenario.label()));
            let estimates = Box::pin(estimates::two_rolls(&data, &load, &tools, &defragd)).await?;
            self.results.estimated(scenario, estimates);
        }
        let trials: Vec<(Contender, Trial)> = last.into_iter().collect();
        if trials.iter().any(|(_, trial)| !trial.clients.samples.is_empty()) {
            let stem = args.results.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
            let path = args.results.with_file_name(format!("{stem}-{}.svg", scenario.label()));
            chart::draw(&path, &format!("Writes during a roll, load {}", scenario.label()), &trials)?;
            self.pictures.push(path);
        }
        page::write(self, args, version, contenders)
    }

    fn say(&self, text: &str) {
        eprintln!("[{:5.0} s] {text}", self.begin.elapsed().as_secs_f64());
    }

    /// The loads that there are figures of so far.
    fn measured(&self, args: &Args) -> Vec<Scenario> {
        args.loads.iter().copied().filter(|scenario| self.results.knows(*scenario)).collect()
    }

    fn text(&self, args: &Args) -> String {
        let mut text = String::new();
        for scenario in self.measured(args) {
            let _ = writeln!(text, "{}", self.results.table(scenario));
        }
        if let Some(latencies) = &self.latencies {
            let _ = writeln!(text, "{latencies}");
        }
        let _ = writeln!(text, "{}", self.results.goals());
        text
    }
}

/// Those that can be measured here; of the others, says why not.
fn available<T: Copy>(all: &[T], label: fn(T) -> &'static str, missing: impl Fn(T) -> Option<String>) -> Vec<T> {
    let mut available = all.to_vec();
    available.retain(|one| {
        let missing = missing(*one);
        if let Some(why) = &missing {
            eprintln!("{}: SKIPPED, {why}", label(*one));
        }
        missing.is_none()
    });
    available
}

fn version(text: &str, tools: &Tools) -> Result<EtcdVersion> {
    let versions = tools.etcd_versions();
    versions
        .into_iter()
        .find(|version| version.as_str() == text)
        .with_context(|| format!("there is no etcd {text} here"))
}
