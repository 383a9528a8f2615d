//! The fleet for the status page: what was last seen of each cluster, and looks again, within limits.
//!
//! A scrape's look serves here, too. A page view asks only those clusters that it shows, and only if the last look is
//! older than [`FRESH_FOR`]; the rest of the fleet, of which the order of the page is made, once a minute while
//! somebody looks. One look at a cluster is under way at a time, and [`MAX_CONCURRENT_OBSERVATIONS`] in all.

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
        overview::{ClusterView, LastRun, Observation, Overview},
    },
};

/// What is younger is shown as it is.
const FRESH_FOR: Duration = Duration::from_secs(4);
/// The same for clusters that are not on the page.
const SWEEP_AFTER: Duration = Duration::from_mins(1);
/// Members that hang must not hold up the look at others for long.
const OBSERVE_BUDGET: Duration = Duration::from_secs(4);
/// How long a page waits for what it asked: members nearby answer within milliseconds.
const PATIENCE: Duration = Duration::from_millis(800);
/// Some hundred connections' worth of small requests.
const MAX_CONCURRENT_OBSERVATIONS: usize = 32;

#[derive(Default)]
pub(super) struct ObservationCache {
    last: Mutex<Option<StoredObservation>>,
    under_way: AtomicBool,
}

struct StoredObservation {
    at: Instant,
    up: bool,
    facts: Option<Arc<ClusterFacts>>,
}

pub(super) struct FleetObserver {
    places: Arc<Semaphore>,
    swept: Mutex<Option<Instant>>,
}

impl Default for FleetObserver {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_CONCURRENT_OBSERVATIONS)), swept: Mutex::default() }
    }
}

impl ObservationCache {
    pub(super) fn record(&self, up: bool, facts: Option<&ClusterFacts>) {
        let facts = facts.cloned().map(Arc::new);
        *self.last.lock() = Some(StoredObservation { at: Instant::now(), up, facts });
    }

    fn seen(&self) -> Option<Observation> {
        let last = self.last.lock();
        last.as_ref().map(|look| Observation { age: look.at.elapsed(), up: look.up, facts: look.facts.clone() })
    }

    fn is_older_than(&self, limit: Duration) -> bool {
        self.last.lock().as_ref().is_none_or(|look| look.at.elapsed() >= limit)
    }

    /// Whoever gets it looks; until it is dropped, nobody else does.
    fn claim(self: &Arc<Self>) -> Option<ObservationGuard> {
        (!self.under_way.swap(true, Ordering::AcqRel)).then(|| ObservationGuard(Arc::clone(self)))
    }
}

struct ObservationGuard(Arc<ObservationCache>);

impl Drop for ObservationGuard {
    fn drop(&mut self) {
        self.0.under_way.store(false, Ordering::Release);
    }
}

/// Looks, if the last look is older than this and nobody is at it.
async fn refresh<E: Etcd, J: Journal>(cluster: Arc<Cluster<E, J>>, places: Arc<Semaphore>, limit: Duration) {
    if !cluster.observations.is_older_than(limit) {
        return;
    }
    let Some(_claim) = cluster.observations.claim() else { return };
    let Ok(_place) = places.acquire().await else { return };
    let _ = cluster.observe_for_scrape(OBSERVE_BUDGET).await;
    cluster.shared.changes.announce();
}

impl<E: Etcd, J: Journal> Cluster<E, J> {
    fn view(&self) -> ClusterView {
        let summary = self.summary();
        let state = self.requests.state.lock();
        let speeds = state.speeds.clone();
        let last = state.ledger.runs.iter().rev().find_map(|run| {
            let outcome = run.outcome.clone()?;
            Some(LastRun { run: run.id, outcome, at: run.finished_at, reclaimed: run.reclaimed() })
        });
        drop(state);
        ClusterView { summary, observation: self.observations.seen(), live: self.current_run.get(), last, speeds }
    }
}

impl<E: Etcd, J: Journal> App<E, J> {
    /// The part of the fleet that is not on the page, in the background.
    fn sweep(&self) {
        let mut swept = self.fleet_observer.swept.lock();
        if swept.is_some_and(|at| at.elapsed() < SWEEP_AFTER) {
            return;
        }
        *swept = Some(Instant::now());
        for cluster in self.fleet().all() {
            // Each is bounded in time, and all together by the places.
            drop(tokio::spawn(refresh(cluster, Arc::clone(&self.fleet_observer.places), SWEEP_AFTER)));
        }
    }
}

impl<E: Etcd, J: Journal> Overview for App<E, J> {
    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    async fn refresh(&self, clusters: &[String]) {
        let all = self.fleet().all();
        let shown = all.iter().filter(|cluster| clusters.iter().any(|name| name == cluster.name()));
        let stale = shown.filter(|cluster| cluster.observations.is_older_than(FRESH_FOR));
        // In tasks of their own: whoever goes away in the middle must not waste what was asked.
        let refreshes: Vec<_> = stale
            .map(|cluster| {
                tokio::spawn(refresh(Arc::clone(cluster), Arc::clone(&self.fleet_observer.places), FRESH_FOR))
            })
            .collect();
        self.sweep();
        // What has not come by then is shown as it was, with its age.
        let _ = timeout(PATIENCE, join_all(refreshes)).await;
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
