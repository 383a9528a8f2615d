//! Why something is not done, in words for people and in labels for metrics.
//!
//! Every refusal, skip and failure of defragd is one of these: the log, the journal, the metric label,
//! `defragd plan` and the API all show the same reason.
//!
//! # Every reason, its label, and what to do
//! | label | what a person does |
//! |---|---|
//! | `not_needed` | nothing; lower the thresholds if you want it earlier |
//! | `learner` | nothing; promote or remove a learner that stays |
//! | `already_done` | nothing |
//! | `leader_skipped` | set `leader` to `auto`, `last` or `last_after_transfer` if its file grows |
//! | `cluster_unreachable` | check endpoints, network, certificates; `defragd status` |
//! | `member_unreachable` | bring the member back: `defragd status`, its log, its host |
//! | `read_failed` | the member has no quorum behind it: look at its network and at the other members |
//! | `denied` | give defragd a user with the root role, or mend the password file |
//! | `wrong_member` | mend `--advertise-client-urls` of the member, or the load balancer before it |
//! | `no_leader` | wait for the election; if it lasts, look for lost members or a partition |
//! | `leader_disagreement` | the same |
//! | `no_quorum_slack` | add members; or accept the stop with `allow_without_quorum_slack` |
//! | `alarms_unknown` | the cluster cannot serve the listing: look at `etcdctl alarm list` |
//! | `corrupt_alarm` | find and replace the corrupt member before anything else; never disarm first |
//! | `defrag_in_flight` | wait: somebody, or an earlier run, is defragmenting it |
//! | `defrag_unknown` | make the member's metrics page readable, or set `metrics.url` to where it is |
//! | `stall_exceeds_probe` | raise the liveness probe's `failureThreshold`, then `liveness_budget`; free keys; or raise `max_expected_stall` |
//! | `snapshot_open` | wait for the backup, or end it if it hangs; `on_open_snapshot: ignore` accepts that the member stands still until it ends |
//! | `raft_lag` | wait for the member to catch up; if it does not, look at its disk and network |
//! | `dangerous_version` | upgrade etcd |
//! | `upgrade_in_progress` | finish the upgrade or the downgrade (`etcdctl downgrade cancel` withdraws one); NOSPACE does not wait for it |
//! | `membership_changed` | let the change finish; the next alert starts anew |
//! | `cluster_changed` | the endpoints lead to another cluster: mend the configuration |
//! | `same_cluster` | remove one of the two entries |
//! | `no_longer_next` | nothing; it passes. If it stays, leadership keeps moving: look at the disks |
//! | `defrag_failed` | read the member's log |
//! | `disk_full` | free space on the disk of the member's data directory, then restart the member (its temporary file stays until then) |
//! | `deadline_exceeded` | the member is well again; raise `defrag_deadline`, or look at its disk |
//! | `connection_lost` | look whether the member restarted, and at the network or proxies between |
//! | `not_recovered` | bring the cluster back to health: `defragd status` |
//! | `journal_failed` | free space in `--data-dir`, make it writable |
//! | `transfer_failed` | look at the voters' health and at the leader's log |
//! | `no_transfer_target` | bring a voter to health; with `leader: auto` the leader is defragmented as the leader |
//! | `compaction_failed` | look at the leader's log; compaction is off by default |
//! | `still_near_quota` | delete and compact keys and run again, or raise the quota on every member |
//! | `quota_unknown` | set `metrics.url` or `quota` in the cluster's configuration, or disarm by hand |
//! | `disarm_failed` | `etcdctl alarm list`, then `etcdctl alarm disarm` |
//! | `no_space_again` | a member is over its quota: delete and compact keys, or raise the quota |
//! | `gate_failed` | look at what the gate looked at; `defragd gates` checks again |
//! | `hash_mismatch` | disarm no alarm; take a snapshot of each member now, compare, replace the member that differs, then `defragd resume` |
//! | `resolved` | nothing |
//! | `cancelled` | nothing: an operator withdrew the request; an alert that still fires requests anew with its next notification |
//! | `removed` | nothing, or put the cluster back into the configuration |
//! | `unknown_cluster` | compare the alert's labels with the clusters' `match` |
//! | `ambiguous_cluster` | make the `match` rules distinct |
//! | `duplicate_alert` | nothing |
//! | `already_requested` | nothing: one run serves all alerts of the cluster |
//! | `cooldown` | nothing: the request waits; NOSPACE and a nearly full quota do not; `defragd run` begins at once |
//! | `rule_not_met` | nothing; change `rule` if you want it earlier |
//! | `rule_failed` | make the quota known (`metrics.url` or `quota`), or leave it out of `rule` |
//! | `no_gain` | compact, or raise the thresholds: what counts as free is the rest of pages in use; it is tried again when more is free |
//! | `needs_operator` | mend what the last attempt failed of (most often: free space on the member's disk and restart it), then `defragd resume` |
//! | `paused` | `defragd resume`, or wait for the end of the pause |
//! | `outside_window` | wait for the window; NOSPACE and a nearly full quota do not, unless `emergency: false` is set |
//! | `window_closed` | nothing: the next window is used for the rest; if that is not enough, make it longer |
//! | `daily_limit` | find out what fragments the cluster so fast; the request waits; `defragd run` begins at once |
//! | `breaker_open` | look at `defragd runs`, mend the cause, then `defragd resume` |
//! | `awaiting_approval` | `defragd approve RUN` |
//! | `approval_expired` | nothing: the next notification asks again |
//! | `too_many_runs` | wait for the other clusters, or raise `--max-concurrent-runs` |
//! | `retry_pending` | fix the cause: `defragd runs` shows it; defragd tries again by itself |
//! | `lock_held_elsewhere` | nothing: the replica that holds the lock serves the request |
//! | `not_forwarded` | 401 or 403: put the other replica's token into `lock.token_file`; 404: configure the same clusters on all replicas; defragd tries again within a minute |
//! | `forwarded` | nothing: `defragd runs` at the replica that is named shows the run |
//! | `lock_unknown` | look at the lock's store: its endpoints, network, credentials, and its disk |
//! | `lock_settling` | nothing: a new holder begins half a minute after it took the lock over |
//! | `lock_lost` | nothing: the new holder goes on; if it comes often, raise `lock.ttl`, or look at the network and the store |
//! | `shutting_down` | nothing: the next start does the rest |
//! | `operator_stop` | `defragd run` again when ready |
//! | `process_ended` | read the log of the ended process; `defragd plan` shows what is left |
//! | `observe_mode` | set `mode: enforce`, or `defragd run --mode enforce` |
//! | `internal_error` | report it, with the journal |

use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{gate::Moment, history::RunId, story, wire};

/// Why a cluster or a member is not defragmented now, or why a run stopped.
#[derive(Clone, Debug, PartialEq, Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Reason {
    // ---- a member is left out, nothing is wrong ----
    /// Neither fragmented enough nor under quota pressure.
    #[error(
        "not needed: fragmentation {fragmentation_ratio:.2} with {reclaimable} reclaimable (acts from {min_ratio:.2} and {min_reclaimable})"
    )]
    NotNeeded {
        /// As measured now.
        fragmentation_ratio: f64,
        /// As measured now.
        #[serde(rename = "reclaimable_bytes", with = "wire::bytes")]
        reclaimable: ByteSize,
        /// The policy's threshold.
        min_ratio: f64,
        /// The policy's threshold.
        #[serde(rename = "min_reclaimable_bytes", with = "wire::bytes")]
        min_reclaimable: ByteSize,
    },
    /// etcd refuses Defragment on a learner.
    #[error("is a learner: etcd refuses Defragment on learners")]
    Learner,
    /// This run has dealt with the member.
    #[error("already dealt with in this run")]
    AlreadyDone,
    /// The policy keeps the leader out.
    #[error("is the leader, and the policy skips leaders")]
    LeaderSkipped,

    // ---- it would not be safe ----
    /// No endpoint gave a member list.
    #[error("no endpoint answered with a member list: {detail}")]
    ClusterUnreachable {
        /// What the endpoints said.
        detail: String,
    },
    /// A voter's `Status` is unknown.
    #[error("member {member} does not answer Status: {detail}")]
    MemberUnreachable {
        /// Its name.
        member: String,
        /// What was seen.
        detail: String,
    },
    /// A voter cannot serve a linearizable read.
    #[error("a linearizable read through member {member} fails: {detail}")]
    ReadFailed {
        /// Its name.
        member: String,
        /// What was seen.
        detail: String,
    },
    /// etcd does not accept our credentials for something that is needed.
    #[error("etcd refuses the credentials on member {member}: {detail}")]
    Denied {
        /// Its name.
        member: String,
        /// What the server said.
        detail: String,
    },
    /// The client URL of one member leads to another.
    #[error("the address of member {member} leads elsewhere: {detail}")]
    WrongMember {
        /// Its name.
        member: String,
        /// Who answered.
        detail: String,
    },
    /// Some voter knows no leader.
    #[error("member {member} sees no leader")]
    NoLeader {
        /// Its name.
        member: String,
    },
    /// Voters name different leaders.
    #[error("members disagree on the leader: {detail}")]
    LeaderDisagreement {
        /// Who names whom.
        detail: String,
    },
    /// The loss of the member for the time of its defragmentation would cost the quorum.
    #[error(
        "{voters} voting member(s) cannot lose one and keep a quorum; set allow_without_quorum_slack to accept that the cluster stops for the time of the defragmentation"
    )]
    NoQuorumSlack {
        /// How many members vote.
        voters: usize,
    },
    /// The alarms could not be listed.
    #[error("the alarms are not known: {detail}")]
    AlarmsUnknown {
        /// What was seen.
        detail: String,
    },
    /// Data of the members differ: a person has to look first.
    #[error("alarm CORRUPT is armed: compare the members' data and replace the corrupt one before anything else")]
    CorruptAlarm,
    /// Somebody's defragmentation is under way.
    #[error("member {member} is being defragmented already")]
    DefragInFlight {
        /// Its name.
        member: String,
    },
    /// The member answers everything else while it defragments, and its metrics page cannot be read.
    #[error(
        "whether member {member} is being defragmented is not known: with NonBlockingDefrag it answers meanwhile, and its metrics page, which tells, cannot be read{}; make the page readable, or set metrics.url", if detail.is_empty() { String::new() } else { format!(" ({detail})") }
    )]
    DefragUnknown {
        /// Its name.
        member: String,
        /// Why its page cannot be read.
        detail: String,
    },
    /// The member would be unavailable for so long that it may be killed in the middle.
    #[error(
        "member {member} is expected to be unavailable for {:.0} s, longer than {what} ({:.0} s); delete and compact keys, or raise the liveness probe's failureThreshold and then {what}", expected.as_secs_f64(), limit.as_secs_f64()
    )]
    StallExceedsProbe {
        /// Its name.
        member: String,
        /// How long.
        #[serde(rename = "expected_seconds", with = "wire::seconds")]
        expected: Duration,
        /// What it exceeds.
        #[serde(rename = "limit_seconds", with = "wire::seconds")]
        limit: Duration,
        /// Whose limit that is: a key of the policy.
        what: String,
    },
    /// The member is sending a snapshot. Its defragmentation could not end before the stream does, and the member would
    /// serve nobody until then.
    #[error(
        "member {member} is sending {}{}: its defragmentation waits for the end, because the member would serve no client until then; end the backup if it hangs", story::snapshots(*open), if waited.is_zero() { String::new() } else { format!(", for at least {:.0} s", waited.as_secs_f64()) }
    )]
    SnapshotOpen {
        /// Its name.
        member: String,
        /// How many streams.
        open: u64,
        /// Since they were first seen; etcd does not tell when they began.
        #[serde(rename = "waited_seconds", with = "wire::seconds")]
        waited: Duration,
    },
    /// A member lags behind the others.
    #[error("member {member} is {behind} raft entries behind (limit {limit})")]
    RaftLag {
        /// Its name.
        member: String,
        /// Entries.
        behind: u64,
        /// Entries.
        limit: u64,
    },
    /// A server version with a defect that makes defragmenting dangerous.
    #[error("member {member} runs etcd {version}: {defect}; upgrade it first")]
    DangerousVersion {
        /// Its name.
        member: String,
        /// Its version.
        version: String,
        /// The defect.
        defect: String,
    },
    /// Members run different minor versions, or a downgrade is enabled.
    #[error("an upgrade or downgrade of etcd is in progress: {detail}")]
    UpgradeInProgress {
        /// Who runs what, or who reports the downgrade, and what to do.
        detail: String,
    },
    /// A member joined or left since the run began.
    #[error("the membership changed during the run: {detail}")]
    MembershipChanged {
        /// What changed.
        detail: String,
    },
    /// The endpoints lead to another cluster than when the run began.
    #[error("the cluster id changed during the run from {before} to {after}")]
    ClusterChanged {
        /// Hexadecimal.
        before: String,
        /// Hexadecimal.
        after: String,
    },

    /// Another run is at work on the same etcd cluster, under another name.
    #[error(
        "the same etcd cluster (id {cluster_id}) is being dealt with as {other:?}: two entries of the configuration lead to it"
    )]
    SameCluster {
        /// Hexadecimal.
        cluster_id: String,
        /// The other entry's name.
        other: String,
    },
    /// The last look before the RPC showed another picture than the one that the member was chosen from.
    #[error("at the last look, member {member} was no longer the one to defragment next")]
    NoLongerNext {
        /// Its name.
        member: String,
    },

    // ---- a run under way failed ----
    /// The member answered Defragment with an error.
    #[error("defragmenting member {member} failed: {detail}")]
    DefragFailed {
        /// Its name.
        member: String,
        /// What the server said.
        detail: String,
    },
    /// The member's disk is full. Never retried: the next failure may crash the server.
    #[error(
        "member {member} has no disk space for the temporary copy: {detail}; free space on the disk of its data directory"
    )]
    DiskFull {
        /// Its name.
        member: String,
        /// What the server said.
        detail: String,
    },
    /// The answer to Defragment did not come in time; the server was followed until it was done.
    #[error(
        "defragmenting member {member} took longer than the deadline of {:.0} s; the server went on and was followed to its end", deadline.as_secs_f64()
    )]
    DeadlineExceeded {
        /// Its name.
        member: String,
        /// The configured deadline.
        #[serde(rename = "deadline_seconds", with = "wire::seconds")]
        deadline: Duration,
    },
    /// The connection broke while the member was defragmenting.
    #[error("the connection to member {member} broke during its defragmentation: {detail}")]
    ConnectionLost {
        /// Its name.
        member: String,
        /// What was seen.
        detail: String,
    },
    /// The cluster was not healthy again in time.
    #[error("the cluster was not healthy again within {:.0} s after member {member}: {detail}", waited.as_secs_f64())]
    NotRecovered {
        /// The member defragmented last.
        member: String,
        /// How long was waited.
        #[serde(rename = "waited_seconds", with = "wire::seconds")]
        waited: Duration,
        /// The reason that still stood.
        detail: String,
    },
    /// The journal did not take a record. Nothing is done that is not written down first.
    #[error("the journal cannot be written: {detail}")]
    JournalFailed {
        /// What the store said.
        detail: String,
    },

    /// The leader could not hand over.
    #[error("leadership could not be handed to member {member}: {detail}")]
    TransferFailed {
        /// Who was to lead.
        member: String,
        /// What was seen.
        detail: String,
    },
    /// Nobody can take leadership over.
    #[error(
        "no voter is fit to take leadership over before the leader is defragmented (caught up, and its file tight); bring a voter to health, or let it be defragmented as the leader (`leader: last`)"
    )]
    NoTransferTarget,
    /// The history could not be compacted.
    #[error("compacting up to revision {revision} failed: {detail}")]
    CompactionFailed {
        /// The revision.
        revision: u64,
        /// What the server said.
        detail: String,
    },
    /// NOSPACE stays armed, because a member is too near to its quota or past it.
    #[error(
        "NOSPACE stays armed: member {member} still fills {:.0} % of its quota (must be below {:.0} %); delete and compact keys and defragment again, or raise --quota-backend-bytes on every member", usage * 100.0, limit * 100.0
    )]
    StillNearQuota {
        /// Its name.
        member: String,
        /// File size / quota.
        usage: f64,
        /// The margin.
        limit: f64,
    },
    /// NOSPACE stays armed, because a member's quota is not known.
    #[error(
        "NOSPACE stays armed: the quota of member {member} is not known (neither Status nor its metrics page tells it), so it cannot be shown to be below it; set metrics.url or quota in the cluster's configuration, or check it, then: etcdctl alarm disarm"
    )]
    QuotaUnknown {
        /// Its name.
        member: String,
    },
    /// The server did not disarm an alarm.
    #[error("disarming NOSPACE of member {member} failed: {detail}")]
    DisarmFailed {
        /// Who raised it, by name or id.
        member: String,
        /// What the server said.
        detail: String,
    },
    /// The alarm came back.
    #[error(
        "NOSPACE was disarmed and is armed again: a member is still over its quota; delete and compact keys, or raise --quota-backend-bytes on every member"
    )]
    NoSpaceAgain,

    /// The members hold different data.
    #[error(
        "the members hold different data at revision {revision}: hash {hashes}; disarm no alarm, take a snapshot of each member now, compare them and replace the member that differs, then: defragd resume"
    )]
    HashMismatch {
        /// At which they were compared.
        revision: u64,
        /// Who has which, in words.
        hashes: String,
    },

    // ---- the world outside etcd ----
    /// A gate says that all is not well.
    #[error("gate {gate} failed {}: {detail}", moment.in_words())]
    GateFailed {
        /// Its name.
        gate: String,
        /// When it was checked.
        moment: Moment,
        /// What it saw.
        detail: String,
    },

    // ---- the request is not taken up, or given up ----
    /// The alert is no longer firing.
    #[error("the alert is resolved")]
    Resolved,
    /// An operator withdrew the request.
    #[error("cancelled by {by}{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    Cancelled {
        /// Who, as they said.
        by: String,
        /// Why, as they said.
        reason: String,
    },
    /// No configured cluster is selected by the alert's labels.
    #[error("no configured cluster matches the alert's labels")]
    UnknownCluster,
    /// A reload took the cluster out of the configuration.
    #[error("the cluster is no longer in the configuration")]
    Removed,
    /// Several configured clusters are selected by the alert's labels.
    #[error("the alert's labels select several clusters ({clusters}); make their match rules distinct")]
    AmbiguousCluster {
        /// Their names, separated by commas.
        clusters: String,
    },
    /// The same alert was accepted before and its request is open or has just ended.
    #[error("this alert was accepted already")]
    DuplicateAlert,
    /// A request for this cluster is open; one run serves them all.
    #[error("a run of this cluster is requested already")]
    AlreadyRequested,
    /// The last run is too recent.
    #[error("the cluster was defragmented recently: cooling down until {until:.0}")]
    Cooldown {
        /// When runs are taken again.
        until: Timestamp,
    },

    // ---- the admission of a run: core/admission.rs, core/window.rs, core/rule.rs ----
    /// The owner's rule does not hold for the member.
    #[error(
        "the rule does not hold: {rule} (dbSize {}, dbSizeInUse {}, dbQuota {})", db_size.0, db_size_in_use.0, match quota { Some(quota) => quota.0.to_string(), None => "unknown".to_owned() }
    )]
    RuleNotMet {
        /// As written.
        rule: String,
        /// As measured now.
        #[serde(rename = "db_size_bytes", with = "wire::bytes")]
        db_size: ByteSize,
        /// As measured now.
        #[serde(rename = "db_size_in_use_bytes", with = "wire::bytes")]
        db_size_in_use: ByteSize,
        /// As measured now.
        #[serde(rename = "db_quota_bytes", with = "wire::maybe_bytes")]
        quota: Option<ByteSize>,
    },
    /// The owner's rule cannot be decided for the member.
    #[error("the rule cannot be decided: {detail}: {rule}")]
    RuleFailed {
        /// As written.
        rule: String,
        /// Why.
        detail: String,
    },
    /// The last attempt gave nothing back, and nothing has changed since.
    #[error(
        "the last defragmentation gave back {reclaimed} of {expected}, and no more has become free since: it is tried again when {needed} are reclaimable ({reclaimable} now); what is left is the rest of pages that are in use, of which `etcdctl compact` may free some"
    )]
    NoGain {
        /// By how much the file became smaller.
        #[serde(rename = "reclaimed_bytes", with = "wire::bytes")]
        reclaimed: ByteSize,
        /// What was free before.
        #[serde(rename = "expected_bytes", with = "wire::bytes")]
        expected: ByteSize,
        /// What is free now.
        #[serde(rename = "reclaimable_bytes", with = "wire::bytes")]
        reclaimable: ByteSize,
        /// What must be free for another attempt.
        #[serde(rename = "needed_bytes", with = "wire::bytes")]
        needed: ByteSize,
    },
    /// The last attempt failed of something that does not mend itself.
    #[error(
        "member {member} is left alone since its last attempt until a person mends the cause and says `defragd resume`: {detail}"
    )]
    #[serde(alias = "needs_person")]
    NeedsOperator {
        /// Its name.
        member: String,
        /// How the last attempt failed.
        detail: String,
    },
    /// A person paused the cluster.
    #[error("paused by {by}: {reason}{}; to go on: defragd resume", match until { Some(until) => format!(" (until {until:.0})"), None => String::new() })]
    Paused {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When it ends by itself.
        until: Option<Timestamp>,
    },
    /// No maintenance window is open.
    #[error("outside the maintenance windows; the next opens at {}", match opens { Some(opens) => opens.to_string(), None => "no known time".to_owned() })]
    OutsideWindow {
        /// When the next one opens.
        opens: Option<Timestamp>,
    },
    /// The maintenance window closed during the run.
    #[error("the maintenance window closed at {closed:.0}")]
    WindowClosed {
        /// When.
        closed: Timestamp,
    },
    /// So many runs touched the cluster within a day.
    #[error("{limit} runs within 24 h are the most that max_runs_per_day allows; runs are taken again from {until:.0}")]
    DailyLimit {
        /// The policy's limit.
        limit: u32,
        /// When runs are taken again.
        until: Timestamp,
    },
    /// Too many runs failed in a row.
    #[error(
        "the breaker is open since {since:.0}: {failures} runs failed in a row; look at `defragd runs`, then: defragd resume{}", match until { Some(until) => format!(" (one more try from {until:.0} on in any case)"), None => String::new() }
    )]
    BreakerOpen {
        /// How many failed.
        failures: u32,
        /// When the last of them ended.
        since: Timestamp,
        /// When one more is allowed without a person.
        until: Option<Timestamp>,
    },
    /// A person has to agree to the run.
    #[error("waits for `defragd approve`, until {until:.0}")]
    AwaitingApproval {
        /// When it is given up.
        until: Timestamp,
    },
    /// Nobody agreed in time.
    #[error("nobody approved the run within {:.0} h (approval_timeout)", waited.as_secs_f64() / 3600.0)]
    ApprovalExpired {
        /// The policy's limit.
        #[serde(rename = "waited_seconds", with = "wire::seconds")]
        waited: Duration,
    },
    /// Other clusters' runs are under way.
    #[error("waits for its turn: {limit} cluster(s) at once are the most that --max-concurrent-runs allows")]
    TooManyRuns {
        /// The limit.
        limit: u32,
    },
    /// The last run was refused or failed, and the request still stands.
    #[error("the last run did not finish the work; the next one starts at {at} if the request still stands")]
    RetryPending {
        /// When.
        at: Timestamp,
    },
    /// Another replica of defragd acts on the cluster.
    #[error("replica {holder} holds the cluster's lock")]
    LockHeldElsewhere {
        /// Its name.
        holder: String,
    },
    /// The replica that acts on the cluster does not have the request.
    #[error("replica {holder} holds the cluster's lock and does not accept the request: {detail}")]
    NotForwarded {
        /// Its name.
        holder: String,
        /// What it said, or why it was not reached.
        detail: String,
    },
    /// The replica that acts on the cluster had the request, and nothing of it is left to be done.
    #[error("handed over to replica {holder}, which holds the cluster's lock: its run {run}")]
    #[serde(alias = "handed_over")]
    Forwarded {
        /// Its name.
        holder: String,
        /// A run of its journal.
        run: RunId,
    },
    /// It cannot be shown that no other replica acts on the cluster.
    #[error("whose the cluster's lock is, is not known: {detail}")]
    LockUnknown {
        /// What was seen.
        detail: String,
    },
    /// The lock is new.
    #[error(
        "the cluster's lock was taken over just now; in {:.0} s nothing of its last holder can be on its way any more", left.as_secs_f64()
    )]
    LockSettling {
        /// How long to wait yet.
        #[serde(rename = "left_seconds", with = "wire::seconds")]
        left: Duration,
    },
    /// Another replica may act on the cluster from now on.
    #[error("the cluster's lock was lost: {detail}")]
    LockLost {
        /// How.
        detail: String,
    },
    /// The process is stopping.
    #[error("defragd is shutting down")]
    ShuttingDown,
    /// A person interrupted the command.
    #[error("interrupted by the operator")]
    OperatorStop,
    /// An earlier process ended in the middle of this run.
    #[error("defragd ended in the middle of this run")]
    ProcessEnded,
    /// The policy only observes.
    #[error("the policy's mode is observe: nothing is changed")]
    ObserveMode,
    /// A defect of defragd itself: an answer came to a question that was not asked.
    #[error("defragd lost track of the run, which is a defect of defragd: please report it with the journal")]
    #[serde(alias = "out_of_step")]
    InternalError,
}

impl Reason {
    /// A stable label for metrics and queries: the same text as `code` in JSON.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotNeeded { .. } => "not_needed",
            Self::Learner => "learner",
            Self::AlreadyDone => "already_done",
            Self::LeaderSkipped => "leader_skipped",
            Self::ClusterUnreachable { .. } => "cluster_unreachable",
            Self::MemberUnreachable { .. } => "member_unreachable",
            Self::ReadFailed { .. } => "read_failed",
            Self::Denied { .. } => "denied",
            Self::WrongMember { .. } => "wrong_member",
            Self::NoLeader { .. } => "no_leader",
            Self::LeaderDisagreement { .. } => "leader_disagreement",
            Self::NoQuorumSlack { .. } => "no_quorum_slack",
            Self::AlarmsUnknown { .. } => "alarms_unknown",
            Self::CorruptAlarm => "corrupt_alarm",
            Self::DefragInFlight { .. } => "defrag_in_flight",
            Self::DefragUnknown { .. } => "defrag_unknown",
            Self::StallExceedsProbe { .. } => "stall_exceeds_probe",
            Self::SnapshotOpen { .. } => "snapshot_open",
            Self::RaftLag { .. } => "raft_lag",
            Self::DangerousVersion { .. } => "dangerous_version",
            Self::UpgradeInProgress { .. } => "upgrade_in_progress",
            Self::MembershipChanged { .. } => "membership_changed",
            Self::ClusterChanged { .. } => "cluster_changed",
            Self::SameCluster { .. } => "same_cluster",
            Self::NoLongerNext { .. } => "no_longer_next",
            Self::DefragFailed { .. } => "defrag_failed",
            Self::DiskFull { .. } => "disk_full",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::ConnectionLost { .. } => "connection_lost",
            Self::NotRecovered { .. } => "not_recovered",
            Self::JournalFailed { .. } => "journal_failed",
            Self::TransferFailed { .. } => "transfer_failed",
            Self::NoTransferTarget => "no_transfer_target",
            Self::CompactionFailed { .. } => "compaction_failed",
            Self::StillNearQuota { .. } => "still_near_quota",
            Self::QuotaUnknown { .. } => "quota_unknown",
            Self::DisarmFailed { .. } => "disarm_failed",
            Self::NoSpaceAgain => "no_space_again",
            Self::HashMismatch { .. } => "hash_mismatch",
            Self::GateFailed { .. } => "gate_failed",
            Self::Resolved => "resolved",
            Self::Cancelled { .. } => "cancelled",
            Self::UnknownCluster => "unknown_cluster",
            Self::Removed => "removed",
            Self::AmbiguousCluster { .. } => "ambiguous_cluster",
            Self::DuplicateAlert => "duplicate_alert",
            Self::AlreadyRequested => "already_requested",
            Self::Cooldown { .. } => "cooldown",
            Self::RuleNotMet { .. } => "rule_not_met",
            Self::RuleFailed { .. } => "rule_failed",
            Self::NoGain { .. } => "no_gain",
            Self::NeedsOperator { .. } => "needs_operator",
            Self::Paused { .. } => "paused",
            Self::OutsideWindow { .. } => "outside_window",
            Self::WindowClosed { .. } => "window_closed",
            Self::DailyLimit { .. } => "daily_limit",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::AwaitingApproval { .. } => "awaiting_approval",
            Self::ApprovalExpired { .. } => "approval_expired",
            Self::TooManyRuns { .. } => "too_many_runs",
            Self::RetryPending { .. } => "retry_pending",
            Self::LockHeldElsewhere { .. } => "lock_held_elsewhere",
            Self::NotForwarded { .. } => "not_forwarded",
            Self::Forwarded { .. } => "forwarded",
            Self::LockUnknown { .. } => "lock_unknown",
            Self::LockSettling { .. } => "lock_settling",
            Self::LockLost { .. } => "lock_lost",
            Self::ShuttingDown => "shutting_down",
            Self::OperatorStop => "operator_stop",
            Self::ProcessEnded => "process_ended",
            Self::ObserveMode => "observe_mode",
            Self::InternalError => "internal_error",
        }
    }

    /// Whether it stops not only a run but the process that drives it.
    pub const fn ends_the_process(&self) -> bool {
        matches!(self, Self::ShuttingDown | Self::OperatorStop)
    }

    /// Whether the trouble may pass by itself within seconds, so that looking again is worth it: one
    /// lost answer or an election must not refuse a run. Nothing is started while the trouble stands.
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::ClusterUnreachable { .. }
                | Self::MemberUnreachable { .. }
                | Self::ReadFailed { .. }
                | Self::NoLeader { .. }
                | Self::LeaderDisagreement { .. }
                | Self::AlarmsUnknown { .. }
                | Self::DefragInFlight { .. }
                | Self::DefragUnknown { .. }
                | Self::RaftLag { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The labels in the table of the module's documentation, and those that `label` gives.
    #[test]
    fn the_table_lists_every_reason_and_no_other() {
        let source = include_str!("reason.rs");
        let table: BTreeSet<_> = source
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `")?.split_once("` | "))
            .inspect(|(label, advice)| assert!(advice.len() > "nothing".len(), "{label} says nothing to do"))
            .map(|(label, _)| label)
            .collect();
        let given: BTreeSet<_> = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once("=> \"")?.1.strip_suffix("\","))
            .collect();
        assert_eq!(table, given);
        let variants = source.lines().filter(|line| line.trim().starts_with("#[error(")).count();
        assert_eq!(given.len(), variants, "each variant has a label of its own");
    }
}
