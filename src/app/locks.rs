//! The locks of the configured clusters, built from the configuration, and the access to the other replicas.

use std::sync::Arc;

use anyhow::Context;

use super::connect::sources;
use crate::{
    adapters::{
        etcd::{CredentialFiles, EtcdCluster, Sources},
        lock::{EtcdLock, EtcdLockSettings, KubernetesLock, KubernetesLockSettings},
        outgoing::HttpPeers,
    },
    config::{ClusterSettings, LockKind, LockSettings},
    core::lock::Holder,
    ports::lock::LockStore,
};

/// This replica's name and URL for the other replicas.
pub fn holder(settings: &LockSettings) -> Holder {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    let name = settings.name.clone().or_else(|| host().ok().filter(|name| !name.is_empty()));
    Holder { name: name.unwrap_or_else(|| "defragd".to_owned()), url: settings.url.clone() }
}

/// The lock's store for this cluster; `None` with a single replica. Nothing is sent yet.
pub fn store(settings: &LockSettings, cluster: &ClusterSettings) -> anyhow::Result<Option<Arc<dyn LockStore>>> {
    let me = holder(settings);
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
            let (prefix, cluster, ttl) = (keys.prefix, cluster.name.clone(), settings.ttl);
            Some(Arc::new(EtcdLock::new(etcd, EtcdLockSettings { prefix, cluster, me, ttl })))
        }
        LockKind::Kubernetes => {
            let keys = settings.kubernetes();
            Some(Arc::new(KubernetesLock::new(KubernetesLockSettings {
                kubeconfig: keys.kubeconfig,
                context: keys.context,
                namespace: keys.namespace,
                name_prefix: keys.name_prefix,
                cluster: cluster.name.clone(),
                me,
                ttl: settings.ttl,
            })))
        }
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
