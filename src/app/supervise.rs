//! The tasks of `defragd serve`: its own upkeep, and the loop that watches all tasks until a signal, or until one ends
//! unexpectedly.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::UnboundedReceiver,
    task::{JoinError, JoinSet},
    time::{interval, sleep},
};
use tracing::{error, info, warn};

use super::{driver::Stop, fleet::ClusterTask, service::App, signals::Signals};
use crate::{
    adapters::{
        etcd::EtcdCluster,
        journal::{Retention, SqliteJournal},
        systemd::Manager,
    },
    ports::service::Service,
};

/// How old the credentials in use may be when their files change. A check reads some small files for each cluster.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(10);
/// How often old runs are deleted from the journal.
const PRUNE_INTERVAL: Duration = Duration::from_hours(1);

/// The tasks that run until they are stopped.
pub(super) struct Tasks {
    pub(super) servers: JoinSet<()>,
    /// Each returns its name.
    pub(super) workers: JoinSet<String>,
    pub(super) to_run: UnboundedReceiver<ClusterTask<EtcdCluster, SqliteJournal>>,
    pub(super) serves: bool,
}

/// Until a signal to end, or until a task ends unexpectedly: `Some`.
pub(super) async fn observe_until_stopped(
    app: &Arc<App<EtcdCluster, SqliteJournal>>,
    manager: &Manager,
    addresses: &str,
    signals: &mut Signals,
    tasks: &mut Tasks,
) -> Option<Result<String, JoinError>> {
    let status = || app.status_line(addresses);
    manager.ready(&status());
    let mut ticks = manager.interval().map(interval);
    let mut reloads = JoinSet::new();
    loop {
        // Part of this loop, so that the watchdog of systemd notices when this loop hangs.
        let tick = async {
            match &mut ticks {
                Some(ticks) => drop(ticks.tick().await),
                None => pending().await,
            }
        };
        tokio::select! {
            () = tick => manager.alive(&status()),
            _ = signals.terminate.recv() => return None,
            _ = signals.interrupt.recv() => return None,
            // In a task: it may wait for the end of a removed cluster, which is noticed here.
            _ = signals.hangup.recv() => {
                manager.reloading();
                let app = Arc::clone(app);
                // Logged and counted in the call.
                reloads.spawn(async move { drop(app.reload().await) });
            }
            Some(reloaded) = reloads.join_next() => match reloaded {
                Ok(()) if reloads.is_empty() => manager.ready(&status()),
                Ok(()) => {}
                Err(error) => return Some(Err(error)),
            },
            // No task ends by itself before a stop: one that does has panicked, and the rest is incomplete.
            Some(ended) = tasks.servers.join_next() => return Some(ended.map(|()| "a listener".to_owned())),
            Some(ended) = tasks.workers.join_next() => match ended {
                // Except for those of a cluster that is no longer configured.
                Ok(cluster) if app.ended(&cluster) => {}
                ended => return Some(ended),
            },
            Some(unit) = tasks.to_run.recv() => drop(tasks.workers.spawn(Box::pin(unit.live(tasks.serves)))),
        }
    }
}

/// Checks all clusters' certificates, keys and passwords for changes, until a stop.
pub(super) async fn keep_credentials(app: Arc<App<EtcdCluster, SqliteJournal>>, mut stop: Stop) -> String {
    loop {
        tokio::select! {
            () = sleep(RENEWAL_INTERVAL) => {}
            // A closed channel says that the process is ending, too.
            ended = async { stop.wait_for(Option::is_some).await.is_ok() } => {
                return format!("the check of the credentials: {ended}");
            }
        }
        app.renew().await;
    }
}

/// Checks the journal's integrity once, and deletes old runs periodically, until a stop.
pub(super) async fn tend(journal: SqliteJournal, retention: Retention, mut stop: Stop) -> String {
    let work = async {
        if let Err(error) = journal.verify().await {
            error!(%error, "the journal is damaged: no run starts");
        }
        loop {
            match journal.prune(retention).await {
                Ok(0) => {}
                Ok(runs) => info!(runs, "deleted old runs from the journal"),
                Err(error) => warn!(%error, "cannot delete old runs from the journal; retrying in an hour"),
            }
            sleep(PRUNE_INTERVAL).await;
        }
    };
    tokio::select! {
        () = work => {}
        // A closed channel says that the process is ending, too.
        _ = stop.wait_for(Option::is_some) => {}
    }
    "the maintenance of the journal".to_owned()
}
