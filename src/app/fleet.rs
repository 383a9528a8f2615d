//! The clusters that are configured now, and what runs for each: one small unit per cluster, which starts and ends
//! with it.
//!
//! It runs nothing itself: the units are given to the supervisor of the process's tasks, which notices if one ends
//! early. A cluster that is removed from the configuration *leaves*: its run in progress starts no further member and
//! is finished, a waiting request ends, and until then its name cannot be reused.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tracing::info;

use super::{
    cluster::{Cluster, stop_channel},
    driver::Stop,
};
use crate::{
    core::{alert::Selector, reason::Reason},
    ports::{etcd::Etcd, journal::Journal},
};

/// The configured clusters at one moment, in the order of the configuration.
pub struct ConfiguredClusters<E, J> {
    pub clusters: Vec<Arc<Cluster<E, J>>>,
    /// Which alerts concern them. Replaced together with the clusters, so that readers never see a mix of old and new.
    pub selectors: Vec<Selector>,
}

impl<E: Etcd, J: Journal> ConfiguredClusters<E, J> {
    /// These clusters, with their current selectors.
    pub fn new(clusters: Vec<Arc<Cluster<E, J>>>) -> Self {
        let selectors = clusters.iter().map(|cluster| cluster.rules().selector.clone()).collect();
        Self { clusters, selectors }
    }

    /// The same; alerts that match these selectors concern clusters of other shards.
    #[must_use]
    pub fn beside(mut self, elsewhere: Vec<Selector>) -> Self {
        self.selectors.extend(elsewhere);
        self
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Cluster<E, J>>> {
        self.clusters.iter().find(|cluster| cluster.name() == name)
    }
}

/// Everything that runs for one cluster, to be run as one task.
pub struct ClusterTask<E, J> {
    cluster: Arc<Cluster<E, J>>,
    stop: Stop,
}

impl<E: Etcd, J: Journal> ClusterTask<E, J> {
    /// Runs until the process ends or the cluster leaves, and returns the cluster's name. With `serves`, requests are
    /// served; without it, the cluster is only observed. The parts share one task: the end of any of them ends the
    /// unit.
    pub async fn live(self, serves: bool) -> String {
        let Self { cluster, mut stop } = self;
        // Boxed: in a fleet of a thousand clusters, parts that do not run should take little memory.
        if serves {
            tokio::select! {
                // Ends on a stop, after the run in progress.
                () = Box::pin(cluster.work(stop.clone())) => {}
                never = Box::pin(cluster.watch_revisions()) => match never {},
                never = Box::pin(cluster.keep_schedule()) => match never {},
                never = Box::pin(cluster.observe_at_start()) => match never {},
                // Renews until the run in progress has ended.
                () = Box::pin(cluster.keep_lock()) => {}
            }
        } else {
            tokio::select! {
                // A closed channel says that the process is ending.
                _ = stop.wait_for(Option::is_some) => {}
                never = Box::pin(cluster.observe_at_start()) => match never {},
            }
        }
        Box::pin(cluster.close(stop)).await;
        // Nothing is in progress any more: another replica may start at once.
        Box::pin(cluster.release_lock()).await;
        cluster.name().to_owned()
    }
}

pub struct Fleet<E, J> {
    now: Mutex<Arc<ConfiguredClusters<E, J>>>,
    leaving: Mutex<Vec<Arc<Cluster<E, J>>>>,
    stops: Mutex<BTreeMap<String, watch::Sender<Option<Reason>>>>,
    cluster_tasks: mpsc::UnboundedSender<ClusterTask<E, J>>,
    cluster_tasks_to_run: Mutex<Option<mpsc::UnboundedReceiver<ClusterTask<E, J>>>>,
}

impl<E: Etcd, J: Journal> Fleet<E, J> {
    /// Of these clusters. Nothing runs yet.
    pub fn new(clusters: Vec<Arc<Cluster<E, J>>>) -> Self {
        let (cluster_tasks, to_run) = mpsc::unbounded_channel();
        Self {
            now: Mutex::new(Arc::new(ConfiguredClusters::new(clusters))),
            leaving: Mutex::default(),
            stops: Mutex::default(),
            cluster_tasks,
            cluster_tasks_to_run: Mutex::new(Some(to_run)),
        }
    }

    pub fn now(&self) -> Arc<ConfiguredClusters<E, J>> {
        Arc::clone(&self.now.lock())
    }

    /// Which alerts concern clusters of other shards.
    pub fn set_elsewhere(&self, elsewhere: Vec<Selector>) {
        let mut now = self.now.lock();
        *now = Arc::new(ConfiguredClusters::new(now.clusters.clone()).beside(elsewhere));
    }

    /// What is configured now, and what was removed but has not ended yet.
    pub fn all(&self) -> Vec<Arc<Cluster<E, J>>> {
        let mut all = self.now().clusters.clone();
        all.extend(self.leaving.lock().iter().cloned());
        all
    }

    /// Whether a cluster with this name was removed, but has not ended yet.
    pub fn is_leaving(&self, name: &str) -> bool {
        self.leaving.lock().iter().any(|cluster| cluster.name() == name)
    }

    /// The units to run, now and whenever clusters are added. Only the first caller gets them.
    pub fn cluster_tasks(&self) -> Option<mpsc::UnboundedReceiver<ClusterTask<E, J>>> {
        self.cluster_tasks_to_run.lock().take()
    }

    /// Starts what runs for a cluster.
    pub fn spawn(&self, cluster: &Arc<Cluster<E, J>>) {
        let (stop, stopped) = stop_channel();
        self.stops.lock().insert(cluster.name().to_owned(), stop);
        // In tests, where no task runs units, there is nothing to start.
        let _ = self.cluster_tasks.send(ClusterTask { cluster: Arc::clone(cluster), stop: stopped });
    }

    /// Replaces the configured clusters. Those that are no longer among them leave.
    pub fn swap(&self, next: ConfiguredClusters<E, J>) {
        let mut now = self.now.lock();
        let gone: Vec<_> = now.clusters.iter().filter(|old| next.find(old.name()).is_none()).cloned().collect();
        let come: Vec<_> = next.clusters.iter().filter(|new| now.find(new.name()).is_none()).cloned().collect();
        for cluster in gone {
            info!(cluster = cluster.name(), "the cluster was removed from the configuration");
            cluster.retire();
            self.leaving.lock().push(Arc::clone(&cluster));
            if let Some(stop) = self.stops.lock().get(cluster.name()) {
                stop.send_replace(Some(Reason::Removed));
            }
        }
        for cluster in &come {
            self.spawn(cluster);
        }
        *now = Arc::new(next);
    }

    /// The unit of a cluster ended. Returns whether that was expected, because the cluster was leaving.
    pub fn ended(&self, name: &str) -> bool {
        let mut leaving = self.leaving.lock();
        let before = leaving.len();
        leaving.retain(|cluster| cluster.name() != name);
        let gone = leaving.len() < before;
        if gone {
            self.stops.lock().remove(name);
        }
        gone
    }

    /// Stops everything that runs.
    pub fn stop(&self, reason: &Reason) {
        for stop in self.stops.lock().values() {
            stop.send_replace(Some(reason.clone()));
        }
    }
}
