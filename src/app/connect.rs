//! From a cluster's settings to the connection to it.

use anyhow::Context;

use crate::{
    adapters::etcd::{CredentialFiles, Discovery, EtcdCluster, Pages, Sources},
    config::{ClusterSettings, ModuleSettings},
    core::{alert::Selector, policy::Policy},
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
    let files = CredentialFiles {
        ca: settings.ca_file.clone(),
        identity: settings.identity_files.clone(),
        user: settings.user.clone(),
    };
    let discovery = settings.discovery.clone().map(|found| Discovery {
        domain: found.domain,
        name: found.name,
        insecure: found.insecure,
        nameserver: found.nameserver,
    });
    let pages = settings.metrics.clone().map(|metrics| Pages {
        url: metrics.url,
        ca: metrics.ca_file,
        identity: metrics.identity_files,
    });
    let (endpoints, quota) = (settings.endpoints.clone(), settings.quota);
    let by_flags = settings.by_flags;
    Sources { endpoints, discovery, files, pages, quota, insecure_skip_verify: false, by_flags }
}

/// Connects to a cluster that a module may probe, without sending anything yet: only the given targets are dialled,
/// whatever the cluster's member list says.
pub fn connect_module(module: &ModuleSettings, endpoints: Vec<String>) -> anyhow::Result<EtcdCluster> {
    let settings = ClusterSettings {
        name: module.name.clone(),
        endpoints,
        discovery: None,
        ca_file: module.ca_file.clone(),
        identity_files: module.identity_files.clone(),
        user: module.user.clone(),
        metrics: module.metrics.clone(),
        quota: module.quota,
        selector: Selector { cluster: module.name.clone(), any_of: Vec::new() },
        policy: Policy::default(),
        gates: Vec::new(),
        by_flags: false,
    };
    let (allowed, allowed_pages) = (module.allowed.clone(), module.allowed.clone());
    let cluster = connect(&settings).with_context(|| format!("module {}", module.name))?;
    let pages = Box::new(move |url: &str| allowed_pages.permits_page(url));
    Ok(cluster.within(Box::new(move |url| allowed.permits_url(url)), pages))
}
