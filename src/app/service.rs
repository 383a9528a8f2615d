//! Answers the HTTP side: metrics, notifications, the API.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::Mutex as AsyncMutex, time::Instant};
use tracing::{error, info, warn};

use super::{
    cluster::{Cluster, Shared, lock},
    reload::Reader,
};
use crate::{
    core::{
        alert::{self, AlertStatus, Notification, Selector},
        history::{AlertKey, RunId, RunView, Trigger},
        reason::Reason,
    },
    ports::{
        etcd::Etcd,
        journal::{Journal, JournalError},
        service::{AlertAnswer, AlertDecision, ClusterSummary, Command, CommandError, Service},
    },
};

/// The configured clusters and what they share.
pub struct App<E, J> {
    clusters: Vec<Arc<Cluster<E, J>>>,
    pub(super) selectors: Mutex<Arc<Vec<Selector>>>,
    reader: Option<Reader>,
    pub(super) shown: Mutex<serde_json::Value>,
    reloads: AsyncMutex<()>,
    shared: Arc<Shared<J>>,
    phase: Mutex<Phase>,
    journal_seen: AsyncMutex<Option<(Instant, Option<String>)>>,
}

/// How far the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Stopping,
}

impl<E: Etcd, J: Journal> App<E, J> {
    /// Of these clusters.
    pub fn new(clusters: Vec<Arc<Cluster<E, J>>>, shared: Arc<Shared<J>>) -> Self {
        let selectors = clusters.iter().map(|cluster| cluster.rules().selector.clone()).collect();
        let selectors = Mutex::new(Arc::new(selectors));
        let phase = Mutex::new(Phase::Starting);
        Self {
            clusters,
            selectors,
            reader: None,
            shown: Mutex::default(),
            reloads: AsyncMutex::default(),
            shared,
            phase,
            journal_seen: AsyncMutex::default(),
        }
    }

    /// The same, with a configuration that can be shown, and perhaps be read again.
    #[must_use]
    pub fn configured(mut self, shown: serde_json::Value, reader: Option<Reader>) -> Self {
        self.reader = reader;
        self.shown = Mutex::new(shown);
        self
    }

    /// From now on it is not ready any more.
    pub fn stopping(&self) {
        *lock(&self.phase) = Phase::Stopping;
    }

    /// Why the journal cannot be written, if it cannot. Each look writes to the disk, so that not every caller may
    /// cause one.
    async fn journal_trouble(&self) -> Option<String> {
        /// More often than Kubernetes asks.
        const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
        let mut seen = self.journal_seen.lock().await;
        match &*seen {
            Some((at, trouble)) if at.elapsed() < LOOK_AGAIN_AFTER => trouble.clone(),
            _ => {
                let trouble = self.shared.journal.writable().await.err().map(|error| error.to_string());
                *seen = Some((Instant::now(), trouble.clone()));
                trouble
            }
        }
    }

    /// The configured clusters.
    pub fn workers(&self) -> &[Arc<Cluster<E, J>>] {
        &self.clusters
    }

    fn cluster(&self, name: &str) -> Option<&Arc<Cluster<E, J>>> {
        self.clusters.iter().find(|cluster| cluster.settings().name == name)
    }

    /// Goes on where an earlier process ended: what alerts asked for is begun or gone on with, a run by hand is
    /// closed. The members are measured again before anything is done to them.
    pub async fn recover(&self) -> Result<(), JournalError> {
        /// More than the members of any fleet have in last attempts; older ones are not shown.
        const RUNS_TO_REMEMBER: usize = 1_000;
        let runs = self.shared.journal.runs(RUNS_TO_REMEMBER).await?;
        for cluster in &self.clusters {
            cluster.remember(&runs);
            cluster.ledger().await?;
        }
        for view in self.shared.journal.open_runs().await? {
            match self.cluster(&view.request.cluster) {
                // A person who typed `defragd run` sees that it ended, and decides anew; one who asked through the
                // API is written down as having agreed, and was told that it is accepted.
                Some(cluster) if view.request.trigger != Trigger::Manual || view.approved.is_some() => {
                    info!(cluster = view.request.cluster, run = view.id.0, "taking up a run of an earlier process");
                    cluster.requeue(view.id, view.request).await?;
                }
                Some(cluster) => cluster.close_interrupted(&view).await?,
                None => {
                    let outcome = crate::core::history::Outcome::Stopped { reason: Reason::UnknownCluster };
                    warn!(
                        cluster = view.request.cluster,
                        run = view.id.0,
                        "closing a run of a cluster that is no longer configured"
                    );
                    self.shared.journal.append(view.id, crate::core::history::Entry::Finished(outcome)).await?;
                }
            }
        }
        *lock(&self.phase) = Phase::Serving;
        Ok(())
    }

    /// One decision a cluster, for all the alerts that concern it and have this status.
    async fn decide(
        &self,
        notification: &Notification,
        selectors: &[Selector],
        status: AlertStatus,
    ) -> Result<BTreeMap<String, AlertDecision>, JournalError> {
        let mut wanted: BTreeMap<&str, Vec<AlertKey>> = BTreeMap::new();
        for alert in notification.alerts.iter().filter(|alert| alert.status == status) {
            if let Ok(cluster) = alert::target(alert, selectors) {
                wanted.entry(cluster).or_default().push(alert.key());
            }
        }
        let mut decisions = BTreeMap::new();
        for (name, keys) in wanted {
            let Some(cluster) = self.cluster(name) else { continue };
            let decision = match status {
                AlertStatus::Firing => cluster.request(keys).await?,
                AlertStatus::Resolved => match cluster.resolve(keys).await? {
                    Some(run) => AlertDecision::Cancelled { cluster: name.to_owned(), run },
                    None => AlertDecision::Ignored { cluster: Some(name.to_owned()), reason: Reason::Resolved },
                },
            };
            decisions.insert(name.to_owned(), decision);
        }
        Ok(decisions)
    }
}

impl<E: Etcd, J: Journal> Service for App<E, J> {
    async fn scrape(&self, budget: Duration) -> String {
        let samples = join_all(self.clusters.iter().map(|cluster| cluster.sample(budget))).await;
        // Formatting into a String fails only if a metric's own code does.
        self.shared.counters.render(samples).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot format the metrics");
            "# EOF\n".to_owned()
        })
    }

    async fn notify(&self, notification: Notification) -> Result<Vec<AlertAnswer>, JournalError> {
        // Firing first: an alert that takes over keeps the request of one that is resolved.
        let selectors = Arc::clone(&lock(&self.selectors));
        let firing = self.decide(&notification, &selectors, AlertStatus::Firing).await?;
        let resolved = self.decide(&notification, &selectors, AlertStatus::Resolved).await?;
        if notification.truncated_alerts > 0 {
            warn!(
                alerts = notification.truncated_alerts,
                "Alertmanager cut alerts off: set max_alerts to 0 for this receiver"
            );
        }
        let answer = |alert: &alert::Alert| {
            let target = alert::target(alert, &selectors);
            let decisions = if alert.status == AlertStatus::Firing { &firing } else { &resolved };
            let decision = match target {
                Err(reason) => AlertDecision::Ignored { cluster: None, reason },
                Ok(cluster) => decisions.get(cluster).cloned().unwrap_or_else(|| AlertDecision::Ignored {
                    cluster: Some(cluster.to_owned()),
                    reason: Reason::UnknownCluster,
                }),
            };
            self.shared.counters.alert(&decision);
            let (decided, code) = decision.labels();
            let name = alert.labels.get("alertname").map_or("", String::as_str);
            info!(alertname = name, fingerprint = alert.fingerprint, decision = decided, code, "alert received");
            AlertAnswer { fingerprint: alert.key().fingerprint, status: alert.status, decision }
        };
        Ok(notification.alerts.iter().map(answer).collect())
    }

    async fn command(&self, cluster: &str, by: String, command: Command) -> Result<Option<RunId>, CommandError> {
        let found = self.cluster(cluster).ok_or_else(|| CommandError::UnknownCluster(cluster.to_owned()))?;
        found.command(by, command).await
    }

    async fn approve(&self, run: RunId, by: String) -> Result<(), CommandError> {
        let view = self.shared.journal.run(run).await?.ok_or(CommandError::UnknownRun(run))?;
        let cluster = self.cluster(&view.request.cluster);
        cluster.ok_or(CommandError::UnknownCluster(view.request.cluster.clone()))?.approve(run, by).await
    }

    fn count_webhook(&self, code: u16) {
        self.shared.counters.webhook(code);
    }

    async fn reload(&self) -> Result<(), String> {
        // One after the other, so that the newest file wins.
        let _one_at_a_time = self.reloads.lock().await;
        let Some(reader) = &self.reader else {
            info!("nothing to read again: there is no --config");
            return Ok(());
        };
        let reader = Arc::clone(reader);
        let read = tokio::task::spawn_blocking(move || reader()).await;
        let reloaded = read.map_err(|error| error.to_string()).flatten().and_then(|settings| self.take_over(settings));
        self.shared.counters.config_read(reloaded.is_ok().then(|| self.shared.clock.now()));
        match &reloaded {
            Ok(()) => info!("configuration read again"),
            Err(problems) => error!(
                problems = problems.replace('\n', "; "),
                "the configuration is not taken over: going on with the one before"
            ),
        }
        reloaded
    }

    fn configuration(&self) -> serde_json::Value {
        lock(&self.shown).clone()
    }

    fn clusters(&self) -> Vec<ClusterSummary> {
        self.clusters.iter().map(|cluster| cluster.summary()).collect()
    }

    async fn runs(&self, limit: usize) -> Result<Vec<RunView>, JournalError> {
        let mut runs = self.shared.journal.runs(limit).await?;
        runs.reverse();
        Ok(runs)
    }

    async fn run(&self, run: RunId) -> Result<Option<RunView>, JournalError> {
        self.shared.journal.run(run).await
    }

    async fn not_ready(&self) -> Option<String> {
        let phase = *lock(&self.phase);
        match phase {
            Phase::Starting => Some("the journal of earlier processes is being taken up".to_owned()),
            Phase::Stopping => Some("defragd is shutting down".to_owned()),
            Phase::Serving => self.journal_trouble().await,
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
