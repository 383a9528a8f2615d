//! What was last observed of a cluster, by a scrape or for the status page, and the limits of observing the fleet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

use crate::{core::cluster::ClusterFacts, ports::overview::Observation};

/// Some hundred connections with small requests.
const MAX_CONCURRENT_OBSERVATIONS: usize = 32;

/// The last observation of one cluster.
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

/// Limits the observations for the page.
pub(super) struct FleetObserver {
    pub(super) places: Arc<Semaphore>,
    pub(super) swept: Mutex<Option<Instant>>,
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

    pub(super) fn seen(&self) -> Option<Observation> {
        let last = self.last.lock();
        last.as_ref().map(|look| Observation { age: look.at.elapsed(), up: look.up, facts: look.facts.clone() })
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
