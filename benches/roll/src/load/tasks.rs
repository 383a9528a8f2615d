//! What the clients do.

use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Client, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, WatchOptions};
use testkit::EtcdCluster;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Kind, Lease, LoadContext, client::Sender};

/// Each client overwrites so many keys of its own.
const KEYS: u64 = 200;
/// Kubernetes' lists come in pages.
const PAGE: i64 = 100;

/// Sends one kind of request at a steady rate.
pub(super) async fn paced<S: Sender>(desk: LoadContext, kind: Kind, rate: f64, mut sender: S, value_bytes: usize) {
    let interval = Duration::from_secs_f64(1.0 / rate);
    // Not all in the same instant.
    let spread = desk.begin.elapsed().subsec_nanos() % 997;
    let mut due = Instant::now() + interval * spread / 997;
    let mut number = 0u64;
    while !desk.stopped() {
        sleep_until(due).await;
        number += 1;
        let key = format!("load/{}/{spread}/{:04}", kind.label(), number % KEYS);
        let ok = sender.send(|client| request(client, kind, key.clone(), stamp(&desk, value_bytes))).await.is_ok();
        desk.note(kind, due, ok);
        due += interval;
    }
}

/// A value that says when it was sent.
fn stamp(desk: &LoadContext, bytes: usize) -> Vec<u8> {
    let mut value = desk.begin.elapsed().as_micros().to_string().into_bytes();
    value.push(b' ');
    value.resize(bytes.max(value.len()), b'x');
    value
}

async fn request(mut client: Client, kind: Kind, key: String, value: Vec<u8>) -> Result<(), etcd_client::Error> {
    match kind {
        Kind::Txn => {
            // As Kubernetes updates an object: only if it is still the one that was read.
            let seen = client.get(key.clone(), None).await?;
            let revision = seen.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision);
            let unchanged = Compare::mod_revision(key.clone(), CompareOp::Equal, revision);
            client.txn(Txn::new().when([unchanged]).and_then([TxnOp::put(key, value, None)])).await.map(drop)
        }
        Kind::Range | Kind::FailoverRange => {
            client.get("load/", Some(GetOptions::new().with_prefix().with_limit(PAGE))).await.map(drop)
        }
        _ => client.put(key, value, None).await.map(drop),
    }
}

/// Sits on a member and sees when puts arrive.
pub(super) struct Watcher {
    stream: etcd_client::WatchStream,
    desk: LoadContext,
}

impl Watcher {
    pub(super) async fn open(cluster: &EtcdCluster, index: usize, desk: LoadContext) -> Result<Self> {
        let mut client = cluster.client(index).await?;
        let prefix = format!("load/{}/", Kind::Put.label());
        let stream = client.watch(prefix, Some(WatchOptions::new().with_prefix())).await?;
        Ok(Self { stream, desk })
    }

    pub(super) async fn run(mut self) {
        while !self.desk.stopped() {
            let message = tokio::select! {
                message = self.stream.message() => message,
                () = sleep(Duration::from_millis(200)) => continue,
            };
            let Ok(Some(message)) = message else { return };
            for event in message.events() {
                let sent =
                    event.kv().and_then(|kv| std::str::from_utf8(kv.value()).ok()?.split(' ').next()?.parse().ok());
                if let Some(sent) = sent {
                    self.desk.note(Kind::Watch, self.desk.begin + Duration::from_micros(sent), true);
                }
            }
        }
    }
}

/// Keeps a lease with a key alive.
pub(super) struct Keep<S> {
    sender: S,
    ttl_seconds: i64,
    lease: i64,
    key: String,
    interval: Duration,
    desk: LoadContext,
}

/// Makes leases and their keys.
pub(super) struct Keeper;

impl Keeper {
    #[expect(clippy::new_ret_no_self, reason = "the clients differ in type")]
    pub(super) async fn new<S: Sender>(mut sender: S, ttl_seconds: i64, desk: LoadContext) -> Result<Keep<S>> {
        let lease = sender.send(|mut client| async move { client.lease_grant(ttl_seconds, None).await }).await?.id();
        let key = format!("lease/{lease}");
        let bound = |mut client: Client| {
            let key = key.clone();
            async move { client.put(key, "", Some(PutOptions::new().with_lease(lease))).await }
        };
        sender.send(bound).await.context("failed to put a lease's key")?;
        // As Go's client does.
        let interval = Duration::from_secs(u64::try_from(ttl_seconds)?) / 3;
        Ok(Keep { sender, ttl_seconds, lease, key, interval, desk })
    }
}

impl<S: Sender> Keep<S> {
    pub(super) async fn run(mut self) -> Lease {
        let kind = if S::FAILOVER { Kind::FailoverKeepalive } else { Kind::Keepalive };
        let mut due = Instant::now() + self.interval;
        let mut lost = false;
        while !self.desk.stopped() && !lost {
            sleep_until(due).await;
            let lease = self.lease;
            let kept = self.sender.send(|client| keep_alive(client, lease)).await;
            lost = matches!(kept, Ok(0));
            self.desk.note(kind, due, matches!(kept, Ok(1..)));
            due += self.interval;
        }
        let key = self.key.clone();
        let there = |mut client: Client| {
            let key = key.clone();
            async move { client.get(key, None).await }
        };
        lost |= self.sender.send(there).await.is_ok_and(|answer| answer.kvs().is_empty());
        let lease = self.lease;
        // Whatever comes of it: the trial is over.
        drop(self.sender.send(|mut client| async move { client.lease_revoke(lease).await }).await);
        Lease { ttl_seconds: self.ttl_seconds, clients: kind.clients(), lost }
    }
}

/// The time that the lease has now; 0 says that it is gone.
async fn keep_alive(mut client: Client, lease: i64) -> Result<i64, etcd_client::Error> {
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    Ok(answers.message().await?.map_or(0, |answer| answer.ttl()))
}
