//! The key `lock`, as it is written.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Auth, Tls};
use crate::core::time::Time;

/// Which of several replicas acts on a cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// `none`, `etcd` or `kubernetes`.
    pub kind: Option<Kind>,
    /// Duration: how long a replica that is gone still holds it.
    pub ttl: Option<Time>,
    /// This replica's name; the host's where absent.
    pub name: Option<String>,
    /// Where the other replicas reach this one.
    pub url: Option<String>,
    /// Kind `etcd`.
    pub etcd: Option<EtcdKeys>,
    /// Kind `kubernetes`.
    pub kubernetes: Option<KubernetesKeys>,
    /// What is shown to the other replicas.
    pub peers: Option<PeerKeys>,
}

/// Where the lock lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// There is one replica.
    None,
    /// In an etcd.
    Etcd,
    /// In Leases of Kubernetes.
    Kubernetes,
}

/// Kind `etcd`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdKeys {
    /// Before all keys.
    pub prefix: Option<String>,
    /// Of an etcd for this alone; each cluster's own where absent.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// TLS files.
    #[serde(default)]
    pub tls: Tls,
    /// etcd's own users.
    pub auth: Option<Auth>,
}

/// Kind `kubernetes`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesKeys {
    /// The cluster that defragd runs in where absent.
    pub kubeconfig: Option<PathBuf>,
    /// Which of its contexts.
    pub context: Option<String>,
    /// Where the Leases are.
    pub namespace: Option<String>,
    /// Before the cluster's name in theirs.
    pub name_prefix: Option<String>,
}

/// What is shown to the other replicas.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PeerKeys {
    /// Their `--web.bearer-token-file`.
    pub token_file: Option<PathBuf>,
    /// Their `--web.admin-token-file`; the same as `token_file` where absent.
    pub admin_token_file: Option<PathBuf>,
    /// TLS files.
    #[serde(default)]
    pub tls: Tls,
}

impl Lock {
    /// These keys, with those of `over` in front: of the flags, which have no more than these.
    #[must_use]
    pub fn overridden_by(self, over: Self) -> Self {
        let peers = match (self.peers, over.peers) {
            (Some(peers), Some(over)) => Some(PeerKeys { token_file: over.token_file.or(peers.token_file), ..peers }),
            (peers, over) => over.or(peers),
        };
        Self {
            kind: over.kind.or(self.kind),
            ttl: over.ttl.or(self.ttl),
            name: over.name.or(self.name),
            url: over.url.or(self.url),
            peers,
            ..self
        }
    }
}
