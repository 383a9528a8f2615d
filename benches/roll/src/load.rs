//! Client load as in the field: an open loop, so that a request that waits for a stalled one counts from when it was due,
//! and a stall does not hide the requests that it delayed.

mod client;
mod go;
mod kind;
mod tasks;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use testkit::{EtcdCluster, Tools};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use tasks::{Keeper, Watcher};

pub(crate) use kind::{Clients, Kind};

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// What it was.
    pub(crate) kind: Kind,
    /// When it was due, since the load began.
    pub(crate) due: Duration,
    /// From when it was due to its end.
    pub(crate) took: Duration,
    /// A status code, or `failed`; empty where it succeeded.
    pub(crate) error: String,
}

impl Go {
    /// Whether an API server runs beside the cluster.
    pub(crate) fn has_api_server(self) -> bool {
        self != Self::Etcd
    }
}

impl Spec {
    /// The time to live of each lease of a group of clients, seconds.
    fn leases(&self) -> impl Iterator<Item = i64> {
        self.lease_ttls_seconds.iter().flat_map(|ttl| std::iter::repeat_n(*ttl, self.leases as usize))
    }
}

impl Sample {
    /// Whether it succeeded.
    pub(crate) fn ok(&self) -> bool {
        self.error.is_empty()
    }
}

/// Clients in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Go {
    /// Of an API server on the cluster.
    ApiServer,
    /// The same, where the API server reaches the cluster through `haproxy`.
    ApiServerBehindProxy,
    /// etcd's own, with and without health checks.
    Etcd,
}

/// Requests a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// Puts through each member.
    pub(crate) puts: f64,
    /// Transactions through each member.
    pub(crate) txns: f64,
    /// Ranges through each member.
    pub(crate) ranges: f64,
    /// Puts, and as many ranges, through failover clients.
    pub(crate) failover: f64,
    /// The size of a value, bytes.
    pub(crate) value_bytes: usize,
    /// Leases of each time to live kept through failover clients, and as many through each member.
    pub(crate) leases: u32,
    /// Their times to live, seconds.
    pub(crate) lease_ttls_seconds: &'static [i64],
    /// Whether a watcher sits on each member.
    pub(crate) watches: bool,
    /// Clients in Go, besides.
    pub(crate) go: Option<Go>,
}

/// A lease, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Its time to live, seconds.
    pub(crate) ttl_seconds: i64,
    /// Who kept it.
    pub(crate) clients: Clients,
    /// Whether it expired although they tried to keep it.
    pub(crate) lost: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Every request.
    pub(crate) samples: Vec<Sample>,
    /// Every lease.
    pub(crate) leases: Vec<Lease>,
    /// Elections that an API server's clients lost.
    pub(crate) elections_lost: u32,
    /// Watches of an API server that ended early.
    pub(crate) watch_restarts: u32,
}

/// What the tasks share.
#[derive(Clone)]
struct LoadContext {
    begin: Instant,
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: watch::Receiver<bool>,
}

impl LoadContext {
    fn note(&self, kind: Kind, due: Instant, ok: bool) {
        let error = if ok { String::new() } else { "failed".to_owned() };
        let sample = Sample { kind, due: due.duration_since(self.begin), took: due.elapsed(), error };
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }
}

/// A load under way.
pub(crate) struct Load {
    desk: LoadContext,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    keepers: JoinSet<Lease>,
    go: Option<(go::Groups, jiff::Timestamp)>,
}

/// After the end of the tool, a request that still hangs has this long.
const DRAIN: Duration = Duration::from_secs(60);

impl Load {
    /// Starts it.
    pub(crate) async fn start(cluster: &EtcdCluster, spec: &Spec, tools: &Tools) -> Result<Self> {
        let go = match spec.go {
            Some(go) => Some((Box::pin(go::Groups::start(go, cluster, tools)).await?, jiff::Timestamp::now())),
            None => None,
        };
        let (stop, stopped) = watch::channel(false);
        let desk = LoadContext { begin: Instant::now(), samples: Arc::default(), stop: stopped };
        let (mut tasks, mut keepers) = (JoinSet::new(), JoinSet::new());
        for index in 0..cluster.len() {
            if spec.watches {
                let watcher = Watcher::open(cluster, index, desk.clone()).await?;
                tasks.spawn(watcher.run());
            }
            for (kind, rate) in [(Kind::Put, spec.puts), (Kind::Txn, spec.txns), (Kind::Range, spec.ranges)] {
                if rate > 0.0 {
                    let client = client::Pinned::connect(cluster, index).await?;
                    tasks.spawn(tasks::paced(desk.clone(), kind, rate, client, spec.value_bytes));
                }
            }
            for ttl in spec.leases() {
                let client = client::Pinned::connect(cluster, index).await?;
                keepers.spawn(Keeper::new(client, ttl, desk.clone()).await?.run());
            }
        }
        for kind in [Kind::FailoverPut, Kind::FailoverRange] {
            if spec.failover > 0.0 {
                // Several, for one waits while its member stalls.
                for first in 0..cluster.len() {
                    let client = client::Failover::connect(cluster, first).await?;
                    #[expect(clippy::cast_precision_loss, reason = "a handful of members")]
                    let rate = spec.failover / cluster.len() as f64;
                    tasks.spawn(tasks::paced(desk.clone(), kind, rate, client, spec.value_bytes));
                }
            }
        }
        for (first, ttl) in spec.leases().enumerate() {
            let client = client::Failover::connect(cluster, first % cluster.len()).await?;
            keepers.spawn(Keeper::new(client, ttl, desk.clone()).await?.run());
        }
        Ok(Self { desk, stop, tasks, keepers, go })
    }

    /// The time since it began.
    pub(crate) fn now(&self) -> Duration {
        self.desk.begin.elapsed()
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> Result<Report> {
        self.stop.send_replace(true);
        let mut report = Report::default();
        let drained = async {
            while self.tasks.join_next().await.is_some() {}
            while let Some(keeper) = self.keepers.join_next().await {
                report.leases.extend(keeper);
            }
        };
        if timeout(DRAIN, drained).await.is_err() {
            eprintln!("warning: requests of the load still hang a minute after its end; they are not counted");
        }
        report.samples = std::mem::take(&mut *self.desk.samples.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some((go, began)) = self.go {
            go.stop(began, &mut report).await?;
        }
        Ok(report)
    }
}
