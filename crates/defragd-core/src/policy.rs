//! The settings of a cluster's owner: when to act, and under which conditions.

use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use thiserror::Error;

use super::{
    check::{self, At, Size},
    cluster::Status,
    reason::Reason,
    rule::Rule,
    schedule::Timetable,
    time::{self, Time},
    window::Schedule,
};

/// Revisions younger than this cannot be distinguished by age: the cluster is sampled every few seconds.
const MIN_COMPACTION_AGE: Duration = Duration::from_mins(1);
/// etcd frees and uses pages of this size.
const PAGE_BYTES: u64 = 4096;
/// A longer deadline would not be a limit any more.
const MAX_DURATION: Duration = Duration::from_hours(24 * 365);

/// What defragd may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Mode {
    /// Everything except the RPCs that change something; the decision is logged and counted.
    #[default]
    Observe,
    /// Real runs, each only after an operator has approved it.
    Approve,
    Enforce,
}

impl Mode {
    /// As it is written in the configuration.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// How to handle the leader, which comes after all other members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaderPolicy {
    /// Like [`LeaderPolicy::LastAfterTransfer`] if it is expected to be unavailable for longer than `transfer_above`
    /// and a voter can become the leader; else like [`LeaderPolicy::Last`].
    #[default]
    Auto,
    /// It is defragmented while it is the leader. Under write load, leases may expire meanwhile: they are kept alive
    /// only through the leader.
    Last,
    /// It first transfers leadership to a voter that needs no defragmentation, and is defragmented as a follower.
    LastAfterTransfer,
    Skip,
}

/// How to handle a member that is sending a snapshot: it cannot finish a defragmentation before the stream ends, and
/// serves no client until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenSnapshotPolicy {
    /// Its turn comes when no snapshot is open.
    #[default]
    Wait,
    /// It is defragmented anyway.
    Ignore,
}

/// Whether the members' data is compared after a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerifyPolicy {
    /// It is not: each member would have to read its whole database.
    #[default]
    None,
    /// The voters' `HashKV` at one revision: see [`super::verify`].
    Hash,
}

/// Compaction of the history before the first member. Off by default: most clusters are already compacted (for example
/// by the Kubernetes API server), and compacted revisions can no longer be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CompactionKeys")]
pub enum Compaction {
    /// This many revisions before the current one stay readable.
    KeepRevisions(u64),
    /// What was written within this time stays readable. The process must have observed the cluster for that long: etcd
    /// does not report when a revision was made.
    OlderThan(Duration),
}

/// Compaction before a run.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CompactionKeys {
    /// How many of the newest revisions stay readable.
    #[schemars(extend("x-default" = "none"))]
    keep_revisions: Option<u64>,
    /// What was written within this time stays readable. Nothing is compacted until defragd has observed the cluster for
    /// as long.
    #[schemars(extend("x-default" = "none", "x-range" = ["1m", "365d"]))]
    older_than: Option<Time>,
}

/// Neither or both keys of `compaction`.
#[derive(Debug, Error)]
#[error("needs either keep_revisions, a number, or older_than, like 1h")]
struct NotOneCompaction;

impl TryFrom<CompactionKeys> for Compaction {
    type Error = NotOneCompaction;

    fn try_from(keys: CompactionKeys) -> Result<Self, NotOneCompaction> {
        match (keys.keep_revisions, keys.older_than) {
            (Some(keep), None) => Ok(Self::KeepRevisions(keep)),
            (None, Some(age)) => Ok(Self::OlderThan(age.into())),
            _ => Err(NotOneCompaction),
        }
    }
}

/// When to defragment, and how carefully. Durations like `10s`, `6h`, `1d12h`, `2w`; sizes like `100MiB`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// `observe` plans runs and records them, and changes nothing. `approve` starts a run once an operator approves it
    /// with `defragd approve RUN`. `enforce` starts runs by itself.
    #[schemars(extend("default" = "observe"))]
    pub mode: Mode,
    /// Defragment a member from this fragmentation ratio on (free part of its file), if `min_reclaimable` is reached,
    /// too.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.45, "title" = "ratio"))]
    pub min_fragmentation_ratio: f64,
    /// The least that a defragmentation must be able to free. 0, or at least one page of etcd's file.
    #[schemars(with = "Size", extend("default" = "100MiB", "x-range" = ["4KiB", null]))]
    #[serde(deserialize_with = "check::size")]
    pub min_reclaimable: ByteSize,
    /// Defragment a member whose file uses this much of its quota, if `quota_min_reclaimable` is reached, too.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.8, "title" = "ratio"))]
    pub quota_usage_ratio: f64,
    /// As `min_reclaimable`, for members near their quota.
    #[schemars(with = "Size", extend("default" = "32MiB", "x-range" = ["4KiB", null]))]
    #[serde(deserialize_with = "check::size")]
    pub quota_min_reclaimable: ByteSize,
    /// How long the cluster must have been healthy after one member before the next one starts.
    #[schemars(with = "Time", extend("default" = "10s", "x-range" = ["0s", "365d"]))]
    #[serde(deserialize_with = "time::duration")]
    pub pause_between_members: Duration,
    /// How long one defragmentation may take. Past it, it counts as failed and the run stops; etcd itself continues.
    #[schemars(with = "Time", extend("default" = "10m", "x-range" = ["1s", "365d"]))]
    #[serde(deserialize_with = "time::duration")]
    pub defrag_deadline: Duration,
    /// How long the cluster may take to be healthy again after a member. With `leader: last_after_transfer`, a leadership
    /// transfer that fails is tried again for as long.
    #[schemars(with = "Time", extend("default" = "5m", "x-range" = ["1s", "365d"]))]
    #[serde(deserialize_with = "time::duration")]
    pub recovery_timeout: Duration,
    /// How long a cluster is left alone after a run that did its work. A failed run is tried again sooner.
    #[schemars(with = "Time", extend("default" = "6h", "x-range" = ["0s", "365d"]))]
    #[serde(deserialize_with = "time::duration")]
    pub cooldown: Duration,
    /// What happens to the leader, once all others are done. `last`: it is defragmented as the leader.
    /// `last_after_transfer`: leadership is transferred first. `auto`: leadership is transferred first if the leader is
    /// expected to be unavailable for longer than `transfer_above`. `skip`: it is left alone.
    #[schemars(extend("default" = "auto"))]
    pub leader: LeaderPolicy,
    /// With `leader: auto`, how long the leader may be expected to be unavailable without a leadership transfer.
    #[schemars(with = "Time", extend("default" = "2s", "x-range" = ["0s", "365d"]))]
    #[serde(deserialize_with = "time::duration")]
    pub transfer_above: Duration,
    /// How long the liveness probe of etcd's containers lets a member hang before the container is killed:
    /// `failureThreshold` times `periodSeconds`, 80 s for kubeadm. A member that is expected to be unavailable for longer
    /// is warned about.
    #[schemars(with = "Option<Time>", extend("x-default" = "no warning", "x-range" = ["1s", "365d"]))]
    #[serde(deserialize_with = "time::maybe_duration")]
    pub liveness_budget: Option<Duration>,
    /// Refuse a run while a member is expected to be unavailable for longer, unless NOSPACE is armed.
    #[schemars(with = "Option<Time>", extend("x-default" = "no limit", "x-range" = ["1s", "365d"]))]
    #[serde(deserialize_with = "time::maybe_duration")]
    pub max_expected_stall: Option<Duration>,
    /// A member that is sending a snapshot, such as a backup, cannot finish a defragmentation and serves nobody until the
    /// snapshot ends. `wait` waits for the snapshot to end; `ignore` defragments the member all the same.
    #[schemars(extend("default" = "wait"))]
    pub on_open_snapshot: OpenSnapshotPolicy,
    /// Compact the key history before the first member. Left out, nothing is compacted, which is right where another
    /// program does it, as the Kubernetes API server. Exactly one of its keys must be set.
    #[schemars(with = "Option<CompactionKeys>")]
    pub compaction: Option<Compaction>,
    /// After a run that changed something, `hash` compares the voters' data at one revision. If it differs, nothing is
    /// started until `defragd resume`. Each voter reads its whole database for it, and serves nothing meanwhile.
    #[schemars(extend("default" = "none"))]
    pub verify: VerifyPolicy,
    /// Whether NOSPACE is disarmed once every member's file is below 0.9 of its quota. Never while CORRUPT is armed.
    #[schemars(extend("default" = true))]
    #[serde(rename = "disarm_nospace")]
    pub disarm_no_space: bool,
    /// Accept clusters of one or two members, which stop serving while one of them is defragmented.
    #[schemars(extend("default" = false))]
    pub allow_without_quorum_slack: bool,
    /// An expression that replaces the four thresholds, with the variables `dbSize`, `dbSizeInUse`, `dbSizeFree`,
    /// `dbQuota` (bytes) and `dbQuotaUsage` (0 to 1), like `dbQuotaUsage > 0.8 || dbSizeFree > 200*1024*1024`.
    #[schemars(with = "Option<String>", extend("x-default" = "the thresholds"))]
    pub rule: Option<Rule>,
    /// Maintenance windows in which runs may start. When a window closes, a run under way starts no further member.
    #[schemars(extend("x-default" = "always open"))]
    pub windows: Schedule,
    /// Times at which a run is requested without an alert. As with an alert, nothing is done where nothing is needed.
    #[schemars(extend("x-default" = "none"))]
    pub schedule: Timetable,
    /// Whether NOSPACE, or a file at 0.9 of its quota, overrides windows, cooldown, daily limit and the wait after a failure.
    #[schemars(extend("default" = true))]
    pub emergency: bool,
    /// Most runs within 24 hours that changed a member.
    #[schemars(range(min = 1), extend("default" = 4))]
    pub max_runs_per_day: u32,
    /// After this many failed runs in a row the breaker opens: no run starts until `defragd resume`.
    #[schemars(range(min = 1), extend("default" = 3))]
    pub breaker_failures: u32,
    /// How long after the last failure an open breaker lets one more run try.
    #[schemars(with = "Option<Time>", extend("x-default" = "never: only `defragd resume` closes it", "x-range" = ["1s", "365d"]))]
    #[serde(deserialize_with = "time::maybe_duration")]
    pub breaker_reset_after: Option<Duration>,
    /// With `mode: approve`, how long a request waits for an operator.
    #[schemars(with = "Time", extend("default" = "24h", "x-range" = ["1s", "365d"]))]
    #[serde(deserialize_with = "time::duration")]
    pub approval_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            min_fragmentation_ratio: 0.45,
            min_reclaimable: ByteSize::mib(100),
            quota_usage_ratio: 0.8,
            quota_min_reclaimable: ByteSize::mib(32),
            pause_between_members: Duration::from_secs(10),
            // Upstream's rule is 1 s per 100 MB; 8 GiB under writes stays well within ten minutes.
            defrag_deadline: Duration::from_mins(10),
            recovery_timeout: Duration::from_mins(5),
            cooldown: Duration::from_hours(6),
            leader: LeaderPolicy::Auto,
            // Leases of Kubernetes' controllers last 15 s; 3.8 s cost none, 5 s some (measured).
            transfer_above: Duration::from_secs(2),
            liveness_budget: None,
            max_expected_stall: None,
            on_open_snapshot: OpenSnapshotPolicy::Wait,
            compaction: None,
            verify: VerifyPolicy::None,
            disarm_no_space: true,
            allow_without_quorum_slack: false,
            rule: None,
            windows: Schedule::default(),
            schedule: Timetable::default(),
            emergency: true,
            max_runs_per_day: 4,
            breaker_failures: 3,
            breaker_reset_after: None,
            approval_timeout: Duration::from_hours(24),
        }
    }
}

/// NOSPACE is disarmed when every file is below this part of its quota: a member above it would arm it again with
/// the next write.
pub(super) const QUOTA_MARGIN: f64 = 0.9;

/// Less than this is not worth a stall even under NOSPACE: it cannot bring a file below its quota.
pub(super) const MIN_GAIN_UNDER_NO_SPACE: ByteSize = ByteSize::mib(1);

/// Why a member needs a defragmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Need {
    /// Alarm NOSPACE is armed: the cluster accepts no writes.
    NoSpace,
    QuotaPressure,
    Fragmented,
    Rule,
}

impl Policy {
    /// What a type alone does not find.
    pub fn check(&self, mut at: At<'_>) {
        // Exhaustive, so that no key is forgotten.
        let Self {
            mode: _,
            min_fragmentation_ratio,
            min_reclaimable,
            quota_usage_ratio,
            quota_min_reclaimable,
            pause_between_members,
            defrag_deadline,
            recovery_timeout,
            cooldown,
            leader: _,
            transfer_above,
            liveness_budget,
            max_expected_stall,
            on_open_snapshot: _,
            compaction,
            verify: _,
            disarm_no_space: _,
            allow_without_quorum_slack: _,
            rule: _,
            windows,
            schedule: _,
            emergency: _,
            max_runs_per_day,
            breaker_failures,
            breaker_reset_after,
            approval_timeout,
        } = self;
        for (key, ratio) in
            [("min_fragmentation_ratio", *min_fragmentation_ratio), ("quota_usage_ratio", *quota_usage_ratio)]
        {
            if !(0.0..=1.0).contains(&ratio) {
                at.add(key, format!("is {ratio}, but must be between 0 and 1"));
            }
        }
        for (key, size) in [("min_reclaimable", *min_reclaimable), ("quota_min_reclaimable", *quota_min_reclaimable)] {
            if (1..PAGE_BYTES).contains(&size.0) {
                let what = format!("is {} bytes, less than one page of etcd's file: write a unit, like {0}MiB", size.0);
                at.add(key, what);
            }
        }
        let second = Duration::from_secs(1);
        for (key, least, time) in [
            ("pause_between_members", Duration::ZERO, Some(*pause_between_members)),
            ("defrag_deadline", second, Some(*defrag_deadline)),
            ("recovery_timeout", second, Some(*recovery_timeout)),
            ("cooldown", Duration::ZERO, Some(*cooldown)),
            ("transfer_above", Duration::ZERO, Some(*transfer_above)),
            ("liveness_budget", second, *liveness_budget),
            ("max_expected_stall", second, *max_expected_stall),
            ("breaker_reset_after", second, *breaker_reset_after),
            ("approval_timeout", second, Some(*approval_timeout)),
        ] {
            if let Some(time) = time.filter(|time| !(least..=MAX_DURATION).contains(time)) {
                let [time, least] = [time, least].map(Time::from);
                at.add(key, format!("is {time}, but must be at least {least} and at most a year"));
            }
        }
        for (key, count) in [("max_runs_per_day", *max_runs_per_day), ("breaker_failures", *breaker_failures)] {
            if count == 0 {
                at.add(key, "is 0, but must be at least 1; to prevent runs, use mode observe");
            }
        }
        if let Some(Compaction::OlderThan(age)) = compaction
            && !(MIN_COMPACTION_AGE..=MAX_DURATION).contains(age)
        {
            at.add("compaction.older_than", "must be at least 1m and at most a year");
        }
        windows.check(at.key("windows"));
    }

    /// Whether a member needs a defragmentation, from a current measurement.
    pub fn need(&self, status: &Status, no_space: bool) -> Result<Need, Reason> {
        let reclaimable = status.reclaimable();
        // etcd updates the size in use when it commits, and under NOSPACE nothing is written: the value may be from
        // before the compaction. The file's size is always current.
        let too_large = || status.quota_usage_ratio().is_some_and(|usage| usage >= QUOTA_MARGIN);
        if no_space && (reclaimable >= MIN_GAIN_UNDER_NO_SPACE || too_large()) {
            return Ok(Need::NoSpace);
        }
        if let Some(rule) = &self.rule {
            return rule.holds(status).map(|()| Need::Rule);
        }
        let pressed = status.quota_usage_ratio().is_some_and(|usage| usage >= self.quota_usage_ratio);
        if pressed && reclaimable >= self.quota_min_reclaimable {
            return Ok(Need::QuotaPressure);
        }
        if status.fragmentation_ratio() >= self.min_fragmentation_ratio && reclaimable >= self.min_reclaimable {
            return Ok(Need::Fragmented);
        }
        Err(Reason::NotNeeded {
            fragmentation_ratio: status.fragmentation_ratio(),
            reclaimable,
            min_ratio: self.min_fragmentation_ratio,
            min_reclaimable: self.min_reclaimable,
        })
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
