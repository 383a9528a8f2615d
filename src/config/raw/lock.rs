//! The key `lock`, as it is written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Auth, Tls};
use crate::core::time::Time;

/// Which of several replicas acts on a cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Where the lock is kept. `none`: there is one replica. `etcd`: a key with a lease. `kubernetes`: Leases of a
    /// Kubernetes API server.
    #[schemars(extend("default" = "none"))]
    pub kind: Option<Kind>,
    /// How long a replica that is gone still holds the lock, in whole seconds. It should be longer than the
    /// defragmentation of a leader takes, since no lease can be renewed meanwhile.
    #[schemars(extend("default" = "60s", "x-range" = ["10s", "1h"]))]
    pub ttl: Option<Time>,
    /// This replica's name.
    #[schemars(extend("x-default" = "the host's name"))]
    pub name: Option<String>,
    /// URL under which the other replicas reach this one. They forward requests to it while it holds the lock. It
    /// differs in each replica, so rather give `--lock.url` or `DEFRAGD_LOCK_URL`.
    #[schemars(extend("x-default" = "none: the other replicas keep their requests until they hold the lock"))]
    pub url: Option<String>,
    /// Details of `kind: etcd`.
    pub etcd: Option<EtcdKeys>,
    /// Details of `kind: kubernetes`.
    pub kubernetes: Option<KubernetesKeys>,
    /// How this replica authenticates to the other replicas.
    pub peers: Option<PeerKeys>,
}

/// Where the lock lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdKeys {
    /// Prefix of the lock's keys.
    #[schemars(extend("default" = "/defragd/lock/"))]
    pub prefix: Option<String>,
    /// Client URLs of a separate etcd for the locks.
    #[serde(default)]
    #[schemars(extend("x-default" = "the lock of a cluster is kept in that cluster"))]
    pub endpoints: Vec<String>,
    /// TLS to `endpoints`.
    #[serde(default)]
    pub tls: Tls,
    /// The user of that etcd.
    pub auth: Option<Auth>,
}

/// Kind `kubernetes`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesKeys {
    /// The kubeconfig of the Kubernetes cluster that keeps the Leases.
    #[schemars(extend("x-default" = "the cluster that defragd runs in, by its service account"))]
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig.
    #[schemars(extend("x-default" = "the current context"))]
    pub context: Option<String>,
    /// The namespace of the Leases. Required with `kubeconfig`.
    #[schemars(extend("x-default" = "the pod's own"))]
    pub namespace: Option<String>,
    /// Prefix of the Leases' names, before the cluster's name.
    #[schemars(extend("default" = "defragd-"))]
    pub name_prefix: Option<String>,
}

/// What is shown to the other replicas.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerKeys {
    /// File with the token of their `--web.bearer-token-file`.
    #[schemars(extend("x-default" = "none"))]
    pub token_file: Option<PathBuf>,
    /// File with the token of their `--web.admin-token-file`.
    #[schemars(extend("x-default" = "`token_file`"))]
    pub admin_token_file: Option<PathBuf>,
    /// TLS to the other replicas.
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
