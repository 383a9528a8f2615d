//! `/probe`: the metrics of clusters that are not configured. They are only measured, never acted upon.
//!
//! Connections are kept from one scrape to the next, up to a number and an age; a client that requests ever new targets
//! displaces those that were unused for longest, and causes no other cost.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{debug, error};

use super::target::{ObservedCluster, ScrapeObservation};
use crate::{
    config::{
        ModuleSettings,
        modules::{self, Denied, shown},
    },
    core::estimate::Speeds,
    ports::{
        etcd::Etcd,
        service::{ProbeRefusal, ProbeRequest},
    },
    telemetry::{members::ClusterSample, probe},
};

/// Three to six connections each: together with those of scrapers below the 1,024 file descriptors that most processes
/// are given.
const MAX_KEPT: usize = 128;
/// Longer than any sane scrape interval.
const KEPT_FOR: Duration = Duration::from_mins(5);
/// How often unused connections are closed.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// Connects to a cluster at these URLs. Reads files.
pub type Connector<E> = Arc<dyn Fn(&ModuleSettings, Vec<String>) -> anyhow::Result<E> + Send + Sync>;

pub struct Probes<E> {
    modules: Mutex<Arc<BTreeMap<String, ModuleSettings>>>,
    connector: Connector<E>,
    cache: Mutex<HashMap<Key, CachedTarget<E>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    module: String,
    urls: Vec<String>,
}

struct CachedTarget<E> {
    target: Arc<ObservedCluster<E>>,
    used: Instant,
}

impl<E: Etcd> Probes<E> {
    /// With these modules, and no connection yet.
    pub fn new(modules: BTreeMap<String, ModuleSettings>, connector: Connector<E>) -> Self {
        Self { modules: Mutex::new(Arc::new(modules)), connector, cache: Mutex::default() }
    }

    /// Without any: every probe is refused.
    pub fn none() -> Self {
        Self::new(BTreeMap::new(), Arc::new(|_, _| anyhow::bail!("there are no modules")))
    }

    /// Replaces the modules. Connections are made anew, with the current files.
    pub fn follow(&self, modules: BTreeMap<String, ModuleSettings>) {
        *self.modules.lock() = Arc::new(modules);
        self.cache.lock().clear();
    }

    /// The page for one cluster, within `budget`.
    pub async fn probe(&self, request: ProbeRequest, budget: Duration) -> Result<String, ProbeRefusal> {
        let began = Instant::now();
        let modules = Arc::clone(&self.modules.lock());
        let module = modules.get(&request.module).ok_or_else(|| ProbeRefusal::UnknownModule {
            name: request.module.clone(),
            known: modules.keys().cloned().collect(),
        })?;
        let mut targets = Vec::new();
        for text in &request.targets {
            targets.push(allowed(module, text)?);
        }
        let name = request.cluster.or_else(|| targets.first().map(|target| target.authority.clone()));
        let name = name.unwrap_or_default();
        let target = self.target(module, targets).await?;
        let sample = sample(&target, name, &request.module, budget.saturating_sub(began.elapsed())).await;
        // Formatting into a String fails only if a metric's own code does.
        Ok(probe::page(sample, began.elapsed()).unwrap_or_else(|error| {
            error!(%error, "cannot format the metrics of a probe");
            "# EOF\n".to_owned()
        }))
    }

    /// Closes connections that are no longer used. Never ends.
    pub async fn sweep(&self) {
        loop {
            sleep(SWEEP_EVERY).await;
            self.cache.lock().retain(|_, cache| cache.used.elapsed() < KEPT_FOR);
        }
    }

    async fn target(
        &self,
        module: &ModuleSettings,
        targets: Vec<modules::ProbeAddress>,
    ) -> Result<Arc<ObservedCluster<E>>, ProbeRefusal> {
        let mut urls: Vec<_> = targets.into_iter().map(|target| target.url).collect();
        urls.sort();
        urls.dedup();
        let key = Key { module: module.name.clone(), urls };
        if let Some(cache) = self.cache.lock().get_mut(&key) {
            cache.used = Instant::now();
            return Ok(Arc::clone(&cache.target));
        }
        let unusable = |detail| ProbeRefusal::Unusable { module: module.name.clone(), detail };
        let (connector, own, urls) = (Arc::clone(&self.connector), module.clone(), key.urls.clone());
        let made = tokio::task::spawn_blocking(move || connector(&own, urls)).await;
        let etcd =
            made.map_err(|error| unusable(error.to_string()))?.map_err(|error| unusable(format!("{error:#}")))?;
        let mut all = self.cache.lock();
        if all.len() >= MAX_KEPT && !all.contains_key(&key) {
            let idle = all.iter().filter(|(_, cache)| Arc::strong_count(&cache.target) == 1);
            let oldest = idle.min_by_key(|(_, cache)| cache.used).map(|(key, _)| key.clone());
            all.remove(&oldest.ok_or(ProbeRefusal::Full)?);
        }
        // A concurrent request for the same cluster may have been first.
        let fresh =
            || CachedTarget { target: Arc::new(ObservedCluster::new(module.name.clone(), etcd)), used: Instant::now() };
        Ok(Arc::clone(&all.entry(key).or_insert_with(fresh).target))
    }
}

fn allowed(module: &ModuleSettings, text: &str) -> Result<modules::ProbeAddress, ProbeRefusal> {
    // A password may stand before the @.
    let target = || shown(text.rsplit_once('@').map_or(text, |(_, rest)| rest));
    module.target(text).map_err(|denied| match denied {
        Denied::NotATarget(detail) => ProbeRefusal::BadTarget { target: target(), detail },
        Denied::Outside(detail) => {
            ProbeRefusal::NotAllowed { target: target(), detail: format!("module {}: {detail}", module.name) }
        }
    })
}

async fn sample<E: Etcd>(target: &ObservedCluster<E>, name: String, module: &str, budget: Duration) -> ClusterSample {
    let ScrapeObservation { listed, facts, .. } = target.observe_for_scrape(budget).await;
    if let Err(unknown) = &listed {
        debug!(module, cluster = name, error = unknown.detail, "probe: no target returned the member list");
    }
    for (member, unknown) in facts
        .iter()
        .flat_map(|facts| &facts.members)
        .filter_map(|member| member.status.as_ref().err().map(|unknown| (member.member.label(), &unknown.detail)))
    {
        debug!(module, cluster = name, member, error = unknown, "probe: a member did not answer");
    }
    let mut sample = ClusterSample::new(name, listed.is_ok(), facts, None, |_| None, Some(&Speeds::default()));
    sample.error = listed.err().map(|unknown| unknown.kind);
    sample
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
