//! A client's load that runs during the whole test and must not be interrupted for long.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::{Client, GetOptions};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::{EtcdCluster, until};

const PREFIX: &str = "writer/";
/// A member that is being defragmented answers nothing: go to the next one soon.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Between two writes: about a hundred a second, a load that leaves two cores to the servers.
const PAUSE: Duration = Duration::from_millis(8);
/// What takes longer than this, also on a busy machine, hangs.
const HANGS: Duration = Duration::from_mins(1);
/// How many keys one page of the read-back has.
const PAGE: i64 = 5_000;

/// What the writer saw. Keys that were acknowledged must read back, whatever happened meanwhile.
#[derive(Debug, Clone, Default)]
pub struct WriterReport {
    /// How many keys were acknowledged.
    pub acked: u64,
    /// How many attempts failed and were made again on another member.
    pub retried: u64,
    /// The longest time from a key's first attempt to its acknowledgement.
    pub slowest: Duration,
    /// The longest time without any acknowledgement.
    pub longest_gap: Duration,
}

/// A background load of unique keys through a client that fails over. Dropping it ends it.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    run: String,
    stop: AtomicBool,
    report: Mutex<WriterReport>,
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, WriterReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts to write under `writer/`, about a hundred keys a second; each writer has keys of its own.
    pub async fn start(cluster: &EtcdCluster) -> Result<Self> {
        let mut clients = Vec::new();
        for index in 0..cluster.len() {
            clients.push(cluster.client(index).await?);
        }
        let run = format!("{:?}", Instant::now()).chars().filter(char::is_ascii_digit).collect();
        let shared = Arc::new(Shared { run, stop: AtomicBool::new(false), report: Mutex::default() });
        let task = tokio::spawn(load(Arc::clone(&shared), clients));
        Ok(Self { shared, task })
    }

    /// What has been seen so far.
    pub fn report(&self) -> WriterReport {
        self.shared.report().clone()
    }

    /// Ends the load after the write under way and gives what was seen. `verify` still works afterwards.
    pub async fn stop(&mut self) -> Result<WriterReport> {
        self.shared.stop.store(true, Ordering::Relaxed);
        timeout(HANGS, &mut self.task).await.context("the writer's last write never ended")??;
        Ok(self.report())
    }

    /// Reads back every key that was acknowledged before this call, with a linearizable read, and compares it.
    /// Gives how many there were.
    pub async fn verify(&self, cluster: &EtcdCluster) -> Result<u64> {
        let acked = self.report().acked;
        // Again, if an election ends a read; what was read is judged once.
        let found = until("the keys to be read back", HANGS, || self.read_back(cluster)).await?;
        for number in 0..acked {
            let key = key(&self.shared.run, number);
            match found.get(&key) {
                Some(value) if *value == value_of(&key) => {}
                Some(value) => bail!("{key} was acknowledged and reads back as {value:?}"),
                None => bail!("{key} was acknowledged and is gone"),
            }
        }
        Ok(acked)
    }

    /// All its keys, with their values.
    async fn read_back(&self, cluster: &EtcdCluster) -> Result<BTreeMap<String, String>> {
        // A member that is known to answer: another may be stopped by the test.
        let mut client = cluster.client(cluster.leader().await?).await?;
        let mut found = BTreeMap::new();
        let end = format!("{}~", key_prefix(&self.shared.run));
        let mut from = key_prefix(&self.shared.run);
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            let page = timeout(HANGS, client.get(from, Some(options))).await.context("reading back hangs")??;
            for pair in page.kvs() {
                found.insert(pair.key_str()?.to_owned(), pair.value_str()?.to_owned());
            }
            match page.kvs().last() {
                Some(last) if page.more() => from = format!("{}\0", last.key_str()?),
                _ => return Ok(found),
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn key_prefix(run: &str) -> String {
    format!("{PREFIX}{run}/")
}

fn key(run: &str, number: u64) -> String {
    format!("{}{number:010}", key_prefix(run))
}

fn value_of(key: &str) -> String {
    format!("value of {key}")
}

async fn load(shared: Arc<Shared>, mut clients: Vec<Client>) {
    let mut at = 0;
    let mut last_success = Instant::now();
    for number in 0.. {
        let key = key(&shared.run, number);
        let begin = Instant::now();
        loop {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            let count = clients.len();
            let put = clients[at % count].put(key.clone(), value_of(&key), None);
            // A put that timed out may have been applied: writing the same again is harmless.
            if matches!(timeout(ATTEMPT, put).await, Ok(Ok(_))) {
                break;
            }
            shared.report().retried += 1;
            at += 1;
            sleep(Duration::from_millis(20)).await;
        }
        let now = Instant::now();
        {
            let mut report = shared.report();
            report.acked = number + 1;
            report.slowest = report.slowest.max(now - begin);
            report.longest_gap = report.longest_gap.max(now - last_success);
        }
        last_success = now;
        at += 1; // The next key goes to the next member, as a balanced client's would.
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_they_were_written_and_end_before_the_range_does() {
        assert!(key("1", 9) < key("1", 10));
        assert!(key("1", u64::from(u32::MAX)) < format!("{}~", key_prefix("1")));
        assert!(!key("12", 0).starts_with(&key_prefix("1")));
    }
}
