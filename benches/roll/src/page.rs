//! The results file: what was printed, with what it takes to do it again.

use std::{fmt::Write as _, path::Path, process::Command};

use anyhow::{Context, Result};
use clap::ValueEnum;
use testkit::{EtcdVersion, Tools};

use crate::{Args, Bench, contender::Contender, history, needs};

/// What the program says of its version, if it is there.
fn version_of(program: &Path, arg: &str) -> String {
    let output = Command::new(program).arg(arg).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
        .unwrap_or_default()
}

/// The commit that is measured, with `-dirty` where files differ from it.
pub(crate) fn commit() -> String {
    let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The value of a line of a file of `/proc`.
fn first(path: &str, key: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|line| Some(line.strip_prefix(key)?.trim_start_matches([' ', '\t', ':']).to_owned()))
        .unwrap_or_default()
}

fn names<T: ValueEnum>(values: &[T]) -> String {
    let names: Vec<_> =
        values.iter().filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned())).collect();
    names.join(",")
}

/// Writes it.
pub(crate) fn write(bench: &Bench, args: &Args, version: EtcdVersion, contenders: &[Contender]) -> Result<()> {
    let tools = Tools::find()?;
    let mut peers = vec![version_of(&tools.etcdctl(EtcdVersion::V3_5), "version")];
    if contenders.iter().any(|who| who.is_etcd_defrag()) {
        peers.push(version_of(Path::new("etcd-defrag"), "--version"));
    }
    let labels: Vec<_> = contenders.iter().map(|who| who.label()).collect();
    // It measures no estimates.
    let large = args.fsync && !args.estimates;
    let (commit, date) = (&bench.commit, jiff::Timestamp::now().strftime("%Y-%m-%d").to_string());
    let machine = format!("{} × {}", std::thread::available_parallelism()?, first("/proc/cpuinfo", "model name"));
    let etcd = version_of(&tools.etcd(version), "--version").replace(" Version:", "");
    let fsync = if args.fsync { "files are synced (fsync)" } else { "`--unsafe-no-fsync`" };
    let mut page = format!(
        "# Rolling defragmentation by defragd and by the alternatives\n\n\
         Written by `{target}`; not edited by hand. {date}, commit {commit}, {minutes} min.\n\n\
         - Machine: {machine}, {memory}, load average {load} at the end\n\
         - Members: three of {etcd}, mutual TLS, one machine, {fsync}\n\
         - Peers: {peers}; {labels}\n\
         - Large files: {file} MiB with {in_use} MiB in use\n\
         - Command: `BENCH_RUNS={runs} BENCH_ETCD={etcd_line} BENCH_LOADS={loads} BENCH_TOOLS={names} {size} {target}`\n\
         - All three members, their clients and the tool share the machine's cores: compare columns, not machines.\n\
         - Latencies count from when a request was due, so that a stalled client's waiting requests count too. A\n\
         \x20 failover client tries the next member after a second.\n\n",
        target = if large { "make bench-large" } else { "make bench" },
        minutes = bench.begin.elapsed().as_secs() / 60,
        memory = first("/proc/meminfo", "MemTotal"),
        load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default(),
        peers = peers.join(", "),
        labels = labels.join(", "),
        runs = args.runs,
        etcd_line = args.etcd,
        size = if large {
            format!("BENCH_DIR=… BENCH_LARGE_GIB={}", needs::gib(args.large_in_use_mib << 20))
        } else {
            let fsync = if args.fsync { "BENCH_FSYNC=true " } else { "" };
            format!(
                "{fsync}BENCH_LARGE_FILE_MIB={} BENCH_LARGE_IN_USE_MIB={}",
                args.large_file_mib, args.large_in_use_mib
            )
        },
        loads = names(&bench.measured(args)),
        names = names(contenders),
        file = args.large_file_mib,
        in_use = args.large_in_use_mib,
    );
    for picture in &bench.pictures {
        let name = picture.file_name().unwrap_or_default().to_string_lossy();
        // Writing to a String cannot fail.
        let _ = writeln!(page, "![Latency of writes through a roll]({name})\n");
    }
    page.push_str(&bench.text(args));
    let before = std::fs::read_to_string(&args.results).unwrap_or_default();
    let machine = format!("{machine}, {etcd}, {}", if args.fsync { "fsync" } else { "no fsync" });
    let shared = history::Bench { commit, date: &date, machine: &machine };
    page.push_str(&history::section(&before, &shared, &bench.results, &bench.measured(args), contenders));
    std::fs::write(&args.results, page).with_context(|| format!("failed to write {}", args.results.display()))
}
