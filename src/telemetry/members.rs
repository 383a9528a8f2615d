//! The metrics of members and clusters: a table of the metrics, filled from one observation.

use std::{fmt, time::Duration};

use bytesize::ByteSize;
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder},
    metrics::MetricType,
};

use crate::core::{
    cluster::{Alarm, AlarmKind, ClusterFacts, ClusterId, MemberFacts, MemberId, Status, UnknownKind},
    estimate::Speeds,
    history::{MemberEnd, MemberResult},
};

/// The last attempt on a member, from the journal or this process.
#[derive(Clone, Debug)]
pub struct LastDefrag {
    pub at: Timestamp,
    pub result: MemberResult,
}

/// One member at one moment.
#[derive(Clone, Debug)]
pub struct MemberSample {
    pub facts: MemberFacts,
    /// Whether all voters that answered call it their leader.
    pub is_leader: bool,
    /// The alarms that it has raised; `None` while the alarms are unknown.
    pub alarms: Option<Vec<AlarmKind>>,
    /// Whether this process is defragmenting it, even if the member does not report that.
    pub defragmenting: bool,
    pub last_defrag: Option<LastDefrag>,
    /// How long a defragmentation would make it unavailable; `None` while its size is unknown.
    pub expected: Option<Duration>,
}

/// A cluster's runs and requests at one moment.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a gauge of its own")]
pub struct AdmissionSample {
    pub run_active: bool,
    pub queue_depth: usize,
    /// Whether too many runs failed in a row.
    pub breaker_open: bool,
    /// Whether a run found that its members hold different data.
    pub hash_mismatch: bool,
    pub paused: bool,
    pub next_window: Option<Timestamp>,
    pub next_scheduled: Option<Timestamp>,
    /// Whether this replica holds the cluster's lock, or there is none.
    pub lock_held: bool,
    /// What the request or the run in progress waits for: a reason's label.
    pub waiting_for: Option<&'static str>,
}

/// One cluster at one moment.
#[expect(clippy::struct_excessive_bools, reason = "each is a metric of its own")]
#[derive(Clone, Debug, Default)]
pub struct ClusterSample {
    pub cluster: String,
    /// Whether an endpoint returned the member list.
    pub up: bool,
    /// Whether all voters that answered agree on a leader.
    pub has_leader: bool,
    pub voters: usize,
    /// How many do not.
    pub learners: usize,
    /// Its runs and requests; `None` for a cluster that is only measured.
    pub admission: Option<AdmissionSample>,
    pub members: Vec<MemberSample>,
    /// Why no endpoint returned the member list.
    pub error: Option<UnknownKind>,
    /// etcd's own id of it.
    pub cluster_id: Option<ClusterId>,
    /// Whether another entry of the configuration leads to the same cluster.
    pub is_duplicate: bool,
    /// Whether the credentials' files changed and are now invalid.
    pub credentials_refused: bool,
}

impl ClusterSample {
    /// Builds a sample from an observation; `None` if no endpoint answered and nothing is remembered. `speeds` is `None`
    /// while it is not known what was measured.
    pub fn new(
        cluster: String,
        up: bool,
        facts: Option<ClusterFacts>,
        defragmenting: Option<MemberId>,
        last_defrag: impl Fn(MemberId) -> Option<LastDefrag>,
        speeds: Option<&Speeds>,
    ) -> Self {
        let mut sample = Self { cluster, up, ..Self::default() };
        let Some(facts) = facts else { return sample };
        let leader = facts.leader();
        sample.has_leader = leader.is_some();
        sample.voters = facts.voters().count();
        sample.learners = facts.members.len() - sample.voters;
        let alarms = facts.alarms.ok();
        sample.members = facts
            .members
            .into_iter()
            .map(|facts| {
                let id = facts.member.id;
                let raised = |alarms: &Vec<Alarm>| {
                    let own = alarms.iter().filter(|alarm| alarm.member.is_none_or(|by| by == id));
                    own.map(|alarm| alarm.kind).collect()
                };
                let expected = speeds.zip(sizes(&facts)).map(|(all, (_, in_use))| all.estimate(id, in_use).expected);
                MemberSample {
                    is_leader: leader == Some(id),
                    alarms: alarms.as_ref().map(raised),
                    defragmenting: defragmenting == Some(id),
                    last_defrag: last_defrag(id),
                    expected,
                    facts,
                }
            })
            .collect();
        sample
    }
}

type MemberValue = fn(&MemberSample) -> Option<f64>;
type ClusterValue = fn(&ClusterSample) -> Option<f64>;
type ClusterLabel = fn(&ClusterSample) -> Option<String>;

/// A gauge of members: name, help, value. A member without the value has no series.
const MEMBER_GAUGES: &[(&str, &str, MemberValue)] = &[
    ("member_up", "Whether the member answered a Status request; 0 also while it is being defragmented", |m| {
        Some(flag(m.facts.status.is_ok()))
    }),
    ("member_db_size_bytes", "Size of the database file", |m| Some(m.sizes()?.0)),
    ("member_db_size_in_use_bytes", "Part of the database file that is in use", |m| Some(m.sizes()?.1)),
    (
        "member_db_reclaimable_bytes",
        "The most that a defragmentation can free: size of the database file - size in use",
        |m| {
            let (total, in_use) = m.sizes()?;
            Some((total - in_use).max(0.0))
        },
    ),
    ("member_fragmentation_ratio", "Free part of the database file: 1 - size in use / size of the file", |m| {
        let (total, in_use) = m.sizes()?;
        Some(if total > 0.0 { (1.0 - in_use / total).max(0.0) } else { 0.0 })
    }),
    (
        "member_db_quota_bytes",
        "The member's backend quota (--quota-backend-bytes); absent while it is unknown",
        MemberSample::quota,
    ),
    ("member_quota_usage_ratio", "Size of the database file / quota", |m| Some(m.sizes()?.0 / m.quota()?)),
    ("member_is_leader", "Whether the voters that answered agree that this member leads", |m| Some(flag(m.is_leader))),
    ("member_is_learner", "Whether the member is a learner, which does not vote", |m| {
        Some(flag(m.facts.member.is_learner))
    }),
    ("member_raft_index", "Highest index in the member's raft log", |m| m.status(|s| whole(s.raft_index))),
    ("member_raft_applied_index", "Highest raft index applied to the member's store", |m| {
        m.status(|s| whole(s.raft_applied_index))
    }),
    ("member_raft_term", "Raft term of the member", |m| m.status(|s| whole(s.raft_term))),
    (
        "member_defrag_in_progress",
        "Whether the member is being defragmented, by defragd or another tool; absent while it is unknown",
        |m| {
            if m.defragmenting { Some(1.0) } else { m.facts.defrag_in_flight().map(flag) }
        },
    ),
    (
        "member_last_defrag_timestamp_seconds",
        "When defragd's last attempt to defragment the member ended, as Unix time",
        |m| Some(m.last_defrag.as_ref()?.at.as_duration().as_secs_f64()),
    ),
    ("member_last_defrag_duration_seconds", "How long defragd's last defragmentation of the member took", |m| {
        Some(m.last_times()?.0.as_secs_f64())
    }),
    (
        "member_last_defrag_unavailable_seconds",
        "How long the member did not answer during defragd's last defragmentation of it; shorter than the defragmentation only where etcd defragments without blocking",
        |m| Some(m.last_times()?.1.as_secs_f64()),
    ),
    (
        "member_expected_defrag_seconds",
        "How long a defragmentation is expected to make the member unavailable: size in use / speed of the last defragmentations, or 100 MB/s before the first",
        |m| Some(m.expected?.as_secs_f64()),
    ),
    (
        "member_last_defrag_reclaimed_bytes",
        "How much smaller the member's database file became in defragd's last attempt",
        |m| Some(whole(m.last_defrag.as_ref()?.result.reclaimed().0)),
    ),
    (
        "member_probe_duration_seconds",
        "How long the member took to answer this scrape's Status request, or to fail",
        |m| Some(m.facts.probe_duration.as_secs_f64()),
    ),
];

/// A gauge of clusters: name, help, value. A cluster without the value has no series.
const CLUSTER_GAUGES: &[(&str, &str, ClusterValue)] = &[
    ("cluster_up", "Whether any endpoint returned the member list", |c| Some(flag(c.up))),
    ("cluster_has_leader", "Whether the voters that answered agree on a leader", |c| Some(flag(c.has_leader))),
    ("cluster_run_active", "Whether a run is in progress", |c| Some(flag(c.admission?.run_active))),
    (
        "cluster_breaker_open",
        "Whether the breaker is open: too many runs failed in a row, and none starts until `defragd resume`",
        |c| Some(flag(c.admission?.breaker_open)),
    ),
    (
        "cluster_hash_mismatch",
        "Whether the members held different data after a run; 0 again after `defragd resume`",
        |c| Some(flag(c.admission?.hash_mismatch)),
    ),
    ("cluster_paused", "Whether an operator paused the cluster with `defragd pause`", |c| {
        Some(flag(c.admission?.paused))
    }),
    (
        "cluster_next_window_timestamp_seconds",
        "When the next maintenance window opens, as Unix time; absent without windows",
        |c| c.admission?.next_window.map(unix_seconds),
    ),
    (
        "cluster_next_scheduled_timestamp_seconds",
        "When the schedule next requests a run, as Unix time; absent without a schedule",
        |c| c.admission?.next_scheduled.map(unix_seconds),
    ),
    ("cluster_duplicate", "Whether another entry of the configuration leads to the same etcd cluster", |c| {
        c.admission.map(|_| flag(c.is_duplicate))
    }),
    (
        "etcd_credentials_last_reload_successful",
        "Whether the cluster's certificates, keys and password file were valid when they were last read",
        |c| c.admission.map(|_| flag(!c.credentials_refused)),
    ),
    ("cluster_lock_held", "Whether this replica holds the cluster's lock, or no lock is configured", |c| {
        Some(flag(c.admission?.lock_held))
    }),
    ("queue_depth", "Requests for a run that wait to start", |c| Some(whole(c.admission?.queue_depth as u64))),
];

/// A series of value 1 for each cluster that has a value of the label: name, help, label, its value.
const CLUSTER_LABELS: &[(&str, &str, &str, ClusterLabel)] = &[
    ("cluster_error", "Why no endpoint answered with the member list; no series while one answers", "reason", |c| {
        Some(c.error?.label().to_owned())
    }),
    ("cluster_info", "etcd's id of the cluster; always 1", "cluster_id", |c| Some(c.cluster_id?.to_string())),
    (
        "cluster_waiting",
        "Why the cluster's request, its run in progress, or the next run for an alert that still fires waits; no series while none does",
        "reason",
        |c| Some(c.admission?.waiting_for?.to_owned()),
    ),
];

impl MemberSample {
    fn status(&self, value: impl Fn(&Status) -> f64) -> Option<f64> {
        self.facts.status.as_ref().ok().map(value)
    }

    fn sizes(&self) -> Option<(f64, f64)> {
        sizes(&self.facts).map(|(total, in_use)| (whole(total.0), whole(in_use.0)))
    }

    /// How long its last successful defragmentation took, and made it unavailable.
    fn last_times(&self) -> Option<(Duration, Duration)> {
        match self.last_defrag.as_ref()?.result.end {
            MemberEnd::Defragmented { took, unavailable, .. } => Some((took, unavailable.unwrap_or(took))),
            _ => None,
        }
    }

    /// Why its `Status` is unknown, as a label.
    fn error(&self) -> Option<&'static str> {
        let unknown = self.facts.status.as_ref().err()?;
        let busy = self.defragmenting || self.facts.defrag_in_flight() == Some(true);
        Some(if busy { "defragmenting" } else { unknown.kind.label() })
    }

    fn quota(&self) -> Option<f64> {
        let quota = self.facts.status.as_ref().ok().and_then(|status| status.quota);
        let from_page = || self.facts.gauges.as_ref()?.as_ref().ok()?.quota;
        quota.or_else(from_page).map(|quota| whole(quota.0)).filter(|quota| *quota > 0.0)
    }
}

/// Total and in use: from `Status`, or from the metrics page while `Status` hangs.
fn sizes(facts: &MemberFacts) -> Option<(ByteSize, ByteSize)> {
    let from_status = facts.status.as_ref().ok().map(|s| (s.db_size, s.db_size_in_use));
    let gauges = || facts.gauges.as_ref()?.as_ref().ok();
    from_status.or_else(|| gauges().and_then(|g| Some((g.db_size?, g.db_size_in_use?))))
}

/// Writes one observation of all clusters.
#[derive(Debug)]
pub struct MemberCollector {
    clusters: Vec<ClusterSample>,
}

impl MemberCollector {
    pub fn new(clusters: Vec<ClusterSample>) -> Self {
        Self { clusters }
    }

    // Built once for all families: for a large fleet, labels are most of the page.
    fn members(&self) -> Vec<(&MemberSample, Labels)> {
        let mut all = Vec::new();
        for cluster in &self.clusters {
            all.extend(cluster.members.iter().map(|sample| {
                let (name, member) = (cluster.cluster.clone(), &sample.facts.member);
                let id = member.id.to_string();
                (sample, [("etcd_cluster", name), ("member", member.label()), ("member_id", id)])
            }));
        }
        all
    }
}

type Labels = [(&'static str, String); 3];

/// The member's labels and those of one family.
fn more<'a, const N: usize>(labels: &'a Labels, own: [(&'static str, &'a str); N]) -> Vec<(&'static str, &'a str)> {
    labels.iter().map(|(name, value)| (*name, value.as_str())).chain(own).collect()
}

impl Collector for MemberCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let members = self.members();
        for (name, help, value) in MEMBER_GAUGES {
            let mut metric = gauge(&mut encoder, name, help)?;
            for (sample, labels) in &members {
                let Some(value) = value(sample) else { continue };
                metric.encode_family(labels)?.encode_gauge(&value)?;
            }
        }
        let mut info = gauge(&mut encoder, "member_info", "Versions of the member; always 1")?;
        for (sample, labels) in &members {
            let Ok(status) = &sample.facts.status else { continue };
            let storage_version = status.storage_version.as_deref().unwrap_or_default();
            let labels = more(labels, [("version", &status.version), ("storage_version", storage_version)]);
            info.encode_family(&labels)?.encode_gauge(&1i64)?;
        }
        let mut alarm = gauge(&mut encoder, "member_alarm", "Whether the alarm is armed for the member")?;
        for (sample, labels) in &members {
            let Some(armed) = &sample.alarms else { continue };
            for kind in [AlarmKind::NoSpace, AlarmKind::Corrupt] {
                let labels = more(labels, [("alarm", kind.as_str())]);
                alarm.encode_family(&labels)?.encode_gauge(&i64::from(armed.contains(&kind)))?;
            }
        }
        let help = "Why the member does not answer Status requests; no series for a member that answers";
        let mut error = gauge(&mut encoder, "member_error", help)?;
        for (sample, labels) in &members {
            let Some(reason) = sample.error() else { continue };
            error.encode_family(&more(labels, [("reason", reason)]))?.encode_gauge(&1i64)?;
        }
        for (name, help, value) in CLUSTER_GAUGES {
            let mut metric = gauge(&mut encoder, name, help)?;
            for cluster in &self.clusters {
                let Some(value) = value(cluster) else { continue };
                metric.encode_family(&[("etcd_cluster", cluster.cluster.as_str())])?.encode_gauge(&value)?;
            }
        }
        for (name, help, label, value) in CLUSTER_LABELS {
            let mut metric = gauge(&mut encoder, name, help)?;
            for cluster in &self.clusters {
                let Some(value) = value(cluster) else { continue };
                let labels = [("etcd_cluster", cluster.cluster.as_str()), (*label, value.as_str())];
                metric.encode_family(&labels)?.encode_gauge(&1i64)?;
            }
        }
        let mut members = gauge(&mut encoder, "cluster_members", "Members by role")?;
        for cluster in self.clusters.iter().filter(|cluster| !cluster.members.is_empty()) {
            for (role, count) in [("voter", cluster.voters), ("learner", cluster.learners)] {
                let labels = [("etcd_cluster", cluster.cluster.as_str()), ("role", role)];
                members.encode_family(&labels)?.encode_gauge(&whole(count as u64))?;
            }
        }
        Ok(())
    }
}

fn gauge<'a>(encoder: &'a mut DescriptorEncoder, name: &'a str, help: &str) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}

fn unix_seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^52; what counts this far is only compared")]
fn whole(value: u64) -> f64 {
    value as f64
}
