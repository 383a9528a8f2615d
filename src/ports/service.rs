//! What the HTTP side asks of the application.

use std::{future::Future, time::Duration};

use serde::Serialize;

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
    /// `observe` or `enforce`.
    pub mode: crate::core::policy::Mode,
    /// The run under way.
    pub active_run: Option<RunId>,
    /// The run that waits for its turn.
    pub queued_run: Option<RunId>,
    /// Runs are not taken before this time.
    pub cooldown_until: Option<jiff::Timestamp>,
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

    /// Counts an answer to a webhook request, whatever it was.
    fn count_webhook(&self, code: u16);

    /// The configured clusters.
    fn clusters(&self) -> Vec<ClusterSummary>;

    /// The newest runs, newest first.
    fn runs(&self, limit: usize) -> impl Future<Output = Result<Vec<RunView>, JournalError>> + Send;

    /// One run.
    fn run(&self, run: RunId) -> impl Future<Output = Result<Option<RunView>, JournalError>> + Send;

    /// Why the process cannot do its work now, if it cannot.
    fn not_ready(&self) -> Option<String>;
}
