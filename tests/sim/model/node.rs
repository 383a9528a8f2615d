//! One etcd member: its process, its file, its view of the cluster, and its requested defragmentations.

use std::{collections::VecDeque, time::Duration};

use bytesize::ByteSize;
use defragd::core::cluster::{ClusterId, Member, MemberId, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    Running,
    /// SIGSTOP: the kernel still accepts connections and data.
    Frozen,
    Down,
}

/// How a member is out of defragd's reach while its peers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deaf {
    Refusing,
    Silent,
}

#[derive(Clone, Copy, Debug)]
pub struct Running {
    pub job: usize,
    pub left: Duration,
    pub since: Duration,
}

#[derive(Debug)]
pub struct Node {
    pub cluster: ClusterId,
    pub member: Member,
    pub version: String,
    /// Target version of a downgrade that is enabled.
    pub downgrade_to: Option<String>,
    pub process: Process,
    pub cut: bool,
    pub deaf: Option<Deaf>,
    pub removed: bool,
    pub has_page: bool,
    pub has_gauge: bool,
    pub size: u64,
    pub in_use: u64,
    pub quota: u64,
    pub view: (Option<MemberId>, u64),
    pub index: f64,
    pub applied: f64,
    /// The version of the member list that it knows.
    pub member_list: usize,
    pub running: Option<Running>,
    pub queue: VecDeque<usize>,
    /// Requests that arrived while the process was frozen.
    pub buffer: Vec<usize>,
    pub slow: u32,
    pub disk_full: bool,
    /// The next defragmentation makes the file no smaller.
    pub no_shrink: bool,
    /// What it still reports as in use.
    pub stale_in_use: Option<u64>,
    /// Its data is not the others'.
    pub differs: bool,
    /// Its next hash is wrong.
    pub hash_wrong_once: bool,
    /// A snapshot is being sent until then.
    pub snapshot_until: Duration,
    /// Rises when all client connections break.
    pub connections: u64,
}

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Open,
    Hangs,
    Refuses,
}

impl Node {
    pub fn id(&self) -> MemberId {
        self.member.id
    }

    pub fn voter(&self) -> bool {
        !self.member.is_learner && !self.removed
    }

    /// Whether it takes part in raft.
    pub fn connected(&self) -> bool {
        self.process == Process::Running && !self.cut && !self.removed
    }

    pub fn defragmenting(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it answers what touches its file while it defragments.
    pub fn non_blocking(&self) -> bool {
        self.version.starts_with("3.8.")
    }

    /// Whether a defragmentation keeps it from answering.
    pub fn blocked(&self) -> bool {
        self.defragmenting() && !self.non_blocking()
    }

    pub fn reported_in_use(&self) -> u64 {
        self.stale_in_use.unwrap_or(self.in_use)
    }

    pub fn door(&self) -> Door {
        match (self.deaf, self.process) {
            (Some(Deaf::Refusing), _) | (None, Process::Down) => Door::Refuses,
            (Some(Deaf::Silent), _) | (None, Process::Frozen) => Door::Hangs,
            (None, Process::Running) => Door::Open,
        }
    }

    /// `Status` as the server answers it; the caller has made sure that it can.
    pub fn status(&self, errors: Vec<String>) -> Status {
        // From 3.6 on the server reports its quota.
        let quota = since_3_6(&self.version).then_some(ByteSize(self.quota));
        Status {
            version: self.version.clone(),
            storage_version: quota.map(|_| "3.6.0".to_owned()),
            db_size: ByteSize(self.size),
            db_size_in_use: ByteSize(self.reported_in_use()),
            quota,
            leader: self.view.0,
            revision: whole(self.applied),
            raft_term: self.view.1,
            raft_index: whole(self.index),
            raft_applied_index: whole(self.applied),
            is_learner: self.member.is_learner,
            downgrade_to: self.downgrade_to.clone().filter(|_| since_3_6(&self.version)),
            errors,
        }
    }
}

/// Whether a server of this version answers as 3.6 and later do.
pub fn since_3_6(version: &str) -> bool {
    minor(version).is_some_and(|minor| minor >= (3, 6))
}

/// `3.5` of `3.5.30-custom`.
pub fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "indices are positive and small")]
pub fn whole(value: f64) -> u64 {
    value as u64
}
