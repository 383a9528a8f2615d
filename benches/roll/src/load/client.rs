//! The two ways in which clients reach a cluster.

use std::time::Duration;

use anyhow::{Result, bail};
use etcd_client::Client;
use testkit::EtcdCluster;
use tokio::time::timeout;

/// How long a failover client gives one member.
const NEXT_AFTER: Duration = Duration::from_secs(1);
/// A pinned request waits for its member as long as a patient client would.
const PATIENCE: Duration = Duration::from_mins(10);
/// A failover client gives up after so many members in a row.
const TRIES: usize = 10;

/// A client that sends requests.
pub(super) trait Sender: Send + 'static {
    /// Whether it knows more than one member.
    const FAILOVER: bool;

    /// Sends one until it is answered, or gives up.
    fn send<T, F, Fut>(&mut self, request: F) -> impl Future<Output = Result<T>> + Send
    where
        T: Send,
        F: Fn(Client) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, etcd_client::Error>> + Send;
}

/// A client of one certain member, as one whose endpoint list holds only its own node's.
pub(super) struct Pinned(Client);

impl Pinned {
    pub(super) async fn connect(cluster: &EtcdCluster, index: usize) -> Result<Self> {
        Ok(Self(cluster.client(index).await?))
    }
}

impl Sender for Pinned {
    const FAILOVER: bool = false;

    async fn send<T, F, Fut>(&mut self, request: F) -> Result<T>
    where
        T: Send,
        F: Fn(Client) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        Ok(timeout(PATIENCE, request(self.0.clone())).await??)
    }
}

/// A client that tries the next member when one does not answer.
pub(super) struct Failover {
    members: Vec<Client>,
    current: usize,
}

impl Failover {
    pub(super) async fn connect(cluster: &EtcdCluster, first: usize) -> Result<Self> {
        let mut members = Vec::new();
        for index in 0..cluster.len() {
            members.push(cluster.client(index).await?);
        }
        Ok(Self { members, current: first })
    }
}

impl Sender for Failover {
    const FAILOVER: bool = true;

    async fn send<T, F, Fut>(&mut self, request: F) -> Result<T>
    where
        T: Send,
        F: Fn(Client) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        for _ in 0..TRIES {
            if let Ok(Ok(answer)) = timeout(NEXT_AFTER, request(self.members[self.current].clone())).await {
                return Ok(answer);
            }
            self.current = (self.current + 1) % self.members.len();
        }
        bail!("no member answered in {TRIES} tries")
    }
}
