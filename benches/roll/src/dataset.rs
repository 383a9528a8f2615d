//! A fragmented database file, made once, and clusters that begin every trial with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use testkit::{EtcdCluster, EtcdSpec, EtcdVersion, Tools, fragment, overwrite, sizes};
use tokio::process::Command;

const MIB: u64 = 1 << 20;
/// More than etcd recommends, so that the file never meets it.
pub(crate) const QUOTA_BYTES: u64 = 16 << 30;

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

/// A database file that every member begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Database {
    /// The etcd that made it.
    pub(crate) version: EtcdVersion,
    /// Which one.
    pub(crate) size: Size,
    /// The file's size.
    pub(crate) file_mib: u64,
    /// How much of it is in use.
    pub(crate) in_use_mib: u64,
}

impl Database {
    /// Where it is, below the directory of the bench.
    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        let Self { version, size, file_mib, in_use_mib } = self;
        let size = format!("{size:?}").to_lowercase();
        dir.join(format!("{size}-{version}-{file_mib}-{in_use_mib}.db"))
    }

    /// Makes it, unless it is there from an earlier bench.
    pub(crate) async fn prepare(&self, tools: &Tools, dir: &Path) -> Result<PathBuf> {
        let path = self.path(dir);
        if path.exists() {
            return Ok(path);
        }
        // One member suffices, for all have the same file. It keeps few of its large requests in memory.
        let spec = EtcdSpec::new(self.version).members(1).quota_bytes(QUOTA_BYTES).arg("--snapshot-count=500");
        let cluster = EtcdCluster::start(tools, &spec).await?;
        let (file, in_use) = (self.file_mib * MIB, self.in_use_mib * MIB);
        let made = if self.size == Size::History {
            overwrite(&cluster, file, in_use).await?;
            sizes(&cluster).await?
        } else {
            fragment(&cluster, file, in_use).await?.members
        };
        cluster.stop_all().await?;
        // Renamed when it is whole.
        let part = path.with_extension("part");
        let made_at = cluster.member(0).data_dir().join("member/snap/db");
        fs::rename(&made_at, &part).or_else(|_| fs::copy(&made_at, &part).map(drop))?;
        fs::rename(&part, &path)?;
        for size in made {
            eprintln!("{}: {} MiB of {} MiB in use", path.display(), size.in_use / MIB, size.size / MIB);
        }
        Ok(path)
    }
}

/// Three members, stopped or as a trial left them.
pub(crate) struct Dataset {
    pub(crate) cluster: EtcdCluster,
    database: PathBuf,
    fsync: bool,
}

impl Dataset {
    /// Starts members that can be reset to this database.
    pub(crate) async fn start(
        tools: &Tools,
        database: (EtcdVersion, PathBuf),
        fsync: bool,
        arg: Option<&str>,
    ) -> Result<Self> {
        let (version, database) = database;
        let mut spec = EtcdSpec::new(version).quota_bytes(QUOTA_BYTES).log_level("info");
        if fsync {
            spec = spec.fsync();
        }
        spec = arg.into_iter().fold(spec, EtcdSpec::arg);
        Ok(Self { cluster: EtcdCluster::start(tools, &spec).await?, database, fsync })
    }

    /// Puts the database back and starts the members.
    pub(crate) async fn restore(&self) -> Result<()> {
        self.cluster.restore(&self.database).await?;
        if self.fsync {
            // The trial is to wait for its own writes alone.
            let status = Command::new("sync").arg("--file-system").arg(self.cluster.dir()).status().await;
            ensure!(status.context("sync")?.success(), "sync failed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_is_another_file() {
        let one = Database { version: EtcdVersion::V3_5, size: Size::Large, file_mib: 500, in_use_mib: 400 };
        let dir = Path::new("/bench");
        assert_eq!(one.path(dir), Path::new("/bench/large-3.5-500-400.db"));
        let others = [
            Database { version: EtcdVersion::V3_6, ..one.clone() },
            Database { size: Size::Small, ..one.clone() },
            Database { file_mib: 600, ..one.clone() },
            Database { in_use_mib: 300, ..one.clone() },
        ];
        for other in others {
            assert_ne!(other.path(dir), one.path(dir));
        }
    }
}
