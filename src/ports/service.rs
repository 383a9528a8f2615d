//! What the HTTP side asks of the application.

use std::{fmt, future::Future, time::Duration};

use serde::Serialize;
use thiserror::Error;

use super::{journal::JournalError, overview::Overview};
use crate::core::{
    alert::{AlertStatus, Notification},
    history::{RunId, RunView},
    lock::Term,
    reason::Reason,
};

/// What became of one alert of a notification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertAnswer {
    /// Alertmanager's hash of its labels.
    pub fingerprint: String,
    pub status: AlertStatus,
    #[serde(flatten)]
    pub decision: AlertDecision,
}

/// What was decided about one alert.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum AlertDecision {
    /// A run was requested, and the request is in the journal.
    Accepted { cluster: String, run: RunId },
    /// A run that serves this alert was requested before.
    Duplicate {
        cluster: String,
        run: RunId,
        /// Which rule says so.
        reason: Reason,
    },
    /// The alert no longer fires, and with it the last one behind a request that waited.
    Cancelled { cluster: String, run: RunId },
    /// Nothing is to be done.
    Ignored {
        /// Of which cluster, where one is concerned.
        cluster: Option<String>,
        reason: Reason,
    },
}

impl AlertDecision {
    /// Stable labels for metrics: the decision and its reason.
    pub fn labels(&self) -> (&'static str, &'static str) {
        match self {
            Self::Accepted { .. } => ("accepted", "none"),
            Self::Cancelled { .. } => ("cancelled", "resolved"),
            Self::Duplicate { reason, .. } => ("duplicate", reason.label()),
            Self::Ignored { reason, .. } => ("ignored", reason.label()),
        }
    }
}

/// One configured cluster for the API and the status page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterSummary {
    pub name: String,
    /// `observe`, `approve` or `enforce`.
    pub mode: crate::core::policy::Mode,
    pub active_run: Option<RunId>,
    /// The run that waits for its turn.
    pub queued_run: Option<RunId>,
    pub waiting_for: Option<DescribedReason>,
    /// Runs are not taken before this time.
    pub cooldown_until: Option<jiff::Timestamp>,
    pub paused: Option<DescribedReason>,
    /// Too many runs failed.
    pub breaker: Option<DescribedReason>,
    /// Its members were found to hold different data.
    pub hash_mismatch: Option<DescribedReason>,
    /// When the next maintenance window opens.
    pub next_window: Option<jiff::Timestamp>,
    /// Whether a maintenance window is open, or there are none.
    pub window_open: bool,
    /// When the schedule next requests a run.
    pub next_scheduled: Option<jiff::Timestamp>,
    /// When the last run, which was refused, is tried again.
    pub retry_at: Option<jiff::Timestamp>,
    /// Other entries of the configuration that lead to the same etcd cluster.
    pub same_as: Vec<String>,
    /// It is no longer in the configuration, and a run is not at its end yet.
    pub leaving: bool,
    /// Which replica acts on it; nothing where there is no lock.
    pub lock: Option<LockSummary>,
}

/// Which replica acts on a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockSummary {
    pub held: bool,
    /// Since when, if it is this one.
    pub term: Option<Term>,
    /// Which other one, if it is known.
    pub holder: Option<String>,
    /// Where that is reached.
    pub url: Option<String>,
}

/// A reason with its words, for programs and people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DescribedReason {
    pub message: String,
    #[serde(flatten)]
    pub reason: Reason,
}

impl From<Reason> for DescribedReason {
    fn from(reason: Reason) -> Self {
        Self { message: reason.to_string(), reason }
    }
}

/// A person's order about a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// No run begins, and one under way starts no new member.
    Pause {
        reason: String,
        /// For how long; until somebody resumes where absent.
        lasts: Option<Duration>,
    },
    /// Ends a pause and closes the breaker.
    Resume { reason: String },
    /// Asks for a run.
    Run,
    /// Withdraws the standing request. A run under way starts no new member.
    Cancel { reason: String },
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandOutcome {
    /// It was carried out. With the number of the run that was asked for.
    Done(Option<RunId>),
    /// The replica that holds the lock carried it out.
    Forwarded { holder: String, answer: serde_json::Value },
}

/// Why an order is not carried out.
#[derive(Clone, Debug, Error)]
pub enum CommandError {
    #[error("there is no cluster {0:?}")]
    UnknownCluster(String),
    #[error("there is no run {0}")]
    UnknownRun(RunId),
    /// The run does not wait.
    #[error("run {run} does not wait: it is {state}")]
    NotWaiting {
        run: RunId,
        /// `under way`, or its outcome.
        state: &'static str,
    },
    #[error("cluster {0} has no standing request: there is nothing to cancel")]
    NothingToCancel(String),
    /// Something stands against it.
    #[error("{0}")]
    Refused(Reason),
    /// The replica that holds the lock does not carry it out.
    #[error("replica {holder}, which holds the cluster's lock, says: {detail}")]
    Peer {
        holder: String,
        /// Its HTTP status.
        status: u16,
        detail: String,
    },
    /// Nobody can be asked who holds the lock.
    #[error("this replica does not hold the cluster's lock, and the order could not be passed on: {detail}")]
    NoHolder { detail: String },
    /// It cannot be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A page of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapePage {
    /// Of the configured clusters and the process.
    Metrics,
    /// Of one other cluster.
    Probe,
}

impl ScrapePage {
    pub const ALL: [Self; 2] = [Self::Metrics, Self::Probe];

    /// Its stable label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Probe => "probe",
        }
    }
}

/// A cluster that somebody wants to see the metrics of, though it is not configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// Which of the configured modules says how to speak to it, and that it may be spoken to.
    pub module: String,
    /// Endpoints of the cluster, as they were written.
    pub targets: Vec<String>,
    /// Its name in the series; the first target where absent.
    pub cluster: Option<String>,
}

/// Why there is no probe.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProbeRefusal {
    /// The module is not configured.
    #[error("there is no module {name:?}; {}", known_modules(.known))]
    UnknownModule {
        /// As it was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The target is not what a target must be.
    #[error("target {target:?}: {detail}")]
    BadTarget {
        /// As it was written, or its beginning.
        target: String,
        detail: String,
    },
    /// The configuration does not let it be dialled.
    #[error("target {target:?}: {detail}")]
    NotAllowed {
        /// As it is understood.
        target: String,
        /// Which key says so.
        detail: String,
    },
    /// The module's own files cannot be used.
    #[error("module {module}: {detail}")]
    Unusable { module: String, detail: String },
    /// As many others are being probed as there may be.
    #[error("as many clusters are being probed as may be at the same time")]
    Full,
}

fn known_modules(known: &[String]) -> String {
    match known {
        [] => "the configuration has none: see modules in deploy/examples/config.yaml".to_owned(),
        known => format!("there are: {}", known.join(", ")),
    }
}

/// The application, as HTTP sees it.
pub trait Service: Overview {
    /// Writes all metrics in the OpenMetrics text format, within `budget`: what has not answered by then is
    /// shown as down. `Err` if a metric or the writer failed; what is written then is no page.
    fn scrape(
        &self,
        budget: Duration,
        page: &mut (dyn fmt::Write + Send),
    ) -> impl Future<Output = Result<(), fmt::Error>> + Send;

    /// The metrics of a cluster that is not configured, in the OpenMetrics text format, within `budget`.
    fn probe(
        &self,
        request: ProbeRequest,
        budget: Duration,
    ) -> impl Future<Output = Result<String, ProbeRefusal>> + Send;

    /// Somebody asks for a page of metrics.
    fn scrape_began(&self, page: ScrapePage);

    /// The page was answered with this HTTP status; `took` is since it was asked for.
    fn scrape_ended(&self, page: ScrapePage, code: u16, took: Duration);

    /// Decides about every alert of a notification. `Err` only if the journal did not take a request;
    /// then the sender must be told to try again.
    fn notify(&self, notification: Notification)
    -> impl Future<Output = Result<Vec<AlertAnswer>, JournalError>> + Send;

    /// Carries out a person's order about a cluster, or passes it to the replica that holds its lock, unless another
    /// one did so already (`forwarded`). `by` is who, as they say.
    fn command(
        &self,
        cluster: &str,
        by: String,
        command: Command,
        forwarded: bool,
    ) -> impl Future<Output = Result<CommandOutcome, CommandError>> + Send;

    /// A person agrees to a run.
    fn approve(
        &self,
        run: RunId,
        by: String,
        forwarded: bool,
    ) -> impl Future<Output = Result<CommandOutcome, CommandError>> + Send;

    /// Counts an answer to a webhook request, whatever it was.
    fn count_webhook(&self, code: u16);

    /// Reads the configuration again, and takes it over if all of it is good. The error is for people.
    fn reload(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// The configuration in use, without secrets.
    fn configuration(&self) -> serde_json::Value;

    fn clusters(&self) -> Vec<ClusterSummary>;

    /// The newest runs, newest first.
    fn runs(&self, limit: usize) -> impl Future<Output = Result<Vec<RunView>, JournalError>> + Send;

    fn run(&self, run: RunId) -> impl Future<Output = Result<Option<RunView>, JournalError>> + Send;

    /// Why the process cannot do its work now, if it cannot.
    fn not_ready(&self) -> impl Future<Output = Option<String>> + Send;
}
