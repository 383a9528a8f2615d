//! The clusters that are configured now, and all that runs for each: one small unit a cluster, which begins and ends
//! with it.
//!
//! Must not run anything itself: units are handed to whoever watches over the tasks of the process, so that one that
//! ends early is seen. A cluster that is taken out of the configuration *leaves*: its run under way starts no further
//! member and goes to its end, what waits is ended, and until then its name is not free.

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
    /// Which alerts concern them. Swapped together with them: nobody sees some of before and some of after.
    pub selectors: Vec<Selector>,
}

impl<E: Etcd, J: Journal> ConfiguredClusters<E, J> {
    /// Of these clusters, with their selectors of now.
    pub fn new(clusters: Vec<Arc<Cluster<E, J>>>) -> Self {
        let selectors = clusters.iter().map(|cluster| cluster.rules().selector.clone()).collect();
        Self { clusters, selectors }
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Cluster<E, J>>> {
        self.clusters.iter().find(|cluster| cluster.name() == name)
    }
}

/// All that runs for one cluster, to be run as one task.
pub struct ClusterTask<E, J> {
    cluster: Arc<Cluster<E, J>>,
    stop: Stop,
}

impl<E: Etcd, J: Journal> ClusterTask<E, J> {
    /// Runs until the process ends or the cluster leaves, and gives the cluster's name. With `serves`, requests are
    /// served; else it only lives. The parts share one task: the end of any is the end of the unit.
    pub async fn live(self, serves: bool) -> String {
        let Self { cluster, mut stop } = self;
        // In boxes: of a thousand clusters, what is not under way should take no room.
        if serves {
            tokio::select! {
                // Ends when it is told to, after the run under way.
                () = Box::pin(cluster.work(stop.clone())) => {}
                never = Box::pin(cluster.watch_revisions()) => match never {},
                never = Box::pin(cluster.keep_schedule()) => match never {},
                // Renews for as long as the run under way goes on.
                () = Box::pin(cluster.keep_lock()) => {}
            }
        } else {
            // A closed channel says that the process is ending.
            let _ = stop.wait_for(Option::is_some).await;
        }
        Box::pin(cluster.close(stop)).await;
        // Nothing is under way any more: another replica may begin at once.
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

    /// What is configured now, and what is not at its end yet.
    pub fn all(&self) -> Vec<Arc<Cluster<E, J>>> {
        let mut all = self.now().clusters.clone();
        all.extend(self.leaving.lock().iter().cloned());
        all
    }

    /// Whether a cluster with this name is taken out, and not at its end yet.
    pub fn is_leaving(&self, name: &str) -> bool {
        self.leaving.lock().iter().any(|cluster| cluster.name() == name)
    }

    /// The units that are to be run, now and whenever clusters come. Only the first who asks gets them.
    pub fn cluster_tasks(&self) -> Option<mpsc::UnboundedReceiver<ClusterTask<E, J>>> {
        self.cluster_tasks_to_run.lock().take()
    }

    /// Begins what runs for a cluster.
    pub fn spawn(&self, cluster: &Arc<Cluster<E, J>>) {
        let (stop, stopped) = stop_channel();
        self.stops.lock().insert(cluster.name().to_owned(), stop);
        // Where nobody runs units, as in tests, there is nothing to begin.
        let _ = self.cluster_tasks.send(ClusterTask { cluster: Arc::clone(cluster), stop: stopped });
    }

    /// From now on these clusters are configured. Those that are not among them any more leave.
    pub fn swap(&self, next: ConfiguredClusters<E, J>) {
        let mut now = self.now.lock();
        let gone: Vec<_> = now.clusters.iter().filter(|old| next.find(old.name()).is_none()).cloned().collect();
        let come: Vec<_> = next.clusters.iter().filter(|new| now.find(new.name()).is_none()).cloned().collect();
        for cluster in gone {
            info!(cluster = cluster.name(), "the cluster is no longer in the configuration");
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

    /// The unit of a cluster ended. Gives whether it was to: the cluster was leaving, and is gone now.
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

    /// Asks all that runs to end.
    pub fn stop(&self, reason: &Reason) {
        for stop in self.stops.lock().values() {
            stop.send_replace(Some(reason.clone()));
        }
    }
}
