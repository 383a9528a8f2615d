//! Whether the system lets the process open as many files as its clusters need: members without a connection are shown as
//! down.

use rustix::process::{Resource, getrlimit};
use tracing::warn;

use crate::{
    adapters::http::MAX_CONNECTIONS,
    config::{ClusterSettings, LockSettings},
};

/// Most clusters have as many; the others are only known when they are observed.
const MEMBERS: u64 = 3;
/// The journal, gates, metrics pages that are being read, notifications.
const OTHERS: u64 = 64;

pub(super) fn warn_if_few(clusters: &[ClusterSettings], lock: &LockSettings, exporter_only: bool) {
    // The soft limit: `main` has raised it as far as possible.
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    let members: u64 = clusters.iter().map(|cluster| MEMBERS.max(cluster.endpoints.len() as u64)).sum();
    let connections = if lock.is_in_the_target() && !exporter_only { members * 2 } else { members };
    // HTTP clients take half of a smaller limit.
    let needed = connections + (MAX_CONNECTIONS as u64).min(limit / 2) + OTHERS;
    if needed > limit {
        warn!(
            limit,
            needed,
            clusters = clusters.len(),
            "the limit of open files is too low for so many clusters: some members will be shown as down; raise \
             LimitNOFILE= (systemd) or ulimit -Hn, or divide the clusters (--total-shards)"
        );
    }
}
