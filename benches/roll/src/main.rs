//! `make bench`: a rolling defragmentation by defragd, compared with the alternatives, on real etcd under load. Prints
//! tables and writes them with the machine and the versions to `benches/RESULTS.md`.
//!
//! Exits non-zero only if it could not measure: a missed goal is a result.

mod chart;
mod contender;
mod dataset;
mod estimates;
mod figures;
mod load;
mod markdown;
mod results;
mod scenario;
mod trial;
mod webhook;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use testkit::{EtcdVersion, Tools};

use contender::Contender;
use dataset::{Dataset, Size};
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
    #[arg(long, env = "BENCH_TOOLS", value_delimiter = ',', default_values = ["etcdctl-loop", "etcdctl-cluster", "etcd-defrag", "defragd", "defragd-transfer", "defragd-auto-below", "defragd-auto-above"])]
    tools: Vec<Contender>,
    /// Which etcd: 3.4, 3.5 or 3.6
    #[arg(long, env = "BENCH_ETCD", default_value = "3.5")]
    etcd: String,
    /// How many webhooks are timed; 0 leaves that out
    #[arg(long, env = "BENCH_WEBHOOKS", default_value_t = 5)]
    webhooks: u32,
    /// Compare expected and taken times per member, on two more rolls under each load
    #[arg(long, env = "BENCH_ESTIMATES", default_value_t = true, action = clap::ArgAction::Set)]
    estimates: bool,
    /// The file of each member under write-heavy and short-leases, MiB
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
    /// Where the copies of the data go; some GiB
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
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let contenders: Vec<_> = args.tools.iter().copied().filter(|who| available(*who)).collect();
    ensure!(!contenders.is_empty() && args.runs > 0, "nothing to measure");

    let mut bench = Bench { begin: Instant::now(), results: Results::default(), pictures: Vec::new(), latencies: None };
    let mut unmeasured = Vec::new();
    for size in [Size::Small, Size::History, Size::Large] {
        let scenarios: Vec<_> = args.loads.iter().copied().filter(|scenario| scenario.size() == size).collect();
        if scenarios.is_empty() {
            continue;
        }
        if let Err(error) = Box::pin(bench.measure(&args, (size, &scenarios), &contenders, dir.path())).await {
            bench.say(&format!("FAILED: {error:#}"));
            unmeasured.extend(scenarios.iter().map(|scenario| scenario.label()));
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

/// What is measured so far.
struct Bench {
    begin: Instant,
    results: Results,
    pictures: Vec<PathBuf>,
    latencies: Option<String>,
}

impl Bench {
    /// All loads on data of this size. What was measured is written after each: the large ones take long.
    async fn measure(
        &mut self,
        args: &Args,
        (size, scenarios): (Size, &[Scenario]),
        contenders: &[Contender],
        dir: &Path,
    ) -> Result<()> {
        let tools = Tools::find()?;
        let defragd = args.defragd.canonicalize().with_context(|| format!("no {}", args.defragd.display()))?;
        self.say(&format!("filling a cluster of etcd {} ({size:?})", args.etcd));
        let (file_mib, in_use_mib) = match size {
            Size::Small | Size::History => (400, 60),
            Size::Large => (args.large_file_mib, args.large_in_use_mib),
        };
        let amount = (size, file_mib, in_use_mib);
        let data = Dataset::prepare(&tools, version(&args.etcd, &tools)?, amount, dir).await?;
        let sizes: Vec<_> =
            data.sizes.iter().map(|size| format!("{} of {} MiB in use", size.in_use >> 20, size.size >> 20)).collect();
        self.say(&sizes.join(", "));
        if size == Size::Small && args.webhooks > 0 {
            self.say("timing webhooks");
            self.latencies = Some(webhook::latencies(&data, &defragd, args.webhooks).await?);
        }
        for scenario in scenarios {
            let (load, mut last) = (scenario.load(), BTreeMap::new());
            // Turn by turn, so that a slow minute of the machine meets all of them.
            for run in 1..=args.runs {
                for who in contenders {
                    let journal = tempfile::tempdir()?;
                    let trial = Box::pin(trial::run(&data, *who, &load, &tools, &defragd, journal.path())).await;
                    let said = match &trial {
                        Ok(trial) => {
                            format!("{:.2} s, servers {:.2} s", trial.roll.as_secs_f64(), trial.servers.as_secs_f64())
                        }
                        Err(error) => format!("failed: {error:#}"),
                    };
                    self.say(&format!("{} {run}/{} {}: {said}", scenario.label(), args.runs, who.label()));
                    match trial {
                        Ok(trial) => {
                            self.results.add(*scenario, *who, &trial);
                            last.insert(*who, trial);
                        }
                        Err(error) => self.results.failed(*scenario, *who, format!("{error:#}")),
                    }
                }
            }
            if args.estimates {
                self.say(&format!("{}: expected and taken times on two rolls", scenario.label()));
                let estimates = Box::pin(estimates::two_rolls(&data, &load, &tools, &defragd)).await?;
                self.results.estimated(*scenario, estimates);
            }
            let trials: Vec<(Contender, Trial)> = last.into_iter().collect();
            if trials.iter().any(|(_, trial)| !trial.clients.samples.is_empty()) {
                let stem = args.results.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
                let path = args.results.with_file_name(format!("{stem}-{}.svg", scenario.label()));
                chart::draw(&path, &format!("Puts during a roll, load {}", scenario.label()), &trials)?;
                self.pictures.push(path);
            }
            self.write(args, contenders)?;
        }
        Ok(())
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

    /// The results file: what was printed, with what it takes to do it again.
    fn write(&self, args: &Args, contenders: &[Contender]) -> Result<()> {
        let first = |path: &str, key: &str| -> String {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.lines()
                .find_map(|line| Some(line.strip_prefix(key)?.trim_start_matches([' ', '\t', ':']).to_owned()))
                .unwrap_or_default()
        };
        let output = |program: &Path, arg: &str| -> String {
            let output = std::process::Command::new(program).arg(arg).output();
            output
                .map(|output| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
                .unwrap_or_default()
        };
        let tools = Tools::find()?;
        let etcd = output(&tools.etcd(version(&args.etcd, &tools)?), "--version");
        let etcdctl = output(&tools.etcdctl(EtcdVersion::V3_5), "version");
        let commit = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
        let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        let tools: Vec<_> = contenders.iter().map(|who| who.label()).collect();
        let names: Vec<_> =
            contenders.iter().filter_map(|who| Some(who.to_possible_value()?.get_name().to_owned())).collect();
        let loads: Vec<_> = self.measured(args).iter().map(|scenario| scenario.label()).collect();
        let mut page = format!(
            "# Rolling defragmentation by defragd and by the alternatives\n\n\
             Written by `make bench`; not edited by hand. {date}, commit {commit}, {minutes} min.\n\n\
             - Machine: {cpus} × {model}, {memory}, load average {load} at the end\n\
             - Members: three of {etcd}, mutual TLS, one machine, `--unsafe-no-fsync`\n\
             - Peers: {etcdctl}; {tools}\n\
             - write-heavy and short-leases: files of {file} MiB with {in_use} MiB in use\n\
             - Command: `BENCH_RUNS={runs} BENCH_ETCD={version} BENCH_LOADS={loads} BENCH_TOOLS={names} \
             BENCH_LARGE_FILE_MIB={file} BENCH_LARGE_IN_USE_MIB={in_use} make bench`\n\
             - All three members, their clients and the tool share the machine's cores: compare columns, not machines.\n\
             - Latencies count from when a request was due, so that a stalled client's waiting requests count too. A\n\
             \x20 failover client tries the next member after a second.\n\n",
            date = jiff::Timestamp::now().strftime("%Y-%m-%d"),
            minutes = self.begin.elapsed().as_secs() / 60,
            cpus = std::thread::available_parallelism()?,
            model = first("/proc/cpuinfo", "model name"),
            memory = first("/proc/meminfo", "MemTotal"),
            load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default(),
            tools = tools.join(", "),
            runs = args.runs,
            loads = loads.join(","),
            names = names.join(","),
            version = args.etcd,
            file = args.large_file_mib,
            in_use = args.large_in_use_mib,
        );
        for picture in &self.pictures {
            let name = picture.file_name().unwrap_or_default().to_string_lossy();
            let _ = writeln!(page, "![Latency of puts through a roll]({name})\n");
        }
        page.push_str(&self.text(args));
        std::fs::write(&args.results, page).with_context(|| format!("failed to write {}", args.results.display()))
    }
}

fn available(who: Contender) -> bool {
    let missing = who.missing();
    if let Some(why) = &missing {
        eprintln!("{}: SKIPPED, {why}", who.label());
    }
    missing.is_none()
}

fn version(text: &str, tools: &Tools) -> Result<EtcdVersion> {
    let versions = tools.etcd_versions();
    versions
        .into_iter()
        .find(|version| version.as_str() == text)
        .with_context(|| format!("there is no etcd {text} here"))
}
