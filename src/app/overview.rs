//! The fleet for the status page: the last observation of each cluster, and new observations within limits.
//!
//! The observations of scrapes are used, too. A page view observes only the clusters that it shows, and only if the
//! last observation is older than [`FRESH_FOR`]; the rest of the fleet, which determines the order on the page, once a
//! minute while the page is viewed. Each cluster has at most one observation in progress, and the fleet
//! [`LOOKS_AT_ONCE`].
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};

use super::{cluster::Cluster, service::App};
use crate::{
    core::{
        cluster::ClusterFacts,
        history::{Record, RunId, RunView},
    },
    ports::{
        etcd::Etcd,
        journal::{Journal, JournalError},
        overview::{ClusterView, LastRun, Overview, Seen},
    },
};

/// A younger observation is shown as it is.
const FRESH_FOR: Duration = Duration::from_secs(4);
/// The same for clusters that are not on the page.
const SWEEP_AFTER: Duration = Duration::from_mins(1);
/// Members that hang must not delay the observation of others for long.
const LOOK_BUDGET: Duration = Duration::from_secs(4);
/// How long a page waits for its observations: members nearby answer within milliseconds.
const PATIENCE: Duration = Duration::from_millis(800);
/// Some hundred connections with small requests.
const LOOKS_AT_ONCE: usize = 32;

/// The last observation of one cluster.
#[derive(Default)]
pub(super) struct Sight {
    last: Mutex<Option<Look>>,
    under_way: AtomicBool,
}

struct Look {
    at: Instant,
    up: bool,
    facts: Option<Arc<ClusterFacts>>,
}

/// Observes the fleet for the page.
pub(super) struct Lookout {
    places: Arc<Semaphore>,
    swept: Mutex<Option<Instant>>,
}

impl Default for Lookout {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(LOOKS_AT_ONCE)), swept: Mutex::default() }
    }
}

impl Sight {
    pub(super) fn saw(&self, up: bool, facts: Option<&ClusterFacts>) {
        let facts = facts.cloned().map(Arc::new);
        *self.last.lock() = Some(Look { at: Instant::now(), up, facts });
    }

    fn seen(&self) -> Option<Seen> {
        let last = self.last.lock();
        last.as_ref().map(|look| Seen { age: look.at.elapsed(), up: look.up, facts: look.facts.clone() })
    }

    fn is_older_than(&self, limit: Duration) -> bool {
        self.last.lock().as_ref().is_none_or(|look| look.at.elapsed() >= limit)
    }

    /// The caller that gets it observes; until it is dropped, no other does.
    fn claim(self: &Arc<Self>) -> Option<Claim> {
        (!self.under_way.swap(true, Ordering::AcqRel)).then(|| Claim(Arc::clone(self)))
    }
}

struct Claim(Arc<Sight>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.under_way.store(false, Ordering::Release);
    }
}

/// Observes the cluster, if the last observation is older than this and none is in progress.
async fn look<E: Etcd, J: Journal>(cluster: Arc<Cluster<E, J>>, places: Arc<Semaphore>, limit: Duration) {
    if !cluster.sight.is_older_than(limit) {
        return;
    }
    let Some(_claim) = cluster.sight.claim() else { return };
    let Ok(_place) = places.acquire().await else { return };
    let _ = cluster.glance(LOOK_BUDGET).await;
    cluster.shared.changes.tell();
}

impl<E: Etcd, J: Journal> Cluster<E, J> {
    fn view(&self) -> ClusterView {
        let summary = self.summary();
        let desk = self.requests.desk.lock();
        let speeds = desk.speeds.clone();
        let last = desk.ledger.runs.iter().rev().find_map(|run| {
            let outcome = run.outcome.clone()?;
            Some(LastRun { run: run.id, outcome, at: run.finished_at, reclaimed: run.reclaimed() })
        });
        drop(desk);
        ClusterView { summary, seen: self.sight.seen(), live: self.stage.get(), last, speeds }
    }
}

impl<E: Etcd, J: Journal> App<E, J> {
    /// Observes the part of the fleet that is not on the page, in the background.
    fn sweep(&self) {
        let mut swept = self.lookout.swept.lock();
        if swept.is_some_and(|at| at.elapsed() < SWEEP_AFTER) {
            return;
        }
        *swept = Some(Instant::now());
        for cluster in self.fleet().all() {
            // Each is limited in time, and all together by the permits.
            drop(tokio::spawn(look(cluster, Arc::clone(&self.lookout.places), SWEEP_AFTER)));
        }
    }
}

impl<E: Etcd, J: Journal> Overview for App<E, J> {
    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    async fn look(&self, clusters: &[String]) {
        let all = self.fleet().all();
        let shown = all.iter().filter(|cluster| clusters.iter().any(|name| name == cluster.name()));
        let stale = shown.filter(|cluster| cluster.sight.is_older_than(FRESH_FOR));
        // In separate tasks: if a client disconnects, the observation is still used.
        let looks: Vec<_> = stale
            .map(|cluster| tokio::spawn(look(Arc::clone(cluster), Arc::clone(&self.lookout.places), FRESH_FOR)))
            .collect();
        self.sweep();
        // What has not arrived by then is shown as it was, with its age.
        let _ = timeout(PATIENCE, join_all(looks)).await;
    }

    fn views(&self) -> Vec<ClusterView> {
        self.fleet().all().iter().map(|cluster| cluster.view()).collect()
    }

    fn view(&self, cluster: &str) -> Option<ClusterView> {
        self.fleet().all().iter().find(|found| found.name() == cluster).map(|cluster| cluster.view())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.watch()
    }

    async fn runs_of(&self, cluster: &str, limit: usize) -> Result<Vec<RunView>, JournalError> {
        let mut runs = self.shared.journal.runs_of(cluster, limit).await?;
        runs.reverse();
        Ok(runs)
    }

    async fn records(&self, run: RunId) -> Result<Vec<Record>, JournalError> {
        self.shared.journal.records(run).await
    }
}

#[cfg(test)]
#[path = "overview_tests.rs"]
mod tests;
