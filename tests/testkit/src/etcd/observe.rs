//! What the members report about themselves.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::timeout;

use super::EtcdCluster;
use crate::{Exposition, http};

/// Status is a local read: only a member that defragments or is frozen takes this long.
const STATUS: Duration = Duration::from_secs(5);

/// A member's own status.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    /// The member's id.
    pub id: u64,
    /// The id of the leader that it knows, 0 if none.
    pub leader: u64,
    /// Whether it is that leader.
    pub is_leader: bool,
    /// Whether it is a learner.
    pub is_learner: bool,
    /// The server's version.
    pub version: String,
    /// The database file's size in bytes.
    pub size: u64,
    /// How much of it is in use, in bytes.
    pub in_use: u64,
    /// The index of its raft log.
    pub raft_index: u64,
    /// How far it has applied it.
    pub applied_index: u64,
    /// The raft term.
    pub term: u64,
    /// Errors and alarms that it reports.
    pub errors: Vec<String>,
}

impl MemberStatus {
    /// How many bytes a defrag would give back, about.
    pub fn reclaimable(&self) -> u64 {
        self.size.saturating_sub(self.in_use)
    }
}

impl EtcdCluster {
    /// A member's status; fails if it takes over five seconds, as during its defrag.
    pub async fn status(&self, index: usize) -> Result<MemberStatus> {
        let name = self.member(index).name();
        let ask = async { anyhow::Ok(self.client(index).await?.status().await?) };
        let answer = timeout(STATUS, ask).await.with_context(|| format!("status of {name} hangs"))??;
        let id = answer.header().context("a status has a header")?.member_id();
        Ok(MemberStatus {
            id,
            leader: answer.leader(),
            is_leader: answer.leader() == id,
            is_learner: answer.is_learner(),
            version: answer.version().to_owned(),
            size: u64::try_from(answer.db_size())?,
            in_use: u64::try_from(answer.raft_used_db_size())?,
            raft_index: answer.raft_index(),
            applied_index: answer.raft_applied_index(),
            term: answer.raft_term(),
            errors: answer.errors().to_vec(),
        })
    }

    /// Every member's status, in order.
    pub async fn statuses(&self) -> Result<Vec<MemberStatus>> {
        let mut all = Vec::with_capacity(self.len());
        for index in 0..self.len() {
            all.push(self.status(index).await?);
        }
        Ok(all)
    }

    /// The index of the leader, as the first member that answers and is it says.
    pub async fn leader(&self) -> Result<usize> {
        let mut last = None;
        for index in 0..self.len() {
            match self.status(index).await {
                Ok(status) if status.is_leader => return Ok(index),
                Ok(_) => {}
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no member is the leader")))
    }

    /// The alarms that are raised, as (member id, name).
    pub async fn alarms(&self) -> Result<Vec<(u64, String)>> {
        use etcd_client::{AlarmAction, AlarmType};
        let mut client = self.balanced_client().await?;
        let answer =
            timeout(STATUS, client.alarm(AlarmAction::Get, AlarmType::None, None)).await.context("alarms hang")??;
        Ok(answer.alarms().iter().map(|a| (a.member_id(), format!("{:?}", a.alarm()).to_uppercase())).collect())
    }

    /// A member's own `/metrics`, which it serves even while it defragments.
    pub async fn metrics(&self, index: usize) -> Result<Exposition> {
        let url = format!("{}/metrics", self.member(index).http_url());
        Ok(Exposition::new(http::get(&self.http, &url).await?))
    }

    /// How many defrags a member has finished since it started, by its own count.
    pub async fn defrags_done(&self, index: usize) -> Result<u64> {
        self.metrics(index).await?.count(crate::watch::DONE, &[]).with_context(|| format!("no {}", crate::watch::DONE))
    }

    /// Whether a member is defragmenting, by its own word.
    pub async fn defrag_inflight(&self, index: usize) -> Result<bool> {
        Ok(self.metrics(index).await?.require(crate::watch::INFLIGHT, &[])? > 0.0)
    }
}
