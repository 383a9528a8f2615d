//! The locks of the configured clusters, built from the configuration, and the access to the other replicas.

use std::sync::Arc;

use anyhow::Context;

use super::connect::sources;
use crate::{
    adapters::{
        etcd::{CredentialFiles, EtcdCluster, Sources},
        lock::{EtcdLock, EtcdLockSettings, KubernetesLock, KubernetesLockSettings},
        outgoing::{ClientTls, HttpPeers},
    },
    config::{ClusterSettings, LockKind, LockSettings},
    core::lock::Holder,
    ports::lock::LockStore,
};

/// This replica's name and URL for the other replicas.
pub fn holder(settings: &LockSettings) -> Holder {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    let name = settings.name.clone().or_else(|| host().ok().filter(|name| !name.is_empty()));
    Holder { name: name.unwrap_or_else(|| "defragd".to_owned()), url: settings.url.as_ref().map(ToString::to_string) }
}

/// The lock's store for this cluster; `None` with a single replica. Nothing is sent yet.
pub fn store(settings: &LockSettings, cluster: &ClusterSettings) -> anyhow::Result<Option<Arc<dyn LockStore>>> {
    let me = holder(settings);
    Ok(match &settings.kind {
        LockKind::None => None,
        LockKind::Etcd { prefix, coordination } => {
            // A separate connection: a run's RPCs must not delay a renewal.
            let etcd = match coordination {
                None => EtcdCluster::open(sources(cluster)).with_context(|| format!("cluster {}", cluster.name))?,
                Some(own) => {
                    let files = CredentialFiles {
                        ca: own.ca_file.clone(),
                        identity: own.identity_files.clone(),
                        user: own.user.clone(),
                    };
                    EtcdCluster::open(Sources { endpoints: own.endpoints.clone(), files, ..Sources::default() })
                        .context("lock.etcd")?
                }
            };
            let (prefix, cluster, ttl) = (prefix.clone(), cluster.name.clone(), settings.ttl);
            Some(Arc::new(EtcdLock::new(etcd, EtcdLockSettings { prefix, cluster, me, ttl })))
        }
        LockKind::Kubernetes { kubeconfig, context, namespace, name_prefix } => {
            Some(Arc::new(KubernetesLock::new(KubernetesLockSettings {
                kubeconfig: kubeconfig.clone(),
                context: context.clone(),
                namespace: namespace.clone(),
                name_prefix: name_prefix.clone(),
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
    let tls = ClientTls {
        ca_file: peers.ca_file.clone(),
        identity_files: peers.identity_files.clone(),
        ..ClientTls::default()
    };
    HttpPeers {
        name: holder(settings).name,
        token_file: peers.token_file.clone(),
        admin_token_file: peers.admin_token_file.clone(),
        tls,
    }
}
