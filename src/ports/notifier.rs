//! Others who are told when runs start and end.
//!
//! Contract: one delivery takes no longer than its own timeout, and says whether trying again could help. What fails is
//! nobody's reason to stop: no run waits for a delivery, and none ends differently because of one.

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;

use crate::core::history::{RunId, Trigger};

/// What is told, and the JSON of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notice {
    /// `run_started` or `run_finished`.
    pub event: &'static str,
    pub cluster: String,
    pub run: RunId,
    pub trigger: Trigger,
    /// When it began in this process.
    pub started_at: Timestamp,
    /// The run's page, where `--web.external-url` says how it is reached.
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
    /// How much smaller the files became, bytes.
    pub reclaimed_bytes: u64,
    /// The members that were tried, in order.
    pub members: Vec<String>,
}

/// Why something was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// Without secrets.
    pub detail: String,
    /// Whether another try could help.
    pub may_pass: bool,
}

pub trait Notifier: Send + Sync + 'static {
    /// Its name in the configuration, and the metric label.
    fn name(&self) -> &str;

    /// Whether it wants to hear of this at all.
    fn wants(&self, notice: &Notice) -> bool;

    fn deliver<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), Undelivered>>;
}
