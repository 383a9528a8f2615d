//! The settings of a cluster's owner: when to act, and under which conditions.

use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{cluster::Status, reason::Reason, rule::Rule, schedule::Timetable, window::Schedule};

/// What defragd may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
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
    pub const fn label(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Approve => "approve",
            Self::Enforce => "enforce",
        }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compaction {
    /// This many revisions before the current one stay readable.
    KeepRevisions(u64),
    /// What was written within this time stays readable. The process must have observed the cluster for that long: etcd
    /// does not report when a revision was made.
    OlderThan(Duration),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What defragd may do.
    pub mode: Mode,
    /// Defragment from this fragmentation ratio (0–1) on …
    pub min_fragmentation_ratio: f64,
    /// … if at least this much is reclaimable.
    pub min_reclaimable: ByteSize,
    /// Or from this ratio of file size to quota (0–1) on …
    pub quota_usage_ratio: f64,
    /// … if at least this much is reclaimable.
    pub quota_min_reclaimable: ByteSize,
    /// How long the recovery condition must hold before the next member.
    pub pause_between_members: Duration,
    /// How long to wait for the answer to Defragment. The server continues after that, and is watched.
    pub defrag_deadline: Duration,
    /// How long a cluster may take to become healthy again after a member.
    pub recovery_timeout: Duration,
    /// The wait before the next run of the cluster, after one that defragmented a member.
    pub cooldown: Duration,
    /// How to handle the leader.
    pub leader: LeaderPolicy,
    /// With [`LeaderPolicy::Auto`]: leadership is transferred first from this expected unavailability on.
    pub transfer_above: Duration,
    /// How long the liveness probe of the members' containers lets etcd hang before it is killed; only warned about.
    pub liveness_budget: Option<Duration>,
    /// Nothing is started while a member that needs it is expected to be unavailable for longer.
    pub max_expected_stall: Option<Duration>,
    /// How to handle a member that is sending a snapshot.
    pub on_open_snapshot: OpenSnapshotPolicy,
    /// Compact before the first member.
    pub compaction: Option<Compaction>,
    /// Whether the members' data is compared after a run.
    pub verify: VerifyPolicy,
    /// Disarm NOSPACE after a run, once every member is well below its quota.
    pub disarm_no_space: bool,
    /// Accept that clusters of one or two members stop serving during a defragmentation.
    pub allow_without_quorum_slack: bool,
    // ---- admission ----
    /// When a member needs a defragmentation, instead of the thresholds above. With NOSPACE it does in any case.
    pub rule: Option<Rule>,
    pub windows: Schedule,
    /// When a run is requested without an alert.
    pub schedule: Timetable,
    /// Whether NOSPACE, or a file at 0.9 of its quota, overrides windows, cooldown and daily limit.
    pub emergency: bool,
    /// The number of runs within 24 hours that touched a member, after which no further run starts.
    pub max_runs_per_day: u32,
    /// The number of failed runs in a row after which no further run starts until an operator resumes.
    pub breaker_failures: u32,
    /// One more attempt this long after the last failure, even if no operator resumed.
    pub breaker_reset_after: Option<Duration>,
    /// How long a request waits for approval in mode approve.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Alarm NOSPACE is armed: the cluster accepts no writes.
    NoSpace,
    /// The file nears its quota.
    QuotaPressure,
    /// Much of the file is free pages.
    Fragmented,
    /// The owner's rule matches.
    Rule,
}

impl Policy {
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
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_rule_replaces_the_thresholds_but_not_nospace() {
        let rule = |text: &str| Policy { rule: Some(Rule::parse(text).expect("a rule")), ..Policy::default() };
        // The thresholds would select the first and not the second.
        let status = fixture::status(1);
        assert_eq!(rule("dbSizeFree > 4e9").need(&status, false).map_err(|r| r.label()), Err("rule_not_met"));
        assert_eq!(
            rule("dbSize > 0").need(&Status { db_size_in_use: status.db_size, ..status.clone() }, false),
            Ok(Need::Rule)
        );
        assert_eq!(rule("false").need(&status, true), Ok(Need::NoSpace));
    }

    #[test]
    fn need_is_decided_at_the_thresholds() {
        const MIB: u64 = 1 << 20;
        // (file MiB, in use MiB, quota MiB, NOSPACE armed) -> expected
        let table = [
            ((1000, 550, None, false), Some(Need::Fragmented)),
            ((1000, 551, None, false), None),
            // The stock alert does not cover this one: little in use, much to reclaim.
            ((2048, 90, None, false), Some(Need::Fragmented)),
            // A high ratio alone is not worth a stall.
            ((100, 1, None, false), None),
            ((200, 100, None, false), Some(Need::Fragmented)),
            ((800, 768, Some(1000), false), Some(Need::QuotaPressure)),
            ((800, 769, Some(1000), false), None),
            ((799, 700, Some(1000), false), None),
            ((1000, 999, None, true), Some(Need::NoSpace)),
            ((1000, 1000, None, true), None),
            // The size in use may be from before the compaction.
            ((1000, 1000, Some(1111), true), Some(Need::NoSpace)),
            ((1000, 1000, Some(1112), true), None),
            ((0, 0, Some(0), false), None),
        ];
        for ((size, in_use, quota, no_space), expected) in table {
            let mut status = fixture::status(1);
            status.db_size = ByteSize(size * MIB);
            status.db_size_in_use = ByteSize(in_use * MIB);
            status.quota = quota.map(|quota: u64| ByteSize(quota * MIB));
            let need = Policy::default().need(&status, no_space).ok();
            assert_eq!(need, expected, "{size} MiB, {in_use} in use, quota {quota:?}, NOSPACE {no_space}");
        }
    }
}
