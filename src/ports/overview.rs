//! What the status page shows, and what it needs from the application for that.
//!
//! Contract: however many clients view the page, etcd is queried no more often than the application's own limits allow.
//! Nothing here can change anything.

use std::{future::Future, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{journal::JournalError, service::ClusterSummary};
use crate::core::{
    cluster::{ClusterFacts, Unknown},
    estimate::Speeds,
    gate::GateResult,
    history::{Intent, MemberResult, Outcome, Record, RunId, RunStep, RunView, Trigger},
    reason::Reason,
    shard::Elsewhere,
    sizes::SizeHistory,
    status_view::StatusView,
};

/// One cluster, with everything that is known of it now.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// Its requests, and what holds them.
    pub summary: ClusterSummary,
    /// The last observation; `None` before the first one.
    pub observation: Option<Observation>,
    pub live: Option<Live>,
    /// Of the last run that ended.
    pub last: Option<Outcome>,
    /// How fast its members were defragmented; `None` until the journal is read.
    pub speeds: Option<Speeds>,
    /// How long the cluster must be healthy after each member.
    pub pause_between_members: Duration,
    /// How long it may take to become healthy again after each member.
    pub recovery_timeout: Duration,
    /// How large they were over the last days.
    pub sizes: Arc<SizeHistory>,
}

impl ClusterView {
    /// Its members, as `defragd status` shows them.
    pub fn status(&self) -> StatusView {
        let seen = self.observation.as_ref();
        let view = StatusView::new(
            &self.summary.name,
            seen.map(|seen| seen.age).unwrap_or_default(),
            seen.and_then(|seen| seen.error.as_ref()),
            seen.and_then(|seen| seen.facts.as_deref()),
            self.summary.state.left_alone.clone(),
            self.speeds.as_ref(),
        );
        let not_yet = seen.is_none().then(|| "the server has not observed it yet".to_owned());
        StatusView { error: not_yet.or(view.error), ..view }
    }
}

#[derive(Clone, Debug)]
pub struct Observation {
    pub age: Duration,
    /// Why no endpoint returned the member list, if none did.
    pub error: Option<Unknown>,
    /// What was observed; `None` if there is neither an answer nor an earlier observation.
    pub facts: Option<Arc<ClusterFacts>>,
}

/// A run in progress, as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct Live {
    pub cluster: String,
    pub run: RunId,
    pub trigger: Trigger,
    /// When it began in this process.
    pub began_at: Timestamp,
    pub activity: RunActivity,
    pub since: Timestamp,
    /// The member whose attempt has not ended, whatever the run waits for.
    pub current: Option<CurrentMember>,
    /// The members that are still pending, by the first plan.
    pub pending: Vec<String>,
    /// The members that are done, in order.
    pub members: Vec<MemberResult>,
    /// What else was done, in order.
    pub steps: Vec<RunStep>,
    /// What the checks outside etcd found, in order.
    pub gates: Vec<GateResult>,
}

/// A member from the beginning to the end of its attempt.
#[derive(Clone, Debug, Serialize)]
pub struct CurrentMember {
    pub intent: Intent,
    /// etcd has answered Defragment; the cluster must be healthy for a while.
    pub is_defragmented: bool,
}

/// What a run did at one time, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressLine {
    pub at: Timestamp,
    pub text: String,
}

/// What a run in progress does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunActivity {
    /// It checks everything before it continues.
    Checking,
    /// A gate was checked; its result is among the gates.
    Gates,
    /// An RPC other than Defragment is in progress.
    Step {
        step: RunStep,
    },
    Defragmenting {
        intent: Intent,
    },
    /// The member is done; the cluster must be healthy for a while before the run continues.
    Settling {
        intent: Intent,
    },
    /// It waits, usually for the cluster to become healthy again.
    Waiting {
        /// The label of the reason it waits for.
        code: &'static str,
        reason: String,
        /// What an operator does about it.
        advice: &'static str,
    },
}

impl RunActivity {
    pub fn waiting(reason: &Reason) -> Self {
        Self::Waiting { code: reason.label(), reason: reason.to_string(), advice: reason.advice() }
    }
}

pub trait Overview: Send + Sync + 'static {
    /// The time of day, for ages.
    fn now(&self) -> Timestamp;

    /// What is wrong with the journal, and what to do.
    fn journal_problem(&self) -> impl Future<Output = Option<String>> + Send;

    /// When the last reload of the configuration was rejected; `None` if it was applied, or there was none.
    fn reload_rejected_at(&self) -> Option<Timestamp>;

    /// Observes these clusters again if the last observation is too old, and gives them a moment to answer.
    fn refresh(&self, clusters: &[String]) -> impl Future<Output = ()> + Send;

    /// All clusters as they are known, in the order of the configuration. Sends no request.
    fn views(&self) -> Vec<ClusterView>;

    fn live(&self) -> Vec<Live>;

    fn view(&self, cluster: &str) -> Option<ClusterView>;

    /// Where a configured cluster is, if it belongs to another shard.
    fn elsewhere(&self, cluster: &str) -> Option<Elsewhere>;

    /// Changes whenever what is shown may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The newest runs of one cluster, newest first.
    fn runs_of(&self, cluster: &str, limit: usize) -> impl Future<Output = Result<Vec<RunView>, JournalError>> + Send;

    /// The progress of a run that this process drives, or drove last; empty for any other.
    fn progress(&self, run: RunId) -> Vec<ProgressLine>;

    /// All records of one run, in order.
    fn records(&self, run: RunId) -> impl Future<Output = Result<Vec<Record>, JournalError>> + Send;
}
