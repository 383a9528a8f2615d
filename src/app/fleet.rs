//! The clusters that are configured now, and what runs for each: one small unit per cluster, which starts and ends
//! with it.
//!
//! It runs nothing itself: the units are given to the supervisor of the process's tasks, which notices if one ends
//! early. A cluster that is removed from the configuration *leaves*: its run in progress starts no further member and
//! is finished, a waiting request ends, and until then its name cannot be reused.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
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
    /// Where each name is in the list.
    places: BTreeMap<String, usize>,
}

impl<E: Etcd, J: Journal> ConfiguredClusters<E, J> {
    /// These clusters, with their current selectors.
    pub fn new(clusters: Vec<Arc<Cluster<E, J>>>) -> Self {
        let selectors = clusters.iter().map(|cluster| cluster.settings().selector()).collect();
        let places = clusters.iter().enumerate().map(|(place, cluster)| (cluster.name().to_owned(), place)).collect();
        Self { clusters, selectors, places }
    }

    /// The same; alerts that match these selectors concern clusters of other shards.
    #[must_use]
    pub fn beside(mut self, elsewhere: Vec<Selector>) -> Self {
        self.selectors.extend(elsewhere);
        self
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Cluster<E, J>>> {
        self.clusters.get(*self.places.get(name)?)
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
                never = Box::pin(cluster.target.watch_revisions()) => match never {},
                never = Box::pin(cluster.keep_schedule()) => match never {},
                never = Box::pin(cluster.observe_at_start()) => match never {},
                // Renews until the run in progress has ended.
                () = Box::pin(cluster.keep_lock()) => {}
            }
        } else {
            tokio::select! {
                // A closed channel says that the process is ending.
                _ = stop.wait_for(Option::is_some) => {}
                never = Box::pin(cluster.read_at_start()) => match never {},
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
    clusters: Mutex<FleetClusters<E, J>>,
    /// A cluster that was removed has ended.
    ended: Notify,
    stops: Mutex<BTreeMap<String, watch::Sender<Option<Reason>>>>,
    cluster_tasks: mpsc::UnboundedSender<ClusterTask<E, J>>,
    cluster_tasks_to_run: Mutex<Option<mpsc::UnboundedReceiver<ClusterTask<E, J>>>>,
}

/// Behind one mutex: a cluster that is removed must not be in both lists for any reader.
struct FleetClusters<E, J> {
    now: Arc<ConfiguredClusters<E, J>>,
    leaving: Vec<Arc<Cluster<E, J>>>,
}

impl<E: Etcd, J: Journal> Fleet<E, J> {
    /// Of these clusters. Nothing runs yet.
    pub fn new(clusters: Vec<Arc<Cluster<E, J>>>) -> Self {
        let (cluster_tasks, to_run) = mpsc::unbounded_channel();
        let now = Arc::new(ConfiguredClusters::new(clusters));
        Self {
            clusters: Mutex::new(FleetClusters { now, leaving: Vec::new() }),
            ended: Notify::new(),
            stops: Mutex::default(),
            cluster_tasks,
            cluster_tasks_to_run: Mutex::new(Some(to_run)),
        }
    }

    pub fn now(&self) -> Arc<ConfiguredClusters<E, J>> {
        Arc::clone(&self.clusters.lock().now)
    }

    /// Which alerts concern clusters of other shards.
    pub fn set_elsewhere(&self, elsewhere: Vec<Selector>) {
        let now = &mut self.clusters.lock().now;
        *now = Arc::new(ConfiguredClusters::new(now.clusters.clone()).beside(elsewhere));
    }

    /// What is configured now, and what was removed but has not ended yet.
    pub fn all(&self) -> Vec<Arc<Cluster<E, J>>> {
        let clusters = self.clusters.lock();
        clusters.now.clusters.iter().chain(&clusters.leaving).cloned().collect()
    }

    /// The cluster with this name that was removed, but has not ended yet.
    pub fn leaving(&self, name: &str) -> Option<Arc<Cluster<E, J>>> {
        self.clusters.lock().leaving.iter().find(|cluster| cluster.name() == name).cloned()
    }

    /// Waits until each removed cluster of these names has ended, at most this long. Does not wait for a run in progress:
    /// it may take hours.
    pub async fn settle(&self, names: &[String], limit: Duration) {
        let is_ending = || {
            let leaving = names.iter().filter_map(|name| self.leaving(name));
            leaving.filter(|cluster| cluster.active_run().is_none()).count() > 0
        };
        let settled = async {
            loop {
                let ended = self.ended.notified();
                if !is_ending() {
                    return;
                }
                ended.await;
            }
        };
        // What has not ended by then is the caller's to notice.
        let _ = timeout(limit, settled).await;
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
        let mut clusters = self.clusters.lock();
        let before = std::mem::replace(&mut clusters.now, Arc::new(next));
        let now = Arc::clone(&clusters.now);
        for cluster in before.clusters.iter().filter(|old| now.find(old.name()).is_none()) {
            info!(cluster = cluster.name(), "the cluster was removed from the configuration");
            cluster.retire();
            clusters.leaving.push(Arc::clone(cluster));
            if let Some(stop) = self.stops.lock().get(cluster.name()) {
                stop.send_replace(Some(Reason::Removed));
            }
        }
        for cluster in now.clusters.iter().filter(|new| before.find(new.name()).is_none()) {
            self.spawn(cluster);
        }
    }

    /// A removed cluster has ended: its name is free again.
    pub fn ended(&self, name: &str) {
        self.clusters.lock().leaving.retain(|cluster| cluster.name() != name);
        self.stops.lock().remove(name);
        self.ended.notify_waiters();
    }

    /// Stops everything that runs.
    pub fn stop(&self, reason: &Reason) {
        for stop in self.stops.lock().values() {
            stop.send_replace(Some(reason.clone()));
        }
    }
}
