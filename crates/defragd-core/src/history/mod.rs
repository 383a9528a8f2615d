//! The content of the journal: the entries of a run, and the run that they describe.

mod run_view;

use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

pub use self::run_view::RunView;
pub use super::request::{AlertKey, Labels, Request, RunId, Trigger};
use super::{
    cluster::{MemberId, ratio},
    gate::GateResult,
    lock::{Holder, Term},
    policy::{Mode, Need},
    reason::Reason,
    verify::Verification,
    wire,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    #[serde(rename = "db_size_bytes", with = "wire::number")]
    pub db_size: ByteSize,
    #[serde(rename = "db_size_in_use_bytes", with = "wire::number")]
    pub db_size_in_use: ByteSize,
}

impl Sizes {
    /// See [`super::cluster::Status::fragmentation_ratio`].
    pub fn fragmentation_ratio(&self) -> f64 {
        ratio(ByteSize(self.db_size.0.saturating_sub(self.db_size_in_use.0)), self.db_size)
    }
}

/// The decision to defragment a member, recorded before the RPC is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub member_id: MemberId,
    pub member: String,
    /// Whether it was the leader when the decision was made.
    pub is_leader: bool,
    pub need: Need,
    /// Measured just before.
    pub before: Sizes,
    /// How long the member was expected to be unavailable.
    #[serde(default, rename = "expected_seconds", with = "wire::number")]
    pub expected: Option<Duration>,
    /// Whether the member may answer `Status` while it defragments: see [`super::cluster::MemberFacts::may_answer`].
    #[serde(default)]
    pub non_blocking: bool,
}

/// How the attempt on one member ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum MemberEnd {
    /// Defragmented, and the cluster is healthy again.
    Defragmented {
        /// Measured after the recovery.
        after: Sizes,
        /// From sending Defragment to its answer.
        #[serde(rename = "took_seconds", with = "wire::number")]
        took: Duration,
        /// How long the member did not answer, if etcd defragments without blocking; otherwise all of the time.
        #[serde(default, rename = "unavailable_seconds", with = "wire::number")]
        unavailable: Option<Duration>,
    },
    /// Something failed. The member may or may not have become smaller.
    Failed {
        reason: Reason,
        /// The last measured sizes, if any.
        after: Option<Sizes>,
        /// From sending Defragment to its end, where the answer was lost and the member was seen to do it.
        #[serde(default, rename = "took_seconds", with = "wire::number", skip_serializing_if = "Option::is_none")]
        took: Option<Duration>,
    },
    /// defragd exited during the defragmentation. The member was found idle afterwards; the sizes show whether the
    /// defragmentation finished.
    Unconfirmed {
        /// Measured when the member was idle; `None` if it stayed unreachable.
        after: Option<Sizes>,
    },
    /// The run was stopped between the intent and the RPC: Defragment was not sent.
    NotSent { reason: Reason },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberResult {
    #[serde(flatten)]
    pub intent: Intent,
    #[serde(flatten)]
    pub end: MemberEnd,
}

impl MemberResult {
    pub fn after(&self) -> Option<Sizes> {
        match &self.end {
            MemberEnd::Defragmented { after, .. } => Some(*after),
            MemberEnd::Failed { after, .. } | MemberEnd::Unconfirmed { after } => *after,
            MemberEnd::NotSent { .. } => None,
        }
    }

    pub fn reclaimed(&self) -> ByteSize {
        let after = self.after().map_or(self.intent.before.db_size, |after| after.db_size);
        ByteSize(self.intent.before.db_size.0.saturating_sub(after.0))
    }

    /// Whether its file was defragmented, also if the answer was lost or the cluster was not healthy in time afterwards.
    pub fn is_defragmented(&self) -> bool {
        matches!(self.end, MemberEnd::Defragmented { .. }) || self.reclaimed().0 > 0
    }

    /// A stable label for metrics: `no_gain` marks a defragmentation after which the file is not smaller.
    pub fn label(&self) -> &'static str {
        match self.end {
            MemberEnd::Defragmented { .. } if self.reclaimed().0 == 0 => "no_gain",
            MemberEnd::Defragmented { .. } => "succeeded",
            MemberEnd::Failed { .. } => "failed",
            MemberEnd::Unconfirmed { .. } => "unconfirmed",
            MemberEnd::NotSent { .. } => "not_sent",
        }
    }

    /// The values of [`MemberResult::label`].
    pub const LABELS: [&str; 5] = ["succeeded", "no_gain", "failed", "unconfirmed", "not_sent"];
}

/// An action of a run besides defragmenting, recorded before it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum RunStep {
    Compact {
        /// Up to this revision.
        revision: u64,
    },
    MoveLeader {
        from: MemberId,
        /// The voter that becomes the leader.
        to: MemberId,
        member: String,
    },
    DisarmNoSpace {
        member_id: Option<MemberId>,
        /// Its name, or its id if it is no longer a member.
        member: String,
    },
}

/// How a run ended. Each accepted request ends in exactly one of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, IntoStaticStr, VariantNames)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// Every member that needed it was defragmented, and the cluster is healthy.
    Succeeded,
    /// No member needed it when it was measured again.
    NothingToDo,
    /// The mode is observe: these members would have been defragmented, in this order.
    Observed {
        members: Vec<String>,
        /// No maintenance window was open: in mode enforce, the request would have waited. Not the time of the next one,
        /// so that runs of different days have the same result.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        outside_window: bool,
    },
    /// It was not safe to begin. Nothing was touched.
    Refused { reason: Reason },
    /// Something failed during the run; no further member was started.
    Failed { reason: Reason },
    /// The members' data was compared after the last member, and differs. Automation starts nothing until an operator
    /// resumes.
    Mismatched {
        /// Which members have which hash.
        reason: Reason,
    },
    /// Ended early on purpose; no further member was started.
    Stopped { reason: Reason },
    /// The process ended during the run; what a later process could still determine is in the results.
    Interrupted { reason: Reason },
}

impl Outcome {
    /// A stable label for metrics.
    pub fn label(&self) -> &'static str {
        self.into()
    }

    /// Whether it ended early for a reason outside the cluster: the next run continues with the remaining members.
    pub const fn is_broken_off(&self) -> bool {
        matches!(
            self,
            Self::Stopped {
                reason: Reason::LockLost { .. }
                    | Reason::ShuttingDown
                    | Reason::Paused { .. }
                    | Reason::AwaitingApproval { .. }
                    | Reason::SnapshotOpen { .. }
                    | Reason::WindowClosed { .. }
            }
        )
    }

    pub const fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Refused { reason }
            | Self::Failed { reason }
            | Self::Mismatched { reason }
            | Self::Stopped { reason }
            | Self::Interrupted { reason } => Some(reason),
            Self::Succeeded | Self::NothingToDo | Self::Observed { .. } => None,
        }
    }
}

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// The request was recorded; only then is it acknowledged.
    Accepted(Request),
    /// Further alerts that the run serves.
    Joined {
        alerts: Vec<AlertKey>,
    },
    /// Some of its alerts no longer fire. Also recorded after the end of a run that is to be retried.
    Resolved {
        alerts: Vec<AlertKey>,
    },
    /// An operator approved the run.
    Approved {
        by: String,
        /// Whether the operator requested a run while this one waited: it is the operator's from here on, whatever its
        /// alerts still want.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        requested: bool,
        /// Which members the operator requested, as in [`Request`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        members: Vec<String>,
    },
    /// An operator cancelled the request. Also recorded after the end of a run that is to be retried.
    Cancelled(Cancellation),
    /// The replica that holds the cluster's lock has it in its journal.
    #[serde(alias = "handed_over")]
    Forwarded(ForwardedRequest),
    Started {
        mode: Mode,
        /// The term of the lock; `None` without a lock.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        term: Option<Term>,
        /// Whether the members' data is to be compared at the end.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        compares: bool,
    },
    /// Something other than Defragment is about to be sent.
    Step(RunStep),
    /// Defragment is about to be sent.
    Intent(Intent),
    Result(MemberResult),
    Gate(GateResult),
    /// The members' data was compared, or that failed too often.
    Verified(Verification),
    Finished(Outcome),
    /// Earlier runs had the same result, changed nothing, and were deleted.
    Repeats {
        times: u32,
        /// When the first of them was accepted.
        since: Timestamp,
    },
}

impl Entry {
    /// An approval of what waits.
    pub const fn approved(by: String) -> Self {
        Self::Approved { by, requested: false, members: Vec::new() }
    }
}

/// An entry of the journal with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub run: RunId,
    pub at: Timestamp,
    #[serde(flatten)]
    pub entry: Entry,
}

/// The lock holder's copy of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedRequest {
    pub holder: Holder,
    /// The run's number in its journal.
    #[serde(rename = "holders_run")]
    pub run: RunId,
    /// The offered alerts; one that joins later is offered separately.
    #[serde(default)]
    pub alerts: Vec<AlertKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Approval {
    pub by: String,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    pub by: String,
    pub reason: String,
}
