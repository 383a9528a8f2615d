//! The fleet for the status page: what was last seen of each cluster, and looks again, within limits.
//!
//! A scrape's look serves here, too. A page view asks only those clusters that it shows, and only if the last look is
//! older than [`FRESH_FOR`]; the rest of the fleet, of which the order of the page is made, once a minute while
//! somebody looks. One look at a cluster is under way at a time, and [`LOOKS_AT_ONCE`] in all.

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

/// What is younger is shown as it is.
const FRESH_FOR: Duration = Duration::from_secs(4);
/// The same for clusters that are not on the page.
const SWEEP_AFTER: Duration = Duration::from_mins(1);
/// Members that hang must not hold up the look at others for long.
const LOOK_BUDGET: Duration = Duration::from_secs(4);
/// How long a page waits for what it asked: members nearby answer within milliseconds.
const PATIENCE: Duration = Duration::from_millis(800);
/// Some hundred connections' worth of small requests.
const LOOKS_AT_ONCE: usize = 32;

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

    /// Whoever gets it looks; until it is dropped, nobody else does.
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

/// Looks, if the last look is older than this and nobody is at it.
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
    /// The part of the fleet that is not on the page, in the background.
    fn sweep(&self) {
        let mut swept = self.lookout.swept.lock();
        if swept.is_some_and(|at| at.elapsed() < SWEEP_AFTER) {
            return;
        }
        *swept = Some(Instant::now());
        for cluster in self.fleet().all() {
            // Each is bounded in time, and all together by the places.
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
        // In tasks of their own: whoever goes away in the middle must not waste what was asked.
        let looks: Vec<_> = stale
            .map(|cluster| tokio::spawn(look(Arc::clone(cluster), Arc::clone(&self.lookout.places), FRESH_FOR)))
            .collect();
        self.sweep();
        // What has not come by then is shown as it was, with its age.
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
