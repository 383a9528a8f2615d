//! The contenders: each defragments the whole cluster, started as its users start it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use testkit::{EtcdCluster, EtcdVersion, Tools};
use tokio::process::Command;

use crate::dataset::QUOTA_BYTES;

/// What people use instead.
pub(crate) const PEERS: [Contender; 4] =
    [Contender::EtcdctlLoop, Contender::EtcdctlCluster, Contender::EtcdDefrag, Contender::EtcdDefragMoveLeader];

/// A way to defragment a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Contender {
    /// `etcdctl defrag`, follower by follower, the leader last, in a shell loop.
    EtcdctlLoop,
    /// `etcdctl defrag --cluster`.
    EtcdctlCluster,
    /// ahrtr's etcd-defrag, leader last.
    EtcdDefrag,
    /// The same with `--move-leader`.
    EtcdDefragMoveLeader,
    /// `defragd run --leader last`: the leader is defragmented in place.
    Defragd,
    /// `defragd run --leader last-after-transfer`: leadership is always transferred first.
    DefragdTransfer,
    /// `defragd run --leader auto`, the default, where the leader's estimate is below `transfer_above`: it stays in place.
    DefragdAutoBelow,
    /// The same where the estimate is above it: leadership is transferred first.
    DefragdAutoAbove,
    /// `defragd run` with a pause of 5 s between members.
    DefragdPause,
    /// `defragd run` that compacts first.
    DefragdCompact,
}

impl Contender {
    /// For tables.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::EtcdctlLoop => "etcdctl, loop",
            Self::EtcdctlCluster => "etcdctl --cluster",
            Self::EtcdDefrag => "etcd-defrag",
            Self::EtcdDefragMoveLeader => "etcd-defrag --move-leader",
            Self::Defragd => "defragd",
            Self::DefragdTransfer => "defragd, transfer",
            Self::DefragdAutoBelow => "defragd, auto, below",
            Self::DefragdAutoAbove => "defragd, auto, above",
            Self::DefragdPause => "defragd, pause of 5 s",
            Self::DefragdCompact => "defragd, compaction first",
        }
    }

    /// Whether it is ours.
    pub(crate) fn is_ours(self) -> bool {
        !PEERS.contains(&self)
    }

    /// Whether it is etcd-defrag.
    pub(crate) const fn is_etcd_defrag(self) -> bool {
        matches!(self, Self::EtcdDefrag | Self::EtcdDefragMoveLeader)
    }

    /// Whether the goals are its: the others are there to learn from.
    pub(crate) fn has_goals(self) -> bool {
        matches!(self, Self::Defragd | Self::DefragdAutoBelow) || (self.is_ours() && self.transfers())
    }

    /// Whether leadership is transferred before the leader's turn.
    pub(crate) const fn transfers(self) -> bool {
        matches!(self, Self::EtcdDefragMoveLeader | Self::DefragdTransfer | Self::DefragdAutoAbove)
    }

    /// Why it is not available here, if so.
    pub(crate) fn missing(self) -> Option<String> {
        (self.is_etcd_defrag() && in_path("etcd-defrag").is_none())
            .then(|| "there is no etcd-defrag in PATH; benches/ROLL.md says how to build it".to_owned())
    }

    /// Its command line against this cluster.
    pub(crate) fn command(
        self,
        cluster: &EtcdCluster,
        tools: &Tools,
        defragd: &Path,
        journal: &Path,
    ) -> Result<Command> {
        let etcdctl = tools.etcdctl(EtcdVersion::V3_5);
        let mut command = match self {
            Self::EtcdctlLoop => {
                let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/followers-first"));
                command.arg(etcdctl);
                command
            }
            Self::EtcdctlCluster => Command::new(etcdctl),
            Self::EtcdDefrag | Self::EtcdDefragMoveLeader => Command::new("etcd-defrag"),
            _ => Command::new(defragd),
        };
        if self.is_ours() {
            command.arg("run");
        }
        if self == Self::DefragdCompact {
            let file = journal.join("config.yaml");
            std::fs::write(&file, compacting(cluster))?;
            command.arg("--config").arg(file);
        } else {
            command.args(cluster.connection_flags()).env("ETCDCTL_API", "3");
        }
        match self {
            Self::EtcdctlLoop => {}
            Self::EtcdctlCluster => drop(command.args(["defrag", "--cluster", "--command-timeout=600s"])),
            Self::EtcdDefrag | Self::EtcdDefragMoveLeader => {
                // Its README wants the members' own quota; without a rule, it defragments every member.
                let quota = format!("--etcd-storage-quota-bytes={QUOTA_BYTES}");
                command.args(["--cluster", "--command-timeout=600s", &quota]);
                command.args((self == Self::EtcdDefragMoveLeader).then_some("--move-leader"));
            }
            _ => {
                // Limits that no estimate is near, so that each column has its branch whatever the data.
                let leader = match self {
                    Self::DefragdTransfer => "--leader=last-after-transfer",
                    Self::DefragdAutoBelow => "--leader=auto --transfer-above=1h",
                    Self::DefragdAutoAbove => "--leader=auto --transfer-above=0s",
                    _ => "--leader=last",
                };
                let pause = if self == Self::DefragdPause { "5s" } else { "0s" };
                command.args(["--mode=enforce", "--pause-between-members", pause]);
                // Every member, as the others do: heavy writes fill a file again while the members before it are unavailable.
                command.args(["--min-fragmentation-ratio=0", "--min-reclaimable=4KiB"]);
                command.args(leader.split(' ')).arg("--data-dir").arg(journal);
            }
        }
        command.kill_on_drop(true);
        Ok(command)
    }
}

/// What the flags say, and what none of them says.
fn compacting(cluster: &EtcdCluster) -> String {
    let flags = cluster.connection_flags();
    let flags: Vec<_> = flags.iter().filter_map(|flag| flag.trim_start_matches('-').split_once('=')).collect();
    let value = |wanted: &str| flags.iter().find(|(key, _)| *key == wanted).map_or("", |(_, value)| value);
    format!(
        "clusters:\n- name: etcd\n  endpoints: [{endpoints}]\n  tls: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}}}\n  \
         policy: {{compaction: {{keep_revisions: 10}}}}\n",
        endpoints = value("endpoints"),
        ca = value("cacert"),
        cert = value("cert"),
        key = value("key"),
    )
}

fn in_path(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|dir| dir.join(program)).find(|path| path.is_file())
}
