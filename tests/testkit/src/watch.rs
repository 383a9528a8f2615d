//! Watches a cluster's defrags through the members' own logs, regardless of which client requested them.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use crate::{EtcdCluster, Timeline};

/// How many defrags a member has finished since it started.
pub(crate) const DONE: &str = "etcd_disk_backend_defrag_duration_seconds_count";
/// Whether it is defragmenting now.
pub(crate) const INFLIGHT: &str = "etcd_disk_defrag_inflight";

/// What the members of a cluster log from a moment on, also over their restarts. They must log at level info.
#[derive(Debug)]
pub struct DefragWatch {
    /// Since the Unix epoch.
    begin: Duration,
    logs: Vec<Log>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    /// What was there before.
    skip: u64,
}

impl DefragWatch {
    /// Watches from now on. It holds nothing of the cluster, which may be stopped meanwhile.
    pub fn start(cluster: &EtcdCluster) -> Result<Self> {
        let begin = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let logs = cluster.members().iter().map(|member| {
            let path = member.log_path().to_owned();
            Ok(Log { skip: fs::metadata(&path)?.len(), path })
        });
        Ok(Self { begin, logs: logs.collect::<Result<_>>()? })
    }

    /// What has happened so far.
    pub fn timeline(&self) -> Timeline {
        Timeline::build(self.begin, &self.logs.iter().map(Log::read).collect::<Vec<_>>())
    }

    /// What has happened. Nothing has to be waited for: a member logs the end of a defrag before it answers.
    #[expect(clippy::unused_async, reason = "callers need not know how it watches")]
    pub async fn stop(self) -> Timeline {
        self.timeline()
    }
}

impl Log {
    /// A log that cannot be read is gone with its cluster.
    fn read(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.skip))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }
}
