//! Lock flags, for clusters without a file; they override the file's key `lock`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::{
    config::raw::lock::{Kind, Lock, PeerKeys},
    core::time::Time,
};

/// Lock keys that override those of the file.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Lock (overrides the file)")]
pub(super) struct LockArgs {
    /// Where replicas agree on which of them acts: none (there is one), etcd (in each cluster's own, or in the one
    /// that the file names), kubernetes (Leases) [default: none]
    #[arg(long = "lock.kind", env = "DEFRAGD_LOCK_KIND", value_enum)]
    kind: Option<KindArg>,
    /// How long a replica that is gone still holds the lock [default: 60s]
    #[arg(long = "lock.ttl", env = "DEFRAGD_LOCK_TTL", value_name = "TIME")]
    ttl: Option<Time>,
    /// This replica's name [default: the host name]
    #[arg(long = "lock.name", env = "DEFRAGD_LOCK_NAME", value_name = "NAME")]
    name: Option<String>,
    /// URL under which the other replicas reach this one, with its route prefix; without it, they cannot forward
    /// requests to it, and keep them until they hold the lock
    #[arg(long = "lock.url", env = "DEFRAGD_LOCK_URL", value_name = "URL")]
    url: Option<String>,
    /// File with the bearer token of the other replicas' webhook
    #[arg(long = "lock.token-file", env = "DEFRAGD_LOCK_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// [`Kind`] as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindArg {
    None,
    Etcd,
    Kubernetes,
}

impl LockArgs {
    /// As keys of the file; `None` if no flag is given.
    pub(super) fn keys(&self) -> Option<Lock> {
        let kind = self.kind.map(|kind| match kind {
            KindArg::None => Kind::None,
            KindArg::Etcd => Kind::Etcd,
            KindArg::Kubernetes => Kind::Kubernetes,
        });
        let peers =
            self.token_file.clone().map(|token_file| PeerKeys { token_file: Some(token_file), ..PeerKeys::default() });
        let keys =
            Lock { kind, ttl: self.ttl, name: self.name.clone(), url: self.url.clone(), peers, ..Lock::default() };
        let given = kind.is_some() || self.ttl.is_some() || self.name.is_some() || self.url.is_some();
        (given || keys.peers.is_some()).then_some(keys)
    }
}
