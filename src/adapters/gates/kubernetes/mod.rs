//! The gate `kubernetes_pods`: pods that became unhealthy since the run began. It lists pods and does nothing else.
//!
//! Before the run, unhealthy pods are recorded as the baseline, and do not fail the gate. Later, a workload that has
//! *more* unhealthy pods than in the baseline, at every listing for the whole grace period, fails the gate. In reading
//! order: `health` says when a pod is unhealthy, `pod` to which workload it belongs, `census` what is new, `patience`
//! how long it has lasted; `connect`, `list` and `error` read the pods.
//!
//! Known and intended consequences:
//! - a rollout that takes longer than the grace period looks like trouble, because its workload always has starting
//!   pods;
//! - if other pods are unhealthy than before, but not more of them, only a workload whose pods keep their names
//!   (`StatefulSets`, static pods, single pods) shows it;
//! - a selector that selects no pod passes: `field_selector: status.phase!=Running` is a way to reduce the load in a
//!   big cluster. The detail says how many pods were found.
//!
//! During the checks after members, an API server that does not answer gets the same grace period: it depends on the
//! etcd that was just defragmented.

mod census;
mod connect;
mod control_plane;
mod error;
mod health;
mod list;
mod nodes;
mod patience;
mod pod;

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

pub use self::nodes::NodesProbe;
use self::{
    census::{Baseline, Census, Worse},
    list::{Api, Listing, PODS},
    patience::{GraceOutcome, Patience},
    pod::Pod,
};
pub(in crate::adapters) use self::{
    connect::{Connection, micro_time},
    error::{ApiError, answer},
};
use crate::{
    core::{gate::Moment, story},
    ports::gate::{CheckContext, GateProbe, KubernetesPodsGate, Reading},
};

/// Often enough to notice soon that a problem has ended, seldom enough for an API server.
const POLL: Duration = Duration::from_secs(3);
/// As many names as fit in a line.
const MAX_NAMES: usize = 10;

impl KubernetesPodsGate {
    /// The limit within which a check ends by itself in any case.
    pub(in crate::adapters) fn limit(&self) -> Duration {
        // See `patience` and `after`. A listing that fails late; a grace period of failures; a pause as long as a
        // listing, and the first that succeeds; a grace period of trouble; again a pause, and the last listing.
        2 * self.grace + 5 * self.timeout + 2 * POLL
    }
}

#[derive(Debug)]
pub struct PodsProbe {
    settings: KubernetesPodsGate,
}

impl PodsProbe {
    /// Nothing is read or sent before the first check.
    pub fn new(settings: KubernetesPodsGate) -> Self {
        Self { settings }
    }

    /// One listing, within its limit.
    async fn count(&self, kept: &mut Option<Connection>) -> Result<Census, ApiError> {
        let KubernetesPodsGate { kubeconfig, context, timeout, .. } = &self.settings;
        let api = Api { kubeconfig: kubeconfig.as_deref(), context: context.as_deref(), timeout: *timeout };
        let listing = listing(&self.settings)?;
        api.list(kept, &listing, || Census::new(Timestamp::now()), |census, pod: Pod| census.count(&pod)).await
    }

    async fn before(&self) -> Reading {
        match self.count(&mut None).await {
            Err(error) => Reading::fail(error.to_string()),
            Ok(census) => {
                let (pods, workloads) = census.unhealthy();
                let (all, workloads) = (story::count(census.pods, "pod"), story::count(workloads, "workload"));
                let detail = format!("{all}; {pods} already unhealthy, of {workloads}");
                match serde_json::to_value(census.baseline()) {
                    Ok(baseline) => Reading { baseline: Some(baseline), ..seen(Reading::pass(detail), &census) },
                    Err(error) => Reading::fail(format!("the baseline cannot be written: {error}")),
                }
            }
        }
    }

    async fn after(&self, given: Option<&Value>) -> Reading {
        let known: Option<Baseline> = given.and_then(|baseline| serde_json::from_value(baseline.clone()).ok());
        let compared = match (&known, given) {
            (Some(_), _) => "",
            (None, None) => "; there is no baseline from before the run, so every unhealthy pod counts",
            (None, Some(_)) => "; the baseline from before the run cannot be parsed, so every unhealthy pod counts",
        };
        let baseline = known.unwrap_or_default();
        let (begin, grace) = (Instant::now(), self.settings.grace);
        let (mut connection, mut patience, mut failing_since) = (None, Patience::new(grace), None);
        loop {
            let look_begin = Instant::now();
            match self.count(&mut connection).await {
                Err(error) => {
                    let at = begin.elapsed();
                    let since = *failing_since.get_or_insert(at);
                    if at.saturating_sub(since) >= grace || at >= 2 * grace {
                        return Reading::fail(format!("{error}{compared}")).with("waited_seconds", at.as_secs());
                    }
                }
                Ok(census) => {
                    failing_since = None;
                    let (at, worse) = (begin.elapsed(), census.worse_than(&baseline));
                    let reading = match patience.record(at, &worse) {
                        GraceOutcome::Waiting => None,
                        GraceOutcome::Passed => Some(Reading::pass(passed(&census, &worse) + compared)),
                        GraceOutcome::Lasting(keys) => Some(Reading::fail(failed(&worse, &keys, grace) + compared)),
                    };
                    if let Some(reading) = reading {
                        let worse = worse.iter().flat_map(names).take(MAX_NAMES).collect::<Vec<_>>();
                        return seen(reading, &census).with("new", worse).with("waited_seconds", at.as_secs());
                    }
                }
            }
            // A slow listing is a heavy one: the API server gets a pause of the same length.
            sleep(look_begin.elapsed().max(POLL.min(grace / 4))).await;
        }
    }
}

fn listing(settings: &KubernetesPodsGate) -> Result<Listing<'_>, ApiError> {
    let mut collections = Vec::new();
    for namespace in &settings.namespaces {
        if namespace.is_empty() || !namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            let detail = format!("{namespace:?} is not a valid namespace name");
            return Err(ApiError::Config { kubeconfig: settings.kubeconfig.clone(), detail });
        }
        collections.push((format!("/api/v1/namespaces/{namespace}/pods"), format!("in the namespace {namespace}")));
    }
    if collections.is_empty() {
        collections.push(("/api/v1/pods".to_owned(), "in all namespaces".to_owned()));
    }
    Ok(Listing {
        resource: PODS,
        collections,
        label_selector: settings.label_selector.as_deref(),
        field_selector: settings.field_selector.as_deref(),
    })
}

impl GateProbe for PodsProbe {
    fn check<'a>(&'a self, context: CheckContext<'a>) -> BoxFuture<'a, Reading> {
        Box::pin(async move {
            match context.moment {
                Moment::Before => self.before().await,
                Moment::Between | Moment::After => self.after(context.baseline).await,
            }
        })
    }
}

fn seen(reading: Reading, census: &Census) -> Reading {
    let (unhealthy, workloads) = census.unhealthy();
    reading
        .with("pods", census.pods)
        .with("unhealthy", unhealthy)
        .with("workloads", workloads)
        .with("names", census.names(MAX_NAMES))
}

fn passed(census: &Census, worse: &[Worse]) -> String {
    let (unhealthy, _) = census.unhealthy();
    let late = match worse.len() {
        0 => String::new(),
        // See `Patience`: they began after the grace period.
        late => format!("; {} began to have more while others were checked", story::count(late, "workload")),
    };
    let pods = story::count(census.pods, "pod");
    format!("{pods}, {unhealthy} unhealthy; no workload has more than before the run{late}")
}

fn failed(worse: &[Worse], lasting: &[String], grace: Duration) -> String {
    let lasting: Vec<_> = worse.iter().filter(|worse| lasting.contains(&worse.workload)).collect();
    let names: Vec<_> = lasting.iter().flat_map(|worse| names(worse)).collect();
    let more = names.len().saturating_sub(MAX_NAMES);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let shown = names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    let (workloads, seconds) = (story::count(lasting.len(), "workload"), grace.as_secs());
    let have = if lasting.len() == 1 { "has" } else { "have" };
    format!("{workloads} {have} more unhealthy pods than before the run, for {seconds} s or longer: {shown}{more}")
}

/// As many of the pods of a workload as are newly unhealthy.
fn names(worse: &Worse) -> Vec<String> {
    let new = worse.pods.iter().take(worse.now - worse.before);
    new.map(|named| named.in_words(&worse.workload)).collect()
}

#[cfg(test)]
mod tests;
