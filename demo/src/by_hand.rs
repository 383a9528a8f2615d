//! `--run`: three fragmented etcd members and nothing else, for commands typed by hand.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use testkit::{EtcdCluster, EtcdSpec, EtcdVersion, Tools};

use crate::args::Args;
use crate::console::Console;
use crate::story::fill;

/// Runs `command` in a shell that has `defragd` in its PATH and the cluster in etcdctl's variables. The exit code is
/// the command's.
pub(crate) async fn run(command: &str, tools: &Tools, args: &Args, console: &Console, logs: &Path) -> Result<ExitCode> {
    console.say("starting three etcd members with mutual TLS");
    let etcd = EtcdCluster::start(tools, &EtcdSpec::new(EtcdVersion::V3_5).logs_in(logs)).await?;
    etcd.move_leader(0).await?;
    fill(args, console, &etcd).await?;

    let pki = etcd.pki().context("the members have no certificates")?;
    let client = pki.client();
    let binaries = args.defragd.canonicalize()?;
    let mut path = binaries.parent().context("the binary is in no directory")?.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let data_dir = tempfile::tempdir()?;
    let status = tokio::process::Command::new("sh")
        .args(["-c", command])
        .env("PATH", path)
        .env("ETCDCTL_ENDPOINTS", etcd.endpoints().join(","))
        .env("ETCDCTL_CACERT", pki.ca())
        .env("ETCDCTL_CERT", &client.cert)
        .env("ETCDCTL_KEY", &client.key)
        .env("DEFRAGD_DATA_DIR", data_dir.path())
        .kill_on_drop(true)
        .status()
        .await?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
