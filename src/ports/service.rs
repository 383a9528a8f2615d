//! What the HTTP side needs from the application.

use std::{fmt, future::Future, time::Duration};

use serde::Serialize;
use strum::IntoStaticStr;
use thiserror::Error;

use super::{journal::JournalError, overview::Overview};
use crate::core::{
    alert::{AlertStatus, Notification},
    cluster::ClusterId,
    explain,
    history::{RunId, RunView},
    hold::RequestView,
    lock::Term,
    plan_view::PlanView,
    reason::Reason,
    shard::{Elsewhere, Shard},
    state::ClusterState,
};

/// The decision about one alert of a notification.
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
    /// A run that serves this alert was already requested.
    Duplicate {
        cluster: String,
        /// `None` if another lock holder had the run: its number means nothing here.
        #[serde(skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
        /// The rule that decided so.
        #[serde(serialize_with = "explain::serialize")]
        reason: Reason,
    },
    /// The alert no longer fires, and it was the last one of a request that waited.
    Cancelled { cluster: String, run: RunId },
    /// Another shard, to which the cluster belongs, decided.
    Forwarded {
        cluster: String,
        shard: u32,
        /// Its decision.
        answer: serde_json::Value,
    },
    /// Nothing is to be done.
    Ignored {
        /// The cluster, if the alert belongs to one.
        cluster: Option<String>,
        #[serde(serialize_with = "explain::serialize")]
        reason: Reason,
    },
}

impl AlertDecision {
    /// The cluster and the run that the alert concerns, if it concerns any.
    pub fn about(&self) -> (Option<&str>, Option<RunId>) {
        match self {
            Self::Accepted { cluster, run } | Self::Cancelled { cluster, run } => (Some(cluster), Some(*run)),
            Self::Duplicate { cluster, run, .. } => (Some(cluster), *run),
            Self::Forwarded { cluster, .. } => (Some(cluster), None),
            Self::Ignored { cluster, .. } => (cluster.as_deref(), None),
        }
    }

    /// Stable labels for metrics: the decision and its reason.
    pub fn labels(&self) -> (&'static str, &'static str) {
        match self {
            Self::Accepted { .. } => ("accepted", "none"),
            Self::Cancelled { .. } => ("cancelled", "resolved"),
            Self::Forwarded { .. } => ("forwarded", "none"),
            Self::Duplicate { reason, .. } => ("duplicate", reason.label()),
            Self::Ignored { reason, .. } => ("ignored", reason.label()),
        }
    }
}

/// Why a notification is not acknowledged: the sender must repeat it.
#[derive(Debug, Error)]
pub enum NotifyError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The shard that the cluster belongs to did not accept an alert.
    #[error("cannot forward an alert: {to}: {detail}")]
    NotForwarded { to: Elsewhere, detail: String },
}

/// One configured cluster for the API and the status page.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of its own in the API")]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterSummary {
    pub name: String,
    /// etcd's own id of the cluster, once it has been observed.
    pub cluster_id: Option<ClusterId>,
    pub endpoints: Vec<String>,
    /// Whether this process starts runs; not with `--exporter-only`.
    pub acts: bool,
    /// `observe`, `approve` or `enforce`.
    pub mode: crate::core::policy::Mode,
    #[serde(flatten)]
    pub state: ClusterState,
    /// Whether the cluster's journal has been read since the start. Before that, `request` and what holds one are `None`,
    /// whatever the journal says.
    pub journal_read: bool,
    pub observed_at: Option<jiff::Timestamp>,
    /// What wants it defragmented, and the one hold; `None` if nothing does.
    pub request: Option<RequestView>,
    pub active_run: Option<RunId>,
    pub queued_run: Option<RunId>,
    #[serde(serialize_with = "explain::serialize_option")]
    pub waiting_for: Option<Reason>,
    /// No run is accepted before this time.
    pub cooldown_until: Option<jiff::Timestamp>,
    #[serde(serialize_with = "explain::serialize_option")]
    pub paused: Option<Reason>,
    /// Too many runs failed.
    #[serde(serialize_with = "explain::serialize_option")]
    pub breaker: Option<Reason>,
    /// A run found that its members hold different data.
    #[serde(serialize_with = "explain::serialize_option")]
    pub hash_mismatch: Option<Reason>,
    pub next_window: Option<jiff::Timestamp>,
    /// Whether a maintenance window is open, or there are none.
    pub window_open: bool,
    pub next_scheduled: Option<jiff::Timestamp>,
    /// When the last run, which was refused, is tried again.
    pub retry_at: Option<jiff::Timestamp>,
    /// Other entries of the configuration that lead to the same etcd cluster.
    pub same_as: Vec<String>,
    /// It is no longer in the configuration, but its run has not ended yet.
    pub leaving: bool,
    /// Which replica acts on it; `None` without a lock.
    pub lock: Option<LockSummary>,
}

/// Which replica acts on a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockSummary {
    pub held: bool,
    /// Since when, if it is this replica.
    pub term: Option<Term>,
    /// Which other replica, if known.
    pub holder: Option<String>,
    pub url: Option<String>,
}

/// A part of the configuration in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSection {
    /// The key of the file, like `clusters`.
    pub kind: String,
    pub name: Option<String>,
    pub keys: Vec<ConfigKey>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigKey {
    /// Within its section, like `policy.cooldown`.
    pub path: String,
    /// As in the file; the default if it is not set.
    pub value: String,
    pub default: Option<String>,
    pub differs: bool,
    pub description: String,
}

/// An operator's action on a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// No run starts, and a run in progress starts no further member.
    Pause {
        reason: String,
        /// For how long; until resumed if absent.
        lasts: Option<Duration>,
    },
    /// Ends a pause and closes the breaker.
    Resume { reason: String },
    Run {
        /// The only members to defragment, by name or id; all of them if empty.
        members: Vec<String>,
    },
    /// Cancels the open request. A run in progress starts no further member.
    Cancel { reason: String },
}

#[derive(Clone, Debug, PartialEq)]
pub enum CommandOutcome {
    /// It was executed. With the number of the run that it requested.
    Done(Option<RunId>),
    /// The replica that holds the lock executed it.
    Forwarded { holder: String, answer: serde_json::Value },
}

/// Why an action was not executed, or a plan not made.
#[derive(Clone, Debug, Error)]
pub enum CommandError {
    #[error("there is no cluster {0:?}")]
    UnknownCluster(String),
    #[error("{0}")]
    OtherShard(Elsewhere),
    #[error("there is no run {0}")]
    UnknownRun(RunId),
    #[error("run {run} is not waiting for approval: it is {state}")]
    NotWaiting {
        run: RunId,
        /// `running`, or its outcome.
        state: &'static str,
    },
    #[error("cluster {0} has no open request: there is nothing to cancel")]
    NothingToCancel(String),
    #[error("{}", .0.with_advice())]
    Refused(Reason),
    /// The replica that holds the lock did not execute it.
    #[error("replica {holder}, which holds the cluster's lock, answered: {detail}")]
    Peer {
        holder: String,
        /// Its HTTP status.
        status: u16,
        detail: String,
    },
    /// The replica that holds the lock is unknown or unreachable.
    #[error("this replica does not hold the cluster's lock and could not forward the action: {detail}")]
    NoHolder { detail: String },
    #[error(transparent)]
    Journal(#[from] JournalError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ScrapePage {
    /// `/metrics`: the configured clusters and the process.
    Metrics,
    /// `/probe`: one other cluster.
    Probe,
}

impl ScrapePage {
    pub const ALL: [Self; 2] = [Self::Metrics, Self::Probe];

    /// Its stable label for metrics.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// A request for the metrics of a cluster that is not configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// The configured module, which says how to connect, and which targets are allowed.
    pub module: String,
    /// Endpoints of the cluster, as in the query.
    pub targets: Vec<String>,
    /// Its name in the series; the first target if absent.
    pub cluster: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProbeRefusal {
    #[error("there is no module {name:?}; {}", known_modules(.known))]
    UnknownModule { name: String, known: Vec<String> },
    #[error("target {target:?}: {detail}")]
    BadTarget {
        /// As in the query, or its beginning.
        target: String,
        detail: String,
    },
    #[error("target {target:?}: {detail}")]
    NotAllowed {
        /// The parsed target.
        target: String,
        /// Which key forbids it.
        detail: String,
    },
    /// The module's own files cannot be used.
    #[error("module {module}: {detail}")]
    Unusable { module: String, detail: String },
    #[error("too many clusters are being probed at the same time: try again later")]
    Full,
}

fn known_modules(known: &[String]) -> String {
    match known {
        [] => "the configuration has no `modules`".to_owned(),
        known => format!("configured modules: {}", known.join(", ")),
    }
}

/// Why the configuration was not applied, for people: one problem per line.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ReloadError(pub String);

/// The application, as the HTTP side sees it.
pub trait Service: Overview {
    /// Writes all metrics in the OpenMetrics text format: members that have not answered within `budget` are shown as
    /// down. Returns how long it took beyond waiting for the members. `Err` if a metric or the writer failed; then the
    /// output is incomplete.
    fn scrape(
        &self,
        budget: Duration,
        page: &mut (dyn fmt::Write + Send),
    ) -> impl Future<Output = Result<Duration, fmt::Error>> + Send;

    /// The metrics of a cluster that is not configured, in the OpenMetrics text format, within `budget`.
    fn probe(
        &self,
        request: ProbeRequest,
        budget: Duration,
    ) -> impl Future<Output = Result<String, ProbeRefusal>> + Send;

    /// A page of metrics is requested.
    fn scrape_began(&self, page: ScrapePage);

    /// The page was answered with this HTTP status; `took` is the time since the request.
    fn scrape_ended(&self, page: ScrapePage, code: u16, took: Duration);

    /// Decides about every alert of a notification, and forwards those for other shards' clusters. After an `Err` the
    /// sender must be asked to retry.
    fn notify(&self, notification: Notification) -> impl Future<Output = Result<Vec<AlertAnswer>, NotifyError>> + Send;

    /// Executes an operator's action on a cluster, or forwards it to the replica that holds its lock, unless another
    /// one already forwarded it (`forwarded`). `by` is the operator's name, as given.
    fn command(
        &self,
        cluster: &str,
        by: String,
        command: Command,
        forwarded: bool,
    ) -> impl Future<Output = Result<CommandOutcome, CommandError>> + Send;

    fn approve(
        &self,
        run: RunId,
        by: String,
        forwarded: bool,
    ) -> impl Future<Output = Result<CommandOutcome, CommandError>> + Send;

    /// Rejects a run that is waiting for approval: it ends, and its alerts do not request another one until they fire
    /// anew or the cooldown has passed.
    fn reject(
        &self,
        run: RunId,
        by: String,
        reason: String,
        forwarded: bool,
    ) -> impl Future<Output = Result<CommandOutcome, CommandError>> + Send;

    /// Counts an answer to a webhook request, whatever its status.
    fn count_webhook(&self, code: u16);

    /// Reloads the configuration, and applies it if all of it is valid.
    fn reload(&self) -> impl Future<Output = Result<(), ReloadError>> + Send;

    /// The active configuration, without secrets.
    fn configuration(&self) -> serde_json::Value;

    /// The same with the defaults.
    fn effective_configuration(&self) -> Vec<ConfigSection>;

    fn clusters(&self) -> Vec<ClusterSummary>;

    /// Which part of the configured clusters this process has; `None` if all.
    fn shard(&self) -> Option<Shard>;

    /// What would be done with the cluster, and everything that holds it back now: an automatic run, or one that an
    /// operator requests (`as_manual`). Members and gates are asked at most every few seconds.
    fn plan(&self, cluster: &str, as_manual: bool) -> impl Future<Output = Result<PlanView, CommandError>> + Send;

    /// The newest runs, newest first.
    fn runs(&self, limit: usize) -> impl Future<Output = Result<Vec<RunView>, JournalError>> + Send;

    /// Why the process cannot do its work now; `None` if it can.
    fn not_ready(&self) -> impl Future<Output = Option<String>> + Send;
}
