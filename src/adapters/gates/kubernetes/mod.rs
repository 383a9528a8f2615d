//! The gate `kubernetes_pods`: pods that became unhealthy since the run began. It lists pods and does nothing else.
//!
//! Before the run, what is unhealthy is written down as the baseline, and is no obstacle. Later, a workload with
//! *more* unhealthy pods than in the baseline, at every look for the whole grace, fails the gate. In reading order:
//! `health` says when a pod is unhealthy, `pod` whose it is, `census` what is new, `patience` how long it lasted;
//! `connect`, `list` and `error` fetch the pods.
//!
//! What follows from that, and is meant:
//! - a rollout that takes longer than the grace looks like trouble, for its workload always has pods that start;
//! - where the pods that are unhealthy change but not their number, only a workload whose pods keep their names
//!   (`StatefulSets`, static pods, pods alone) shows it;
//! - a selector that selects no pod passes: `field_selector: status.phase!=Running` is a way to spare a big
//!   cluster. The detail says how many pods were seen.
//!
//! During the checks after members an API server that does not answer has the same grace: it lives on the etcd
//! that was just defragmented.

mod census;
mod connect;
mod error;
mod health;
mod list;
mod patience;
mod pod;

use std::{path::PathBuf, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

pub(in crate::adapters) use self::connect::Connection;
use self::{
    census::{Baseline, Census, Worse},
    error::ListError,
    patience::{GraceOutcome, Patience},
};
use crate::{
    core::gate::Moment,
    ports::gate::{CheckContext, GateProbe, Reading},
};

/// Often enough to see trouble end soon, seldom enough for an API server to bear.
const POLL: Duration = Duration::from_secs(3);
/// As many names as a line can bear.
const MAX_NAMES: usize = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodsSettings {
    /// How to reach the API server; without one, as the pod that defragd runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Which of the kubeconfig's contexts; its `current-context` otherwise.
    pub context: Option<String>,
    /// Only these; all of them if there is none.
    pub namespaces: Vec<String>,
    /// Only pods with such labels, as `kubectl get --selector` has it.
    pub label_selector: Option<String>,
    /// Only pods with such fields, as `kubectl get --field-selector` has it.
    pub field_selector: Option<String>,
    /// New trouble that is over within that is none.
    pub grace: Duration,
    /// For one listing: connecting, credentials and all pages.
    pub timeout: Duration,
}

impl PodsSettings {
    /// Within this a check has ended by itself, whatever happens.
    pub fn limit(&self) -> Duration {
        // Two graces, see `patience` and `after`; a pause that is as long as a listing; and the last listing.
        2 * self.grace + 2 * self.timeout + POLL
    }
}

#[derive(Debug)]
pub struct PodsProbe {
    settings: PodsSettings,
}

impl PodsProbe {
    /// Nothing is read and nobody is called before the first check.
    pub fn new(settings: PodsSettings) -> Self {
        Self { settings }
    }

    /// One listing, within its limit. The connection is kept until something goes wrong with it.
    async fn count(&self, kept: &mut Option<Connection>) -> Result<Census, ListError> {
        let limit = self.settings.timeout;
        // Until the settings are read, the server's name is not known.
        let mut server = kept.as_ref().map_or_else(|| "of the cluster".to_owned(), |kept| kept.server.clone());
        let listing = async {
            let connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(&self.settings).await?,
            };
            server.clone_from(&connection.server);
            let census = list::count(&connection, &self.settings).await?;
            Ok((connection, census))
        };
        match timeout(limit, listing).await {
            Ok(Ok((connection, census))) => {
                *kept = Some(connection);
                Ok(census)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ListError::TimedOut { server, after: limit }),
        }
    }

    async fn before(&self) -> Reading {
        match self.count(&mut None).await {
            Err(error) => Reading::fail(error.to_string()),
            Ok(census) => {
                let (pods, workloads) = census.unhealthy();
                let detail = format!("{} pods; {pods} unhealthy already, of {workloads} workloads", census.pods);
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
            (None, None) => "; there is no baseline from before the run, so all that is unhealthy counts",
            (None, Some(_)) => "; the baseline from before the run is not understood, so all that is unhealthy counts",
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
            // A listing that takes long is heavy: the API server shall rest as long.
            sleep(look_begin.elapsed().max(POLL.min(grace / 4))).await;
        }
    }
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
        // See `Patience`: they began after the grace.
        late => format!("; {late} workloads began to have more while others were waited for"),
    };
    format!("{} pods, {unhealthy} unhealthy; no workload has more than before the run{late}", census.pods)
}

fn failed(worse: &[Worse], lasting: &[String], grace: Duration) -> String {
    let lasting: Vec<_> = worse.iter().filter(|worse| lasting.contains(&worse.workload)).collect();
    let names: Vec<_> = lasting.iter().flat_map(|worse| names(worse)).collect();
    let more = names.len().saturating_sub(MAX_NAMES);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let shown = names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    let (count, seconds) = (lasting.len(), grace.as_secs());
    format!("{count} workloads have more unhealthy pods than before the run, for {seconds} s or longer: {shown}{more}")
}

/// As many of the pods of a workload as are new trouble.
fn names(worse: &Worse) -> Vec<String> {
    let new = worse.pods.iter().take(worse.now - worse.before);
    new.map(|named| named.in_words(&worse.workload)).collect()
}

#[cfg(test)]
mod tests;
