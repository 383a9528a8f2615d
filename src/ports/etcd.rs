//! One etcd cluster, RPC by RPC.
//!
//! Contract for every method: it talks only to the member that it names, and an answer that comes from another member
//! is an error. A call that changes a cluster is sent only on a connection on which the member has answered. A request
//! is never sent twice, unless etcd itself said that it does not know the login. A call may hang for as long as the
//! server does (for example while a member is defragmented): the caller bounds each call, and dropping the future must
//! release everything.

use std::{future::Future, sync::Arc};

use bytesize::ByteSize;

use crate::core::{
    cluster::{Alarm, ClusterId, Fact, Gauges, Member, Status},
    reason::Reason,
    run::DefragError,
    verify::DataHash,
};

/// The member list, and the cluster it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// From the header of the response.
    pub cluster_id: ClusterId,
    /// In the server's order.
    pub members: Vec<Member>,
}

/// The result of reading the credentials again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    Unchanged,
    /// They changed, and new connections use them.
    Applied,
    /// They changed and are invalid: the previous ones stay in use. The text is for people.
    Refused(String),
}

/// Whether a member's metrics page will soon be requested again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Not before long: no connection is kept, and a page that is slow is given up soon.
    Single,
    /// Within seconds: the connection is kept that long.
    Repeated,
}

/// Whether an RPC that changes something may be sent. It is asked at the last moment before sending, so it must answer
/// from memory: a stop or a lost lock one millisecond earlier still counts.
pub trait Permit: Send + Sync {
    /// Why it must not be sent; `None` if it may.
    fn refusal(&self) -> Option<Reason>;
}

impl<F: Fn() -> Option<Reason> + Send + Sync> Permit for F {
    fn refusal(&self) -> Option<Reason> {
        self()
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Permitted;

impl Permit for Permitted {
    fn refusal(&self) -> Option<Reason> {
        None
    }
}

pub trait Etcd: Send + Sync + 'static {
    /// The member list from any endpoint; the first answer wins.
    fn members(&self) -> impl Future<Output = Fact<Membership>> + Send;

    /// The member's `Status`. A local read: a member that is cut off from the others still answers.
    fn status(&self, member: &Member) -> impl Future<Output = Fact<Status>> + Send;

    /// A linearizable read through the member: proof that it has a quorum behind it.
    fn linearizable_read(&self, member: &Member) -> impl Future<Output = Fact<()>> + Send;

    /// The member's own metrics page, which answers even while it defragments.
    fn gauges(&self, member: &Member, visit: Visit) -> impl Future<Output = Fact<Gauges>> + Send;

    /// The armed alarms, through this member. Learners refuse; goes through raft.
    fn alarms(&self, via: &Member) -> impl Future<Output = Fact<Vec<Alarm>>> + Send;

    /// Disarms one alarm of one member, through `via`. Goes through raft.
    fn disarm(&self, via: &Member, alarm: Alarm) -> impl Future<Output = Fact<()>> + Send;

    /// Compacts the history up to a revision, through `via`. Returns before the pages are free: that becomes visible in
    /// each member's in-use size, at different times. A revision that is already compacted is no error.
    fn compact(&self, via: &Member, revision: u64) -> impl Future<Output = Fact<()>> + Send;

    /// Transfers leadership from `leader` to `to`, which must be a voter. Sent to the leader.
    fn move_leader(&self, leader: &Member, to: &Member) -> impl Future<Output = Fact<()>> + Send;

    /// The hash of the member's data at a revision that it has applied: `HashKV`. The member reads its whole database
    /// for it. Learners refuse.
    fn hash(&self, member: &Member, revision: u64) -> impl Future<Output = Fact<DataHash>> + Send;

    /// Defragments this member. Sends the RPC once, as the last thing it does, and only if `permit` allows it at that
    /// moment; else it returns [`DefragError::Withheld`]. Dropping the future does **not** stop the server.
    fn defragment(&self, member: &Member, permit: &dyn Permit) -> impl Future<Output = Result<(), DefragError>> + Send;

    /// The configured quota for members that do not report theirs.
    fn quota_override(&self) -> Option<ByteSize> {
        None
    }

    /// Checks whether the files with certificates, keys and passwords changed. RPCs in flight are not affected.
    fn renew(&self) -> impl Future<Output = Renewal> + Send {
        async { Renewal::Unchanged }
    }
}

/// A shared connection to one cluster.
impl<E: Etcd> Etcd for Arc<E> {
    fn members(&self) -> impl Future<Output = Fact<Membership>> + Send {
        self.as_ref().members()
    }

    fn status(&self, member: &Member) -> impl Future<Output = Fact<Status>> + Send {
        self.as_ref().status(member)
    }

    fn linearizable_read(&self, member: &Member) -> impl Future<Output = Fact<()>> + Send {
        self.as_ref().linearizable_read(member)
    }

    fn gauges(&self, member: &Member, visit: Visit) -> impl Future<Output = Fact<Gauges>> + Send {
        self.as_ref().gauges(member, visit)
    }

    fn alarms(&self, via: &Member) -> impl Future<Output = Fact<Vec<Alarm>>> + Send {
        self.as_ref().alarms(via)
    }

    fn disarm(&self, via: &Member, alarm: Alarm) -> impl Future<Output = Fact<()>> + Send {
        self.as_ref().disarm(via, alarm)
    }

    fn compact(&self, via: &Member, revision: u64) -> impl Future<Output = Fact<()>> + Send {
        self.as_ref().compact(via, revision)
    }

    fn move_leader(&self, leader: &Member, to: &Member) -> impl Future<Output = Fact<()>> + Send {
        self.as_ref().move_leader(leader, to)
    }

    fn hash(&self, member: &Member, revision: u64) -> impl Future<Output = Fact<DataHash>> + Send {
        self.as_ref().hash(member, revision)
    }

    fn defragment(&self, member: &Member, permit: &dyn Permit) -> impl Future<Output = Result<(), DefragError>> + Send {
        self.as_ref().defragment(member, permit)
    }

    fn quota_override(&self) -> Option<ByteSize> {
        self.as_ref().quota_override()
    }

    fn renew(&self) -> impl Future<Output = Renewal> + Send {
        self.as_ref().renew()
    }
}
