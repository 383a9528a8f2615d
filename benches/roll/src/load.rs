//! Client load as in the field: an open loop, so that a request that waits for a stalled one counts from when it was due,
//! and a stall does not hide the requests that it delayed.

mod client;
mod tasks;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;
use testkit::EtcdCluster;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use tasks::{Keeper, Watcher};

/// What a request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A put through one certain member.
    Put,
    /// A transaction that compares and puts, through one certain member.
    Txn,
    /// A linearizable range of up to 100 keys, through one certain member.
    Range,
    /// A put's way to a watcher on each member.
    Watch,
    /// A keepalive through one certain member.
    Keepalive,
    /// A put through a client that tries the next member after a second.
    FailoverPut,
    /// A range through such a client.
    FailoverRange,
    /// A keepalive through such a client.
    FailoverKeepalive,
}

impl Kind {
    /// For tables.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Txn => "txn",
            Self::Range => "range",
            Self::Watch => "watch",
            Self::Keepalive => "keepalive",
            Self::FailoverPut => "put, failover",
            Self::FailoverRange => "range, failover",
            Self::FailoverKeepalive => "keepalive, failover",
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// What it was.
    pub(crate) kind: Kind,
    /// When it was due, since the load began.
    pub(crate) due: Duration,
    /// From when it was due to its end.
    pub(crate) took: Duration,
    /// Whether it succeeded.
    pub(crate) ok: bool,
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
    /// Leases kept through failover clients, and as many through each member.
    pub(crate) leases: u32,
    /// Their time to live, seconds.
    pub(crate) lease_ttl_seconds: i64,
    /// Whether a watcher sits on each member.
    pub(crate) watches: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Every request.
    pub(crate) samples: Vec<Sample>,
    /// Leases that expired although a failover client tried to keep them.
    pub(crate) failover_leases_lost: u32,
    /// The same, through certain members.
    pub(crate) pinned_leases_lost: u32,
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
        let sample = Sample { kind, due: due.duration_since(self.begin), took: due.elapsed(), ok };
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
    keepers: JoinSet<Keeper>,
}

/// After the end of the tool, a request that still hangs has this long.
const DRAIN: Duration = Duration::from_secs(60);

impl Load {
    /// Starts it.
    pub(crate) async fn start(cluster: &EtcdCluster, spec: &Spec) -> Result<Self> {
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
            for _ in 0..spec.leases {
                let client = client::Pinned::connect(cluster, index).await?;
                keepers.spawn(Keeper::new(client, spec.lease_ttl_seconds, desk.clone()).await?.run());
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
        for first in 0..spec.leases {
            let client = client::Failover::connect(cluster, usize::try_from(first)? % cluster.len()).await?;
            keepers.spawn(Keeper::new(client, spec.lease_ttl_seconds, desk.clone()).await?.run());
        }
        Ok(Self { desk, stop, tasks, keepers })
    }

    /// The time since it began.
    pub(crate) fn now(&self) -> Duration {
        self.desk.begin.elapsed()
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> Report {
        self.stop.send_replace(true);
        let mut report = Report::default();
        let drained = async {
            while self.tasks.join_next().await.is_some() {}
            while let Some(keeper) = self.keepers.join_next().await {
                if let Ok(keeper) = keeper {
                    report.failover_leases_lost += u32::from(keeper.failover && keeper.lost);
                    report.pinned_leases_lost += u32::from(!keeper.failover && keeper.lost);
                }
            }
        };
        if timeout(DRAIN, drained).await.is_err() {
            eprintln!("warning: requests of the load still hang a minute after its end; they are not counted");
        }
        report.samples = std::mem::take(&mut *self.desk.samples.lock().unwrap_or_else(PoisonError::into_inner));
        report
    }
}
