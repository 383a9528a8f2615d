//! Observations for unit tests, of the core and of other crates.

#![allow(clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::time::Duration;

use bytesize::ByteSize;

use super::{
    cluster::{ClusterFacts, ClusterId, Member, MemberFacts, MemberId, Status},
    gate::{GateKind, GateResult, Moment, OnFailure},
    history::{Intent, MemberEnd, MemberResult, Sizes},
    policy::Need,
};

/// A fragmented, healthy member that follows member 1.
pub fn status(term: u64) -> Status {
    Status {
        version: "3.5.30".to_owned(),
        storage_version: None,
        db_size: ByteSize::mib(1000),
        db_size_in_use: ByteSize::mib(100),
        quota: Some(ByteSize::gib(2)),
        leader: Some(MemberId(1)),
        revision: 40_000,
        raft_term: term,
        raft_index: 50_000,
        raft_applied_index: 50_000,
        is_learner: false,
        downgrade_to: None,
        errors: Vec::new(),
    }
}

/// A healthy cluster whose members `etcd-1`… all need a defragmentation; member 1 leads.
pub fn cluster(size: u64) -> ClusterFacts {
    let member = |id: u64| MemberFacts {
        member: Member {
            id: MemberId(id),
            name: format!("etcd-{id}"),
            client_urls: vec![format!("http://127.0.0.1:{id}")],
            is_learner: false,
        },
        status: Ok(status(7)),
        gauges: None,
        linearizable_read: Some(Ok(())),
        probe_duration: Duration::from_millis(3),
    };
    ClusterFacts {
        cluster_id: ClusterId(0x00c0_ffee),
        members: (1..=size).map(member).collect(),
        alarms: Ok(Vec::new()),
    }
}

pub fn status_mut(facts: &mut ClusterFacts, index: usize) -> &mut Status {
    facts.members[index].status.as_mut().expect("the fixture's status is known")
}

/// A gate that passed, with evidence and a baseline.
pub fn gate_result() -> GateResult {
    GateResult {
        gate: "pods".to_owned(),
        kind: GateKind::KubernetesPods,
        moment: Moment::Before,
        passed: true,
        on_failure: OnFailure::Warn,
        detail: "3 pods".to_owned(),
        evidence: [("pods".to_owned(), 3.into())].into_iter().collect(),
        baseline: Some(serde_json::json!({"kind": "any"})),
        took: Duration::from_millis(1_500),
    }
}

/// The intent of a defragmentation, with the largest member id and a size that no rounding keeps.
pub fn intent() -> Intent {
    Intent {
        member_id: MemberId(u64::MAX),
        member: "etcd-1".to_owned(),
        is_leader: true,
        need: Need::Fragmented,
        before: Sizes { db_size: ByteSize(1_000_000_007), db_size_in_use: ByteSize(77) },
        expected: None,
        non_blocking: false,
    }
}

/// MiB of a file, and how many are in use.
pub fn sizes(size: u64, in_use: u64) -> Sizes {
    Sizes { db_size: ByteSize::mib(size), db_size_in_use: ByteSize::mib(in_use) }
}

/// An attempt on the follower `etcd-ID`.
pub fn attempt(id: u64, before: Sizes, end: MemberEnd) -> MemberResult {
    let (member_id, member) = (MemberId(id), format!("etcd-{id}"));
    MemberResult { intent: Intent { member_id, member, is_leader: false, before, ..intent() }, end }
}
