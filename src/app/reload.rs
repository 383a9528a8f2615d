//! The configuration read again, on SIGHUP or `POST /-/reload`: all of it or nothing.
//!
//! What is swapped is what a later request asks: policy, gates and which alerts concern a cluster. A run under way keeps
//! what it began with. Clusters that come, go or move need a restart, and are refused with the reason.

use std::sync::Arc;

use super::{
    cluster::{Rules, lock},
    gates,
    service::App,
};
use crate::{
    config::{ClusterSettings, Settings},
    core::policy::Compaction,
    ports::{etcd::Etcd, journal::Journal},
};

/// Reads and checks the configuration, as it is now. The error is for people, one problem a line. May block.
pub type Reader = Arc<dyn Fn() -> Result<Settings, String> + Send + Sync>;

impl<E: Etcd, J: Journal> App<E, J> {
    /// Swaps the rules of every cluster, or of none.
    pub(super) fn take_over(&self, settings: Settings) -> Result<(), String> {
        let mut problems = Vec::new();
        let names = |clusters: &mut dyn Iterator<Item = &ClusterSettings>| {
            let mut names: Vec<_> = clusters.map(|cluster| cluster.name.clone()).collect();
            names.sort();
            names
        };
        let before = names(&mut self.workers().iter().map(|cluster| cluster.settings()));
        let after = names(&mut settings.clusters.iter());
        if before != after {
            problems.push(format!(
                "clusters: were {} and would be {}: restart defragd for that",
                before.join(", "),
                after.join(", ")
            ));
        }
        let mut swaps = Vec::new();
        for new in settings.clusters {
            let Some(cluster) = self.workers().iter().find(|cluster| cluster.settings().name == new.name) else {
                continue;
            };
            if let Some(what) = needs_a_restart(cluster.settings(), &new) {
                problems.push(format!("cluster {}: {what} changed: restart defragd for that", new.name));
            }
            match gates::of(&new) {
                Ok(gates) => {
                    let rules = Rules { policy: new.policy, selector: new.selector, gates };
                    swaps.push((Arc::clone(cluster), rules));
                }
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        // Whoever decides about alerts sees the selectors of before or those of after, never some of each.
        let mut selectors = lock(&self.selectors);
        for (cluster, rules) in swaps {
            cluster.follow(rules);
        }
        *lock(&self.shown) = settings.shown;
        *selectors = Arc::new(self.workers().iter().map(|cluster| cluster.rules().selector.clone()).collect());
        Ok(())
    }
}

/// What differs in what is set up once.
fn needs_a_restart(old: &ClusterSettings, new: &ClusterSettings) -> Option<&'static str> {
    let age = |settings: &ClusterSettings| match settings.policy.compaction {
        Some(Compaction::OlderThan(age)) => Some(age),
        _ => None,
    };
    if old.endpoints != new.endpoints {
        Some("endpoints")
    } else if old.ca_file != new.ca_file || old.identity_files != new.identity_files {
        Some("tls")
    } else if old.user != new.user {
        Some("auth")
    } else if age(old) != age(new) {
        Some("policy.compaction.older_than")
    } else {
        None
    }
}
