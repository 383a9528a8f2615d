//! The locks of the configured clusters, built from the configuration, and the access to the other replicas.

use std::sync::Arc;

use anyhow::Context;

use super::connect::sources;
use crate::{
    adapters::{
        etcd::{CredentialFiles, EtcdCluster, Sources},
        lock::{EtcdLock, KubernetesLock},
        outgoing::HttpPeers,
    },
    config::{ClusterSettings, LockKind, LockSettings},
    core::lock::Holder,
    ports::lock::{LockCandidate, LockStore},
};

/// This replica's name and URL for the other replicas.
pub fn holder(settings: &LockSettings) -> Holder {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    let name = settings.name.clone().or_else(|| host().ok().filter(|name| !name.is_empty()));
    Holder { name: name.unwrap_or_else(|| "defragd".to_owned()), url: settings.url.clone() }
}

/// The lock's store for this cluster; `None` with a single replica. Nothing is sent yet.
pub fn store(settings: &LockSettings, cluster: &ClusterSettings) -> anyhow::Result<Option<Arc<dyn LockStore>>> {
    let candidate = LockCandidate { cluster: cluster.name.clone(), me: holder(settings), ttl: settings.ttl };
    Ok(match settings.kind {
        LockKind::None => None,
        LockKind::Etcd => {
            let keys = settings.etcd();
            // A separate connection: a run's RPCs must not delay a renewal.
            let etcd = if settings.is_in_the_target() {
                EtcdCluster::open(sources(cluster)).with_context(|| format!("cluster {}", cluster.name))?
            } else {
                let files = CredentialFiles { tls: keys.tls, user: keys.auth };
                EtcdCluster::open(Sources { endpoints: keys.endpoints, files, ..Sources::default() })
                    .context("lock.etcd")?
            };
            Some(Arc::new(EtcdLock::new(etcd, keys.prefix, candidate)))
        }
        LockKind::Kubernetes => Some(Arc::new(KubernetesLock::new(settings.kubernetes(), candidate))),
    })
}

/// The access to the other replicas.
pub fn peers(settings: &LockSettings) -> HttpPeers {
    let peers = &settings.peers;
    HttpPeers {
        name: holder(settings).name,
        token_file: peers.token_file.clone(),
        admin_token_file: peers.admin_token_file().cloned(),
        tls: peers.tls.clone().into(),
    }
}
