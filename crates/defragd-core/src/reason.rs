//! Why something is not done: every hold, skip, refusal and failure of defragd.
//!
//! Each is one variant: its name is the code in metrics and JSON, its doc comment says what it means, its `#[error]` is
//! the text. [`super::explain`] adds the severity and what an operator does. The log, the journal, the metrics,
//! `defragd plan`, the page and the API show the same reason; `defragd explain` and docs/reference/reasons.md list all.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumDiscriminants, EnumIter, EnumMessage, EnumString, IntoStaticStr};
use thiserror::Error;

use super::{gate::Moment, request::RunId, time::Time, wire, words};

/// Why a cluster or a member is not defragmented now, or why a run stopped.
#[derive(Clone, Debug, PartialEq, Error, Serialize, Deserialize, EnumDiscriminants)]
#[serde(tag = "code", rename_all = "snake_case")]
#[strum_discriminants(
    name(Code),
    doc = "A [`Reason`] without its values.",
    derive(Display, EnumIter, EnumMessage, EnumString, IntoStaticStr),
    strum(serialize_all = "snake_case")
)]
pub enum Reason {
    // ---- a member is left out ----
    /// The member is neither fragmented enough nor near its quota.
    #[error(
        "not needed: fragmentation {fragmentation_ratio:.2} with {reclaimable} reclaimable (acts from {min_ratio:.2} and {min_reclaimable})"
    )]
    NotNeeded {
        fragmentation_ratio: f64,
        #[serde(rename = "reclaimable_bytes", with = "wire::number")]
        reclaimable: ByteSize,
        min_ratio: f64,
        #[serde(rename = "min_reclaimable_bytes", with = "wire::number")]
        min_reclaimable: ByteSize,
    },
    /// The member is a learner. etcd refuses Defragment on learners.
    #[error("is a learner: etcd refuses Defragment on learners")]
    Learner,
    /// This run has finished with the member, or an earlier attempt at the same request has.
    #[error("already defragmented under this request")]
    AlreadyDone,
    /// The operator requested the defragmentation of other members only (`--member`).
    #[error("not among the requested members")]
    NotRequested,
    /// The member is the leader, and the policy says `leader: skip`.
    #[error("is the leader, and the policy skips leaders")]
    LeaderSkipped,
    /// The cluster's `rule` is false for the member.
    #[error(
        "the rule does not hold: {rule} (dbSize {}, dbSizeInUse {}, dbQuota {})", db_size.0, db_size_in_use.0, quota.map_or("unknown".to_owned(), |quota| quota.0.to_string())
    )]
    RuleNotMet {
        rule: String,
        #[serde(rename = "db_size_bytes", with = "wire::number")]
        db_size: ByteSize,
        #[serde(rename = "db_size_in_use_bytes", with = "wire::number")]
        db_size_in_use: ByteSize,
        #[serde(rename = "db_quota_bytes", with = "wire::number")]
        quota: Option<ByteSize>,
    },
    /// The cluster's `rule` cannot be evaluated for the member, mostly because its quota is not known.
    #[error("the rule cannot be decided: {detail}: {rule}")]
    RuleFailed { rule: String, detail: String },
    /// The member's last defragmentation made its file hardly smaller, and not enough has become free since.
    #[error(
        "the last defragmentation reclaimed {reclaimed} of {expected}; the next attempt needs {needed} reclaimable ({reclaimable} now)"
    )]
    NoGain {
        #[serde(rename = "reclaimed_bytes", with = "wire::number")]
        reclaimed: ByteSize,
        /// What was reclaimable before the last attempt.
        #[serde(rename = "expected_bytes", with = "wire::number")]
        expected: ByteSize,
        #[serde(rename = "reclaimable_bytes", with = "wire::number")]
        reclaimable: ByteSize,
        #[serde(rename = "needed_bytes", with = "wire::number")]
        needed: ByteSize,
    },
    /// The last attempt on the member failed in a way that may kill the member if it is repeated.
    #[error("member {member} is not defragmented again until its last failure is fixed: {detail}")]
    #[serde(alias = "needs_person")]
    NeedsOperator { member: String, detail: String },

    // ---- it is not safe ----
    /// The cluster has no member of the requested name or id.
    #[error("there is no member {member}; the cluster has: {known}")]
    UnknownMember { member: String, known: String },
    /// No endpoint returned a member list.
    #[error("no endpoint answered with a member list: {detail}")]
    ClusterUnreachable { detail: String },
    /// A voting member does not answer `Status`.
    #[error("member {member} does not answer Status: {detail}")]
    MemberUnreachable { member: String, detail: String },
    /// A voting member answers, but cannot serve a linearizable read: it has no quorum.
    #[error("a linearizable read through member {member} fails: {detail}")]
    ReadFailed { member: String, detail: String },
    /// etcd rejects defragd's credentials, or its user lacks a permission.
    #[error("etcd rejected the credentials{}: {detail}", words::on_member(member.as_deref()))]
    Denied {
        /// `None` if the member list itself was denied: no member is known then.
        #[serde(default)]
        member: Option<String>,
        detail: String,
    },
    /// The client URL of one member leads to another member.
    #[error("the address of member {member} leads elsewhere: {detail}")]
    WrongMember { member: String, detail: String },
    /// A voting member knows no leader.
    #[error("member {member} sees no leader")]
    NoLeader { member: String },
    /// Voting members name different leaders.
    #[error("members disagree on the leader: {detail}")]
    LeaderDisagreement { detail: String },
    /// The cluster has so few voting members that it has no quorum while one is being defragmented.
    #[error("with {} the cluster has no quorum while one is being defragmented", words::count(*voters, "voting member"))]
    NoQuorumSlack { voters: usize },
    /// The cluster does not answer which alarms are armed.
    #[error("the alarms are not known: {detail}")]
    AlarmsUnknown { detail: String },
    /// Alarm CORRUPT is armed: the members' data differ.
    #[error("alarm CORRUPT is armed: a member's data is corrupt")]
    CorruptAlarm,
    /// A member is being defragmented, by another client or by an earlier run.
    #[error("member {member} is being defragmented already")]
    DefragInFlight { member: String },
    /// With etcd's feature `NonBlockingDefrag` a member answers while it defragments; only its metrics page shows the
    /// defragmentation, and defragd cannot read that page, or `etcd_disk_defrag_inflight` is not on it.
    #[error(
        "cannot determine whether member {member} is being defragmented: its metrics page does not show it{}", if detail.is_empty() { String::new() } else { format!(" ({detail})") }
    )]
    DefragUnknown { member: String, detail: String },
    /// The member's defragmentation is expected to take longer than its liveness probe, or the policy, allows.
    #[error(
        "member {member} is expected to be unavailable for {:.0} s, longer than {what} ({:.0} s)", expected.as_secs_f64(), limit.as_secs_f64()
    )]
    StallExceedsProbe {
        member: String,
        #[serde(rename = "expected_seconds", with = "wire::number")]
        expected: Duration,
        #[serde(rename = "limit_seconds", with = "wire::number")]
        limit: Duration,
        /// The policy's key that sets the limit.
        what: String,
    },
    /// An operator's run is about the leader (`--member`), while other members that need it are left for later. It is a
    /// warning of `defragd plan`: the run starts.
    #[error("member {member} is the leader, and is defragmented before {others}, which need it, too")]
    LeaderFirst {
        member: String,
        /// Their names, separated by commas.
        others: String,
    },
    /// The member is sending a snapshot, mostly a backup. Its defragmentation would wait for the end of the snapshot, and
    /// the member would serve no client until then.
    #[error(
        "member {member} is sending {}{}; its defragmentation waits until that ends", words::snapshots(*open), if waited.is_zero() { String::new() } else { format!(", for at least {:.0} s", waited.as_secs_f64()) }
    )]
    SnapshotOpen {
        member: String,
        open: u64,
        /// Since defragd saw them first; etcd does not report when they began.
        #[serde(rename = "waited_seconds", with = "wire::number")]
        waited: Duration,
    },
    /// A member has not yet applied what the others have.
    #[error("member {member} is {behind} raft entries behind (limit {limit})")]
    RaftLag { member: String, behind: u64, limit: u64 },
    /// The member runs a release of etcd with a defect that makes defragmentation dangerous.
    #[error("member {member} runs etcd {version}: {defect}")]
    DangerousVersion { member: String, version: String, defect: String },
    /// Members run different minor versions of etcd, or a downgrade is enabled.
    #[error("an upgrade or downgrade of etcd is in progress: {detail}")]
    UpgradeInProgress { detail: String },
    /// A member joined or left the cluster after the run began.
    #[error("the membership changed during the run: {detail}")]
    MembershipChanged { detail: String },
    /// The endpoints lead to another cluster than when the run began.
    #[error("the cluster id changed during the run from {before} to {after}")]
    ClusterChanged { before: String, after: String },
    /// Two entries of the configuration lead to the same etcd cluster, and a run of the other one is under way.
    #[error("a run of {other:?} is under way on the same etcd cluster (id {cluster_id})")]
    SameCluster { cluster_id: String, other: String },
    /// When the cluster was observed a last time before the RPC, another member was to be defragmented first.
    #[error("at the last check, member {member} was no longer the next one to defragment")]
    NoLongerNext { member: String },
    /// The cluster was observed too long before an RPC was to be sent: it is not sent, and the cluster is observed again.
    #[error("the last observation of the cluster is {} s old, and nothing is sent on it", age.as_secs())]
    StaleObservation {
        #[serde(rename = "age_seconds", with = "wire::number")]
        age: Duration,
    },
    /// A gate, a check outside etcd, failed.
    #[error("gate {gate} failed {}: {detail}", moment.in_words())]
    GateFailed { gate: String, moment: Moment, detail: String },

    // ---- a run under way failed ----
    /// The member answered Defragment with an error.
    #[error("defragmenting member {member} failed: {detail}")]
    DefragFailed { member: String, detail: String },
    /// The member's disk has no room for the copy that a defragmentation writes. defragd does not retry it: the next
    /// attempt may crash etcd.
    #[error("member {member} has no disk space for the temporary copy: {detail}")]
    DiskFull { member: String, detail: String },
    /// Defragment was not answered in time. defragd watched the member until its defragmentation ended.
    #[error("defragmenting member {member} took longer than the deadline of {:.0} s", deadline.as_secs_f64())]
    DeadlineExceeded {
        member: String,
        #[serde(rename = "deadline_seconds", with = "wire::number")]
        deadline: Duration,
    },
    /// The connection to the member broke while the member was being defragmented.
    #[error("the connection to member {member} broke during its defragmentation: {detail}")]
    ConnectionLost { member: String, detail: String },
    /// After a member was defragmented, the cluster was not healthy again within `recovery_timeout`.
    #[error("the cluster was not healthy again within {:.0} s (recovery_timeout) after member {member}: {detail}", waited.as_secs_f64())]
    NotRecovered {
        /// The member that was defragmented last.
        member: String,
        /// `recovery_timeout`.
        #[serde(rename = "waited_seconds", with = "wire::number")]
        waited: Duration,
        detail: String,
    },
    /// defragd's journal cannot be written. Nothing is done that is not recorded first.
    #[error("the journal cannot be written: {detail}")]
    JournalFailed { detail: String },
    /// Leadership did not move to the chosen member, or did not stay away from the leader.
    #[error("leadership could not be transferred to member {member}: {detail}")]
    TransferFailed { member: String, detail: String },
    /// No voting member can take over leadership before the leader is defragmented: none is healthy, has caught up and
    /// has been defragmented.
    #[error("no voting member can take over leadership before the leader is defragmented")]
    NoTransferTarget,
    /// The compaction of the history failed.
    #[error("compacting up to revision {revision} failed: {detail}")]
    CompactionFailed { revision: u64, detail: String },
    /// Alarm NOSPACE is not disarmed, because a member's file still fills too much of its quota.
    #[error(
        "NOSPACE stays armed: member {member} still fills {:.0} % of its quota (must be below {:.0} %)", usage * 100.0, limit * 100.0
    )]
    StillNearQuota {
        member: String,
        /// File size / quota.
        usage: f64,
        limit: f64,
    },
    /// Alarm NOSPACE is not disarmed, because neither `Status` nor the metrics page reports a member's quota.
    #[error("NOSPACE stays armed: the quota of member {member} is not known")]
    QuotaUnknown { member: String },
    /// etcd did not disarm alarm NOSPACE.
    #[error("disarming NOSPACE{} failed: {detail}", words::on_member(member.as_deref()))]
    DisarmFailed {
        /// Its name, or its id if it is no longer a member; `None` if the alarm names no member.
        #[serde(default)]
        member: Option<String>,
        detail: String,
    },
    /// Alarm NOSPACE was disarmed and etcd armed it again: a member is still over its quota.
    #[error("NOSPACE was disarmed and is armed again: a member is still over its quota")]
    NoSpaceAgain,
    /// The members hold different data.
    #[error("the members hold different data at revision {revision}: hash {hashes}")]
    HashMismatch { revision: u64, hashes: String },

    // ---- the request is not accepted ----
    /// The alert's labels match no configured cluster.
    #[error("no configured cluster matches the alert's labels")]
    UnknownCluster,
    /// A reload removed the cluster from the configuration.
    #[error("the cluster is no longer in the configuration")]
    Removed,
    /// The alert's labels match several configured clusters.
    #[error("the alert's labels match several clusters ({clusters})")]
    AmbiguousCluster { clusters: String },
    /// The cluster belongs to another shard (`--shard`, `--total-shards`).
    #[error("the cluster belongs to shard {shard} (--total-shards={total})")]
    OtherShard { shard: u32, total: u32 },
    /// The alert was received before, and its request is open or has just ended.
    #[error("this alert was accepted already")]
    DuplicateAlert,
    /// The cluster has an open request already; one run serves all its requests.
    #[error("a run of this cluster is requested already")]
    AlreadyRequested,
    /// An operator requests a run of some members (`--member`) while a run of the cluster waits.
    #[error("run {run} of this cluster is waiting, and a cluster has one request at a time")]
    AnotherRunWaits { run: RunId },
    /// Another replica of defragd holds the cluster's lock, and with it acts on the cluster.
    #[error("replica {holder} holds the cluster's lock")]
    LockHeldElsewhere { holder: String },
    /// The replica that holds the cluster's lock does not accept the request that this one forwards.
    #[error("replica {holder} holds the cluster's lock and does not accept the request: {detail}")]
    NotForwarded { holder: String, detail: String },

    // ---- the request is held back ----
    /// The cluster was defragmented recently.
    #[error("the cluster was defragmented recently: cooling down until {}", words::time(*until))]
    Cooldown { until: Timestamp },
    /// The last run was refused or failed. defragd tries again if the request still stands.
    #[error("the last run did not finish the work; the next one starts at {} if the request still stands", words::time(*at))]
    RetryPending { at: Timestamp },
    /// An operator paused the cluster.
    #[error("paused by {by}: {reason}{}", until.map_or(String::new(), |until| format!(" (until {})", words::time(until))))]
    Paused { by: String, reason: String, until: Option<Timestamp> },
    /// No maintenance window is open.
    #[error("outside the maintenance windows; {}", opens.map_or("none will open".to_owned(), |opens| format!("the next opens at {}", words::time(opens))))]
    OutsideWindow { opens: Option<Timestamp> },
    /// The cluster had as many runs within 24 hours as `max_runs_per_day` allows.
    #[error("daily limit reached ({limit} of {limit}, max_runs_per_day), next run after {}", words::time(*until))]
    DailyLimit { limit: u32, until: Timestamp },
    /// Several runs failed in a row, so the breaker stopped automatic runs.
    #[error(
        "the breaker is open since {}: {} failed in a row{}", words::time(*since), words::count(*failures, "run"), until.map_or(String::new(), |until| format!("; one more attempt from {}", words::time(until)))
    )]
    BreakerOpen {
        failures: u32,
        /// When the last of them ended.
        since: Timestamp,
        /// When one more run is allowed without `defragd resume`.
        until: Option<Timestamp>,
    },
    /// In mode approve, a run starts only after an operator approves it.
    #[error("waiting for approval, until {}", words::time(*until))]
    AwaitingApproval { until: Timestamp },
    /// The last run for the alert ended, and the alert still fires. Its next notification requests another run.
    #[error("run {run} for the alert ended: {outcome}; the next notification of the alert requests another run")]
    Served { run: RunId, outcome: String },
    /// As many runs are under way as `--max-concurrent-runs` allows.
    #[error("waiting: {} under way, as many as --max-concurrent-runs allows", if *limit == 1 { "1 run is".to_owned() } else { format!("{limit} runs are") })]
    TooManyRuns { limit: u32 },
    /// defragd cannot determine whether another replica holds the cluster's lock.
    #[error("cannot determine who holds the cluster's lock: {detail}")]
    LockUnknown { detail: String },
    /// This replica has just acquired the cluster's lock, and waits until every RPC of the last holder has ended.
    #[error(
        "the cluster's lock was acquired just now; waiting {:.0} s until every RPC of its last holder has ended", left.as_secs_f64()
    )]
    LockSettling {
        #[serde(rename = "left_seconds", with = "wire::number")]
        left: Duration,
    },

    // ---- the run or the request ended ----
    /// The alert is no longer firing.
    #[error("the alert is resolved")]
    Resolved,
    /// An operator withdrew the request.
    #[error("cancelled by {by}{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    Cancelled { by: String, reason: String },
    /// An operator rejected the request instead of approving it. Its alerts request no run again until they resolve and
    /// fire anew, or until the cluster's `cooldown` has passed.
    #[error("rejected by {by}{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    Rejected {
        by: String,
        reason: String,
        /// When, if another lock holder recorded it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Timestamp>,
    },
    /// The maintenance window closed during the run. No further member was started.
    #[error("the maintenance window closed at {}", words::time(*closed))]
    WindowClosed { closed: Timestamp },
    /// No operator approved the run within `approval_timeout`.
    #[error("no operator approved the run within {} (approval_timeout)", Time::from(*waited))]
    ApprovalExpired {
        #[serde(rename = "waited_seconds", with = "wire::number")]
        waited: Duration,
    },
    /// The replica that holds the cluster's lock has the request in its journal, and its run serves it.
    #[error("forwarded to replica {holder}, which holds the cluster's lock: its run {run}")]
    #[serde(alias = "handed_over")]
    Forwarded {
        holder: String,
        /// A run in the journal of that replica.
        run: RunId,
    },
    /// This replica lost the cluster's lock: another replica may act on the cluster from now on.
    #[error("the cluster's lock was lost: {detail}")]
    LockLost { detail: String },
    /// The process is shutting down. No further member was started.
    #[error("defragd is shutting down")]
    ShuttingDown,
    /// An operator interrupted `defragd run`.
    #[error("interrupted by the operator")]
    OperatorStop,
    /// An earlier process of defragd ended in the middle of the run.
    #[error("defragd ended in the middle of this run")]
    ProcessEnded,
    /// The policy's mode is observe: runs are planned and recorded, nothing is changed.
    #[error("the policy's mode is observe: nothing is changed")]
    ObserveMode,
    /// An answer arrived to a question that the run did not ask: a defect of defragd.
    #[error("defragd lost track of the run, which is a defect of defragd")]
    #[serde(alias = "out_of_step")]
    InternalError,
}
