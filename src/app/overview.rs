//! The fleet for the status page: the last observation of each cluster, and new observations within limits.
//!
//! The observations of scrapes are used, too. A page view observes only the clusters that it shows, and only if the
//! last observation is older than [`FRESH_FOR`]; the rest of the fleet, which determines the order on the page, once a
//! minute while the page is viewed. Each cluster has at most one observation in progress, and the fleet a limited number
//! (`observations`).
use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{cluster::Cluster, service::App};
use crate::{
    core::{
        history::{Record, RunId, RunView},
        reason::Code,
        shard::Elsewhere,
        story,
    },
    ports::{
        etcd::Etcd,
        journal::{Journal, JournalError},
        overview::{ClusterView, Live, Overview, ProgressLine},
    },
};

/// A younger observation is shown as it is.
const FRESH_FOR: Duration = Duration::from_secs(4);
/// The same for clusters that are not on the page.
const SWEEP_AFTER: Duration = Duration::from_mins(1);
/// How old an observation becomes while nothing scrapes and the page is not viewed: the charts need points.
const CHART_EVERY: Duration = Duration::from_mins(10);
/// Members that hang must not delay the observation of others for long; and the log names an unreachable cluster
/// within 5 s of the start, or 2 s later with a scrape in progress, and 4 s later for each 32 more of them.
const OBSERVE_BUDGET: Duration = Duration::from_secs(4);
/// An open page reloads itself every 10 s, and at each change.
const JOURNAL_RECHECK_AFTER: Duration = Duration::from_secs(10);

/// How long a page waits for its observations: members nearby answer within milliseconds.
const PATIENCE: Duration = Duration::from_millis(800);

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// Observes the cluster, if the last observation is older than this and none is in progress.
    async fn refresh(self: Arc<Self>, limit: Duration) {
        if !self.observations.is_older_than(limit) {
            return;
        }
        let mut changes = self.shared.changes.watch();
        let Some(_claim) = self.observations.claim() else {
            // Before the first one, there is nothing to show.
            let first = async { while self.observations.seen().is_none() && changes.changed().await.is_ok() {} };
            let _ = timeout(OBSERVE_BUDGET * 2, first).await;
            return;
        };
        self.shared.fleet_observer.scrapes_first().await;
        let Ok(_place) = self.shared.fleet_observer.places.acquire().await else { return };
        // A scrape may have been faster, as at the start of a large fleet.
        if !self.observations.is_older_than(limit) {
            return;
        }
        let _ = self.observe_for_scrape(OBSERVE_BUDGET).await;
        self.shared.changes.announce();
    }

    /// Observes once, so that a wrong endpoint or credential is logged before the first scrape. Never ends.
    pub(super) async fn observe_at_start(self: &Arc<Self>) -> Infallible {
        Arc::clone(self).refresh(FRESH_FOR).await;
        std::future::pending().await
    }

    fn view(&self) -> ClusterView {
        let summary = self.summary();
        let state = self.requests.state.lock();
        let speeds = (!state.unread).then(|| state.speeds.clone());
        let last = state.ledger.runs.iter().rev().find_map(|run| run.outcome.clone());
        drop(state);
        let sizes = Arc::clone(&self.observations.sizes.lock());
        let (observation, live) = (self.observations.seen(), self.current_run.get());
        let rules = self.rules();
        let (pause_between_members, recovery_timeout) =
            (rules.policy.pause_between_members, rules.policy.recovery_timeout);
        ClusterView { summary, observation, live, last, speeds, pause_between_members, recovery_timeout, sizes }
    }
}

impl<E: Etcd, J: Journal> App<E, J> {
    /// Observes each cluster every few minutes, if nothing else does, so that the page's charts have no gaps. Never
    /// ends.
    pub async fn keep_charts(&self) {
        loop {
            sleep(CHART_EVERY).await;
            for cluster in self.fleet().all() {
                // One after another: there is no hurry.
                cluster.refresh(CHART_EVERY / 2).await;
            }
        }
    }

    /// Observes the part of the fleet that is not on the page, in the background.
    fn sweep(&self) {
        let mut swept = self.shared.fleet_observer.swept.lock();
        if swept.is_some_and(|at| at.elapsed() < SWEEP_AFTER) {
            return;
        }
        *swept = Some(Instant::now());
        for cluster in self.fleet().all() {
            // Each is limited in time, and all together by the permits.
            drop(tokio::spawn(cluster.refresh(SWEEP_AFTER)));
        }
    }
}

impl<E: Etcd, J: Journal> Overview for App<E, J> {
    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    async fn journal_problem(&self) -> Option<String> {
        let trouble = self.shared.journal_trouble(JOURNAL_RECHECK_AFTER).await?;
        let (trouble, advice) = (story::capital(&trouble.to_string()), Code::JournalFailed.advice());
        Some(format!("{trouble}. No run starts, and no action is accepted. What to do: {advice}"))
    }

    fn reload_rejected_at(&self) -> Option<Timestamp> {
        *self.reload_rejected_at.lock()
    }

    async fn refresh(&self, clusters: &[String]) {
        let all = self.fleet().all();
        let shown = all.iter().filter(|cluster| clusters.iter().any(|name| name == cluster.name()));
        let stale = shown.filter(|cluster| cluster.observations.is_older_than(FRESH_FOR));
        // In separate tasks: if a client disconnects, the observation is still used.
        let refreshes: Vec<_> = stale.map(|cluster| tokio::spawn(Arc::clone(cluster).refresh(FRESH_FOR))).collect();
        self.sweep();
        // What has not arrived by then is shown as it was, with its age.
        let _ = timeout(PATIENCE, join_all(refreshes)).await;
    }

    fn views(&self) -> Vec<ClusterView> {
        self.fleet().all().iter().map(|cluster| cluster.view()).collect()
    }

    fn live(&self) -> Vec<Live> {
        self.fleet().all().iter().filter_map(|cluster| cluster.current_run.get()).collect()
    }

    fn view(&self, cluster: &str) -> Option<ClusterView> {
        self.fleet().all().iter().find(|found| found.name() == cluster).map(|cluster| cluster.view())
    }

    fn elsewhere(&self, cluster: &str) -> Option<Elsewhere> {
        self.where_else(cluster)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.watch()
    }

    async fn runs_of(&self, cluster: &str, limit: usize) -> Result<Vec<RunView>, JournalError> {
        let mut runs = self.shared.journal.runs_of(cluster, limit).await?;
        runs.reverse();
        Ok(runs)
    }

    fn progress(&self, run: RunId) -> Vec<ProgressLine> {
        self.fleet()
            .all()
            .iter()
            .map(|cluster| cluster.run_lines.of(run))
            .find(|lines| !lines.is_empty())
            .unwrap_or_default()
    }

    async fn records(&self, run: RunId) -> Result<Vec<Record>, JournalError> {
        self.shared.journal.records(run).await
    }
}

#[cfg(test)]
#[path = "overview_tests.rs"]
mod tests;
