//! The metrics of members and clusters: a table of what is shown, filled from one observation.

use std::fmt;

use jiff::Timestamp;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::MetricType};

use crate::core::{
    cluster::{AlarmKind, ClusterFacts, MemberFacts},
    history::MemberResult,
};

/// The last attempt on a member, as the journal or this process knows it.
#[derive(Clone, Debug)]
pub struct LastDefrag {
    /// When it ended.
    pub at: Timestamp,
    /// What came of it.
    pub result: MemberResult,
}

/// One member at one moment.
#[derive(Clone, Debug)]
pub struct MemberSample {
    /// What was observed.
    pub facts: MemberFacts,
    /// Whether all voters that answered call it their leader.
    pub is_leader: bool,
    /// The alarms that it is known to have raised; `None` while the alarms are not known.
    pub alarms: Option<Vec<AlarmKind>>,
    /// Whether this process is defragmenting it, whatever the member says.
    pub defragmenting: bool,
    /// The last attempt on it.
    pub last_defrag: Option<LastDefrag>,
}

/// A cluster's runs and requests at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmissionSample {
    /// Whether a run is under way.
    pub run_active: bool,
    /// How many requests wait.
    pub queue_depth: usize,
    /// Whether too many runs failed in a row.
    pub breaker_open: bool,
    /// Whether a person paused it.
    pub paused: bool,
    /// When the next maintenance window opens.
    pub next_window: Option<Timestamp>,
}

/// One cluster at one moment.
#[derive(Clone, Debug)]
pub struct ClusterSample {
    /// Its name in the configuration.
    pub cluster: String,
    /// Whether an endpoint gave the member list.
    pub up: bool,
    /// Whether all voters that answered agree on a leader.
    pub has_leader: bool,
    /// How many members vote.
    pub voters: usize,
    /// How many do not.
    pub learners: usize,
    /// Its runs and requests.
    pub admission: AdmissionSample,
    /// Its members.
    pub members: Vec<MemberSample>,
}

impl ClusterSample {
    /// Builds a sample from an observation; `None` if no endpoint answered and nothing is remembered.
    pub fn new(
        cluster: String,
        up: bool,
        facts: Option<ClusterFacts>,
        defragmenting: Option<crate::core::cluster::MemberId>,
        last_defrag: impl Fn(crate::core::cluster::MemberId) -> Option<LastDefrag>,
    ) -> Self {
        let mut sample = Self {
            cluster,
            up,
            has_leader: false,
            voters: 0,
            learners: 0,
            admission: AdmissionSample::default(),
            members: Vec::new(),
        };
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
                let raised = |alarms: &Vec<crate::core::cluster::Alarm>| {
                    alarms
                        .iter()
                        .filter(|alarm| alarm.member.is_none_or(|by| by == id))
                        .map(|alarm| alarm.kind)
                        .collect()
                };
                MemberSample {
                    is_leader: leader == Some(id),
                    alarms: alarms.as_ref().map(raised),
                    defragmenting: defragmenting == Some(id),
                    last_defrag: last_defrag(id),
                    facts,
                }
            })
            .collect();
        sample
    }
}

type MemberValue = fn(&MemberSample) -> Option<f64>;
type ClusterValue = fn(&ClusterSample) -> f64;

/// A gauge of members: name, help, value. A member without the value has no series.
const MEMBER_GAUGES: &[(&str, &str, MemberValue)] = &[
    ("member_up", "Whether the member answered Status (0 while it is defragmented, too)", |m| {
        Some(flag(m.facts.status.is_ok()))
    }),
    ("member_db_size_bytes", "Size of the database file", |m| Some(m.sizes()?.0)),
    ("member_db_size_in_use_bytes", "Part of the database file that is in use", |m| Some(m.sizes()?.1)),
    ("member_db_reclaimable_bytes", "What a defragmentation can give back at the most", |m| {
        let (total, in_use) = m.sizes()?;
        Some((total - in_use).max(0.0))
    }),
    ("member_fragmentation_ratio", "1 - size in use / size of the file", |m| {
        let (total, in_use) = m.sizes()?;
        Some(if total > 0.0 { (1.0 - in_use / total).max(0.0) } else { 0.0 })
    }),
    ("member_db_quota_bytes", "Backend quota; absent while it is not known", MemberSample::quota),
    ("member_quota_usage_ratio", "Size of the database file / quota", |m| Some(m.sizes()?.0 / m.quota()?)),
    ("member_is_leader", "Whether the voters call this member their leader", |m| Some(flag(m.is_leader))),
    ("member_is_learner", "Whether the member does not vote", |m| Some(flag(m.facts.member.is_learner))),
    ("member_raft_index", "Highest index in the member's raft log", |m| m.status(|s| whole(s.raft_index))),
    ("member_raft_applied_index", "Highest raft index applied to the member's store", |m| {
        m.status(|s| whole(s.raft_applied_index))
    }),
    ("member_raft_term", "Raft term of the member", |m| m.status(|s| whole(s.raft_term))),
    (
        "member_defrag_in_progress",
        "Whether the member is being defragmented, by whomever; absent while it is not known",
        |m| {
            if m.defragmenting { Some(1.0) } else { m.facts.defrag_in_flight().map(flag) }
        },
    ),
    ("member_last_defrag_timestamp_seconds", "When defragd last ended an attempt on the member, as Unix time", |m| {
        Some(m.last_defrag.as_ref()?.at.as_duration().as_secs_f64())
    }),
    ("member_last_defrag_duration_seconds", "How long defragd's last defragmentation of the member took", |m| match m
        .last_defrag
        .as_ref()?
        .result
        .end
    {
        crate::core::history::MemberEnd::Defragmented { took, .. } => Some(took.as_secs_f64()),
        _ => None,
    }),
    ("member_last_defrag_reclaimed_bytes", "How much smaller defragd's last attempt made the member's file", |m| {
        Some(whole(m.last_defrag.as_ref()?.result.reclaimed().0))
    }),
    ("member_probe_duration_seconds", "How long the member took to answer, or to fail", |m| {
        Some(m.facts.probe_duration.as_secs_f64())
    }),
];

/// A gauge of clusters: name, help, value.
const CLUSTER_GAUGES: &[(&str, &str, ClusterValue)] = &[
    ("cluster_up", "Whether any endpoint answered with the member list", |c| flag(c.up)),
    ("cluster_has_leader", "Whether the voters that answered agree on a leader", |c| flag(c.has_leader)),
    ("cluster_run_active", "Whether a rolling defragmentation is under way", |c| flag(c.admission.run_active)),
    ("cluster_breaker_open", "Whether so many runs failed in a row that a person must resume", |c| {
        flag(c.admission.breaker_open)
    }),
    ("cluster_paused", "Whether a person paused the cluster", |c| flag(c.admission.paused)),
    ("queue_depth", "Requests for a run that wait for their turn", |c| whole(c.admission.queue_depth as u64)),
];

impl MemberSample {
    fn status(&self, value: impl Fn(&crate::core::cluster::Status) -> f64) -> Option<f64> {
        self.facts.status.as_ref().ok().map(value)
    }

    /// Total and in use: from `Status`, or from the metrics page while `Status` hangs.
    fn sizes(&self) -> Option<(f64, f64)> {
        let from_status = self.facts.status.as_ref().ok().map(|s| (s.db_size, s.db_size_in_use));
        let gauges = || self.facts.gauges.as_ref()?.as_ref().ok();
        let from_page = || gauges().and_then(|g| Some((g.db_size?, g.db_size_in_use?)));
        from_status.or_else(from_page).map(|(total, in_use)| (whole(total.0), whole(in_use.0)))
    }

    fn quota(&self) -> Option<f64> {
        let quota = self.facts.status.as_ref().ok().and_then(|status| status.quota);
        let from_page = || self.facts.gauges.as_ref()?.as_ref().ok()?.quota;
        quota.or_else(from_page).map(|quota| whole(quota.0)).filter(|quota| *quota > 0.0)
    }
}

/// Writes one observation of all clusters.
#[derive(Debug)]
pub struct MemberCollector {
    clusters: Vec<ClusterSample>,
}

impl MemberCollector {
    /// Of these clusters.
    pub fn new(clusters: Vec<ClusterSample>) -> Self {
        Self { clusters }
    }

    fn members(&self) -> impl Iterator<Item = (&MemberSample, Vec<(&'static str, String)>)> {
        self.clusters.iter().flat_map(|cluster| {
            cluster.members.iter().map(|sample| {
                let labels = vec![
                    ("etcd_cluster", cluster.cluster.clone()),
                    ("member", sample.facts.member.label()),
                    ("member_id", sample.facts.member.id.to_string()),
                ];
                (sample, labels)
            })
        })
    }
}

impl Collector for MemberCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for (name, help, value) in MEMBER_GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (sample, labels) in self.members() {
                if let Some(value) = value(sample) {
                    metric.encode_family(&labels)?.encode_gauge(&value)?;
                }
            }
        }
        let mut info = encoder.encode_descriptor("member_info", "Versions of the member", None, MetricType::Gauge)?;
        for (sample, mut labels) in self.members() {
            let Ok(status) = &sample.facts.status else { continue };
            labels.push(("version", status.version.clone()));
            labels.push(("storage_version", status.storage_version.clone().unwrap_or_default()));
            info.encode_family(&labels)?.encode_gauge(&1i64)?;
        }
        let mut alarm =
            encoder.encode_descriptor("member_alarm", "Whether the alarm is armed", None, MetricType::Gauge)?;
        for (sample, labels) in self.members() {
            let Some(armed) = &sample.alarms else { continue };
            for kind in [AlarmKind::NoSpace, AlarmKind::Corrupt] {
                let mut labels = labels.clone();
                labels.push(("alarm", kind.as_str().to_owned()));
                alarm.encode_family(&labels)?.encode_gauge(&i64::from(armed.contains(&kind)))?;
            }
        }
        for (name, help, value) in CLUSTER_GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for cluster in &self.clusters {
                metric.encode_family(&[("etcd_cluster", cluster.cluster.as_str())])?.encode_gauge(&value(cluster))?;
            }
        }
        let name = "cluster_next_window_timestamp_seconds";
        let help = "When the next maintenance window opens, as Unix time; absent without windows";
        let mut next = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for cluster in &self.clusters {
            let Some(opens) = cluster.admission.next_window else { continue };
            let opens = opens.as_duration().as_secs_f64();
            next.encode_family(&[("etcd_cluster", cluster.cluster.as_str())])?.encode_gauge(&opens)?;
        }
        let mut members = encoder.encode_descriptor("cluster_members", "Members by role", None, MetricType::Gauge)?;
        for cluster in self.clusters.iter().filter(|cluster| !cluster.members.is_empty()) {
            for (role, count) in [("voter", cluster.voters), ("learner", cluster.learners)] {
                let labels = [("etcd_cluster", cluster.cluster.as_str()), ("role", role)];
                members.encode_family(&labels)?.encode_gauge(&whole(count as u64))?;
            }
        }
        Ok(())
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^52; what counts this far is only compared")]
fn whole(value: u64) -> f64 {
    value as f64
}
