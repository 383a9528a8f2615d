//! The processes: simulated members, and the defragd that watches them.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use fleet::{Plan, plan::MEMBERS};
use serde::Serialize;
use testkit::{Defragd, Port};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// Each member takes two files in its process, and the limit is often 20,000.
const CLUSTERS_OF_A_PROCESS: usize = 2_500;

/// What is simulated.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) clusters: usize,
    pub(crate) hung: usize,
    pub(crate) refusing: usize,
    pub(crate) tls: bool,
    pub(crate) restart_every_ms: Option<u64>,
}

/// Simulated members in a process of their own, and the configuration that names them.
pub(crate) struct Rig {
    pub(crate) plan: Plan,
    // Each ends when its standard input does.
    members: Vec<Child>,
    dir: tempfile::TempDir,
}

impl Rig {
    /// Starts the members, waits until they listen, and writes the configuration.
    pub(crate) async fn start(shape: Shape) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut port = Port::reserve()?;
        let plan = Plan::new(shape.clusters, port.number(), shape.tls, shape.hung, shape.refusing);
        port.release();
        let mut members = Vec::new();
        for from in (0..shape.clusters).step_by(CLUSTERS_OF_A_PROCESS) {
            members.push(start_members(&plan, shape, dir.path(), from).await?);
        }
        let rig = Self { plan, members, dir };
        std::fs::write(rig.config(), configuration(&rig.plan, rig.dir()))?;
        Ok(rig)
    }

    /// What the processes of the members have used.
    pub(crate) fn members_cpu(&self) -> Result<Duration> {
        self.members.iter().map(|child| Ok(Usage::of(child.id().context("the members have ended")?)?.cpu)).sum()
    }

    /// Removed at the end.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir().join("config.yaml")
    }
}

/// The same, and defragd.
pub(crate) struct Subject {
    pub(crate) plan: Plan,
    /// One, or one for each shard.
    pub(crate) defragd: Vec<Defragd>,
    rig: Rig,
}

impl Subject {
    /// Starts both and waits until they listen.
    pub(crate) async fn start(binary: &Path, shape: Shape) -> Result<Self> {
        Self::start_shards(binary, shape, 1).await
    }

    /// The same with the clusters divided among so many processes.
    pub(crate) async fn start_shards(binary: &Path, shape: Shape, total: u32) -> Result<Self> {
        ensure!(binary.exists(), "{} is not there: `make build` makes it", binary.display());
        let rig = Rig::start(shape).await?;
        let mut defragd = Vec::new();
        for ordinal in 0..total {
            let mut args = vec!["--exporter-only".to_owned(), format!("--config={}", rig.config().display())];
            args.extend([format!("--shard={ordinal}"), format!("--total-shards={total}")]);
            defragd.push(Defragd::start(binary, &args, &log(rig.dir(), ordinal)).await?);
        }
        Ok(Self { plan: rig.plan.clone(), defragd, rig })
    }

    /// How many members answer.
    pub(crate) fn answering(&self) -> usize {
        (0..self.plan.clusters)
            .flat_map(|cluster| (0..MEMBERS).map(move |member| (cluster, member)))
            .filter(|(cluster, member)| self.plan.fault(*cluster, *member) == fleet::Fault::None)
            .count()
    }

    /// Copies defragd's log out of the directory that is removed.
    pub(crate) fn keep_log(&self, to: &Path) -> Result<()> {
        std::fs::copy(log(self.rig.dir(), 0), to)?;
        Ok(())
    }
}

fn log(dir: &Path, ordinal: u32) -> PathBuf {
    dir.join(format!("defragd-{ordinal}.log"))
}

async fn start_members(plan: &Plan, shape: Shape, dir: &Path, from: usize) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["members", "--clusters", &plan.clusters.to_string(), "--port", &plan.port.to_string()])
        .args(["--from", &from.to_string(), "--to", &(from + CLUSTERS_OF_A_PROCESS).to_string()])
        .args(["--hung", &shape.hung.to_string(), "--refusing", &shape.refusing.to_string()])
        .arg("--dir")
        .arg(dir)
        .args(shape.tls.then_some("--tls"))
        .args(shape.restart_every_ms.map(|every| format!("--restart-every-ms={every}")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let output = child.stdout.take().context("it has an output")?;
    let line = BufReader::new(output).lines().next_line().await?;
    ensure!(line.as_deref() == Some("ready"), "the simulated members did not start");
    Ok(child)
}

fn configuration(plan: &Plan, dir: &Path) -> String {
    let mut file = "clusters:\n".to_owned();
    for cluster in 0..plan.clusters {
        let urls: Vec<String> = (0..MEMBERS).map(|member| format!("{:?}", plan.url(cluster, member))).collect();
        let _ = writeln!(file, "  - name: {}\n    endpoints: [{}]", Plan::name(cluster), urls.join(", "));
        if plan.tls {
            let at = |name: &str| dir.join(name).display().to_string();
            let (ca, cert, key) = (at("ca.crt"), at("client.crt"), at("client.key"));
            let _ = writeln!(file, "    tls: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}}}");
        }
    }
    file
}

/// What /proc tells of a process.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Usage {
    /// User and system time since its start.
    pub(crate) cpu: Duration,
    pub(crate) rss_bytes: u64,
    pub(crate) peak_rss_bytes: u64,
    pub(crate) open_files: usize,
    pub(crate) threads: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let stat = std::fs::read_to_string(proc.join("stat"))?;
        // The name in parentheses may hold anything.
        let (_, fields) = stat.rsplit_once(')').context("stat has a name")?;
        let field = |index: usize| fields.split_whitespace().nth(index).context("too short").and_then(number);
        let status = std::fs::read_to_string(proc.join("status"))?;
        let line = |name: &str| {
            let text = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            text.with_context(|| format!("no {name}")).and_then(|text| number(text.trim().trim_end_matches(" kB")))
        };
        Ok(Self {
            // The kernel's clock ticks, as user space sees them on every architecture of Linux that we build for.
            cpu: Duration::from_millis((field(11)? + field(12)?) * 10),
            rss_bytes: line("VmRSS")? << 10,
            peak_rss_bytes: line("VmHWM")? << 10,
            open_files: std::fs::read_dir(proc.join("fd"))?.count(),
            threads: line("Threads")?,
        })
    }
}

fn number(text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("{text:?} is not a number"))
}
