//! What a bench takes of the machine, before it writes anything.

use std::{collections::BTreeMap, fmt, path::Path};

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;

use crate::dataset::{Database, Size};

const GIB: u64 = 1 << 30;
const MEMBERS: u64 = 3;
/// A member's write-ahead log, and what the load writes.
const LOG_BYTES: u64 = GIB / 2;
/// A member's own memory: its keys and requests, and a defragmentation's transactions.
const MEMBER_BYTES: u64 = GIB / 4 * 3;
/// The API server and its clients.
const API_SERVER_BYTES: u64 = GIB + GIB / 2;

/// Bytes of disk and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    disk: u64,
    memory: u64,
}

impl Needs {
    /// To measure on these databases, some of which are there already. One cluster runs at a time.
    pub(crate) fn of(databases: &[Database], dir: &Path, api_server: bool) -> Self {
        let bytes = |mib: u64| mib << 20;
        // Several loads may have the same one.
        let missing: BTreeMap<_, _> = databases
            .iter()
            .map(|database| (database.path(dir), bytes(database.file_mib)))
            .filter(|(path, _)| !path.exists())
            .collect();
        // The members' files, and the copy that one of them makes.
        let cluster = |database: &Database| {
            let file = bytes(database.file_mib);
            // Without compaction, all that is overwritten is copied too.
            let copied = if database.size == Size::History { file } else { bytes(database.in_use_mib) };
            MEMBERS * (file + LOG_BYTES) + copied
        };
        let memory = |database: &Database| MEMBERS * (MEMBER_BYTES + bytes(database.in_use_mib) / 4);
        Self {
            disk: missing.values().sum::<u64>() + databases.iter().map(cluster).max().unwrap_or(0),
            memory: databases.iter().map(memory).max().unwrap_or(0)
                + if api_server { API_SERVER_BYTES } else { GIB / 2 },
        }
    }

    /// Fails if the machine has less, in that directory and in memory.
    pub(crate) fn check(self, dir: &Path) -> Result<()> {
        let disk = statvfs(dir).with_context(|| format!("no directory {}", dir.display()))?;
        let free = disk.blocks_available() * disk.fragment_size();
        ensure!(
            free >= self.disk,
            "nothing was measured: {} has {:.1} GiB free, and {:.1} are needed; name another directory with BENCH_DIR, or \
             measure less (`make bench-large`: BENCH_LARGE_GIB; `make bench`: BENCH_LARGE_IN_USE_MIB)",
            dir.display(),
            gib(free),
            gib(self.disk)
        );
        let available = memory_available().context("/proc/meminfo has no MemAvailable")?;
        ensure!(
            available >= self.memory,
            "nothing was measured: {:.1} GiB of memory are available, and {:.1} are needed; measure less \
             (`make bench-large`: BENCH_LARGE_GIB; `make bench`: BENCH_LARGE_IN_USE_MIB)",
            gib(available),
            gib(self.memory)
        );
        Ok(())
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "needs {:.1} GiB of disk and {:.1} GiB of memory", gib(self.disk), gib(self.memory))
    }
}

fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().split(' ').next()?.parse::<u64>().ok()? << 10)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB as f64
}

#[cfg(test)]
mod tests {
    use testkit::EtcdVersion;

    use super::*;

    #[test]
    fn a_database_that_is_there_needs_no_more_disk() {
        let dir = tempfile::tempdir().expect("a directory");
        let database = Database { version: EtcdVersion::V3_5, size: Size::Large, file_mib: 5_120, in_use_mib: 4_096 };
        let of = || Needs::of(std::slice::from_ref(&database), dir.path(), true);
        // One file more than the members have, four for the copy, half of one for each log.
        assert_eq!(of(), Needs { disk: (5 + 3 * 5 + 4) * GIB + 3 * GIB / 2, memory: 27 * GIB / 4 });
        std::fs::write(database.path(dir.path()), "").expect("written");
        assert_eq!(of().disk, (3 * 5 + 4) * GIB + 3 * GIB / 2);
    }

    #[test]
    fn too_little_disk_or_memory_is_said_with_what_to_do() {
        let here = std::env::temp_dir();
        Needs { disk: 0, memory: 0 }.check(&here).expect("enough");
        let disk = Needs { disk: u64::MAX, memory: 0 }.check(&here).expect_err("too much").to_string();
        assert!(disk.contains("BENCH_DIR"), "{disk}");
        let memory = Needs { disk: 0, memory: u64::MAX }.check(&here).expect_err("too much").to_string();
        assert!(memory.contains("of memory are available"), "{memory}");
    }
}
