//! What the run and its driver exchange: the brief, actions, and the events that answer them.

use std::time::Duration;

use super::pages::Pages;
use crate::{
    cluster::{ClusterFacts, Fact, MemberId, Unknown},
    gate::{GateResult, GateRule, Moment},
    history::{Intent, MemberResult, Outcome, RunStep},
    plan::PlanHistory,
    policy::Policy,
    reason::Reason,
    verify::{DataHash, Verification},
};

/// The task of a run, and what it must know of earlier ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Brief {
    /// The owner's settings.
    pub policy: Policy,
    /// What is checked outside etcd, and when.
    pub gates: Vec<GateRule>,
    /// What is known of earlier runs. Without their attempts if an operator started the run, who knows of them.
    pub past: PlanHistory,
    /// The request's alerts are resolved, and only the comparison of the members' data is left of it.
    pub only_compares: bool,
    /// How long to wait for the end of a snapshot before the run ends and leaves the rest to the next one.
    pub snapshot_patience: Duration,
    /// Whether no maintenance window is open, which does not hold a run in mode observe.
    pub outside_window: bool,
    /// The newest revision that is old enough to be compacted, for a policy that compacts by age.
    pub old_revision: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Wait, then observe: answer with [`Event::Observed`].
    Observe {
        /// How long to wait first.
        after: Duration,
        pages: Pages,
    },
    /// Write the step to the journal: answer with [`Event::Recorded`].
    RecordStep(RunStep),
    /// Do the step, once: answer with [`Event::Performed`].
    Perform(RunStep),
    /// Write the intent to the journal: answer with [`Event::Recorded`].
    RecordIntent(Intent),
    /// Send Defragment to this member alone: answer with [`Event::DefragReturned`].
    Defragment {
        member: MemberId,
        /// How long to wait for the answer.
        deadline: Duration,
    },
    /// Write the result to the journal: answer with [`Event::Recorded`].
    RecordResult(MemberResult),
    /// Check all gates of this moment, all at once, and write the results to the journal: answer with
    /// [`Event::GatesChecked`].
    CheckGates { moment: Moment },
    /// Read the hash of these members' data at this revision, one after the other: answer with [`Event::Hashed`].
    Hash {
        /// All of them have applied it.
        revision: u64,
        members: Vec<MemberId>,
        /// How long each may take.
        limit: Duration,
    },
    /// Write the comparison of the hashes to the journal: answer with [`Event::Recorded`].
    RecordVerification(Verification),
    /// The run has ended. No further action follows.
    Finish(Outcome),
}

#[derive(Clone, Debug)]
pub enum Event {
    /// The observation, complete with linearizable reads and the metrics pages that were requested.
    Observed(Fact<ClusterFacts>),
    /// The journal stored the record, or did not.
    Recorded(Result<(), NotRecorded>),
    /// The step was answered, or its answer did not come.
    Performed(Result<(), StepError>),
    /// The step was not sent: it was no longer permitted at the last moment.
    Withheld(Reason),
    /// Defragment was answered, or its answer can no longer come.
    DefragReturned {
        answer: Result<(), DefragError>,
        /// How long the member did not answer `Status`, if that was watched.
        unavailable: Option<Duration>,
    },
    /// The members returned their hashes, or did not. A stop interrupts that.
    Hashed(Vec<(MemberId, Fact<DataHash>)>),
    /// The gates were checked, or a stop interrupted that.
    GatesChecked {
        /// One for each gate of the moment.
        results: Vec<GateResult>,
        /// Whether the journal stored them.
        written: Result<(), NotRecorded>,
    },
}

/// The journal did not store a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotRecorded(pub String);

/// Why a step has no successful answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    #[error("no voter is known")]
    NoVoter,
    #[error("the member is unknown")]
    UnknownMember,
    /// The answer is an error, or cannot come any more.
    #[error("{0}")]
    Answered(String),
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
}

/// Why Defragment has no successful answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DefragError {
    /// The server answered with an error: it is not defragmenting.
    #[error("{0}")]
    Answered(String),
    /// Nothing was sent: the last check of the member's identity failed.
    #[error("{0}")]
    NotSent(Unknown),
    /// Nothing was sent: it was no longer permitted at the last moment.
    #[error("{0}")]
    Withheld(Reason),
    /// The server refused the credentials.
    #[error("{0}")]
    Denied(String),
    /// The server answered that its disk is full.
    #[error("{0}")]
    DiskFull(String),
    /// The connection broke: the server may be defragmenting.
    #[error("{0}")]
    Lost(String),
    /// No answer within the deadline: the server may be defragmenting.
    #[error("no answer within the deadline")]
    Deadline,
}
