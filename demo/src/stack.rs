//! The processes: etcd, defragd, Alertmanager, Prometheus, each on its own ports.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::{Alertmanager, Defragd, EtcdCluster, EtcdSpec, EtcdVersion, Prometheus, Tools};

use crate::args::{Args, repository};
use crate::config;
use crate::console::Console;

/// How the cluster is called in metrics and alerts.
pub(crate) const CLUSTER: &str = "demo";

/// Everything that runs. Dropping it ends every process and removes their data.
pub(crate) struct Stack {
    pub(crate) prometheus: Prometheus,
    pub(crate) alertmanager: Alertmanager,
    pub(crate) defragd: Defragd,
    pub(crate) etcd: EtcdCluster,
    _dir: TempDir,
}

/// What must be there before anything is started.
pub(crate) fn preflight(args: &Args) -> Result<Tools> {
    let tools = Tools::find()?;
    ensure!(
        args.defragd.is_file(),
        "there is no {}: `cargo build --release` makes it (or name one with --defragd or DEFRAGD_BIN)",
        args.defragd.display()
    );
    Ok(tools)
}

impl Stack {
    /// Starts everything, servers before their clients.
    pub(crate) async fn start(tools: &Tools, args: &Args, console: &Console, logs: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("defragd-demo-").tempdir()?;

        console.say("starting three etcd members with mutual TLS");
        let etcd = EtcdCluster::start(tools, &EtcdSpec::new(EtcdVersion::V3_5).logs_in(logs)).await?;
        // The leader must not be last in any list: that it comes last must not be an accident.
        etcd.move_leader(0).await?;
        for member in etcd.members() {
            console.say(&format!("  {}       {}", member.name(), member.client_url()));
        }

        let token = token_file(dir.path())?;
        let defragd =
            Defragd::start(&args.defragd, &defragd_args(&etcd, &token, dir.path()), &logs.join("defragd.log")).await?;
        console.say(&format!("  defragd      {}", defragd.url()));

        let webhook = format!("{}/api/v1/alerts", defragd.url());
        let routes = config::alertmanager(&shipped("alertmanager.yml")?, &webhook, &token)?;
        let alertmanager = Alertmanager::start(tools, &routes, &logs.join("alertmanager.log")).await?;
        console.say(&format!("  Alertmanager {}", alertmanager.url()));

        let rules = dir.path().join("defragd.rules.yml");
        fs::write(&rules, config::rules(&shipped("defragd.rules.yml")?)?)?;
        let scraping = config::prometheus(defragd.target(), alertmanager.target(), &rules);
        let prometheus = Prometheus::start(tools, &scraping, &logs.join("prometheus.log")).await?;
        console.say(&format!("  Prometheus   {}", prometheus.url()));
        console.say(&format!("  logs         {}", logs.display()));
        Ok(Self { prometheus, alertmanager, defragd, etcd, _dir: dir })
    }
}

fn defragd_args(etcd: &EtcdCluster, token: &Path, dir: &Path) -> Vec<String> {
    let mut args = etcd.connection_flags();
    args.extend([
        format!("--cluster-name={CLUSTER}"),
        "--mode=enforce".to_owned(),
        format!("--web.bearer-token-file={}", token.display()),
        format!("--data-dir={}", dir.join("defragd").display()),
        "--pause-between-members=3s".to_owned(), // ten in production
    ]);
    args
}

/// A file with a random token that only this user can read.
fn token_file(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("token");
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid").context("failed to make a token")?;
    File::options().write(true).create_new(true).mode(0o600).open(&path)?.write_all(random.trim().as_bytes())?;
    Ok(path)
}

fn shipped(file: &str) -> Result<String> {
    let path = repository().join("alerts").join(file);
    fs::read_to_string(&path).with_context(|| format!("failed to read the shipped {}", path.display()))
}
