//! What was last observed of a cluster, by a scrape or for the status page, and the limits of observing the fleet.
//!
//! Right after a start, a large fleet has a lot to do that nothing waits for: each cluster is observed, and its journal is
//! read. A scrape at that time would share the processors with it, and observe clusters that are being observed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};

use crate::{
    core::{
        cluster::{ClusterFacts, Unknown},
        sizes::SizeHistory,
    },
    ports::overview::Observation,
};

/// Some hundred connections with small requests.
const MAX_CONCURRENT_OBSERVATIONS: usize = 32;
/// How long after the start a scrape goes first. Members that hang may make it much longer.
const SCRAPES_GO_FIRST_FOR: Duration = Duration::from_secs(2);

/// The last observation of one cluster.
#[derive(Default)]
pub(super) struct ObservationCache {
    last: Mutex<Option<StoredObservation>>,
    pub(super) sizes: Mutex<Arc<SizeHistory>>,
    under_way: AtomicBool,
}

struct StoredObservation {
    at: Instant,
    error: Option<Unknown>,
    facts: Option<Arc<ClusterFacts>>,
}

/// Limits the observations that no scrape makes, and what else nothing waits for.
pub struct FleetObserver {
    pub(super) places: Semaphore,
    pub(super) swept: Mutex<Option<Instant>>,
    /// How many are in progress.
    scrapes: watch::Sender<usize>,
    started: Instant,
}

impl Default for FleetObserver {
    fn default() -> Self {
        let places = Semaphore::new(MAX_CONCURRENT_OBSERVATIONS);
        Self { places, swept: Mutex::default(), scrapes: watch::Sender::default(), started: Instant::now() }
    }
}

impl FleetObserver {
    /// A scrape is in progress until the result is dropped.
    pub(super) fn scrape_begins(&self) -> ScrapeInProgress<'_> {
        self.scrapes.send_modify(|scrapes| *scrapes += 1);
        ScrapeInProgress(&self.scrapes)
    }

    /// Right after the start, returns only when no scrape is in progress.
    pub(super) async fn scrapes_first(&self) {
        let mut scrapes = self.scrapes.subscribe();
        let _ = timeout_at(self.started + SCRAPES_GO_FIRST_FOR, scrapes.wait_for(|scrapes| *scrapes == 0)).await;
    }
}

pub(super) struct ScrapeInProgress<'a>(&'a watch::Sender<usize>);

impl Drop for ScrapeInProgress<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|scrapes| *scrapes -= 1);
    }
}

impl ObservationCache {
    /// `error` is why no endpoint returned the member list.
    pub(super) fn record(&self, now: Timestamp, error: Option<&Unknown>, facts: Option<&ClusterFacts>) {
        if let Some(facts) = facts.filter(|_| error.is_none()) {
            Arc::make_mut(&mut self.sizes.lock()).record(now, facts);
        }
        let facts = facts.cloned().map(Arc::new);
        *self.last.lock() = Some(StoredObservation { at: Instant::now(), error: error.cloned(), facts });
    }

    pub(super) fn seen(&self) -> Option<Observation> {
        let last = self.last.lock();
        last.as_ref().map(|last| Observation {
            age: last.at.elapsed(),
            error: last.error.clone(),
            facts: last.facts.clone(),
        })
    }

    pub(super) fn is_older_than(&self, limit: Duration) -> bool {
        self.last.lock().as_ref().is_none_or(|look| look.at.elapsed() >= limit)
    }

    /// The caller that gets it observes; until it is dropped, no other does.
    pub(super) fn claim(self: &Arc<Self>) -> Option<ObservationGuard> {
        (!self.under_way.swap(true, Ordering::AcqRel)).then(|| ObservationGuard(Arc::clone(self)))
    }
}

pub(super) struct ObservationGuard(Arc<ObservationCache>);

impl Drop for ObservationGuard {
    fn drop(&mut self) {
        self.0.under_way.store(false, Ordering::Release);
    }
}
