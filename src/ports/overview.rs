//! What the status page shows, and what it asks of the application for that.
//!
//! Contract: however many people look, etcd is asked no more often than the application's own limits say. Nothing
//! here can change anything.

use std::{future::Future, sync::Arc, time::Duration};

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::{journal::JournalError, service::ClusterSummary};
use crate::core::{
    cluster::ClusterFacts,
    estimate::Speeds,
    gate::GateResult,
    history::{Intent, MemberResult, Outcome, Record, RunId, RunStep, RunView, Trigger},
    reason::Reason,
    story,
};

/// One cluster, with all that is known of it now.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// Its requests, and what holds them back.
    pub summary: ClusterSummary,
    /// The last look at it; `None` before the first one.
    pub observation: Option<Observation>,
    pub live: Option<Live>,
    /// The last run that ended.
    pub last: Option<LastRun>,
    /// How fast its members were defragmented.
    pub speeds: Speeds,
}

/// One look at a cluster.
#[derive(Clone, Debug)]
pub struct Observation {
    /// How old it is.
    pub age: Duration,
    /// Whether an endpoint gave the member list.
    pub up: bool,
    /// What was seen; `None` if nothing was, and nothing is remembered.
    pub facts: Option<Arc<ClusterFacts>>,
}

/// How the last run ended.
#[derive(Clone, Debug)]
pub struct LastRun {
    pub run: RunId,
    pub outcome: Outcome,
    pub at: Option<Timestamp>,
    /// How much smaller the files became.
    pub reclaimed: ByteSize,
}

/// A run under way, as it is just now.
#[derive(Clone, Debug, Serialize)]
pub struct Live {
    pub cluster: String,
    pub run: RunId,
    pub trigger: Trigger,
    /// When it began in this process.
    pub began_at: Timestamp,
    pub activity: RunActivity,
    pub since: Timestamp,
    /// The members that are still to come, by the first plan.
    pub pending: Vec<String>,
    /// The members that are done, in order.
    pub members: Vec<MemberResult>,
    /// What else was done, in order.
    pub steps: Vec<RunStep>,
    /// What the checks outside etcd found, in order.
    pub gates: Vec<GateResult>,
}

/// What a run under way does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunActivity {
    /// It looks at everything before it goes on.
    Checking,
    /// A gate was checked; what it found is among the gates.
    Gates,
    /// Something other than Defragment is out.
    Step {
        step: RunStep,
    },
    Defragmenting {
        intent: Intent,
    },
    /// The member is done; the cluster must be well for a while before it goes on.
    Settling {
        intent: Intent,
    },
    /// It waits, mostly for the cluster to be well again.
    Waiting {
        /// What it waits for the end of.
        code: &'static str,
        reason: String,
    },
}

impl RunActivity {
    pub fn words(&self) -> String {
        match self {
            Self::Checking => "checking that all is well before the next step".to_owned(),
            Self::Gates => "checking gates".to_owned(),
            Self::Step { step } => story::about(step),
            Self::Defragmenting { intent } => format!("defragmenting {} ({})", intent.member, story::role(intent)),
            Self::Settling { intent } => format!("{} is done, watching that the cluster stays well", intent.member),
            Self::Waiting { reason, .. } => format!("waiting, because {reason}"),
        }
    }

    /// How much of the expected time is left, like `about 12 s left`. `elapsed` is since it began.
    pub fn time_left(&self, elapsed: Duration) -> Option<String> {
        let Self::Defragmenting { intent } = self else { return None };
        intent.expected.and_then(|expected| story::time_left(expected, elapsed))
    }

    /// It waits because of this.
    pub fn waiting(reason: &Reason) -> Self {
        Self::Waiting { code: reason.label(), reason: reason.to_string() }
    }
}

pub trait Overview: Send + Sync + 'static {
    /// The time of day, for ages.
    fn now(&self) -> Timestamp;

    /// Looks again at these clusters if the last look is too old, and gives them a moment to answer.
    fn refresh(&self, clusters: &[String]) -> impl Future<Output = ()> + Send;

    /// All clusters as they are known, in the order of the configuration. Asks nobody.
    fn views(&self) -> Vec<ClusterView>;

    fn view(&self, cluster: &str) -> Option<ClusterView>;

    /// Changes whenever what is shown may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The newest runs of one cluster, newest first.
    fn runs_of(&self, cluster: &str, limit: usize) -> impl Future<Output = Result<Vec<RunView>, JournalError>> + Send;

    /// Everything that is written down about one run, in order.
    fn records(&self, run: RunId) -> impl Future<Output = Result<Vec<Record>, JournalError>> + Send;
}
