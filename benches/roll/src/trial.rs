//! One contender, once, on a freshly reset cluster.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};
use testkit::{Exposition, Tools, processor_time};
use tokio::time::{sleep, timeout};

use crate::{
    contender::Contender,
    dataset::Dataset,
    load::{Load, Report, Spec},
};

/// The load has this long to find its pace, and the members to have their caches warm.
const WARM_UP: Duration = Duration::from_secs(4);
/// What is watched after the contender's end: a stall may begin late.
const AFTER: Duration = Duration::from_secs(2);
/// No contender takes longer, or it hangs.
const LIMIT: Duration = Duration::from_mins(20);
/// A short-lived process is seen at least a few times.
const LOOK: Duration = Duration::from_millis(10);

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trial {
    /// From the contender's start to its end.
    pub(crate) roll: Duration,
    /// What the members themselves say that their defragmentations took, together.
    pub(crate) servers: Duration,
    /// When each defragmentation began and ended, by the members' logs, since the load began.
    pub(crate) defrags: Vec<(Duration, Duration)>,
    /// The contender's start and end, since the load began.
    pub(crate) window: (Duration, Duration),
    /// Of the contender and its children.
    pub(crate) cpu: Duration,
    /// What part of one processor they took while a member defragmented, so that there was nothing to do but wait.
    pub(crate) cpu_waiting: f64,
    /// The most that its processes had at once, KiB.
    pub(crate) rss_kib: u64,
    /// How often the term rose.
    pub(crate) elections: u64,
    /// Calls to etcd's Maintenance and Cluster services.
    pub(crate) maintenance_calls: u64,
    /// All calls; only the contender's where there is no load.
    pub(crate) calls: u64,
    /// What the members received from clients, bytes; only the contender's where there is no load.
    pub(crate) bytes_received: u64,
    /// What the files shrank by together, bytes.
    pub(crate) reclaimed: u64,
    /// What the clients saw.
    pub(crate) clients: Report,
}

/// The members' own counters.
struct Counters {
    defrags: u64,
    seconds: f64,
    maintenance_calls: u64,
    calls: u64,
    bytes_received: u64,
}

/// Runs it. `journal` is the directory for what it writes; defragd's estimates come from the runs that are in it.
pub(crate) async fn run(
    data: &Dataset,
    who: Contender,
    load: &Spec,
    tools: &Tools,
    defragd: &Path,
    journal: &Path,
) -> Result<Trial> {
    data.restore().await?;
    let cluster = &data.cluster;
    let before = cluster.statuses().await?;
    let load = Load::start(cluster, load, tools).await?;
    let began = jiff::Timestamp::now() - jiff::SignedDuration::try_from(load.now())?;
    sleep(WARM_UP).await;
    let term = cluster.status(0).await?.term;
    let counters = Counters::read(data).await?;
    let cpu = children_cpu()?;
    let mut command = who.command(cluster, tools, defragd, journal)?;
    let log = std::fs::File::create(journal.join("output"))?;
    let from = load.now();
    let mut child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let pid = child.id().context("it ended at once")?;
    let mut rss_kib = 0;
    let mut used = CpuUse::default();
    let status = timeout(LIMIT, async {
        loop {
            tokio::select! {
                status = child.wait() => return status,
                () = sleep(LOOK) => {
                    let family = family(pid);
                    rss_kib = rss_kib.max(family.iter().map(|process| process.rss_kib).sum());
                    used.seen(load.now(), &family);
                }
            }
        }
    });
    let status = status.await.with_context(|| format!("{} hangs", who.label()))??;
    let to = load.now();
    let cpu = children_cpu()?.saturating_sub(cpu);
    let after = Counters::read(data).await?;
    ensure!(status.success(), "{} failed ({status}):\n{}", who.label(), testkit::tail(&journal.join("output"), 20));
    let ended_term = cluster.status(0).await?.term;
    ensure!(!who.transfers() || ended_term > term, "{}: leadership was not transferred", who.label());
    sleep(AFTER).await;
    let clients = load.stop().await?;
    let sizes = cluster.statuses().await?;
    let members = u64::try_from(cluster.len())?;
    ensure!(
        after.defrags - counters.defrags == members,
        "{}: {} defragmentations on {members} members",
        who.label(),
        after.defrags - counters.defrags
    );
    let defrags = defrags(data, began)?;
    Ok(Trial {
        roll: to.saturating_sub(from),
        servers: Duration::try_from_secs_f64(after.seconds - counters.seconds)?,
        cpu_waiting: used.during(&defrags),
        defrags,
        window: (from, to),
        cpu,
        rss_kib,
        elections: ended_term.saturating_sub(term),
        maintenance_calls: after.maintenance_calls - counters.maintenance_calls,
        calls: after.calls - counters.calls,
        bytes_received: after.bytes_received - counters.bytes_received,
        reclaimed: before.iter().zip(&sizes).map(|(before, after)| before.size.saturating_sub(after.size)).sum(),
        clients,
    })
}

impl Counters {
    async fn read(data: &Dataset) -> Result<Self> {
        let mut sum = Self { defrags: 0, seconds: 0.0, maintenance_calls: 0, calls: 0, bytes_received: 0 };
        for index in 0..data.cluster.len() {
            let page: Exposition = data.cluster.metrics(index).await?;
            let total = |name: &str, service: &[&str]| -> u64 {
                let ours = |labels: &BTreeMap<String, String>| {
                    labels.get("grpc_service").is_some_and(|of| service.is_empty() || service.contains(&of.as_str()))
                };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters")]
                page.samples(name).filter(|(labels, _)| ours(labels)).map(|(_, value)| value as u64).sum()
            };
            sum.defrags += page.count("etcd_disk_backend_defrag_duration_seconds_count", &[]).unwrap_or(0);
            sum.seconds += page.require("etcd_disk_backend_defrag_duration_seconds_sum", &[])?;
            sum.maintenance_calls +=
                total("grpc_server_started_total", &["etcdserverpb.Maintenance", "etcdserverpb.Cluster"]);
            sum.calls += total("grpc_server_started_total", &[]);
            sum.bytes_received += page.count("etcd_network_client_grpc_received_bytes_total", &[]).unwrap_or(0);
        }
        Ok(sum)
    }
}

/// When each defragmentation began and ended, by the members' own logs.
fn defrags(data: &Dataset, began: jiff::Timestamp) -> Result<Vec<(Duration, Duration)>> {
    let mut spans = Vec::new();
    for member in data.cluster.members() {
        let mut open = None;
        for line in member.log()?.lines() {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let at = || -> Option<Duration> {
                let at: jiff::Timestamp = line["ts"].as_str()?.parse().ok()?;
                Duration::try_from(at.duration_since(began)).ok()
            };
            match line["msg"].as_str() {
                Some("starting defragment") => open = at(),
                Some("finished defragment") => {
                    // One that began before the load is of an earlier trial.
                    if let (Some(from), Some(to)) = (open.take(), at()) {
                        spans.push((from, to));
                    }
                }
                _ => {}
            }
        }
    }
    spans.sort_unstable();
    Ok(spans)
}

/// What ended children have used. Nothing else of ours ends while a contender runs.
fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = |time: nix::sys::time::TimeVal| {
        use nix::sys::time::TimeValLike;
        Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0))
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// A process at one moment.
struct Process {
    pid: u32,
    rss_kib: u64,
    cpu: Duration,
}

/// A process and its children.
fn family(pid: u32) -> Vec<Process> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let rss_kib =
        read("status").lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok());
    let cpu = processor_time(pid).unwrap_or_default();
    let mut all = vec![Process { pid, rss_kib: rss_kib.unwrap_or(0), cpu }];
    let children = read(&format!("task/{pid}/children"));
    all.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).flat_map(family));
    all
}

/// How much processor time the contender took, look by look.
#[derive(Default)]
struct CpuUse {
    at: Duration,
    known: BTreeMap<u32, Duration>,
    /// From when to when, and how much. Of a process that ended in between, its last moments are missing.
    spans: Vec<(Duration, Duration, Duration)>,
}

impl CpuUse {
    fn seen(&mut self, now: Duration, family: &[Process]) {
        let of =
            |process: &Process| process.cpu.saturating_sub(self.known.get(&process.pid).copied().unwrap_or_default());
        self.spans.push((self.at, now, family.iter().map(of).sum()));
        self.at = now;
        self.known = family.iter().map(|process| (process.pid, process.cpu)).collect();
    }

    /// The share of one processor used during any of these spans, from the samples that lie completely in one.
    fn during(&self, defrags: &[(Duration, Duration)]) -> f64 {
        let within = |from: Duration, to: Duration| defrags.iter().any(|(begin, end)| from >= *begin && to <= *end);
        let (mut time, mut cpu) = (Duration::ZERO, Duration::ZERO);
        for (from, to, used) in self.spans.iter().filter(|(from, to, _)| within(*from, *to)) {
            time += to.saturating_sub(*from);
            cpu += *used;
        }
        if time.is_zero() { 0.0 } else { cpu.as_secs_f64() / time.as_secs_f64() }
    }
}

/// One with two seconds of roll, from 1 s to 3 s.
#[cfg(test)]
pub(crate) fn example() -> Trial {
    Trial {
        roll: Duration::from_secs(2),
        servers: Duration::from_secs(1),
        defrags: Vec::new(),
        window: (Duration::from_secs(1), Duration::from_secs(3)),
        cpu: Duration::ZERO,
        cpu_waiting: 0.0,
        rss_kib: 0,
        elections: 0,
        maintenance_calls: 0,
        calls: 0,
        bytes_received: 0,
        reclaimed: 0,
        clients: Report::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_looks_within_a_defragmentation_count_as_waiting() {
        let at = Duration::from_millis;
        let process = |cpu| [Process { pid: 7, rss_kib: 1, cpu: at(cpu) }];
        let mut used = CpuUse::default();
        for (now, cpu) in [(10, 5), (20, 5), (30, 6), (40, 20)] {
            used.seen(at(now), &process(cpu));
        }
        // 1 ms in the 20 ms from 10 to 30; what comes after ends outside.
        assert!((used.during(&[(at(8), at(35))]) - 0.05).abs() < 1e-9);
        assert!(used.during(&[]).abs() < 1e-9);
    }
}
