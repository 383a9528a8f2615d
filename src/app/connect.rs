//! From a cluster's settings to the connection to it.

use anyhow::Context;

use crate::{
    adapters::etcd::{CredentialFiles, EtcdCluster, Sources},
    config::{ClusterSettings, ModuleSettings},
};

/// The connection to a configured cluster. Reads its files, and sends nothing yet.
pub fn connect(settings: &ClusterSettings) -> anyhow::Result<EtcdCluster> {
    EtcdCluster::open(sources(settings)).with_context(|| format!("cluster {}", settings.name))
}

/// The same, accepting any server certificate; not with a user.
pub fn connect_unverified(settings: &ClusterSettings) -> anyhow::Result<EtcdCluster> {
    let sources = Sources { insecure_skip_verify: true, ..sources(settings) };
    EtcdCluster::open(sources).with_context(|| format!("cluster {}", settings.name))
}

/// The endpoints of a configured cluster, and what is needed to connect.
pub(super) fn sources(settings: &ClusterSettings) -> Sources {
    Sources {
        endpoints: settings.endpoints.clone(),
        discovery: settings.discovery_srv.clone(),
        files: CredentialFiles { tls: settings.tls.clone(), user: settings.auth.clone() },
        pages: settings.metrics.clone(),
        quota: settings.quota,
        insecure_skip_verify: false,
        by_flags: settings.by_flags,
    }
}

/// Connects to a cluster that a module may probe, without sending anything yet: only the given targets are dialled,
/// whatever the cluster's member list says.
pub fn connect_module(module: &ModuleSettings, endpoints: Vec<String>) -> anyhow::Result<EtcdCluster> {
    let settings = ClusterSettings {
        name: module.name.clone(),
        endpoints,
        tls: module.tls.clone(),
        auth: module.auth.clone(),
        metrics: module.metrics.clone(),
        quota: module.quota,
        ..ClusterSettings::default()
    };
    let (allowed, allowed_pages) = (module.clone(), module.clone());
    let cluster = connect(&settings).with_context(|| format!("module {}", module.name))?;
    let pages = Box::new(move |url: &str| allowed_pages.permits_page(url).map_err(|denied| denied.to_string()));
    Ok(cluster.within(Box::new(move |url| allowed.permits_url(url).map_err(|denied| denied.to_string())), pages))
}
