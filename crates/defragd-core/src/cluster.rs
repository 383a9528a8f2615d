//! What was observed of a cluster at one moment, including what could not be observed.

use std::{fmt, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::version;

/// Declares a newtype over the `u64` ids of etcd, shown in hexadecimal as etcdctl does.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }

        // Hexadecimal text, not a number: JSON readers lose the low bits of integers above 2^53.
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                u64::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// The id of an etcd member, unique in its cluster.
    MemberId
);
hex_id!(
    /// The id of an etcd cluster. Two clusters bootstrapped apart never share it.
    ClusterId
);

/// One row of the member list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Unique in the cluster.
    pub id: MemberId,
    /// The configured name; empty for a member that was added but never started.
    pub name: String,
    /// Where clients reach this member; the first URL that accepts a connection is used. May be empty for a member
    /// that never started.
    pub client_urls: Vec<String>,
    /// Learners do not vote, and refuse Defragment.
    pub is_learner: bool,
}

impl Member {
    /// The name, or the id for a member that has no name yet.
    pub fn label(&self) -> String {
        if self.name.is_empty() { self.id.to_string() } else { self.name.clone() }
    }
}

/// The content of a member's `Status`.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Server version, like `3.5.16`.
    pub version: String,
    /// Storage version of 3.6 and later.
    pub storage_version: Option<String>,
    /// Size of the database file, bytes.
    pub db_size: ByteSize,
    /// The part of the file in use, bytes; page-granular.
    pub db_size_in_use: ByteSize,
    /// Backend quota, from `Status` (3.6) or the member's metrics.
    pub quota: Option<ByteSize>,
    /// The member that this one follows; `None` while it knows no leader.
    pub leader: Option<MemberId>,
    /// The store's revision, from the header.
    pub revision: u64,
    pub raft_term: u64,
    /// Highest index in this member's log.
    pub raft_index: u64,
    /// Highest index applied to this member's store.
    pub raft_applied_index: u64,
    /// Whether the member itself reports that it is a learner.
    pub is_learner: bool,
    /// Target version of an enabled downgrade. Only 3.6 and later report it.
    pub downgrade_to: Option<String>,
    /// `errors` of the response: about the whole cluster, not this member.
    pub errors: Vec<String>,
}

impl Status {
    /// The space that a defragmentation could reclaim at most.
    pub fn reclaimable(&self) -> ByteSize {
        ByteSize(self.db_size.0.saturating_sub(self.db_size_in_use.0))
    }

    /// 1 − in use / total: 0 if no space is free, near 1 if most is. 0 for an empty file.
    pub fn fragmentation_ratio(&self) -> f64 {
        ratio(self.reclaimable(), self.db_size)
    }

    /// The alarms in `errors`, like `memberID:10276657743932975437 alarm:NOSPACE `.
    pub fn reported_alarms(&self) -> impl Iterator<Item = Alarm> {
        self.errors.iter().filter_map(|error| {
            let mut member = None;
            let mut kind = None;
            for word in error.split_whitespace() {
                match word.split_once(':') {
                    Some(("memberID", id)) => member = id.parse().ok().map(MemberId),
                    Some(("alarm", "NOSPACE")) => kind = Some(AlarmKind::NoSpace),
                    Some(("alarm", "CORRUPT")) => kind = Some(AlarmKind::Corrupt),
                    _ => {}
                }
            }
            kind.map(|kind| Alarm { kind, member })
        })
    }

    /// File size / quota; `None` without a known, positive quota.
    pub fn quota_usage_ratio(&self) -> Option<f64> {
        self.quota.filter(|quota| quota.0 > 0).map(|quota| ratio(self.db_size, quota))
    }
}

// Sizes of databases stay far below 2^52 bytes, where f64 is exact.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^52 bytes")]
pub(super) fn ratio(part: ByteSize, whole: ByteSize) -> f64 {
    if whole.0 == 0 { 0.0 } else { part.0 as f64 / whole.0 as f64 }
}

/// The content of a member's own `/metrics` page. It answers even while the member defragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// `etcd_disk_defrag_inflight`; `None` before 3.4.18 and 3.5.2, which do not have it.
    pub defrag_in_flight: Option<bool>,
    /// `etcd_server_quota_backend_bytes`.
    pub quota: Option<ByteSize>,
    /// `etcd_mvcc_db_total_size_in_bytes`.
    pub db_size: Option<ByteSize>,
    /// `etcd_mvcc_db_total_size_in_use_in_bytes`.
    pub db_size_in_use: Option<ByteSize>,
    /// Snapshots that the member is sending, to a client (a backup) or to another member: streams that are started and
    /// not yet handled by gRPC's counters, and `etcd_network_snapshot_send_inflights_total`.
    pub open_snapshots: Option<u64>,
    /// Whether the feature gate `NonBlockingDefrag` is on, by `etcd_server_feature_enabled`.
    pub non_blocking_defrag: Option<bool>,
    /// Whether the feature gate `StopGRPCServiceOnDefrag` is on, by the same metric; `None` before 3.6.
    pub stop_grpc_on_defrag: Option<bool>,
}

/// The alarms that etcd can raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlarmKind {
    /// A member's file has exceeded its quota: the cluster accepts no more writes.
    NoSpace,
    /// A member's data differs from the others'.
    Corrupt,
}

impl AlarmKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSpace => "NOSPACE",
            Self::Corrupt => "CORRUPT",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    pub kind: AlarmKind,
    /// The member that raised it; `None` if the server names none (CORRUPT may).
    pub member: Option<MemberId>,
}

/// Why a fact is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum UnknownKind {
    /// No connection: refused, reset, no route.
    Unreachable,
    /// The TLS handshake failed: one side does not accept the other's certificate. Or the member has no https:// URL,
    /// but its cluster is configured with TLS.
    Tls,
    /// Connected or connecting, but no answer within the limit. A member that is being defragmented looks like this.
    TimedOut,
    /// The user lacks the permission, or its login is no longer known.
    Denied,
    /// etcd rejected the login: a wrong password, or no such user.
    LoginRefused,
    /// Authentication is on, and no user is configured.
    LoginMissing,
    /// Another member answered at this member's address.
    WrongMember,
    /// Any other answer of the member.
    Other,
}

impl UnknownKind {
    /// Whether etcd itself denied the call.
    pub const fn is_denial(self) -> bool {
        matches!(self, Self::Denied | Self::LoginRefused | Self::LoginMissing)
    }

    /// Stable, for metrics.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// A fact that could not be observed. Unknown always counts as unsafe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Unknown {
    /// The class, for decisions and metric labels.
    pub kind: UnknownKind,
    pub detail: String,
}

impl Unknown {
    pub fn new(kind: UnknownKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    pub fn timed_out(what: &str, limit: Duration) -> Self {
        Self::new(UnknownKind::TimedOut, format!("{what}: no answer within {:.1} s", limit.as_secs_f64()))
    }
}

/// Something observed, or why it could not be observed.
pub type Fact<T> = Result<T, Unknown>;

#[derive(Clone, Debug)]
pub struct MemberFacts {
    pub member: Member,
    pub status: Fact<Status>,
    /// Its own metrics page; not requested in every observation.
    pub gauges: Option<Fact<Gauges>>,
    /// Whether a linearizable read through it succeeds; not tried in every observation.
    pub linearizable_read: Option<Fact<()>>,
    /// How long the member took to answer, or to fail.
    pub probe_duration: Duration,
}

impl MemberFacts {
    /// Whether a defragmentation is in progress on this member; `None` if unknown.
    pub fn defrag_in_flight(&self) -> Option<bool> {
        self.in_flight(self.may_answer())
    }

    /// The same. `may_answer` is the result of [`MemberFacts::may_answer`] now or before.
    ///
    /// If it is false, an answer to `Status` proves that there is none: `Status` hangs during the whole of one.
    pub fn in_flight(&self, may_answer: bool) -> Option<bool> {
        match (&self.gauges, &self.status) {
            (Some(Ok(Gauges { defrag_in_flight: Some(in_flight), .. })), _) => Some(*in_flight),
            (_, Ok(_)) if !may_answer && !self.may_answer() => Some(false),
            _ => None,
        }
    }

    /// Whether the member may answer `Status` while it defragments: its feature gate `NonBlockingDefrag` is on, or its
    /// version has that on by default and does not report it.
    pub fn may_answer(&self) -> bool {
        let reported = self.gauges.as_ref().and_then(|gauges| gauges.as_ref().ok()?.non_blocking_defrag);
        let by_version =
            || self.status.as_ref().is_ok_and(|status| version::defragments_without_blocking(&status.version));
        reported.unwrap_or_else(by_version)
    }

    /// How many snapshots the member is known to be sending.
    pub fn open_snapshots(&self) -> Option<u64> {
        self.gauges.as_ref()?.as_ref().ok()?.open_snapshots
    }
}

/// All that was observed of a cluster at one moment.
#[derive(Clone, Debug)]
pub struct ClusterFacts {
    /// From the header of the member list.
    pub cluster_id: ClusterId,
    /// In the order of the member list.
    pub members: Vec<MemberFacts>,
    pub alarms: Fact<Vec<Alarm>>,
}

impl ClusterFacts {
    pub fn voters(&self) -> impl Iterator<Item = &MemberFacts> {
        self.members.iter().filter(|facts| !facts.member.is_learner)
    }

    /// Sets this as the quota of each member that answered and does not report its own.
    pub fn assume_quota(&mut self, quota: Option<ByteSize>) {
        for status in self.members.iter_mut().filter_map(|member| member.status.as_mut().ok()) {
            status.quota = status.quota.or(quota);
        }
    }

    pub fn member(&self, id: MemberId) -> Option<&MemberFacts> {
        self.members.iter().find(|facts| facts.member.id == id)
    }

    /// The leader, if all voters that answered report the same one.
    pub fn leader(&self) -> Option<MemberId> {
        let mut named = self.voters().filter_map(|facts| facts.status.as_ref().ok()).map(|status| status.leader);
        let first = named.next()??;
        named.all(|other| other == Some(first)).then_some(first)
    }

    /// The revision that every voter that answered has applied.
    pub fn oldest_revision(&self) -> Option<u64> {
        self.voters().filter_map(|voter| Some(voter.status.as_ref().ok()?.revision)).min()
    }

    /// Whether an alarm of this kind is known to be armed anywhere.
    pub fn has_alarm(&self, kind: AlarmKind) -> bool {
        self.alarms.as_ref().is_ok_and(|alarms| alarms.iter().any(|alarm| alarm.kind == kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn alarms_are_read_from_the_errors_of_status() {
        let mut status = fixture::status(1);
        status.errors =
            ["etcdserver: no leader", "memberID:77 alarm:NOSPACE ", "alarm:CORRUPT "].map(str::to_owned).to_vec();
        let reported: Vec<_> = status.reported_alarms().collect();
        let expected = [
            Alarm { kind: AlarmKind::NoSpace, member: Some(MemberId(77)) },
            Alarm { kind: AlarmKind::Corrupt, member: None },
        ];
        assert_eq!(reported, expected);
    }

    #[test]
    fn a_quota_that_the_operator_names_counts_only_where_the_member_reports_none() {
        let mut facts = fixture::cluster(3);
        facts.members[0].status.as_mut().expect("up").quota = None;
        facts.members[1].status = Err(Unknown::new(UnknownKind::Unreachable, "down"));
        facts.assume_quota(None);
        assert_eq!(facts.members[0].status.as_ref().expect("up").quota, None);
        // More than the member itself reports, and less.
        for assumed in [ByteSize::gib(8), ByteSize::gib(1)] {
            let mut facts = facts.clone();
            facts.assume_quota(Some(assumed));
            assert_eq!(facts.members[0].status.as_ref().expect("up").quota, Some(assumed));
            assert!(facts.members[1].status.is_err());
            assert_eq!(facts.members[2].status.as_ref().expect("up").quota, Some(ByteSize::gib(2)));
        }
    }

    #[test]
    fn ids_are_written_as_etcdctl_writes_them() {
        assert_eq!(MemberId(0x8e9e_05c5_2164_694d).to_string(), "8e9e05c52164694d");
    }
}
