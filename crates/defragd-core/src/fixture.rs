//! Observations for unit tests, of the core and of other crates.

#![allow(clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::time::Duration;

use bytesize::ByteSize;

use super::cluster::{ClusterFacts, ClusterId, Member, MemberFacts, MemberId, Status};

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

/// The status of the member at `index`, to change it.
pub fn status_mut(facts: &mut ClusterFacts, index: usize) -> &mut Status {
    facts.members[index].status.as_mut().expect("the fixture's status is known")
}
