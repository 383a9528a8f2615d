//! The members of a cluster as people read them: for `defragd status` and the API, in the same shape.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::{
    cluster::{Alarm, AlarmKind, ClusterFacts, ClusterId, MemberFacts, MemberId, Status, Unknown},
    estimate::{Estimate, Speeds},
    page, safety, state, version, wire,
};

/// A cluster at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    pub cluster: String,
    /// How old the measurements are.
    #[serde(rename = "age_seconds", with = "wire::number")]
    pub age: Duration,
    /// Why no endpoint returned the member list. The members are then those of an earlier observation, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What an operator does about the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    pub cluster_id: Option<ClusterId>,
    /// `None` if they are unknown.
    pub alarms: Option<Vec<AlarmView>>,
    /// By name.
    pub members: Vec<MemberView>,
    /// What is known against the versions, and metrics pages that cannot be read.
    pub warnings: Vec<String>,
    /// See [`super::state::left_alone`].
    pub left_alone: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmView {
    pub alarm: String,
    pub member_id: Option<MemberId>,
}

/// A member; what `Status` reports is `None` if it did not answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    pub endpoint: Option<String>,
    pub member_id: MemberId,
    /// Its name; empty for a member that was added but never started.
    pub member: String,
    pub is_learner: bool,
    pub is_leader: bool,
    /// `None` if unknown.
    pub defrag_in_progress: Option<bool>,
    /// How many snapshots it is sending; `None` if unknown.
    pub open_snapshots: Option<u64>,
    pub stops_grpc_on_defrag: Option<bool>,
    pub metrics_page_error: Option<String>,
    pub expected_defrag: Option<Estimate>,
    pub version: Option<String>,
    pub storage_version: Option<String>,
    #[serde(rename = "db_size_bytes", with = "wire::number")]
    pub db_size: Option<ByteSize>,
    #[serde(rename = "db_size_in_use_bytes", with = "wire::number")]
    pub db_size_in_use: Option<ByteSize>,
    #[serde(rename = "db_quota_bytes", with = "wire::number")]
    pub db_quota: Option<ByteSize>,
    pub fragmentation_ratio: Option<f64>,
    pub quota_usage_ratio: Option<f64>,
    pub raft_term: Option<u64>,
    pub raft_index: Option<u64>,
    pub raft_applied_index: Option<u64>,
    /// What the member itself reports.
    pub errors: Option<Vec<String>>,
    /// Why it did not answer.
    pub unreachable: Option<String>,
    /// What an operator does about that; `None` if it is being defragmented.
    pub advice: Option<String>,
}

impl StatusView {
    /// From an observation; `error` is why no endpoint returned the member list. `speeds` is `None` while it is not known
    /// what was measured.
    pub fn new(
        cluster: &str,
        age: Duration,
        error: Option<&Unknown>,
        facts: Option<&ClusterFacts>,
        left_alone: Option<String>,
        speeds: Option<&Speeds>,
    ) -> Self {
        let mut members: Vec<_> = facts.iter().flat_map(|facts| &facts.members).collect();
        members.sort_by_cached_key(|member| member.member.label());
        let alarms = facts.and_then(|facts| facts.alarms.as_ref().ok());
        let known = facts.map(version::of_cluster).unwrap_or_default();
        let pages = members.iter().filter_map(|member| page::unread(member));
        Self {
            cluster: cluster.to_owned(),
            age,
            error: error.map(|unknown| safety::no_member_list(unknown).to_string()),
            advice: error.map(|unknown| safety::no_member_list(unknown).advice().to_owned()),
            cluster_id: facts.map(|facts| facts.cluster_id),
            alarms: alarms.map(|alarms| alarms.iter().map(AlarmView::from).collect()),
            warnings: known.into_iter().chain(pages).collect(),
            left_alone,
            members: members.into_iter().map(|member| MemberView::new(facts, member, speeds)).collect(),
        }
    }

    /// A sentence about each kind of armed alarm, without a full stop, and what an operator does about it.
    pub fn armed(&self) -> impl Iterator<Item = (String, &'static str)> {
        let name = |id| {
            let member = self.members.iter().find(|member| member.member_id == id);
            member.map_or_else(|| id.to_string(), MemberView::label)
        };
        [AlarmKind::Corrupt, AlarmKind::NoSpace].into_iter().filter_map(move |kind| {
            let alarms = self.alarms.iter().flatten().filter(|alarm| alarm.alarm == kind.as_str());
            Some((state::armed(kind, alarms.map(|alarm| alarm.member_id.map(name)))?, state::alarm_advice(kind)))
        })
    }

    /// Whether everything answered.
    pub fn is_complete(&self) -> bool {
        self.error.is_none() && self.members.iter().all(|member| member.unreachable.is_none())
    }
}

impl From<&Alarm> for AlarmView {
    fn from(alarm: &Alarm) -> Self {
        Self { alarm: alarm.kind.as_str().to_owned(), member_id: alarm.member }
    }
}

impl MemberView {
    fn new(facts: Option<&ClusterFacts>, member: &MemberFacts, speeds: Option<&Speeds>) -> Self {
        let id = member.member.id;
        let (status, unknown) = (member.status.as_ref().ok(), member.status.as_ref().err());
        let gauges = member.gauges.as_ref();
        let advice = unknown.filter(|_| member.defrag_in_flight() != Some(true));
        Self {
            endpoint: member.member.client_urls.first().cloned(),
            member_id: id,
            member: member.member.name.clone(),
            is_learner: member.member.is_learner,
            is_leader: facts.and_then(ClusterFacts::leader) == Some(id),
            defrag_in_progress: member.defrag_in_flight(),
            open_snapshots: member.open_snapshots(),
            stops_grpc_on_defrag: gauges.and_then(|gauges| gauges.as_ref().ok()?.stop_grpc_on_defrag),
            metrics_page_error: gauges.and_then(|gauges| Some(gauges.as_ref().err()?.detail.clone())),
            expected_defrag: speeds.zip(status).map(|(speeds, status)| speeds.estimate(id, status.db_size_in_use)),
            version: status.map(|status| status.version.clone()),
            storage_version: status.and_then(|status| status.storage_version.clone()),
            db_size: status.map(|status| status.db_size),
            db_size_in_use: status.map(|status| status.db_size_in_use),
            db_quota: status.and_then(|status| status.quota),
            fragmentation_ratio: status.map(Status::fragmentation_ratio),
            quota_usage_ratio: status.and_then(Status::quota_usage_ratio),
            raft_term: status.map(|status| status.raft_term),
            raft_index: status.map(|status| status.raft_index),
            raft_applied_index: status.map(|status| status.raft_applied_index),
            errors: status.map(|status| status.errors.clone()),
            unreachable: unknown.map(|unknown| unknown.detail.clone()),
            advice: advice.map(|unknown| safety::unknown_status(member.member.label(), unknown).advice().to_owned()),
        }
    }

    /// Its name, or its id if it has none.
    pub fn label(&self) -> String {
        if self.member.is_empty() { self.member_id.to_string() } else { self.member.clone() }
    }
}
