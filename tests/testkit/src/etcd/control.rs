//! Operations and faults of a cluster.

use std::path::Path;
use std::process::Stdio;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::PermissionType;
use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::timeout;

use super::EtcdCluster;
use crate::process::Process;
use crate::{EtcdVersion, Tools, until};

/// etcd ends in well under a second unless a defrag or a snapshot is under way, or the machine is busy.
const STOP: Duration = Duration::from_mins(1);
/// A call that takes longer than this is hanging, also on a busy machine.
const CALL: Duration = Duration::from_mins(1);

impl EtcdCluster {
    /// Runs etcdctl against every endpoint with the cluster's credentials; gives its standard output.
    pub async fn etcdctl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.etcdctl);
        command.env("ETCDCTL_API", "3").args(self.connection_flags()).stdin(Stdio::null()).kill_on_drop(true);
        if let Some(password) = self.root_password() {
            command.env("ETCDCTL_USER", format!("root:{password}"));
        }
        let run = command.args(args).output();
        let output =
            timeout(Duration::from_secs(120), run).await.with_context(|| format!("etcdctl {args:?} hangs"))??;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "etcdctl {args:?} failed ({}): {error}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sends Defragment to one member and waits for its answer, however long it takes.
    pub async fn defragment(&self, index: usize) -> Result<()> {
        self.client(index).await?.defragment().await?;
        Ok(())
    }

    /// Makes a member the leader and waits until the cluster says so.
    pub async fn move_leader(&self, to: usize) -> Result<()> {
        // Again, if an election that nobody asked for came in between.
        until("the new leader", CALL, || async {
            let now = self.leader().await?;
            if now == to {
                return Ok(());
            }
            let id = self.status(to).await?.id;
            self.client(now).await?.move_leader(id).await?;
            bail!("the leader was {now}")
        })
        .await
    }

    /// Turns authentication on with the user `root` and this password; every later client uses them.
    pub async fn enable_auth(&self, root_password: &str) -> Result<()> {
        let mut client = self.client(0).await?;
        client.user_add("root", root_password, None).await?;
        client.role_add("root").await?;
        client.user_grant_role("root", "root").await?;
        client.auth_enable().await?;
        *self.root_password.lock().unwrap_or_else(PoisonError::into_inner) = Some(root_password.to_owned());
        self.ready().await
    }

    /// Adds a user who may read and write everything but is not root (needs auth to be on, or comes before it).
    pub async fn add_plain_user(&self, name: &str, password: &str) -> Result<()> {
        let mut client = self.client(0).await?;
        let role = format!("{name}-role");
        client.role_add(role.clone()).await?;
        let everything = etcd_client::Permission::new(PermissionType::Readwrite, "").with_all_keys();
        client.role_grant_permission(role.clone(), everything).await?;
        client.user_add(name, password, None).await?;
        client.user_grant_role(name, role).await?;
        Ok(())
    }

    /// Ends a member without warning (SIGKILL).
    pub async fn kill(&self, index: usize) -> Result<()> {
        let process = self.take(index)?;
        process.kill().await
    }

    /// Ends a member in an orderly way (SIGTERM).
    pub async fn stop(&self, index: usize) -> Result<()> {
        let process = self.take(index)?;
        process.stop(STOP).await
    }

    /// Starts a member again on its data, stopping it first if it runs, and waits until it serves.
    pub async fn restart(&self, index: usize) -> Result<()> {
        if self.member(index).pid().is_some() {
            self.stop(index).await?;
        }
        self.member(index).start()?;
        self.member_ready(index).await
    }

    /// Restarts a member with the server of another version, on its data.
    pub async fn upgrade(&self, index: usize, tools: &Tools, to: EtcdVersion) -> Result<()> {
        self.member(index).replace_program(tools.etcd(to));
        self.restart(index).await
    }

    /// Ends all members in an orderly way, so that their data can be copied.
    pub async fn stop_all(&self) -> Result<()> {
        for index in 0..self.len() {
            self.stop(index).await?;
        }
        Ok(())
    }

    /// Starts all members again on their data, and waits until they serve.
    pub async fn start_all(&self) -> Result<()> {
        for member in self.members() {
            member.start()?;
        }
        self.ready().await
    }

    /// Replaces all members' data with that of one database file of the same version, and starts them on it. Leadership,
    /// members and the raft log are new; keys, revisions and free pages are the file's.
    pub async fn restore(&self, database: &Path) -> Result<()> {
        let running = (0..self.len()).filter(|index| self.member(*index).pid().is_some());
        for index in running {
            self.kill(index).await?;
        }
        let initial =
            self.members().iter().map(|m| format!("{}={}", m.name(), m.peer_url())).collect::<Vec<_>>().join(",");
        for member in self.members() {
            match std::fs::remove_dir_all(member.data_dir()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("failed to remove the data of {}", member.name()));
                }
                _ => {}
            }
            let mut command = Command::new(&self.etcdctl);
            command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(database);
            // It has no hash: it was copied, not downloaded.
            command.args(["--skip-hash-check", "--name", member.name(), "--initial-cluster", &initial]);
            command.args([
                "--initial-cluster-token",
                "defragd-test",
                "--initial-advertise-peer-urls",
                member.peer_url(),
            ]);
            let output = command.arg("--data-dir").arg(member.data_dir()).stdin(Stdio::null()).output().await?;
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "etcdctl snapshot restore failed ({}): {error}", output.status);
        }
        self.start_all().await
    }

    /// Freezes a member (SIGSTOP): its connections stay open and nothing answers.
    pub fn pause(&self, index: usize) -> Result<()> {
        self.signal(index, Signal::STOP)
    }

    /// Resumes a frozen member (SIGCONT).
    pub fn resume(&self, index: usize) -> Result<()> {
        self.signal(index, Signal::CONT)
    }

    /// Arms CORRUPT for a member, as its own check of the data would.
    pub async fn arm_corrupt(&self, index: usize) -> Result<()> {
        use etcd_client::{AlarmAction, AlarmOptions, AlarmType};
        let mut member = AlarmOptions::new();
        member.with_member(self.status(index).await?.id);
        let mut client = self.client(index).await?;
        let armed = client.alarm(AlarmAction::Activate, AlarmType::Corrupt, Some(member));
        timeout(CALL, armed).await.context("arming CORRUPT hangs")??;
        Ok(())
    }

    fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        let member = self.member(index);
        member.process().as_ref().with_context(|| format!("{} is stopped", member.name()))?.signal(signal)
    }

    fn take(&self, index: usize) -> Result<Process> {
        let member = self.member(index);
        member.process().take().with_context(|| format!("{} is stopped already", member.name()))
    }
}
