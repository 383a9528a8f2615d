//! One configured cluster at work: it takes requests, serves them one after the other, and shows itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytesize::ByteSize;
use jiff::Timestamp;
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};

use super::{claims::Claims, driver, log, log::LogProgress, observer};
use crate::{
    config::ClusterSettings,
    core::{
        cluster::MemberId,
        history::{AlertKey, Entry, Intent, MemberEnd, MemberResult, Outcome, Request, RunId, RunView, Trigger},
        plan::Plan,
        reason::Reason,
    },
    ports::{
        clock::Clock,
        etcd::{Etcd, Membership},
        journal::{Journal, JournalError},
        progress::Progress,
        service::{AlertDecision, ClusterSummary},
    },
    telemetry::{
        counters::Counters,
        members::{ClusterSample, LastDefrag},
    },
};

/// An alert whose run has just ended may still be on its way from a second Alertmanager.
const DUPLICATES_FOR: Duration = Duration::from_mins(5);
/// A quota changes only with a restart of the member; this bounds how long the old one is shown.
const QUOTA_REMEMBERED_FOR: Duration = Duration::from_mins(5);

/// What the clusters of a process share.
pub struct Shared<J> {
    /// Where everything is written down first.
    pub journal: J,
    /// The process's counters.
    pub counters: Counters,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Which etcd clusters are being worked on.
    pub claims: Claims,
}

/// See the module.
pub struct Cluster<E, J> {
    settings: ClusterSettings,
    etcd: E,
    shared: Arc<Shared<J>>,
    desk: Mutex<Desk>,
    // Held from the decision about a request to its record, so that two webhooks cannot both be first.
    admission: AsyncMutex<()>,
    wake: Notify,
    memory: Mutex<Memory>,
}

/// The requests.
#[derive(Default)]
struct Desk {
    queued: Option<(RunId, Request)>,
    active: Option<(RunId, Request)>,
    defragmenting: Option<MemberId>,
    cooldown_until: Option<Timestamp>,
    ended: Vec<(AlertKey, Timestamp)>,
}

/// What is remembered between observations.
#[derive(Default)]
struct Memory {
    membership: Option<Membership>,
    quotas: BTreeMap<MemberId, (ByteSize, Option<tokio::time::Instant>)>,
    last_defrags: BTreeMap<MemberId, LastDefrag>,
    warned: BTreeSet<String>,
}

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// A cluster without requests.
    pub fn new(settings: ClusterSettings, etcd: E, shared: Arc<Shared<J>>) -> Self {
        Self {
            settings,
            etcd,
            shared,
            desk: Mutex::default(),
            admission: AsyncMutex::default(),
            wake: Notify::new(),
            memory: Mutex::default(),
        }
    }

    /// Its configuration.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    fn name(&self) -> &str {
        &self.settings.name
    }

    /// Learns from the runs of earlier processes: last attempts, and whether it is cooling down.
    pub fn remember(&self, runs: &[RunView]) {
        for run in runs.iter().filter(|run| run.request.cluster == self.name()) {
            let Some(ended) = run.finished_at else { continue };
            for result in run.members.iter().filter(|result| !matches!(result.end, MemberEnd::NotSent { .. })) {
                let last = LastDefrag { at: ended, result: result.clone() };
                lock(&self.memory).last_defrags.insert(result.intent.member_id, last);
            }
            if run.touched_a_member() {
                self.cool_down_from(ended);
            }
        }
    }

    fn cool_down_from(&self, ended: Timestamp) {
        lock(&self.desk).cooldown_until = ended.checked_add(self.settings.policy.cooldown).ok();
    }

    /// Takes up a run that an earlier process accepted. There is one at the most; should there be more, the
    /// first serves for all, and the others end.
    pub async fn requeue(&self, run: RunId, request: Request) -> Result<(), JournalError> {
        let taken = {
            let mut desk = lock(&self.desk);
            let free = desk.queued.is_none();
            if free {
                desk.queued = Some((run, request.clone()));
            }
            free
        };
        if taken {
            self.wake.notify_one();
            return Ok(());
        }
        let outcome = Outcome::Stopped { reason: Reason::AlreadyRequested };
        self.end_run(run, request.trigger, outcome).await
    }

    async fn end_run(&self, run: RunId, trigger: Trigger, outcome: Outcome) -> Result<(), JournalError> {
        self.shared.journal.append(run, Entry::Finished(outcome.clone())).await?;
        self.shared.counters.run_ended(self.name(), trigger, &outcome, None);
        LogProgress { cluster: self.name().to_owned(), run }.finished(&outcome, Duration::ZERO);
        Ok(())
    }

    /// Decides about alerts that concern this cluster. When it says accepted, the journal has it.
    ///
    /// The work is a task of its own: a sender that goes away in the middle drops this future, and must not
    /// leave a request in the journal that nobody serves.
    pub async fn request(self: &Arc<Self>, alerts: Vec<AlertKey>) -> Result<AlertDecision, JournalError> {
        let cluster = Arc::clone(self);
        match tokio::spawn(async move { cluster.decide(alerts).await }).await {
            Ok(decision) => decision,
            Err(error) => Err(JournalError::Write(format!("the request was not taken: {error}"))),
        }
    }

    async fn decide(&self, alerts: Vec<AlertKey>) -> Result<AlertDecision, JournalError> {
        let _one_at_a_time = self.admission.lock().await;
        let cluster = self.name().to_owned();
        if let Some(reason) = self.duplicate(&alerts) {
            return Ok(AlertDecision::Duplicate { cluster, reason });
        }
        if let Some(until) = self.cooling_down() {
            return Ok(AlertDecision::Ignored { cluster: Some(cluster), reason: Reason::Cooldown { until } });
        }
        let request = Request { cluster: cluster.clone(), trigger: Trigger::Alert, alerts };
        let run = self.shared.journal.accept(request.clone()).await?;
        lock(&self.desk).queued = Some((run, request));
        self.wake.notify_one();
        Ok(AlertDecision::Accepted { cluster, run })
    }

    fn duplicate(&self, alerts: &[AlertKey]) -> Option<Reason> {
        let now = self.shared.clock.now();
        let mut desk = lock(&self.desk);
        desk.ended.retain(|(_, ended)| now.duration_since(*ended).unsigned_abs() < DUPLICATES_FOR);
        let open: Vec<_> = desk.queued.iter().chain(&desk.active).map(|(_, request)| request).collect();
        let all_in = |known: &dyn Fn(&AlertKey) -> bool| alerts.iter().all(known);
        if open.iter().any(|request| all_in(&|key| request.alerts.contains(key))) {
            return Some(Reason::DuplicateAlert);
        }
        if !open.is_empty() {
            return Some(Reason::AlreadyRequested);
        }
        all_in(&|key| desk.ended.iter().any(|(ended, _)| ended == key)).then_some(Reason::DuplicateAlert)
    }

    fn cooling_down(&self) -> Option<Timestamp> {
        lock(&self.desk).cooldown_until.filter(|until| *until > self.shared.clock.now())
    }

    /// Serves requests until a stop is asked for. A run under way then ends as its rules say; a request
    /// that waits stays in the journal for the next start.
    pub async fn work(&self, mut stop: driver::Stop) {
        loop {
            if stop.borrow().is_some() {
                return;
            }
            let next = {
                let mut desk = lock(&self.desk);
                desk.active = desk.queued.take();
                desk.active.clone()
            };
            match next {
                Some((run, request)) => self.serve(run, &request, stop.clone()).await,
                None => tokio::select! {
                    () = self.wake.notified() => {}
                    // A closed channel means that the process is ending.
                    changed = stop.changed() => if changed.is_err() { return },
                },
            }
        }
    }

    async fn serve(&self, run: RunId, request: &Request, stop: driver::Stop) {
        let log = LogProgress { cluster: self.name().to_owned(), run };
        let touched = AtomicBool::new(false);
        let state = StateProgress { cluster: self, trigger: request.trigger, touched: &touched };
        let watchers = (&log as &dyn Progress, &state as &dyn Progress);
        let policy = self.settings.policy.clone();
        let (journal, claims) = (&self.shared.journal, &self.shared.claims);
        driver::drive(run, policy, &self.etcd, journal, &watchers, claims, stop).await;
        let now = self.shared.clock.now();
        // All at once: an alert that comes in between must find either the run or the cooldown.
        let mut desk = lock(&self.desk);
        desk.active = None;
        desk.ended.extend(request.alerts.iter().map(|key| (key.clone(), now)));
        if touched.load(Ordering::Relaxed) {
            desk.cooldown_until = now.checked_add(self.settings.policy.cooldown).ok();
        }
    }

    /// Closes a run that an earlier process left open after its start.
    pub async fn close_interrupted(&self, view: &RunView) -> Result<(), JournalError> {
        let outcome = Outcome::Interrupted { reason: Reason::ProcessEnded };
        self.end_run(view.id, view.request.trigger, outcome).await
    }

    /// What a scrape shows of this cluster, within `budget`.
    pub async fn sample(&self, budget: Duration) -> ClusterSample {
        let known = lock(&self.memory).membership.clone();
        let quotas = lock(&self.memory).quotas.clone();
        let remembered = |member: &crate::core::cluster::Member| {
            let (quota, seen) = quotas.get(&member.id)?;
            seen.is_some_and(|seen| seen.elapsed() < QUOTA_REMEMBERED_FOR).then_some(*quota)
        };
        let (up, observed) = observer::glance(&self.etcd, budget, known, remembered).await;
        let facts = observed.map(|(membership, facts)| {
            self.learn(membership, &facts, &quotas);
            facts
        });
        let (defragmenting, run_active, queue_depth) = {
            let desk = lock(&self.desk);
            (desk.defragmenting, desk.active.is_some(), usize::from(desk.queued.is_some()))
        };
        let last = |id: MemberId| lock(&self.memory).last_defrags.get(&id).cloned();
        let mut sample = ClusterSample::new(self.name().to_owned(), up, facts, defragmenting, last);
        sample.run_active = run_active;
        sample.queue_depth = queue_depth;
        sample
    }

    fn learn(
        &self,
        membership: Membership,
        facts: &crate::core::cluster::ClusterFacts,
        before: &BTreeMap<MemberId, (ByteSize, Option<tokio::time::Instant>)>,
    ) {
        let now = tokio::time::Instant::now();
        let mut memory = lock(&self.memory);
        memory.membership = Some(membership);
        for member in &facts.members {
            let Ok(status) = &member.status else { continue };
            let id = member.member.id;
            let asked = matches!(&member.gauges, Some(Ok(gauges)) if gauges.quota.is_some());
            if let Some(quota) = status.quota.filter(|_| asked || !before.contains_key(&id)) {
                memory.quotas.insert(id, (quota, Some(now)));
            }
            if memory.warned.insert(status.version.clone()) {
                log::version_warnings(self.name(), &status.version);
            }
        }
    }

    /// For the API and the status page.
    pub fn summary(&self) -> ClusterSummary {
        let cooldown_until = self.cooling_down();
        let desk = lock(&self.desk);
        ClusterSummary {
            name: self.name().to_owned(),
            mode: self.settings.policy.mode,
            active_run: desk.active.as_ref().map(|(run, _)| *run),
            queued_run: desk.queued.as_ref().map(|(run, _)| *run),
            cooldown_until,
        }
    }
}

/// Keeps counters and the cluster's state up with a run.
struct StateProgress<'a, E, J> {
    cluster: &'a Cluster<E, J>,
    trigger: Trigger,
    touched: &'a AtomicBool,
}

impl<E: Etcd, J: Journal> Progress for StateProgress<'_, E, J> {
    fn planned(&self, plan: &Plan) {
        self.cluster.shared.counters.planned(self.cluster.name(), plan);
    }

    fn defragmenting(&self, intent: &Intent) {
        lock(&self.cluster.desk).defragmenting = Some(intent.member_id);
        self.cluster.shared.counters.started(self.cluster.name(), intent.need);
    }

    fn member_ended(&self, result: &MemberResult) {
        lock(&self.cluster.desk).defragmenting = None;
        if matches!(result.end, MemberEnd::NotSent { .. }) {
            return;
        }
        self.touched.store(true, Ordering::Relaxed);
        self.cluster.shared.counters.member_ended(self.cluster.name(), result);
        let last = LastDefrag { at: self.cluster.shared.clock.now(), result: result.clone() };
        lock(&self.cluster.memory).last_defrags.insert(result.intent.member_id, last);
    }

    fn finished(&self, outcome: &Outcome, took: Duration) {
        self.cluster.shared.counters.run_ended(self.cluster.name(), self.trigger, outcome, Some(took));
    }
}

// A panic elsewhere while the lock was held leaves these structures whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stops the runs of a process.
pub fn stop_channel() -> (watch::Sender<Option<Reason>>, driver::Stop) {
    watch::channel(None)
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
