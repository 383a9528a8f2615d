//! Answers the HTTP side: metrics, notifications, the API.

use std::{
    fmt::{self, Write},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{sync::Mutex as AsyncMutex, time::Instant};
use tracing::{debug, error, info, warn};

use super::{
    cluster::{Cluster, Shared},
    fleet::Fleet,
    probe::Probes,
    reload::{Connect, Equip, Reader},
    shards::Shards,
};
use crate::{
    config::{LockSettings, effective::effective},
    core::{
        alert::Notification,
        history::{Entry, Outcome, RunId, RunView, Trigger},
        plan_view::PlanView,
        reason::Reason,
        shard::Shard,
        story,
    },
    ports::{
        etcd::Etcd,
        journal::{Journal, JournalError},
        notifier::NotifySettings,
        service::{
            AlertAnswer, ClusterSummary, Command, CommandError, CommandOutcome, ConfigSection, NotifyError,
            ProbeRefusal, ProbeRequest, ReloadError, ScrapePage, Service,
        },
    },
    turn_limiter::TurnLimiter,
};

/// After so many runs, the rest of the journal is read while requests are served: a large one takes seconds.
pub(super) const RUNS_READ_FIRST: usize = 2_000;
/// How many clusters a scrape observes at the same time: more would not use two processors better, and the calls to a
/// thousand clusters at once would take most of the process's memory permanently.
const CLUSTERS_AT_ONCE: usize = 64;
/// A cluster that takes longer no longer delays the observation of others.
const TURN: Duration = Duration::from_millis(100);

/// The configured clusters and what they share.
pub struct App<E, J> {
    fleet: Fleet<E, J>,
    pub(super) probes: Arc<Probes<E>>,
    reader: Option<Reader>,
    pub(super) connect: Option<Connect<E>>,
    pub(super) lock: Option<LockSettings>,
    pub(super) equip: Option<Equip<E, J>>,
    pub(super) shards: Option<Shards>,
    pub(super) redacted: Mutex<serde_json::Value>,
    /// The targets, whose URLs are not in `redacted`.
    pub(super) notify: Vec<NotifySettings>,
    reloads: AsyncMutex<()>,
    /// When the last reload was rejected; `None` if it was applied, or there was none.
    pub(super) reload_rejected_at: Mutex<Option<Timestamp>>,
    pub(super) shared: Arc<Shared<J>>,
    phase: Mutex<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Stopping,
}

impl<E: Etcd, J: Journal> App<E, J> {
    pub fn new(clusters: Vec<Arc<Cluster<E, J>>>, shared: Arc<Shared<J>>) -> Self {
        let phase = Mutex::new(Phase::Starting);
        Self {
            fleet: Fleet::new(clusters),
            probes: Arc::new(Probes::none()),
            reader: None,
            connect: None,
            lock: None,
            equip: None,
            shards: None,
            redacted: Mutex::default(),
            notify: Vec::new(),
            reloads: AsyncMutex::default(),
            reload_rejected_at: Mutex::default(),
            shared,
            phase,
        }
    }

    /// The same; added clusters get a lock like the others.
    #[must_use]
    pub fn locking(mut self, lock: LockSettings, equip: Equip<E, J>) -> Self {
        self.lock = Some(lock);
        self.equip = Some(equip);
        self
    }

    /// The same, with a configuration that is exposed and may be reloaded. `connect` is for clusters
    /// that are added or get another connection.
    #[must_use]
    pub fn configured(
        mut self,
        redacted: serde_json::Value,
        notify: Vec<NotifySettings>,
        reader: Option<Reader>,
        connect: Connect<E>,
    ) -> Self {
        self.notify = notify;
        self.reader = reader;
        self.connect = Some(connect);
        self.redacted = Mutex::new(redacted);
        self
    }

    /// The same, able to probe clusters that are not configured.
    #[must_use]
    pub fn probing(mut self, probes: Arc<Probes<E>>) -> Self {
        self.probes = probes;
        self
    }

    /// One line for people: the clusters it serves, and the runs in progress.
    pub fn status_line(&self, addresses: &str) -> String {
        let mut line = format!("{} on {addresses}", story::count(self.fleet.now().clusters.len(), "cluster"));
        if let Some(shards) = &self.shards {
            let _ = write!(line, "; {}", shards.here);
        }
        for summary in self.clusters() {
            let name = &summary.name;
            if let Some(run) = summary.active_run {
                let _ = write!(line, "; run {run} of {name} in progress");
            } else if let Some(run) = summary.queued_run {
                let _ = write!(line, "; run {run} of {name} waiting");
            }
        }
        line
    }

    /// From now on it is not ready any more.
    pub fn stopping(&self) {
        *self.phase.lock() = Phase::Stopping;
    }

    pub fn fleet(&self) -> &Fleet<E, J> {
        &self.fleet
    }

    /// Checks each cluster's certificates, keys and passwords for changes, one cluster after the other.
    pub async fn renew(&self) {
        for cluster in self.fleet.all() {
            cluster.target.renew().await;
        }
    }

    /// The task of a cluster ended. Returns whether that was expected, because the cluster was removed from the
    /// configuration.
    pub fn ended(&self, cluster: &str) -> bool {
        let gone = self.fleet.leaving(cluster).is_some();
        if gone {
            // Before a reload can use its name again.
            self.shared.claims.forget(cluster);
            self.shared.counters.forget_cluster(cluster);
            self.fleet.ended(cluster);
            info!(cluster, "removed the cluster: all its tasks have ended");
        }
        gone
    }

    /// Continues where an earlier process ended: requests by alerts are started or resumed, a manual run is closed. The
    /// members are measured again before anything is done to them.
    pub async fn recover(&self) -> Result<(), JournalError> {
        let fleet = self.fleet.now();
        for view in self.shared.journal.open_runs().await? {
            match fleet.find(&view.request.cluster) {
                // An operator who typed `defragd run` sees that it ended, and decides anew; a request through the API
                // is recorded as approved, and was acknowledged.
                Some(cluster) if view.request.trigger != Trigger::Manual || view.approved.is_some() => {
                    info!(cluster = view.request.cluster, run = view.id.0, "resuming a run of an earlier process");
                    cluster.requeue(view.id, view.request).await?;
                }
                Some(cluster) => {
                    let outcome = Outcome::Interrupted { reason: Reason::ProcessEnded };
                    cluster.end_run(view.id, view.request.trigger, outcome).await?;
                }
                // `forward_moved` ends it.
                None if self.where_else(&view.request.cluster).is_some() => {}
                None => {
                    let outcome = Outcome::Stopped { reason: Reason::Removed };
                    warn!(
                        cluster = view.request.cluster,
                        run = view.id.0,
                        "closing a run of a cluster that is no longer configured"
                    );
                    self.shared.journal.append(view.id, Entry::Finished(outcome)).await?;
                }
            }
        }
        self.read_ledgers(&fleet.clusters).await?;
        *self.phase.lock() = Phase::Serving;
        Ok(())
    }

    async fn run_and_cluster(&self, run: RunId) -> Result<(RunView, Arc<Cluster<E, J>>), CommandError> {
        let view = self.shared.journal.run(run).await?.ok_or(CommandError::UnknownRun(run))?;
        let cluster = self.fleet.now().find(&view.request.cluster).cloned();
        let cluster = cluster.ok_or_else(|| self.not_found(&view.request.cluster))?;
        Ok((view, cluster))
    }

    fn not_found(&self, cluster: &str) -> CommandError {
        self.where_else(cluster)
            .map_or_else(|| CommandError::UnknownCluster(cluster.to_owned()), CommandError::OtherShard)
    }
}

impl<E: Etcd, J: Journal> Service for App<E, J> {
    async fn scrape(&self, budget: Duration, page: &mut (dyn fmt::Write + Send)) -> Result<Duration, fmt::Error> {
        let begun = Instant::now();
        let _scrape = self.shared.fleet_observer.scrape_begins();
        let turns = TurnLimiter::new(CLUSTERS_AT_ONCE, TURN);
        let fleet = self.fleet.all();
        let samples =
            fleet.iter().map(|cluster| turns.take(move || cluster.sample(budget.saturating_sub(begun.elapsed()))));
        let samples = join_all(samples).await;
        let waited = begun.elapsed().min(budget);
        self.shared.counters.render(samples, page)?;
        let rest = begun.elapsed().saturating_sub(waited);
        debug!(?budget, ?waited, ?rest, "scraped");
        Ok(rest)
    }

    async fn probe(&self, request: ProbeRequest, budget: Duration) -> Result<String, ProbeRefusal> {
        self.probes.probe(request, budget).await
    }

    fn scrape_began(&self, page: ScrapePage) {
        self.shared.counters.scrapes.began(page);
    }

    fn scrape_ended(&self, page: ScrapePage, code: u16, took: Duration) {
        self.shared.counters.scrapes.ended(page, code, took);
    }

    async fn notify(&self, notification: Notification) -> Result<Vec<AlertAnswer>, NotifyError> {
        self.answer_alerts(notification).await
    }

    async fn command(
        &self,
        cluster: &str,
        by: String,
        command: Command,
        forwarded: bool,
    ) -> Result<CommandOutcome, CommandError> {
        let fleet = self.fleet.now();
        let found = fleet.find(cluster).ok_or_else(|| self.not_found(cluster))?;
        if let Some(passed) = found.forward_order(&by, &command, forwarded).await {
            return passed;
        }
        found.command(by, command).await.map(CommandOutcome::Done)
    }

    async fn approve(&self, run: RunId, by: String, forwarded: bool) -> Result<CommandOutcome, CommandError> {
        let (view, cluster) = self.run_and_cluster(run).await?;
        if let Some(passed) = cluster.forward_decision(&view, "approve", json!({ "by": by }), forwarded).await {
            return passed;
        }
        cluster.approve(run, by).await.map(|()| CommandOutcome::Done(Some(run)))
    }

    async fn reject(
        &self,
        run: RunId,
        by: String,
        reason: String,
        forwarded: bool,
    ) -> Result<CommandOutcome, CommandError> {
        let (view, cluster) = self.run_and_cluster(run).await?;
        let body = json!({ "by": by, "reason": reason });
        if let Some(passed) = cluster.forward_decision(&view, "reject", body, forwarded).await {
            return passed;
        }
        cluster.reject(run, by, reason).await.map(|()| CommandOutcome::Done(Some(run)))
    }

    fn count_webhook(&self, code: u16) {
        self.shared.counters.webhook(code);
    }

    async fn reload(&self) -> Result<(), ReloadError> {
        // One after the other, so that the newest file wins.
        let _one_at_a_time = self.reloads.lock().await;
        let Some(reader) = &self.reader else {
            info!("nothing to reload: there is no --config");
            return Ok(());
        };
        let reader = Arc::clone(reader);
        let read = tokio::task::spawn_blocking(move || reader()).await;
        let reloaded = match read.map_err(|error| error.to_string()).flatten() {
            Ok(_) if *self.phase.lock() == Phase::Stopping => Err("defragd is shutting down".to_owned()),
            Ok(settings) => self.apply_settings(settings).await,
            Err(problems) => Err(problems),
        };
        self.renew().await;
        let now = self.shared.clock.now();
        self.shared.counters.config_read(reloaded.is_ok().then_some(now));
        *self.reload_rejected_at.lock() = reloaded.is_err().then_some(now);
        self.shared.changes.announce();
        match &reloaded {
            Ok(changes) => changes.log(),
            Err(problems) => error!(
                problems = problems.replace('\n', "; "),
                "cannot apply the configuration; keeping the previous one"
            ),
        }
        reloaded.map(drop).map_err(ReloadError)
    }

    fn configuration(&self) -> serde_json::Value {
        self.redacted.lock().clone()
    }

    fn effective_configuration(&self) -> Vec<ConfigSection> {
        effective(&self.redacted.lock())
    }

    fn clusters(&self) -> Vec<ClusterSummary> {
        self.fleet.all().iter().map(|cluster| cluster.summary()).collect()
    }

    fn shard(&self) -> Option<Shard> {
        self.shards.as_ref().map(|shards| shards.here)
    }

    async fn plan(&self, cluster: &str, as_manual: bool) -> Result<PlanView, CommandError> {
        let found = self.fleet.all().into_iter().find(|found| found.name() == cluster);
        let found = found.ok_or_else(|| self.not_found(cluster))?;
        found.plan(as_manual).await.map_err(CommandError::Refused)
    }

    async fn runs(&self, limit: usize) -> Result<Vec<RunView>, JournalError> {
        let mut runs = self.shared.journal.runs(limit).await?;
        runs.reverse();
        Ok(runs)
    }

    async fn not_ready(&self) -> Option<String> {
        let phase = *self.phase.lock();
        match phase {
            Phase::Starting => Some("starting: resuming runs from the journal".to_owned()),
            Phase::Stopping => Some("defragd is shutting down".to_owned()),
            // Less than the usual interval of Kubernetes' readiness probes.
            Phase::Serving => {
                self.shared.journal_trouble(Duration::from_secs(2)).await.map(|trouble| trouble.to_string())
            }
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
