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
    /// Duration: how long the lock stays with a replica that has died.
    pub ttl: Option<Time>,
    /// This replica's name; the host name if absent.
    pub name: Option<String>,
    /// The URL under which the other replicas reach this one.
    pub url: Option<String>,
    /// Kind `etcd`.
    pub etcd: Option<EtcdKeys>,
    /// Kind `kubernetes`.
    pub kubernetes: Option<KubernetesKeys>,
    /// The credentials for the other replicas.
    pub peers: Option<PeerKeys>,
}

/// Where the lock is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// There is a single replica.
    None,
    /// In an etcd.
    Etcd,
    /// In Kubernetes Leases.
    Kubernetes,
}

/// Kind `etcd`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdKeys {
    /// Before all keys.
    pub prefix: Option<String>,
    /// Of a separate etcd; each cluster's own if absent.
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
    /// The cluster that defragd runs in, if absent.
    pub kubeconfig: Option<PathBuf>,
    /// Which context of the kubeconfig.
    pub context: Option<String>,
    /// The namespace of the Leases.
    pub namespace: Option<String>,
    /// Precedes the cluster's name in a Lease's name.
    pub name_prefix: Option<String>,
}

/// The credentials for the other replicas.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PeerKeys {
    /// Their `--web.bearer-token-file`.
    pub token_file: Option<PathBuf>,
    /// Their `--web.admin-token-file`; the same as `token_file` if absent.
    pub admin_token_file: Option<PathBuf>,
    /// TLS files.
    #[serde(default)]
    pub tls: Tls,
}

impl Lock {
    /// These keys, overridden by those of `over`: those of the flags, which have no others.
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
