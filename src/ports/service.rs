//! What the HTTP side asks of the application.

use std::{future::Future, time::Duration};

use serde::Serialize;
use thiserror::Error;

use super::journal::JournalError;
use crate::core::{
    alert::{AlertStatus, Notification},
    history::{RunId, RunView},
    reason::Reason,
};

/// What became of one alert of a notification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertAnswer {
    /// Alertmanager's hash of its labels.
    pub fingerprint: String,
    /// Its status.
    pub status: AlertStatus,
    /// What was decided.
    #[serde(flatten)]
    pub decision: AlertDecision,
}

/// What was decided about one alert.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum AlertDecision {
    /// A run was requested, and the request is in the journal.
    Accepted {
        /// Of which cluster.
        cluster: String,
        /// The run's number.
        run: RunId,
    },
    /// A run that serves this alert was requested before.
    Duplicate {
        /// Of which cluster.
        cluster: String,
        /// Which rule says so.
        reason: Reason,
    },
    /// The alert no longer fires, and with it the last one behind a request that waited.
    Cancelled {
        /// Of which cluster.
        cluster: String,
        /// The run's number.
        run: RunId,
    },
    /// Nothing is to be done.
    Ignored {
        /// Of which cluster, where one is concerned.
        cluster: Option<String>,
        /// Why.
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
    /// Its name.
    pub name: String,
    /// `observe`, `approve` or `enforce`.
    pub mode: crate::core::policy::Mode,
    /// The run under way.
    pub active_run: Option<RunId>,
    /// The run that waits for its turn.
    pub queued_run: Option<RunId>,
    /// Why it waits.
    pub waiting_for: Option<Told>,
    /// Runs are not taken before this time.
    pub cooldown_until: Option<jiff::Timestamp>,
    /// A person paused it.
    pub paused: Option<Told>,
    /// Too many runs failed.
    pub breaker: Option<Told>,
    /// When the next maintenance window opens.
    pub next_window: Option<jiff::Timestamp>,
    /// Whether a maintenance window is open, or there are none.
    pub window_open: bool,
    /// When the last run, which was refused, is tried again.
    pub retry_at: Option<jiff::Timestamp>,
}

/// A reason with its words, for programs and people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(flatten)]
    pub reason: Reason,
}

impl From<Reason> for Told {
    fn from(reason: Reason) -> Self {
        Self { message: reason.to_string(), reason }
    }
}

/// A person's order about a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// No run begins, and one under way starts no new member.
    Pause {
        /// Why.
        reason: String,
        /// For how long; until somebody resumes where absent.
        lasts: Option<Duration>,
    },
    /// Ends a pause and closes the breaker.
    Resume {
        /// Why.
        reason: String,
    },
    /// Asks for a run.
    Run,
}

/// Why an order is not carried out.
#[derive(Clone, Debug, Error)]
pub enum CommandError {
    /// No such cluster.
    #[error("there is no cluster {0:?}")]
    UnknownCluster(String),
    /// No such run.
    #[error("there is no run {0}")]
    UnknownRun(RunId),
    /// The run does not wait.
    #[error("run {run} does not wait: it is {state}")]
    NotWaiting {
        /// Its number.
        run: RunId,
        /// `under way`, or its outcome.
        state: &'static str,
    },
    /// Something stands against it.
    #[error("{0}")]
    Refused(Reason),
    /// It cannot be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The application, as HTTP sees it.
pub trait Service: Send + Sync + 'static {
    /// All metrics in the OpenMetrics text format, within `budget`: what has not answered by then is
    /// shown as down.
    fn scrape(&self, budget: Duration) -> impl Future<Output = String> + Send;

    /// Decides about every alert of a notification. `Err` only if the journal did not take a request;
    /// then the sender must be told to try again.
    fn notify(&self, notification: Notification)
    -> impl Future<Output = Result<Vec<AlertAnswer>, JournalError>> + Send;

    /// Carries out a person's order about a cluster. `by` is who, as they say. Gives the number of the run
    /// that was asked for.
    fn command(
        &self,
        cluster: &str,
        by: String,
        command: Command,
    ) -> impl Future<Output = Result<Option<RunId>, CommandError>> + Send;

    /// A person agrees to a run.
    fn approve(&self, run: RunId, by: String) -> impl Future<Output = Result<(), CommandError>> + Send;

    /// Counts an answer to a webhook request, whatever it was.
    fn count_webhook(&self, code: u16);

    /// Reads the configuration again, and takes it over if all of it is good. The error is for people.
    fn reload(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// The configuration in use, without secrets.
    fn configuration(&self) -> serde_json::Value;

    /// The configured clusters.
    fn clusters(&self) -> Vec<ClusterSummary>;

    /// The newest runs, newest first.
    fn runs(&self, limit: usize) -> impl Future<Output = Result<Vec<RunView>, JournalError>> + Send;

    /// One run.
    fn run(&self, run: RunId) -> impl Future<Output = Result<Option<RunView>, JournalError>> + Send;

    /// Why the process cannot do its work now, if it cannot.
    fn not_ready(&self) -> impl Future<Output = Option<String>> + Send;
}
