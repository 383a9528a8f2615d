//! Reloads the configuration, on SIGHUP or `POST /-/reload`: all of it or nothing.
//!
//! Clusters are added, removed, or get other endpoints and credentials. A run in progress keeps the policy, gates and
//! connections it began with; if its cluster is removed, it starts no further member. Everything that can fail is done
//! before the first change.

use std::{sync::Arc, time::Duration};

use super::{
    cluster::{Cluster, ClusterChange},
    config_changes::ConfigChanges,
    fleet::ConfiguredClusters,
    gates,
    service::{App, RUNS_READ_FIRST},
    shards::Shards,
};
use crate::{
    config::{ClusterSettings, LockSettings, Settings},
    ports::{
        etcd::Etcd,
        journal::{Journal, JournalError},
    },
};

/// Reads and checks the current configuration. The error is for people, one problem per line. May block.
pub type Reader = Arc<dyn Fn() -> Result<Settings, String> + Send + Sync>;

/// Builds the connection to a cluster. Sends nothing. May block.
pub type Connect<E> = Arc<dyn Fn(&ClusterSettings) -> anyhow::Result<E> + Send + Sync>;

/// Gives a new cluster its lock and the access to the other replicas. Sends nothing. May block.
pub type Equip<E, J> = Arc<dyn Fn(Cluster<E, J>) -> anyhow::Result<Cluster<E, J>> + Send + Sync>;

/// How long to wait for the end of a cluster that was just removed and is added again: longer than the release of its
/// lock may take.
const SETTLE_LIMIT: Duration = Duration::from_secs(15);

/// What happens to one entry of the configuration.
enum ReloadStep<E, J> {
    Keep(Arc<Cluster<E, J>>),
    Change { cluster: Arc<Cluster<E, J>>, change: Box<ClusterChange<E>> },
    Come(Arc<Cluster<E, J>>),
}

impl<E, J> ReloadStep<E, J> {
    fn cluster(&self) -> &Arc<Cluster<E, J>> {
        match self {
            Self::Keep(cluster) | Self::Change { cluster, .. } | Self::Come(cluster) => cluster,
        }
    }
}

impl<E: Etcd, J: Journal> App<E, J> {
    /// Applies all of it, or nothing.
    pub(super) async fn apply_settings(&self, settings: Settings) -> Result<ConfigChanges, String> {
        let mut problems = Vec::new();
        // A lock that moves would be held in the old and the new place at once.
        let moves = |lock: &LockSettings| *lock != settings.lock;
        if self.lock.as_ref().is_some_and(moves) {
            problems.push("lock: restart defragd to change it".to_owned());
        }
        // Clusters that move would be acted on by two shards until all are reloaded.
        if !Shards::divides_like(self.shards.as_ref(), Shards::of(&settings).as_ref()) {
            problems.push("shards: restart defragd to change it".to_owned());
        }
        // The tasks of the targets are started only once.
        if self.notify != settings.notify {
            problems.push("notify: restart defragd to change it".to_owned());
        }
        let before = self.fleet().now();
        if problems.is_empty() {
            let added = settings.clusters.iter().filter(|new| before.find(&new.name).is_none());
            let added: Vec<_> = added.map(|new| new.name.clone()).collect();
            self.fleet().settle(&added, SETTLE_LIMIT).await;
        }
        let mut steps = Vec::new();
        for new in settings.clusters {
            match self.step(&before, new) {
                Ok(step) => steps.push(step),
                Err(problem) => problems.push(problem),
            }
        }
        let come: Vec<_> =
            steps.iter().filter(|step| matches!(step, ReloadStep::Come(_))).map(ReloadStep::cluster).collect();
        // They may have been configured before.
        if let Err(error) = self.read_ledgers(come).await {
            problems.push(error.to_string());
        }
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        let take = |step| match step {
            ReloadStep::Keep(cluster) => cluster,
            ReloadStep::Come(cluster) => {
                self.shared.counters.expect_cluster(cluster.name());
                cluster
            }
            ReloadStep::Change { cluster, change } => {
                cluster.follow(*change);
                cluster
            }
        };
        let clusters = steps.into_iter().map(take).collect();
        self.probes.follow(settings.modules);
        let before = std::mem::replace(&mut *self.redacted.lock(), settings.redacted.clone());
        self.fleet().swap(ConfiguredClusters::new(clusters).beside(settings.elsewhere));
        Ok(ConfigChanges::between(&before, &settings.redacted))
    }

    /// Reads what the journal holds of these clusters, or of as many as can be read soon; the others read it themselves.
    /// Until then, a cluster's limits and requests are not shown.
    pub(super) async fn read_ledgers<'a>(
        &self,
        clusters: impl IntoIterator<Item = &'a Arc<Cluster<E, J>>>,
    ) -> Result<(), JournalError> {
        let mut runs = 0;
        for cluster in clusters {
            if runs < RUNS_READ_FIRST {
                runs += cluster.ledger().await?.runs.len();
            } else {
                cluster.leave_unread();
            }
        }
        Ok(())
    }

    fn step(&self, before: &ConfiguredClusters<E, J>, new: ClusterSettings) -> Result<ReloadStep<E, J>, String> {
        let unchanged = before.find(&new.name).filter(|cluster| *cluster.settings() == new);
        if let Some(cluster) = unchanged {
            return Ok(ReloadStep::Keep(Arc::clone(cluster)));
        }
        let gates = gates::of(&new).map_err(|error| format!("{error:#}"))?;
        let connect = || match &self.connect {
            Some(connect) => connect(&new).map_err(|error| format!("{error:#}")),
            None => Err(format!("cluster {}: restart defragd to connect to it", new.name)),
        };
        if let Some(cluster) = before.find(&new.name) {
            let moves = connection_changed(&cluster.settings(), &new);
            if moves && self.lock.as_ref().is_some_and(LockSettings::is_in_the_target) {
                let name = &new.name;
                return Err(format!(
                    "cluster {name}: its lock is stored in the cluster itself: restart defragd to change endpoints or credentials"
                ));
            }
            let etcd = (moves || is_measured_otherwise(&cluster.settings(), &new)).then(connect).transpose()?;
            let change = Box::new(ClusterChange { settings: new, gates, etcd });
            return Ok(ReloadStep::Change { cluster: Arc::clone(cluster), change });
        }
        if let Some(leaving) = self.fleet().leaving(&new.name) {
            let what = if leaving.active_run().is_some() { "its run has" } else { "its tasks have" };
            let name = &new.name;
            return Err(format!("cluster {name}: was removed, but {what} not ended yet: reload again later"));
        }
        let etcd = connect()?;
        let cluster = Cluster::new(new, etcd, Arc::clone(&self.shared)).with_gates(gates);
        let cluster = match &self.equip {
            Some(equip) => equip(cluster).map_err(|error| format!("{error:#}"))?,
            None => cluster,
        };
        Ok(ReloadStep::Come(Arc::new(cluster)))
    }
}

fn connection_changed(old: &ClusterSettings, new: &ClusterSettings) -> bool {
    old.endpoints != new.endpoints
        || old.discovery_srv != new.discovery_srv
        || old.tls != new.tls
        || old.auth != new.auth
}

/// The connection to the members is unchanged, but not that to their metrics pages, or the configured quota.
fn is_measured_otherwise(old: &ClusterSettings, new: &ClusterSettings) -> bool {
    old.metrics != new.metrics || old.quota != new.quota
}
