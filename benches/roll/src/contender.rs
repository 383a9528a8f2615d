//! What is compared: each brings the whole cluster's files down, started as its users start it.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use testkit::{EtcdCluster, EtcdVersion, Tools};
use tokio::process::Command;

/// A way to defragment a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Contender {
    /// `etcdctl defrag`, follower by follower, the leader last, in a shell loop.
    EtcdctlLoop,
    /// `etcdctl defrag --cluster`.
    EtcdctlCluster,
    /// ahrtr's etcd-defrag, leader last.
    EtcdDefrag,
    /// `defragd run` with its default, the leader last.
    Defragd,
    /// `defragd run --leader last-after-transfer`.
    DefragdTransfer,
}

impl Contender {
    /// For tables.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::EtcdctlLoop => "etcdctl, loop",
            Self::EtcdctlCluster => "etcdctl --cluster",
            Self::EtcdDefrag => "etcd-defrag",
            Self::Defragd => "defragd",
            Self::DefragdTransfer => "defragd, transfer",
        }
    }

    /// Whether it is ours.
    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::Defragd | Self::DefragdTransfer)
    }

    /// Why it cannot be had here, if so.
    pub(crate) fn missing(self) -> Option<String> {
        (self == Self::EtcdDefrag && in_path("etcd-defrag").is_none()).then(|| {
            "there is no etcd-defrag in PATH; `go install github.com/ahrtr/etcd-defrag@latest` brings it where the Go \
             module proxy has it"
                .to_owned()
        })
    }

    /// Its command line against this cluster.
    pub(crate) fn command(self, cluster: &EtcdCluster, tools: &Tools, defragd: &Path, journal: &Path) -> Command {
        let etcdctl = tools.etcdctl(EtcdVersion::V3_5);
        let mut command = match self {
            Self::EtcdctlLoop => {
                let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/followers-first"));
                command.arg(etcdctl);
                command
            }
            Self::EtcdctlCluster => Command::new(etcdctl),
            Self::EtcdDefrag => Command::new("etcd-defrag"),
            Self::Defragd | Self::DefragdTransfer => Command::new(defragd),
        };
        if self.is_ours() {
            command.arg("run");
        }
        command.args(cluster.connection_flags()).env("ETCDCTL_API", "3");
        match self {
            Self::EtcdctlLoop => {}
            Self::EtcdctlCluster => drop(command.args(["defrag", "--cluster", "--command-timeout=600s"])),
            Self::EtcdDefrag => drop(command.args(["--cluster", "--command-timeout=600s"])),
            Self::Defragd | Self::DefragdTransfer => {
                let leader = if self == Self::Defragd { "last" } else { "last-after-transfer" };
                command.args(["--mode=enforce", "--pause-between-members=0s"]);
                // Every member, as the others do: heavy writes fill a file again while the members before it are away.
                command.args(["--min-fragmentation-ratio=0", "--min-reclaimable=1MiB"]);
                command.args(["--leader", leader, "--data-dir"]).arg(journal);
            }
        }
        command.kill_on_drop(true);
        command
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|dir| dir.join(program)).find(|path| path.is_file())
}
