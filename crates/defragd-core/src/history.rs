//! The content of the journal: the entries of a run, and the run that they describe.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    time::Duration,
};

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    cluster::{MemberId, ratio},
    explain::Explained,
    gate::GateResult,
    lock::{Holder, Term},
    policy::{Mode, Need},
    reason::Reason,
    verify::Verification,
    wire,
};

/// The number of a run, given when its request is accepted. Never used twice in one journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub i64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What requested a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    Alert,
    /// An operator: `defragd run`, or `POST /api/v1/clusters/{name}/run`.
    Manual,
    /// A run was refused, and its alert still fires.
    Retry,
    /// A due time of the cluster's schedule.
    Schedule,
}

impl Trigger {
    /// All of them, so that counters can start at 0.
    pub const ALL: [Self; 4] = [Self::Alert, Self::Manual, Self::Retry, Self::Schedule];

    /// A stable label for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Manual => "manual",
            Self::Retry => "retry",
            Self::Schedule => "schedule",
        }
    }
}

/// The labels of an alert.
pub type Labels = BTreeMap<String, String>;

/// The label with an alert's name.
const ALERT_NAME: &str = "alertname";

/// The fingerprint of due times. Alertmanager's are hexadecimal numbers.
const OF_SCHEDULE: &str = "schedule";

/// One firing of an alert, or one due time of a schedule: Alertmanager keeps fingerprint and start the same for all
/// repetitions and peers. These two alone identify it; what people read of it is not compared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AlertKey {
    /// Alertmanager's hash of the labels.
    pub fingerprint: String,
    /// When it began to fire. Alertmanager writes `.12Z` in webhooks and `.120Z` in its API for the same time; here it
    /// is normalised. A text that is not a time is kept as it is.
    #[serde(deserialize_with = "one_spelling")]
    pub starts_at: String,
    /// Cut by [`AlertKey::described`]. Empty for a due time, for an alert from a journal of an earlier version, and for
    /// all but the first alerts of a request.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Its annotation `summary`, or the next best one; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

impl PartialEq for AlertKey {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for AlertKey {}

impl PartialOrd for AlertKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AlertKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl Hash for AlertKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl AlertKey {
    /// Alerts of a request that are recorded with labels; an operator reads no more.
    pub const MOST_DESCRIBED: usize = 20;
    /// Labels of an alert that are recorded, and characters of a name, a value or a summary.
    const MOST_LABELS: usize = 20;
    const MOST_CHARS: usize = 200;

    /// A key whose time is normalised.
    pub fn new(fingerprint: String, starts_at: &str) -> Self {
        let starts_at = starts_at.parse::<Timestamp>().map_or_else(|_| starts_at.to_owned(), |at| at.to_string());
        Self { fingerprint, starts_at, labels: Labels::new(), summary: String::new() }
    }

    /// The same with what people read of it, cut to a bounded size. `alertname` is never left out.
    #[must_use]
    pub fn described<'a>(self, labels: impl IntoIterator<Item = (&'a String, &'a String)>, summary: &str) -> Self {
        let cut = |text: &str| text.chars().take(Self::MOST_CHARS).collect::<String>();
        let (name, others): (Vec<_>, Vec<_>) = labels.into_iter().partition(|(label, _)| *label == ALERT_NAME);
        let kept = name.into_iter().chain(others).take(Self::MOST_LABELS);
        let labels = kept.map(|(label, value)| (cut(label), cut(value))).collect();
        Self { labels, summary: cut(summary), ..self }
    }

    /// The same without what people read of it.
    #[must_use]
    pub fn bare(&self) -> Self {
        let (fingerprint, starts_at) = (self.fingerprint.clone(), self.starts_at.clone());
        Self { fingerprint, starts_at, labels: Labels::new(), summary: String::new() }
    }

    /// The same alerts with at most as many described as a request that has these already has room for.
    pub fn described_within(alerts: Vec<Self>, before: &[Self]) -> Vec<Self> {
        let described = before.iter().filter(|key| key.is_described()).count();
        let mut room = Self::MOST_DESCRIBED.saturating_sub(described);
        let cut = |key: Self| {
            let keeps = room > 0;
            room -= usize::from(keeps && key.is_described());
            if keeps { key } else { key.bare() }
        };
        alerts.into_iter().map(cut).collect()
    }

    pub fn is_described(&self) -> bool {
        !self.labels.is_empty()
    }

    /// The alert's name, if known.
    pub fn name(&self) -> Option<&str> {
        self.labels.get(ALERT_NAME).map(String::as_str)
    }

    fn identity(&self) -> (&str, &str) {
        (&self.fingerprint, &self.starts_at)
    }

    /// The key of a schedule's due time: the same on every replica.
    pub fn of_schedule(due: Timestamp) -> Self {
        Self::new(OF_SCHEDULE.to_owned(), &due.to_string())
    }

    /// The due time, if it is of a schedule.
    pub fn due(&self) -> Option<Timestamp> {
        (self.fingerprint == OF_SCHEDULE).then(|| self.starts_at.parse().ok()).flatten()
    }
}

/// Journals of earlier versions have times as Alertmanager wrote them.
fn one_spelling<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    Ok(AlertKey::new(String::new(), &String::deserialize(source)?).starts_at)
}

/// A request for a run of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub cluster: String,
    pub trigger: Trigger,
    /// The alerts behind it, if any.
    pub alerts: Vec<AlertKey>,
    /// The members that the operator wants defragmented, by name or id; all of them if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

impl Request {
    /// Adds alerts that it does not have yet.
    pub fn join(&mut self, alerts: Vec<AlertKey>) {
        for key in alerts {
            if !self.alerts.contains(&key) {
                self.alerts.push(key);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Of the file, bytes.
    #[serde(rename = "db_size_bytes", with = "wire::bytes")]
    pub db_size: ByteSize,
    /// In use, bytes.
    #[serde(rename = "db_size_in_use_bytes", with = "wire::bytes")]
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
    #[serde(default, rename = "expected_seconds", with = "wire::maybe_seconds")]
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
        #[serde(rename = "took_seconds", with = "wire::seconds")]
        took: Duration,
        /// How long the member did not answer, if etcd defragments without blocking; otherwise all of the time.
        #[serde(default, rename = "unavailable_seconds", with = "wire::maybe_seconds")]
        unavailable: Option<Duration>,
    },
    /// Something failed. The member may or may not have become smaller.
    Failed {
        reason: Reason,
        /// The last measured sizes, if any.
        after: Option<Sizes>,
        /// From sending Defragment to its end, where the answer was lost and the member was seen to do it.
        #[serde(
            default,
            rename = "took_seconds",
            with = "wire::maybe_seconds",
            skip_serializing_if = "Option::is_none"
        )]
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
    /// The sizes afterwards, if known.
    pub fn after(&self) -> Option<Sizes> {
        match &self.end {
            MemberEnd::Defragmented { after, .. } => Some(*after),
            MemberEnd::Failed { after, .. } | MemberEnd::Unconfirmed { after } => *after,
            MemberEnd::NotSent { .. } => None,
        }
    }

    /// How much smaller the file became.
    pub fn reclaimed(&self) -> ByteSize {
        let after = self.after().map_or(self.intent.before.db_size, |after| after.db_size);
        ByteSize(self.intent.before.db_size.0.saturating_sub(after.0))
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
    /// The history is compacted.
    Compact {
        /// Up to this revision.
        revision: u64,
    },
    /// Leadership is transferred.
    MoveLeader {
        from: MemberId,
        /// The voter that becomes the leader.
        to: MemberId,
        member: String,
    },
    /// An alarm NOSPACE is disarmed.
    DisarmNoSpace {
        member_id: Option<MemberId>,
        /// Its name, or its id if it is no longer a member.
        member: String,
    },
}

/// How a run ended. Each accepted request ends in exactly one of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Every member that needed it was defragmented, and the cluster is healthy.
    Succeeded,
    /// No member needed it when it was measured again.
    NothingToDo,
    /// The mode is observe: these members would have been defragmented, in this order.
    Observed { members: Vec<String> },
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
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::NothingToDo => "nothing_to_do",
            Self::Observed { .. } => "observed",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::Mismatched { .. } => "mismatched",
            Self::Stopped { .. } => "stopped",
            Self::Interrupted { .. } => "interrupted",
        }
    }

    /// The values of [`Outcome::label`].
    pub const LABELS: [&str; 8] =
        ["succeeded", "nothing_to_do", "observed", "refused", "failed", "mismatched", "stopped", "interrupted"];

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

    /// Why, if there is a reason to give.
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

/// The approval of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Approval {
    pub by: String,
    pub at: Timestamp,
}

/// The cancellation of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    pub by: String,
    pub reason: String,
}

/// A run, put together from its records.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunView {
    pub id: RunId,
    /// The request that it serves.
    #[serde(flatten)]
    pub request: Request,
    pub accepted_at: Timestamp,
    /// The alerts of the request that no longer fire.
    pub resolved: Vec<AlertKey>,
    /// Who approved it, and when.
    pub approved: Option<Approval>,
    /// Who cancelled the request, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Cancellation>,
    #[serde(skip)]
    pub cancelled_at: Option<Timestamp>,
    /// The other replica that has it.
    pub forwarded_to: Option<ForwardedRequest>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// How it ended; `None` while it waits or runs.
    #[serde(flatten, serialize_with = "explained")]
    pub outcome: Option<Outcome>,
    /// The intent that has no result yet: this member may be defragmenting.
    pub open_intent: Option<Intent>,
    /// The attempts, in order.
    pub members: Vec<MemberResult>,
    /// The other steps, in order.
    pub steps: Vec<RunStep>,
    /// The results of the gates, in order.
    pub gates: Vec<GateResult>,
    /// The result of the comparison of the members' data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    #[serde(skip)]
    pub(super) compares: bool,
    /// Whether a member was defragmented whose data is to be compared and was not since; `None` if none was.
    #[serde(skip)]
    pub(super) uncompared: Option<bool>,
    /// How often it was begun: more than once after a crash.
    pub starts: u32,
    /// How many earlier runs had the same result, changed nothing, and were deleted.
    pub repeats: u32,
    /// When the first of them was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats_since: Option<Timestamp>,
}

/// With the reason explained; and with another name for the members of a run in mode observe, because `members` are the
/// attempts.
#[expect(clippy::ref_option, reason = "serde's signature")]
fn explained<'a, S: Serializer>(outcome: &'a Option<Outcome>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        outcome: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Explained<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        would_defragment: Option<&'a [String]>,
    }
    let shown = |outcome: &'a Outcome| Shown {
        outcome: outcome.label(),
        reason: outcome.reason().map(Explained::from),
        would_defragment: if let Outcome::Observed { members } = outcome { Some(members) } else { None },
    };
    outcome.as_ref().map(shown).serialize(serializer)
}

impl RunView {
    /// A run that has only been accepted.
    pub(super) fn accepted(id: RunId, accepted_at: Timestamp, request: Request) -> Self {
        Self {
            id,
            request,
            accepted_at,
            resolved: Vec::new(),
            approved: None,
            cancelled: None,
            cancelled_at: None,
            forwarded_to: None,
            started_at: None,
            finished_at: None,
            outcome: None,
            open_intent: None,
            members: Vec::new(),
            steps: Vec::new(),
            gates: Vec::new(),
            verification: None,
            compares: false,
            uncompared: None,
            starts: 0,
            repeats: 0,
            repeats_since: None,
        }
    }

    /// Folds the records of one journal, in order, into its runs, in order.
    pub fn fold(records: impl IntoIterator<Item = Record>) -> Vec<Self> {
        let mut runs: Vec<Self> = Vec::new();
        for Record { run, at, entry } in records {
            if let Entry::Accepted(request) = entry {
                runs.push(Self::accepted(run, at, request));
                continue;
            }
            let Some(view) = runs.iter_mut().rev().find(|view| view.id == run) else { continue };
            match entry {
                Entry::Accepted(_) => {}
                Entry::Joined { alerts } => {
                    // Alerts that have fired since then are not part of the cancellation.
                    view.cancelled = None;
                    view.resolved.retain(|key| !alerts.contains(key));
                    view.request.join(alerts);
                }
                Entry::Resolved { alerts } => view.resolved.extend(alerts),
                // The first one counts.
                Entry::Approved { by } => view.approved = view.approved.take().or(Some(Approval { by, at })),
                Entry::Cancelled(cancellation) => {
                    view.cancelled = view.cancelled.take().or(Some(cancellation));
                    view.cancelled_at = Some(at);
                }
                Entry::Forwarded(to) => view.forwarded_to = Some(to),
                Entry::Started { compares, .. } => {
                    view.compares = compares;
                    view.started_at = view.started_at.or(Some(at));
                    view.starts += 1;
                }
                Entry::Step(step) => view.steps.push(step),
                Entry::Gate(result) => view.gates.push(result),
                Entry::Verified(verification) => {
                    view.verification = Some(verification);
                    view.uncompared = Some(false);
                }
                Entry::Intent(intent) => view.open_intent = Some(intent),
                Entry::Result(result) => {
                    view.open_intent = None;
                    if view.compares && !matches!(result.end, MemberEnd::NotSent { .. }) {
                        view.uncompared = Some(true);
                    }
                    view.members.push(result);
                }
                Entry::Finished(outcome) => {
                    view.finished_at = Some(at);
                    view.outcome = Some(outcome);
                }
                Entry::Repeats { times, since } => {
                    view.repeats = times;
                    view.repeats_since = Some(since);
                }
            }
        }
        runs
    }

    /// The reason if the request was cancelled or removed.
    pub fn withdrawn(&self) -> Option<Reason> {
        let Cancellation { by, reason } = self.cancelled.clone()?;
        Some(Reason::Cancelled { by, reason })
    }

    /// The alerts behind it that are not known to be resolved.
    pub fn open_alerts(&self) -> impl Iterator<Item = &AlertKey> {
        self.request.alerts.iter().filter(|key| !self.resolved.contains(key))
    }

    /// The baselines that the gates recorded before the run.
    pub fn baselines(&self) -> BTreeMap<String, serde_json::Value> {
        let given = self.gates.iter().filter_map(|result| Some((result.gate.clone(), result.baseline.clone()?)));
        given.collect()
    }

    /// Bytes by which the files of all members became smaller.
    pub fn reclaimed(&self) -> ByteSize {
        ByteSize(self.members.iter().map(|member| member.reclaimed().0).sum())
    }

    /// See [`Outcome::is_broken_off`].
    pub fn is_broken_off(&self) -> bool {
        self.outcome.as_ref().is_some_and(Outcome::is_broken_off)
    }

    /// Whether any member was defragmented.
    pub fn touched_a_member(&self) -> bool {
        self.members.iter().any(|member| !matches!(member.end, MemberEnd::NotSent { .. })) || self.open_intent.is_some()
    }
}
