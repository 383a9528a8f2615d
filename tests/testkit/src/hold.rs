//! Holds defragmentations, so that a test can act in the middle of one.
//!
//! Defragment copies the database and then closes the old file, which waits for open read transactions. A Snapshot
//! stream is such a transaction until it is read to its end. So a member with an unread stream copies
//! its pages and then stays in Defragment, with all of etcd's locks, until the stream is closed: Status, reads and
//! writes hang as in a long defragmentation, `/metrics` answers. Measured on etcd 3.4 to 3.7; it depends neither on
//! the processor nor on the disk. The database has to be larger than the buffers of the stream, which are about 6 MiB.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Client, ConnectOptions, SnapshotStreaming};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::{EtcdCluster, Exposition, http, until};

/// How often a member is asked whether it still defragments. Only how long it is held depends on it, never whether.
const POLL: Duration = Duration::from_millis(20);
/// A member that runs opens a stream at once; one that has just been killed may be back soon.
const OPENS_WITHIN: Duration = Duration::from_secs(60);

/// Holds the defragmentations of all members of a cluster. Dropping it releases them.
///
/// Start it after the database has been fragmented: what a compaction frees counts as in use while a stream is open.
#[derive(Debug)]
pub struct HeldDefrags {
    members: Vec<JoinHandle<()>>,
}

/// An unread snapshot of a member, as from a backup that hangs. Dropping it ends it.
#[derive(Debug)]
pub struct OpenSnapshot(JoinHandle<()>);

impl OpenSnapshot {
    /// Returns once the member sends it.
    pub async fn of(cluster: &EtcdCluster, index: usize) -> Result<Self> {
        let stream = Target::of(cluster, index)?.open().await?;
        Ok(Self(tokio::spawn(async move {
            let _unread = stream;
            std::future::pending::<()>().await;
        })))
    }
}

impl Drop for OpenSnapshot {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl HeldDefrags {
    /// The next defragmentation of each member lasts until it is released. Returns once every stream is open.
    pub async fn start(cluster: &EtcdCluster) -> Result<Self> {
        let mut held = Self { members: Vec::new() };
        for index in 0..cluster.len() {
            let stream = Target::of(cluster, index)?.open().await?;
            held.members.push(tokio::spawn(async move {
                let _unread = stream;
                std::future::pending::<()>().await;
            }));
        }
        Ok(held)
    }

    /// Each defragmentation of each member lasts at least this long, and then ends by itself.
    pub async fn start_for(cluster: &EtcdCluster, at_least: Duration) -> Result<Self> {
        let mut held = Self { members: Vec::new() };
        for index in 0..cluster.len() {
            let target = Target::of(cluster, index)?;
            let first = target.open().await?;
            held.members.push(tokio::spawn(async move { target.hold_each(first, at_least).await }));
        }
        Ok(held)
    }

    /// Lets a member's defragmentation end, and holds no later one of it.
    pub fn release(&self, index: usize) {
        self.members[index].abort();
    }
}

impl Drop for HeldDefrags {
    fn drop(&mut self) {
        for member in &self.members {
            member.abort();
        }
    }
}

/// What it takes to hold one member.
struct Target {
    name: String,
    url: String,
    dir: PathBuf,
    options: ConnectOptions,
    http: reqwest::Client,
}

impl Target {
    fn of(cluster: &EtcdCluster, index: usize) -> Result<Self> {
        let member = cluster.member(index);
        Ok(Self {
            name: member.name().to_owned(),
            url: member.client_url().to_owned(),
            dir: member.data_dir().to_owned(),
            options: cluster.connect_options()?,
            http: cluster.http().clone(),
        })
    }

    /// Opens a stream. Once the server answers, its transaction is open.
    async fn open(&self) -> Result<(Client, SnapshotStreaming)> {
        until(&format!("a Snapshot stream of {}", self.name), OPENS_WITHIN, || async {
            let mut client = Client::connect([&self.url], Some(self.options.clone())).await?;
            let stream = timeout(Duration::from_secs(5), client.snapshot()).await.context("Snapshot hangs")??;
            Ok((client, stream))
        })
        .await
    }

    async fn hold_each(&self, mut unread: (Client, SnapshotStreaming), at_least: Duration) {
        loop {
            self.until_defragments(true).await;
            sleep(at_least).await;
            drop(unread);
            self.until_defragments(false).await;
            match self.open().await {
                Ok(next) => unread = next,
                Err(_) => return, // It is gone for good.
            }
        }
    }

    async fn until_defragments(&self, wanted: bool) {
        while self.defragments().await != wanted {
            sleep(POLL).await;
        }
    }

    /// The file alone may be left over from a member that was killed.
    async fn defragments(&self) -> bool {
        has_defrag_file(&self.dir) && self.inflight().await.unwrap_or(false)
    }

    async fn inflight(&self) -> Result<bool> {
        let page = Exposition::new(http::get(&self.http, &format!("{}/metrics", self.url)).await?);
        Ok(page.require(crate::watch::INFLIGHT, &[])? > 0.0)
    }
}

/// A defragmentation copies the database to a temporary file beside it.
pub(crate) fn has_defrag_file(data_dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(data_dir.join("member/snap")) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("db.tmp"))
}
