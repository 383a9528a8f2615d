//! Watches a cluster's defrags through the members' own metrics, independent of who asked for them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::timeline::Look;
use crate::{EtcdCluster, Exposition, Timeline, http};

/// How many defrags a member has finished since it started.
pub(crate) const DONE: &str = "etcd_disk_backend_defrag_duration_seconds_count";
/// How long they took together.
const SECONDS: &str = "etcd_disk_backend_defrag_duration_seconds_sum";
/// Whether it is defragmenting now.
pub(crate) const INFLIGHT: &str = "etcd_disk_defrag_inflight";

/// Often enough to order the defrags of small databases (a tenth of a second), light enough for two cores.
const PAUSE: Duration = Duration::from_millis(30);
/// A look that takes longer says nothing about when; the next one will.
const LOOK: Duration = Duration::from_secs(2);

type Looks = Arc<Mutex<Vec<Vec<Look>>>>;

/// A watch in progress. Dropping it ends it.
#[derive(Debug)]
pub struct DefragWatch {
    looks: Looks,
    tasks: JoinSet<()>,
}

impl DefragWatch {
    /// Starts to look at every member; it holds nothing of the cluster, which may be stopped meanwhile.
    pub fn start(cluster: &EtcdCluster) -> Result<Self> {
        let client = http::client(cluster.pki())?;
        let looks: Looks = Arc::new(Mutex::new(vec![Vec::new(); cluster.len()]));
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for (index, endpoint) in cluster.endpoints().into_iter().enumerate() {
            let (looks, client, url) = (Arc::clone(&looks), client.clone(), format!("{endpoint}/metrics"));
            tasks.spawn(async move {
                loop {
                    let asked = begin.elapsed();
                    if let Ok(Some(look)) = timeout(LOOK, look(&client, &url, asked, begin)).await {
                        looks.lock().unwrap_or_else(PoisonError::into_inner)[index].push(look);
                    }
                    sleep(PAUSE).await;
                }
            });
        }
        Ok(Self { looks, tasks })
    }

    /// What has been seen so far.
    pub fn timeline(&self) -> Timeline {
        Timeline::build(&self.looks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks a last time and ends the watch.
    pub async fn stop(mut self) -> Timeline {
        sleep(PAUSE * 4).await;
        self.tasks.shutdown().await;
        self.timeline()
    }
}

/// A member that does not answer gives no look: it may be stopped, and that is for others to notice.
async fn look(client: &reqwest::Client, url: &str, asked: Duration, begin: Instant) -> Option<Look> {
    let page = Exposition::new(http::get(client, url).await.ok()?);
    Some(Look {
        asked,
        answered: begin.elapsed(),
        inflight: page.value(INFLIGHT, &[])? > 0.0,
        done: page.count(DONE, &[])?,
        seconds: page.value(SECONDS, &[])?,
    })
}
