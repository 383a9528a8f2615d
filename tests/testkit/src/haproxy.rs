//! `haproxy` in front of a cluster: one address for all members, of which it leaves those out that are not ready.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::Process;
use crate::{EtcdCluster, Port, Tools, until};

/// A start takes milliseconds; a loaded machine some more.
const READY: std::time::Duration = std::time::Duration::from_secs(30);

/// A running `haproxy`. Dropping it ends it.
#[derive(Debug)]
pub struct Haproxy {
    url: String,
    _process: Process,
    _dir: TempDir,
    _port: Port,
}

impl Haproxy {
    /// Why there is none here, if so.
    pub fn missing(tools: &Tools) -> Option<String> {
        let missing = tools.node_program("haproxy").is_none();
        missing.then(|| "there is no haproxy here; `make tools-kube` unpacks it".to_owned())
    }

    /// Starts it before members of 3.5.11 or later with TLS, which it passes through. It asks each member for `/readyz` every
    /// half second, gives it a second, and closes all connections to a member that did not answer twice.
    pub async fn start(tools: &Tools, etcd: &EtcdCluster) -> Result<Self> {
        let program = tools.node_program("haproxy").context("there is no haproxy here")?;
        let pki = etcd.pki().context("the members have no certificates")?;
        let dir = tempfile::Builder::new().prefix("defragd-haproxy-").tempdir()?;
        let pem = dir.path().join("client.pem");
        fs::write(&pem, pki.client().pem()?)?;
        let mut port = Port::reserve()?;
        let mut config = format!(
            "defaults\n mode tcp\n timeout connect 2s\n timeout client 1h\n timeout server 1h\n timeout check 1s\n\
             listen etcd\n bind {}\n balance roundrobin\n option httpchk GET /readyz\n http-check expect status 200\n \
             default-server check check-ssl verify required ca-file {} crt {} inter 500ms fall 2 rise 1 \
             on-marked-down shutdown-sessions\n",
            port.address(),
            pki.ca().display(),
            pem.display()
        );
        for member in etcd.members() {
            let address = member.client_url().trim_start_matches("https://");
            writeln!(config, " server {} {address}", member.name())?;
        }
        let file = dir.path().join("haproxy.cfg");
        fs::write(&file, config)?;
        port.release();
        let args = ["-db".to_owned(), "-f".to_owned(), file.display().to_string()];
        let process = Process::spawn("haproxy", &program, &args, &[], &dir.path().join("log"))?;
        let address = port.address();
        until("haproxy to listen", READY, || async {
            process.ensure_running()?;
            Ok(tokio::net::TcpStream::connect(address).await.map(drop)?)
        })
        .await?;
        Ok(Self { url: format!("https://{address}"), _process: process, _dir: dir, _port: port })
    }

    /// Where clients reach a member.
    pub fn url(&self) -> &str {
        &self.url
    }
}
