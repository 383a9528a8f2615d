//! What was last observed of a cluster, by a scrape or for the status page, and the limits of observing the fleet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    core::{
        cluster::{ClusterFacts, Unknown},
        sizes::SizeHistory,
    },
    ports::overview::Observation,
};

/// Some hundred connections with small requests.
const MAX_CONCURRENT_OBSERVATIONS: usize = 32;

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

/// Limits the observations that no scrape makes.
pub struct FleetObserver {
    pub(super) places: Semaphore,
    pub(super) swept: Mutex<Option<Instant>>,
}

impl Default for FleetObserver {
    fn default() -> Self {
        Self { places: Semaphore::new(MAX_CONCURRENT_OBSERVATIONS), swept: Mutex::default() }
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
