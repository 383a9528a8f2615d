//! Clients of an API server or of etcd: client-go and etcd's own Go client, in a program of their own
//! (`tests/testkit/kube/clients`).

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{EtcdCluster, Tools, tail};

/// At their end they cancel what is under way.
const END: Duration = Duration::from_mins(1);

/// One request, or one event of a watch or an election.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GoSample {
    /// `write`, `list`, `renewal`, `elected`, `election_lost`, `watch` (from a write to its event) or `watch_restart`.
    pub kind: String,
    /// When it was due, microseconds since 1970.
    pub due: i64,
    /// From then to its end, microseconds.
    pub took: u64,
    /// A status code, or `timeout`; empty where it succeeded.
    #[serde(default)]
    pub error: String,
}

/// Running clients. Dropping them ends them.
#[derive(Debug)]
pub struct GoClients {
    child: Child,
    dir: TempDir,
}

impl GoClients {
    /// Why there are none here, if so.
    pub fn missing(tools: &Tools) -> Option<String> {
        tools
            .node_program("kube-clients")
            .is_none()
            .then(|| "there is no kube-clients here; `make tools-kube` builds it".to_owned())
    }

    /// Clients of an API server, by a kubeconfig; `flags` say how many of which kind.
    pub fn of_api_server(tools: &Tools, kubeconfig: &Path, flags: &[&str]) -> Result<Self> {
        Self::start(tools, &[format!("--kubeconfig={}", kubeconfig.display())], flags)
    }

    /// Clients of etcd that know all members.
    pub fn of_etcd(tools: &Tools, cluster: &EtcdCluster, flags: &[&str]) -> Result<Self> {
        Self::start(tools, &cluster.connection_flags(), flags)
    }

    fn start(tools: &Tools, target: &[String], flags: &[&str]) -> Result<Self> {
        let program = tools.node_program("kube-clients").context("there is no kube-clients here: make tools-kube")?;
        let dir = tempfile::tempdir()?;
        let mut command = Command::new(program);
        command.args(target).args(flags).stdin(Stdio::piped());
        command.stdout(File::create(samples(&dir))?).stderr(File::create(log(&dir))?);
        Ok(Self { child: command.kill_on_drop(true).spawn()?, dir })
    }

    /// What they have done so far. Fails if they have ended.
    pub fn so_far(&mut self) -> Result<Vec<GoSample>> {
        ensure!(self.child.try_wait()?.is_none(), "the clients ended:\n{}", tail(&log(&self.dir), 20));
        read(&samples(&self.dir))
    }

    /// Ends them; gives all that they did.
    pub async fn stop(mut self) -> Result<Vec<GoSample>> {
        // They end when their standard input does.
        drop(self.child.stdin.take());
        let status = timeout(END, self.child.wait()).await.context("the clients do not end")??;
        ensure!(status.success(), "the clients failed ({status}):\n{}", tail(&log(&self.dir), 20));
        read(&samples(&self.dir))
    }
}

fn samples(dir: &TempDir) -> PathBuf {
    dir.path().join("samples")
}

fn log(dir: &TempDir) -> PathBuf {
    dir.path().join("log")
}

/// All complete lines.
fn read(path: &Path) -> Result<Vec<GoSample>> {
    let text = std::fs::read_to_string(path)?;
    let complete = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    complete.map(|line| serde_json::from_str(line).with_context(|| format!("not a sample: {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_being_written_is_left_for_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = samples(&dir);
        std::fs::write(&path, "{\"kind\":\"write\",\"due\":1,\"took\":2,\"error\":\"504\"}\n{\"kind\":\"li").unwrap();
        let one = GoSample { kind: "write".to_owned(), due: 1, took: 2, error: "504".to_owned() };
        assert_eq!(read(&path).unwrap(), [one]);
        std::fs::write(&path, "{}\n").unwrap();
        assert!(read(&path).is_err());
    }
}
