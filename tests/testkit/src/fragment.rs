//! Fills a cluster's databases with space that only a defrag frees.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, CompactionOptions, Txn, TxnOp};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::{EtcdCluster, until};

/// bbolt stores two keys in three pages of 4 KiB at worst; values of nearly four pages waste little, and a
/// transaction of 32 of them (512 KiB) stays well below the 1.5 MiB that a request may have.
const VALUE_BYTES: u64 = 16_000;
const OPS_PER_TXN: u64 = 32;
/// Enough at once to keep two cores busy, few enough not to run into etcd's limit of unapplied requests.
const WRITERS: u64 = 6;
/// One transaction; an overloaded machine may take seconds.
const TXN: Duration = Duration::from_secs(30);
/// One that is sent again until it is taken: the members of a busy machine may hold an election meanwhile.
const TAKEN: Duration = Duration::from_mins(2);
/// Bytes a second that the slowest disk writes.
const SLOWEST: u64 = 5 << 20;
/// Everything that was written is in the file and in the sizes: they are committed every 0.1 s.
const COMMITTED: Duration = Duration::from_secs(10);
/// Compacting is in the background, 1000 revisions at a time: of gigabytes, that takes minutes.
const SETTLE: Duration = Duration::from_secs(60);
const COMPACT: Duration = Duration::from_mins(10);

/// A member's size before or after something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberSize {
    /// The file's size in bytes.
    pub size: u64,
    /// How much of it is in use, in bytes.
    pub in_use: u64,
}

/// What `fragment` did.
#[derive(Debug, Clone)]
pub struct Fragmented {
    /// Each member's size when it was done, in the cluster's order.
    pub members: Vec<MemberSize>,
    /// How many bytes of values were written.
    pub written: u64,
    /// How long it took.
    pub took: Duration,
}

/// Overwrites about `live_bytes` of keys until each member's file has at least `target_bytes`, then compacts
/// and waits until what is in use has fallen to about `live_bytes` on every member.
///
/// The quota must be above the target. Fails if the result is not as requested.
pub async fn fragment(cluster: &EtcdCluster, target_bytes: u64, live_bytes: u64) -> Result<Fragmented> {
    let begin = Instant::now();
    let written = overwrite(cluster, target_bytes, live_bytes).await?;
    let members = compact_and_settle(cluster, target_bytes, live_bytes).await?;
    Ok(Fragmented { members, written, took: begin.elapsed() })
}

/// The first half of [`fragment`]: everything overwritten is still there, as history that is not compacted. Gives
/// how many bytes were written.
pub async fn overwrite(cluster: &EtcdCluster, target_bytes: u64, live_bytes: u64) -> Result<u64> {
    let begin = Instant::now();
    let limit = Duration::from_secs(300 + target_bytes / SLOWEST);
    let keys = (live_bytes / VALUE_BYTES).max(OPS_PER_TXN);
    let batches = keys.div_ceil(OPS_PER_TXN);
    let next = std::sync::Arc::new(AtomicU64::new(0));
    let mut written = 0;
    // What the smallest file will contain after the next commits: a member tells its size as it was at the last one, and
    // too much more could pass a quota.
    let mut least = until("the members' sizes", SETTLE, || in_use(cluster)).await?;
    // The live set once, then rounds of overwriting, sized by what is still missing on the smallest member.
    let mut round = batches;
    loop {
        let end = next.load(Ordering::Relaxed) + round;
        write(cluster, &next, end, batches).await?;
        next.store(end, Ordering::Relaxed);
        written += round * OPS_PER_TXN * VALUE_BYTES;
        least += round * OPS_PER_TXN * VALUE_BYTES;
        least = until("the members' sizes", SETTLE, || smallest(cluster)).await?.max(least);
        if least >= target_bytes {
            let grown = until("the members' files to have grown", COMMITTED, || async {
                let smallest = smallest(cluster).await?;
                ensure!(smallest >= target_bytes, "{smallest} of {target_bytes} bytes");
                Ok(())
            });
            if grown.await.is_ok() {
                return Ok(written);
            }
            // A member had said that more was in use than really was.
            least = smallest(cluster).await?;
        }
        round = target_bytes.saturating_sub(least).div_ceil(OPS_PER_TXN * VALUE_BYTES);
        ensure!(begin.elapsed() < limit, "not fragmented after {} s", limit.as_secs());
    }
}

async fn in_use(cluster: &EtcdCluster) -> Result<u64> {
    Ok(sizes(cluster).await?.iter().map(|member| member.in_use).min().unwrap_or(0))
}

async fn smallest(cluster: &EtcdCluster) -> Result<u64> {
    Ok(cluster.statuses().await?.iter().map(|status| status.size).min().unwrap_or(0))
}

/// Writes the transactions up to number `end`, several at a time, over all the members.
async fn write(cluster: &EtcdCluster, next: &std::sync::Arc<AtomicU64>, end: u64, batches: u64) -> Result<()> {
    let mut writers = JoinSet::new();
    for n in 0..WRITERS {
        let index = usize::try_from(n)? % cluster.len();
        let (client, next) = (cluster.client(index).await?, std::sync::Arc::clone(next));
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return anyhow::Ok(());
                }
                // It overwrites, so that one that was taken although it failed may be sent again.
                let each = client.clone();
                until("a transaction to be taken", TAKEN, move || {
                    let mut client = each.clone();
                    async move { put_batch(&mut client, number, batches).await }
                })
                .await?;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done?.context("failed to write")?;
    }
    Ok(())
}

async fn put_batch(client: &mut Client, number: u64, batches: u64) -> Result<()> {
    let batch = number % batches;
    let value = vec![u8::try_from(number % 251)?; usize::try_from(VALUE_BYTES)?];
    let puts: Vec<TxnOp> = (0..OPS_PER_TXN)
        .map(|n| TxnOp::put(format!("fragment/{:08}", batch * OPS_PER_TXN + n), value.clone(), None))
        .collect();
    timeout(TXN, client.txn(Txn::new().and_then(puts))).await.context("a transaction hangs")??;
    Ok(())
}

/// Overwrites half a megabyte of keys until the quota is used up, then compacts through the leader and waits until every
/// member has done it. Nothing is written after that, so the followers still report what was in use before.
///
/// etcd counts the pages in use when it commits, and those that a commit frees are counted with the next one. So the
/// revisions are fewer than etcd compacts in one batch, a thousand (the quota must be below 14 MiB), and most are
/// written in few commits: each leaves some free pages.
pub async fn exhaust_quota_with_stale_sizes(cluster: &EtcdCluster, quota_bytes: u64) -> Result<Vec<MemberSize>> {
    version_written(cluster).await?;
    let leader = cluster.leader().await?;
    let mut client = cluster.client(leader).await?;
    for number in 0..(quota_bytes - (1 << 20)) / (OPS_PER_TXN * VALUE_BYTES) {
        put_batch(&mut client, number, 1).await?;
    }
    put_until_refused(&mut client, VALUE_BYTES).await?;
    compact(cluster, leader).await?;
    until("all members to have compacted", SETTLE, || async {
        for index in 0..cluster.len() {
            let deleted = cluster.metrics(index).await?.count("etcd_debugging_mvcc_db_compaction_keys_total", &[]);
            ensure!(deleted > Some(0), "member {index}: {deleted:?} keys");
        }
        Ok(())
    })
    .await?;
    sizes(cluster).await
}

/// Waits until a new cluster has written its version, which it does some seconds after its start. From then on only its
/// clients write.
pub async fn version_written(cluster: &EtcdCluster) -> Result<()> {
    until("the members to have written their version", SETTLE, || versions_written(cluster)).await
}

async fn versions_written(cluster: &EtcdCluster) -> Result<()> {
    for index in 0..cluster.len() {
        let status = cluster.client(index).await?.status().await?;
        let line = status.version().rsplit_once('.').context("a version")?.0;
        let agreed = cluster.metrics(index).await?.value("etcd_cluster_version", &[("cluster_version", line)]);
        ensure!(agreed == Some(1.0), "member {index} has not agreed on {line}");
        // 3.4 and 3.5 have none.
        let stored = status.storage_version();
        ensure!(matches!(line, "3.4" | "3.5") || stored.starts_with(line), "member {index} has stored {stored:?}");
    }
    Ok(())
}

/// Overwrites about `live_bytes` of keys until a member's file has passed its quota and the cluster takes no more
/// writes, then compacts and waits until what is in use has fallen on every member.
pub async fn exhaust_quota(cluster: &EtcdCluster, live_bytes: u64) -> Result<Vec<MemberSize>> {
    let batches = (live_bytes / VALUE_BYTES).max(OPS_PER_TXN).div_ceil(OPS_PER_TXN);
    let mut client = cluster.client(0).await?;
    let refused = async {
        for number in 0.. {
            if let Err(error) = put_batch(&mut client, number, batches).await {
                return error;
            }
        }
        anyhow::anyhow!("no more numbers")
    };
    let refused = timeout(Duration::from_secs(120), Box::pin(refused)).await.context("the quota was never passed")?;
    ensure!(format!("{refused:#}").contains("database space exceeded"), "{refused:#}");
    // etcd refuses a request that would not fit: the file may still be smaller by the size of that.
    for bytes in [VALUE_BYTES, 1_000, 100] {
        disarm_no_space(&mut client).await?;
        put_until_refused(&mut client, bytes).await?;
    }
    Box::pin(compact_and_settle(cluster, 0, live_bytes)).await
}

async fn disarm_no_space(client: &mut Client) -> Result<()> {
    let armed = timeout(TXN, client.alarm(AlarmAction::Get, AlarmType::None, None)).await??;
    for alarm in armed.alarms() {
        let mut member = AlarmOptions::new();
        member.with_member(alarm.member_id());
        timeout(TXN, client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(member))).await??;
    }
    Ok(())
}

/// Overwrites one key with so many bytes again and again.
async fn put_until_refused(client: &mut Client, bytes: u64) -> Result<()> {
    for _ in 0..10_000 {
        let value = vec![b'x'; usize::try_from(bytes)?];
        if let Err(error) = timeout(TXN, client.put("fragment/last", value, None)).await? {
            ensure!(error.to_string().contains("database space exceeded"), "{error}");
            return Ok(());
        }
    }
    anyhow::bail!("the quota was never passed")
}

async fn compact(cluster: &EtcdCluster, member: usize) -> Result<()> {
    let mut client = cluster.client(member).await?;
    let revision = client.get("fragment/", None).await?.header().context("a header")?.revision();
    let compacted = client.compact(revision, Some(CompactionOptions::new().with_physical()));
    timeout(COMPACT, compacted).await.context("the compaction hangs")??;
    Ok(())
}

/// What each member says of its file now.
pub async fn sizes(cluster: &EtcdCluster) -> Result<Vec<MemberSize>> {
    Ok(cluster.statuses().await?.iter().map(|s| MemberSize { size: s.size, in_use: s.in_use }).collect())
}

async fn compact_and_settle(cluster: &EtcdCluster, target_bytes: u64, live_bytes: u64) -> Result<Vec<MemberSize>> {
    compact(cluster, 0).await?;
    // Page overhead, etcd's own buckets and the keys of others come on top of the values.
    let most = live_bytes.max(OPS_PER_TXN * VALUE_BYTES) * 3 / 2 + 8 * 1024 * 1024;
    let mut last: Vec<MemberSize> = Vec::new();
    let next = AtomicU64::new(0);
    loop {
        let now = until("in-use below the limit on every member", SETTLE, || async {
            // An idle etcd does not count its freed pages: that happens at the next commits.
            settle(&mut cluster.client(0).await?, &next).await?;
            let now = sizes(cluster).await?;
            ensure!(now.iter().all(|m| m.in_use <= most), "in use {now:?}, wanted at most {most}");
            Ok(now)
        })
        .await?;
        // The settling put itself moves a page now and then.
        let still = |(a, b): (&MemberSize, &MemberSize)| a.in_use.abs_diff(b.in_use) < 256 * 1024;
        if !last.is_empty() && now.iter().zip(&last).all(still) {
            last = now;
            break;
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    ensure!(last.iter().all(|m| m.size >= target_bytes), "files shrank below {target_bytes}: {last:?}");
    Ok(last)
}

/// Makes every member commit: with a put, or with the delete of a key where the quota is used up.
async fn settle(client: &mut Client, next: &AtomicU64) -> Result<()> {
    let Err(error) = timeout(TXN, client.put("fragment-settle", "", None)).await? else { return Ok(()) };
    ensure!(error.to_string().contains("database space exceeded"), "{error}");
    let key = format!("fragment/{:08}", next.fetch_add(1, Ordering::Relaxed));
    timeout(TXN, client.delete(key, None)).await??;
    Ok(())
}
