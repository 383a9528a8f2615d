//! One configured cluster: its target ([`super::target`]), its requests ([`super::requests`], served by
//! [`super::worker`]) and its succession ([`super::succession`]), joined; and its summary for the outside.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit, watch},
    time::Instant,
};
use tracing::info;

use super::{
    claims::Claims,
    driver,
    live::{Changes, CurrentRun},
    lock::Lock,
    notify::Notifications,
    observations::{FleetObserver, ObservationCache},
    plans::PlanBasis,
    problems::ObservedProblems,
    request_state::Requests,
    run_lines::RunLines,
    succession::Succession,
    target::{ObservedCluster, ScrapeObservation},
};
use crate::{
    config::ClusterSettings,
    core::{
        cluster::MemberId,
        history::RunId,
        lock::Term,
        policy::{Compaction, Policy},
        reason::Reason,
        state::{ClusterState, StateFacts},
    },
    ports::{
        clock::Clock,
        etcd::Etcd,
        gate::Gate,
        journal::{Journal, JournalError},
        lock::LockStore,
        service::ClusterSummary,
    },
    telemetry::{
        counters::Counters,
        members::{AdmissionSample, ClusterSample},
    },
};

/// What the clusters of a process share.
pub struct Shared<J> {
    /// Where everything is recorded before it is done.
    pub journal: J,
    pub counters: Counters,
    /// One permit for each cluster that may have a run in progress at the same time.
    pub slots: Arc<Semaphore>,
    pub max_concurrent_runs: u32,
    pub clock: Arc<dyn Clock>,
    /// Which etcd clusters runs work on.
    pub(super) claims: Claims,
    pub(super) changes: Changes,
    pub(super) fleet_observer: FleetObserver,
    pub(super) notifications: Notifications,
    /// What nothing waits for is read from the journal one cluster after the other: a thousand at once would delay what
    /// does wait.
    idle_reads: Semaphore,
    /// When it was last checked whether the journal can be written, and what was found.
    journal_check: AsyncMutex<Option<(Instant, Option<JournalError>)>>,
}

impl<J: Journal> Shared<J> {
    /// Why the journal cannot be written, if it cannot. A check writes to the disk, so one that is younger than this is enough.
    pub(super) async fn journal_trouble(&self, age: Duration) -> Option<JournalError> {
        let mut last = self.journal_check.lock().await;
        match &*last {
            Some((at, trouble)) if at.elapsed() < age => trouble.clone(),
            _ => {
                let trouble = self.journal.writable().await.err();
                *last = Some((Instant::now(), trouble.clone()));
                trouble
            }
        }
    }
}

impl<J> Shared<J> {
    pub fn new(
        journal: J,
        counters: Counters,
        clock: Arc<dyn Clock>,
        notifications: Notifications,
        max_concurrent_runs: u32,
    ) -> Self {
        Self {
            journal,
            counters,
            slots: Arc::new(Semaphore::new(max_concurrent_runs as usize)),
            max_concurrent_runs,
            clock,
            claims: Claims::default(),
            changes: Changes::default(),
            fleet_observer: FleetObserver::default(),
            notifications,
            idle_reads: Semaphore::new(1),
            journal_check: AsyncMutex::default(),
        }
    }

    /// Waits for the turn to read from the journal what nothing waits for.
    pub(super) async fn idle_turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = self.idle_reads.acquire().await.ok();
        self.fleet_observer.scrapes_first().await;
        turn
    }
}

pub struct Cluster<E, J> {
    settings: Mutex<Arc<ClusterSettings>>,
    rules: Mutex<Arc<Rules>>,
    pub(super) shared: Arc<Shared<J>>,
    pub(super) target: ObservedCluster<E>,
    pub(super) requests: Requests,
    pub(super) succession: Succession,
    pub(super) current_run: CurrentRun,
    pub(super) run_lines: RunLines,
    pub(super) observations: Arc<ObservationCache>,
    pub(super) plan_basis: AsyncMutex<Option<PlanBasis>>,
    problems: Mutex<ObservedProblems>,
}

/// The settings that apply to the next request and that a reload may change.
pub struct Rules {
    /// When to act, and under which conditions.
    pub policy: Policy,
    /// The checks outside etcd.
    pub gates: Vec<Gate>,
}

/// What a reload changes in a cluster.
pub struct ClusterChange<E> {
    pub settings: ClusterSettings,
    pub gates: Vec<Gate>,
    /// The new connection, if endpoints or credentials changed.
    pub etcd: Option<E>,
}

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// A cluster without requests.
    pub fn new(settings: ClusterSettings, etcd: E, shared: Arc<Shared<J>>) -> Self {
        let policy = settings.policy.clone();
        let target = ObservedCluster::new(settings.name.clone(), etcd);
        target.remember_revisions(compaction_age(&policy));
        Self {
            settings: Mutex::new(Arc::new(settings)),
            rules: Mutex::new(Arc::new(Rules { policy, gates: Vec::new() })),
            shared,
            target,
            requests: Requests::default(),
            succession: Succession::new(Lock::none()),
            current_run: CurrentRun::default(),
            run_lines: RunLines::default(),
            observations: Arc::default(),
            plan_basis: AsyncMutex::default(),
            problems: Mutex::default(),
        }
    }

    #[must_use]
    pub fn with_gates(self, gates: Vec<Gate>) -> Self {
        self.set_rules(Rules { policy: self.rules().policy.clone(), gates });
        self
    }

    /// The same, acting only while it holds the lock in this store: see [`Cluster::keep_lock`]. `name` is this
    /// replica's.
    #[must_use]
    pub fn with_lock(mut self, store: Arc<dyn LockStore>, name: &str) -> Self {
        self.succession.lock = Lock::over(store, name);
        self
    }

    /// The same, but it only observes.
    #[must_use]
    pub fn without_acting(mut self) -> Self {
        self.succession.lock = Lock::never();
        self
    }

    /// The settings that apply from the next decision on.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.lock())
    }

    /// Applies changed settings. A run in progress keeps those it began with.
    pub fn follow(&self, change: ClusterChange<E>) {
        let ClusterChange { settings, gates, etcd } = change;
        let (old, age) = (self.settings(), compaction_age(&settings.policy));
        if let Some(etcd) = etcd {
            self.target.replace(etcd);
            info!(
                cluster = self.name(),
                endpoints = settings.endpoints.join(","),
                "endpoints or credentials changed; reconnecting"
            );
        }
        let has_moved = old.endpoints != settings.endpoints || old.discovery_srv != settings.discovery_srv;
        if has_moved {
            self.target.forget();
            *self.problems.lock() = ObservedProblems::default();
            self.shared.claims.forget(self.name());
        }
        if has_moved || compaction_age(&old.policy) != age {
            self.target.remember_revisions(age);
        }
        self.set_rules(Rules { policy: settings.policy.clone(), gates });
        *self.settings.lock() = Arc::new(settings);
    }

    fn set_rules(&self, rules: Rules) {
        self.shared.counters.expect_gates(self.name(), rules.gates.iter().map(|gate| &gate.rule));
        *self.rules.lock() = Arc::new(rules);
        // Tasks that wait for a window or an approval check again.
        self.requests.wake.notify_one();
        self.requests.schedule_changed.notify_one();
    }

    pub fn settings(&self) -> Arc<ClusterSettings> {
        Arc::clone(&self.settings.lock())
    }

    pub fn name(&self) -> &str {
        self.target.name()
    }

    /// Leaves the journal to be read by the worker.
    pub(super) fn leave_unread(&self) {
        self.requests.state.lock().unread = true;
    }

    /// A cheap observation of all members, within `budget`; it is remembered for later readers.
    pub(super) async fn observe_for_scrape(&self, budget: Duration) -> ScrapeObservation {
        let observation = self.target.observe_for_scrape(budget).await;
        let mut problems = self.problems.lock();
        if let Some(facts) = observation.facts.as_ref().filter(|_| observation.is_current) {
            let same_as = self.shared.claims.record(facts.cluster_id, self.name());
            problems.leads_to(self.name(), facts, same_as);
            problems.measured(self.name(), facts, self.settings().quota);
        }
        problems.record(self.name(), observation.listed.as_ref().err(), observation.facts.as_ref());
        let settings = self.settings();
        problems.reached(self.name(), &settings.endpoints, observation.listed.as_ref().err());
        drop(problems);
        self.observations.record(
            self.shared.clock.now(),
            observation.listed.as_ref().err(),
            observation.facts.as_ref(),
        );
        observation
    }

    /// What a scrape exports of this cluster, within `budget`.
    pub async fn sample(&self, budget: Duration) -> ClusterSample {
        let ScrapeObservation { listed, facts, .. } = self.observe_for_scrape(budget).await;
        let (now, rules) = (self.shared.clock.now(), self.rules());
        let policy = &rules.policy;
        let state = self.requests.state.lock();
        let admission = AdmissionSample {
            run_active: state.active_run().is_some(),
            queue_depth: usize::from(state.waiting().is_some()),
            breaker_open: state.ledger.breaker(policy, now).is_some(),
            hash_mismatch: state.mismatch.is_some(),
            paused: state.ledger.paused(now).is_some(),
            next_window: policy.windows.next_opening(now),
            next_scheduled: self.next_scheduled(policy, now),
            lock_held: self.held_term().is_some(),
            waiting_for: self.current_run.waits_for().or_else(|| state.hold(policy, now)),
        };
        let (defragmenting, unread) = (state.defragmenting, state.unread);
        let speeds = (!unread).then(|| state.speeds.clone());
        drop(state);
        let last = |id: MemberId| self.requests.state.lock().last_defrags.get(&id).cloned();
        let cluster_id = facts.as_ref().map(|facts| facts.cluster_id);
        let mut sample =
            ClusterSample::new(self.name().to_owned(), listed.is_ok(), facts, defragmenting, last, speeds.as_ref());
        sample.admission = Some(admission).filter(|_| !unread);
        sample.error = listed.err().map(|unknown| unknown.kind);
        sample.cluster_id = cluster_id;
        sample.is_duplicate = !self.shared.claims.same_as(self.name()).is_empty();
        sample.credentials_refused = self.target.refuses_credentials();
        sample
    }

    /// The term of the lock, while this replica certainly holds it.
    pub fn held_term(&self) -> Option<Term> {
        self.succession.held_term()
    }

    pub(super) fn active_run(&self) -> Option<RunId> {
        self.requests.state.lock().active_run()
    }

    /// For the API and the status page.
    pub fn summary(&self) -> ClusterSummary {
        let (now, rules) = (self.shared.clock.now(), self.rules());
        let policy = &rules.policy;
        let state = self.requests.state.lock();
        let cooldown_until = match state.ledger.cooldown(policy, now) {
            Some(Reason::Cooldown { until }) => Some(until),
            _ => None,
        };
        let request = state.request_view(policy, now).filter(|_| !state.unread);
        let seen = self.observations.seen();
        let (paused, breaker) = (state.ledger.paused(now), state.ledger.breaker(policy, now));
        let active_run = state.active_run();
        let cluster_state = ClusterState::of(&StateFacts {
            observed: seen.as_ref().map(|seen| (seen.error.as_ref(), seen.facts.as_deref())),
            policy,
            defragmenting: state.defragmenting,
            breaker: breaker.as_ref(),
            mismatch: state.mismatch.as_ref(),
            paused: paused.is_some(),
            last: state.ledger.runs.iter().rev().find_map(|run| Some((run.id, run.outcome.as_ref()?))),
            is_active: active_run.is_some(),
            request: request.as_ref(),
        });
        let waiting = state.waiting();
        ClusterSummary {
            name: self.name().to_owned(),
            cluster_id: self.shared.claims.id_of(self.name()),
            endpoints: self.settings().endpoints.clone(),
            acts: self.succession.lock.is_needed() || self.held_term().is_some(),
            mode: policy.mode,
            state: cluster_state,
            journal_read: !state.unread,
            observed_at: seen.and_then(|seen| now.checked_sub(seen.age).ok()),
            request,
            active_run,
            queued_run: waiting.map(|open| open.id),
            waiting_for: waiting.and_then(|open| Some(open.waits_for.as_ref()?.0.clone())),
            cooldown_until,
            paused,
            breaker,
            hash_mismatch: state.mismatch.clone(),
            next_window: policy.windows.next_opening(now),
            window_open: policy.windows.open_at(now),
            next_scheduled: self.next_scheduled(policy, now),
            retry_at: state.open.is_none().then(|| state.ledger.next_attempt(now)).flatten().map(|next| next.at),
            same_as: self.shared.claims.same_as(self.name()),
            leaving: state.retired,
            lock: self.succession.summary(),
        }
    }
}

fn compaction_age(policy: &Policy) -> Option<Duration> {
    match policy.compaction {
        Some(Compaction::OlderThan(age)) => Some(age),
        _ => None,
    }
}

/// What stops the runs of a process.
pub fn stop_channel() -> (watch::Sender<Option<Reason>>, driver::Stop) {
    watch::channel(None)
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
pub(super) mod tests;
