//! Notifications about the start and end of runs.
//!
//! Contract: one delivery takes no longer than its own timeout, and the error says whether a retry could help. Failures
//! never affect a run: no run waits for a delivery, and none ends differently because of one.

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;

use crate::core::history::{AlertKey, RunId, Trigger};

/// The content of a notification, and the JSON of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notice {
    /// `run_started` or `run_finished`.
    pub event: &'static str,
    pub cluster: String,
    pub run: RunId,
    pub trigger: Trigger,
    /// The alerts that requested it, with the labels that are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertKey>,
    /// When it began in this process.
    pub started_at: Timestamp,
    /// The URL of the run's page, if `--web.external-url` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct End {
    pub finished_at: Timestamp,
    /// As the metrics' label.
    pub outcome: &'static str,
    /// The reason's label, if there is one.
    pub reason_code: Option<&'static str>,
    /// The reason in words.
    pub reason: Option<String>,
    /// What an operator does about it.
    pub advice: Option<&'static str>,
    /// How much smaller the files became, bytes.
    pub reclaimed_bytes: u64,
    /// The members that were attempted, in order.
    pub members: Vec<String>,
}

/// Why a notification was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// Without secrets.
    pub detail: String,
    /// Whether a retry could help.
    pub may_pass: bool,
}

pub trait Notifier: Send + Sync + 'static {
    /// Its name in the configuration, and the metric label.
    fn name(&self) -> &str;

    /// Whether this target wants the notification.
    fn wants(&self, notice: &Notice) -> bool;

    fn deliver<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), Undelivered>>;
}
