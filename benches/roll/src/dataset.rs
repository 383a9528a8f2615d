//! A fragmented cluster that is reset to the same state before every trial.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testkit::{EtcdCluster, EtcdSpec, EtcdVersion, MemberSize, Tools, fragment, overwrite, sizes};
use tokio::process::Command;

const MIB: u64 = 1 << 20;

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Size {
    /// A file as a fragmented Kubernetes cluster of some dozens of nodes has it.
    Small,
    /// As large, without compaction: overwritten data is in use too.
    History,
    /// As large as the environment says; by default with more than 1 GB in use, so that each member is unavailable for many
    /// seconds.
    Large,
}

/// See the module.
pub(crate) struct Dataset {
    /// The members, stopped or as a trial left them.
    pub(crate) cluster: EtcdCluster,
    /// Their sizes at the start of every trial.
    pub(crate) sizes: Vec<MemberSize>,
    copies: PathBuf,
}

impl Dataset {
    /// Fills a new cluster with files of so many MiB, so many of them in use, and keeps a copy of it under `dir`.
    pub(crate) async fn prepare(
        tools: &Tools,
        version: EtcdVersion,
        (size, file_mib, in_use_mib): (Size, u64, u64),
        dir: &Path,
    ) -> Result<Self> {
        let (file, in_use) = (file_mib * MIB, in_use_mib * MIB);
        let quota = 8 << 30;
        // Synced writes are the disk's business, and this disk is shared with the copies.
        let spec = EtcdSpec::new(version).quota_bytes(quota).log_level("info");
        let cluster = EtcdCluster::start(tools, &spec).await?;
        let sizes = if size == Size::History {
            overwrite(&cluster, file, in_use).await?;
            sizes(&cluster).await?
        } else {
            fragment(&cluster, file, in_use).await?.members
        };
        cluster.stop_all().await?;
        let copies = dir.join(format!("{size:?}"));
        std::fs::create_dir_all(&copies)?;
        for member in cluster.members() {
            copy(member.data_dir(), &copies.join(member.name())).await?;
        }
        Ok(Self { cluster, sizes, copies })
    }

    /// Puts the copy back and starts the members.
    pub(crate) async fn restore(&self) -> Result<()> {
        for (index, member) in self.cluster.members().iter().enumerate() {
            if member.pid().is_some() {
                self.cluster.kill(index).await?;
            }
        }
        for member in self.cluster.members() {
            std::fs::remove_dir_all(member.data_dir()).context("failed to remove the last trial's data")?;
            copy(&self.copies.join(member.name()), member.data_dir()).await?;
        }
        self.cluster.start_all().await
    }
}

async fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").args(["-a", "--reflink=auto", "--"]).args([from, to]).status().await?;
    ensure!(status.success(), "cp {} {} failed", from.display(), to.display());
    Ok(())
}
