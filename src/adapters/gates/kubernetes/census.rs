//! How many pods of each workload are unhealthy: pure, so that tests can show in tables what counts as *new* trouble.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    health::{Health, judge},
    pod::Pod,
};

/// More names of pods would not be read by an operator.
const MAX_NAMES: usize = 10;

/// The pods of a listing, counted as they arrive, so that no page of them is kept.
#[derive(Debug)]
pub(super) struct Census {
    now: Timestamp,
    workloads: BTreeMap<String, Workload>,
    pub(super) pods: usize,
}

#[derive(Debug, Default)]
struct Workload {
    unhealthy: usize,
    restless: usize,
    named: Vec<Named>,
    restless_named: Vec<Named>,
    /// When the youngest permanently failed pod was created.
    failed: Option<(Option<Timestamp>, Named)>,
    /// When the youngest healthy pod was created.
    fine: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Without its namespace, which is the workload's.
    pub(super) pod: String,
    pub(super) reason: String,
}

/// What was unhealthy before the run, as the journal stores it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Baseline {
    workloads: BTreeMap<String, Before>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    unhealthy: usize,
    pods: Vec<String>,
}

/// A workload with more unhealthy pods than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Worse {
    /// `namespace/Kind/name`.
    pub(super) workload: String,
    pub(super) now: usize,
    pub(super) before: usize,
    /// The first few that are unhealthy now, those that were not before first.
    pub(super) pods: Vec<Named>,
}

impl Census {
    /// An empty census, judged at this time.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { now, workloads: BTreeMap::new(), pods: 0 }
    }

    pub(super) fn count(&mut self, pod: &Pod) {
        self.pods += 1;
        let workload = self.workloads.entry(pod.workload()).or_default();
        let created = pod.metadata.creation_timestamp;
        let named = |reason| Named { pod: pod.metadata.name.clone(), reason };
        match judge(pod, self.now) {
            // A pod that is being deleted replaces no other.
            Health::Healthy if pod.metadata.deletion_timestamp.is_some() => {}
            Health::Healthy => workload.fine = workload.fine.max(created),
            Health::Restless(reason) => {
                workload.fine = workload.fine.max(created);
                workload.restless += 1;
                push(&mut workload.restless_named, named(reason));
            }
            Health::Failed(reason) => {
                if workload.failed.as_ref().is_none_or(|(youngest, _)| *youngest <= created) {
                    workload.failed = Some((created, named(reason)));
                }
            }
            Health::Unhealthy(reason) => {
                workload.unhealthy += 1;
                push(&mut workload.named, named(reason));
            }
        }
    }

    /// All unhealthy pods, as a baseline: includes those that restarted so recently that they may be crash-looping.
    pub(super) fn baseline(&self) -> Baseline {
        let workloads = self.workloads.iter().filter_map(|(key, workload)| {
            let (unhealthy, mut named) = workload.trouble();
            named.extend(workload.restless_named.iter().cloned());
            named.truncate(MAX_NAMES);
            let unhealthy = unhealthy + workload.restless;
            let pods = named.into_iter().map(|named| named.pod).collect();
            (unhealthy > 0).then(|| (key.clone(), Before { unhealthy, pods }))
        });
        Baseline { workloads: workloads.collect() }
    }

    /// The workloads that have more unhealthy pods than in the baseline.
    pub(super) fn worse_than(&self, baseline: &Baseline) -> Vec<Worse> {
        let nothing = Before::default();
        let worse = self.workloads.iter().filter_map(|(key, workload)| {
            let before = baseline.workloads.get(key).unwrap_or(&nothing);
            let (now, mut pods) = workload.trouble();
            pods.sort_by_key(|named| before.pods.contains(&named.pod));
            (now > before.unhealthy).then(|| Worse { workload: key.clone(), now, before: before.unhealthy, pods })
        });
        worse.collect()
    }

    /// How many pods are unhealthy, in how many workloads.
    pub(super) fn unhealthy(&self) -> (usize, usize) {
        let counts = self.workloads.values().map(|workload| workload.trouble().0).filter(|count| *count > 0);
        counts.fold((0, 0), |(pods, workloads), count| (pods + count, workloads + 1))
    }

    /// The first unhealthy pods, as `namespace/pod: reason`.
    pub(super) fn names(&self, most: usize) -> Vec<String> {
        let all = self.workloads.iter().flat_map(|(key, workload)| {
            let named = workload.trouble().1.into_iter();
            named.map(|named| named.in_words(key)).collect::<Vec<_>>()
        });
        all.take(most).collect()
    }
}

impl Workload {
    /// How many pods are unhealthy, and the first few of them.
    ///
    /// A failed pod remains until it is deleted, while its controller creates another. So failed ones do not count once
    /// a younger pod of the workload is healthy, and as one otherwise: a Job that is retried again and again is one
    /// problem.
    fn trouble(&self) -> (usize, Vec<Named>) {
        let mut named = self.named.clone();
        let replaced = |created: &Option<Timestamp>| self.fine.is_some() && *created < self.fine;
        let failed = self.failed.as_ref().filter(|(created, _)| !replaced(created));
        if let Some((_, failed)) = failed {
            push(&mut named, failed.clone());
        }
        (self.unhealthy + usize::from(failed.is_some()), named)
    }
}

impl Named {
    /// `namespace/pod: reason`.
    pub(super) fn in_words(&self, workload: &str) -> String {
        let namespace = workload.split_once('/').map_or("", |(namespace, _)| namespace);
        format!("{namespace}/{}: {}", self.pod, self.reason)
    }
}

fn push(named: &mut Vec<Named>, one: Named) {
    if named.len() < MAX_NAMES {
        named.push(one);
    }
}

#[cfg(test)]
#[path = "census_tests.rs"]
mod tests;
