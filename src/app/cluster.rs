//! One configured cluster: what it shares with its requests ([`super::requests`]) and with the worker that
//! serves them ([`super::worker`]), and how it shows itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytesize::ByteSize;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    claims::Claims,
    driver,
    forward::LastOffer,
    handover::Handover,
    live::{Changes, Stage},
    lock::{Lock, Round},
    log,
    notify::Notifications,
    observer,
    overview::Sight,
    revisions::Revisions,
    troubles::Troubles,
};
use crate::{
    config::ClusterSettings,
    core::{
        admission::Ledger,
        alert::Selector,
        cluster::{ClusterFacts, Fact, MemberId},
        gate::GateResult,
        history::{Intent, MemberEnd, MemberResult, Outcome, Request, RunId, RunView, Trigger},
        lock::Change as LockChange,
        plan::Plan,
        policy::{Compaction, Policy},
        reason::Reason,
    },
    ports::{
        clock::Clock,
        etcd::{Etcd, Membership, Renewal},
        gate::Gate,
        journal::{Journal, JournalError},
        lock::LockStore,
        peers::Peers,
        progress::Progress,
        service::{ClusterSummary, LockSummary, Told},
    },
    telemetry::{
        counters::Counters,
        members::{AdmissionSample, ClusterSample, LastDefrag},
    },
};

/// A quota changes only with a restart of the member; this bounds how long the old one is shown.
pub(super) const QUOTA_REMEMBERED_FOR: Duration = Duration::from_mins(5);

/// Small files: whatever takes longer hangs, and the other clusters' turn comes.
const RENEWAL_LIMIT: Duration = Duration::from_secs(2);

/// What the clusters of a process share.
pub struct Shared<J> {
    /// Where everything is written down first.
    pub journal: J,
    /// The process's counters.
    pub counters: Counters,
    /// One permit for each cluster that may have a run under way at the same time.
    pub slots: Arc<Semaphore>,
    /// How many there are.
    pub max_concurrent_runs: u32,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Which etcd clusters are being worked on.
    pub claims: Claims,
    /// Tells those who watch.
    pub changes: Changes,
    /// Tells others of runs.
    pub notifications: Notifications,
}

/// See the module.
pub struct Cluster<E, J> {
    name: String,
    settings: Mutex<Arc<ClusterSettings>>,
    rules: Mutex<Arc<Rules>>,
    /// A run has that of its begin to its end, whatever a reload brings.
    etcd: Mutex<Arc<E>>,
    /// Those of before, as long as a run has them.
    older: Mutex<Vec<Weak<E>>>,
    pub(super) shared: Arc<Shared<J>>,
    pub(super) desk: Mutex<Desk>,
    // Held from the decision about a request to its record, so that two webhooks cannot both be first, and a
    // request is not cancelled while it begins.
    pub(super) admission: AsyncMutex<()>,
    /// Held while the journal is read for the desk.
    pub(super) reading: AsyncMutex<()>,
    pub(super) wake: Notify,
    /// What is watched may be another thing.
    watch_anew: Notify,
    pub(super) lock: Lock,
    pub(super) peers: Option<Arc<dyn Peers>>,
    pub(super) handover: Handover,
    pub(super) stage: Stage,
    pub(super) sight: Arc<Sight>,
    memory: Mutex<Memory>,
}

/// What the next request asks, and a reload may change.
pub struct Rules {
    /// When to act, and how carefully.
    pub policy: Policy,
    /// Which alerts concern this cluster.
    pub selector: Selector,
    /// What is checked outside etcd.
    pub gates: Vec<Gate>,
}

/// The requests. There is one open request a cluster at the most, so the queue is as long as the fleet.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) queued: Option<(RunId, Request)>,
    pub(super) active: Option<(RunId, Request)>,
    pub(super) waiting_for: Option<Reason>,
    /// As it was last read: for what is shown, never for what is decided.
    pub(super) ledger: Ledger,
    /// It was taken out of the configuration: nothing new is taken.
    pub(super) retired: bool,
    pub(super) last_offer: Option<LastOffer>,
    defragmenting: Option<MemberId>,
    /// Whether the active run last observed an emergency.
    pub(super) emergency: bool,
}

/// What is remembered between observations.
#[derive(Default)]
struct Memory {
    membership: Option<Membership>,
    quotas: BTreeMap<MemberId, (ByteSize, Instant)>,
    last_defrags: BTreeMap<MemberId, LastDefrag>,
    revisions: Option<Revisions>,
    warned: BTreeSet<String>,
    troubles: Troubles,
    same_as: Vec<String>,
    /// Why the changed credentials are not taken.
    refused: Option<String>,
}

impl Memory {
    fn new(policy: &Policy) -> Self {
        let revisions = match policy.compaction {
            Some(Compaction::OlderThan(age)) => Some(Revisions::new(age)),
            _ => None,
        };
        Self { revisions, ..Self::default() }
    }
}

/// What a reload brings to a cluster.
pub(super) struct Change<E> {
    pub(super) settings: ClusterSettings,
    pub(super) gates: Vec<Gate>,
    /// Where endpoints or credentials are others.
    pub(super) etcd: Option<E>,
}

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// A cluster without requests.
    pub fn new(settings: ClusterSettings, etcd: E, shared: Arc<Shared<J>>) -> Self {
        let memory = Memory::new(&settings.policy);
        let (policy, selector) = (settings.policy.clone(), settings.selector.clone());
        Self {
            name: settings.name.clone(),
            settings: Mutex::new(Arc::new(settings)),
            rules: Mutex::new(Arc::new(Rules { policy, selector, gates: Vec::new() })),
            etcd: Mutex::new(Arc::new(etcd)),
            older: Mutex::default(),
            shared,
            desk: Mutex::default(),
            admission: AsyncMutex::default(),
            reading: AsyncMutex::default(),
            wake: Notify::new(),
            watch_anew: Notify::new(),
            lock: Lock::none(),
            peers: None,
            handover: Handover::default(),
            stage: Stage::default(),
            sight: Arc::default(),
            memory: Mutex::new(memory),
        }
    }

    /// The same, with checks of the world outside etcd.
    #[must_use]
    pub fn with_gates(self, gates: Vec<Gate>) -> Self {
        let rules = self.rules();
        self.set_rules(Rules { policy: rules.policy.clone(), selector: rules.selector.clone(), gates });
        self
    }

    /// The same, acting only while it holds the lock in this store: see [`Cluster::keep_lock`]. `name` is this
    /// replica's.
    #[must_use]
    pub fn with_lock(mut self, store: Arc<dyn LockStore>, name: &str) -> Self {
        self.lock = Lock::over(store, name);
        self
    }

    /// The same, acting on nothing: it only looks.
    #[must_use]
    pub fn without_acting(mut self) -> Self {
        self.lock = Lock::never();
        self
    }

    /// Gives the lock up: from here on nothing begins, and another replica may act.
    pub async fn release_lock(&self) {
        if let Some(term) = self.lock.view().held() {
            info!(cluster = self.name(), term = term.0, "giving the lock up");
            self.leave_last_note(term).await;
        }
        self.lock.release().await;
    }

    pub(super) fn lock_told(&self, round: &Round) {
        let cluster = self.name();
        match (round.change, &round.trouble) {
            (LockChange::Gained(term), _) => info!(cluster, term = term.0, "this replica holds the cluster's lock now"),
            (LockChange::Lost(term), trouble) => {
                let detail = trouble.as_deref().unwrap_or("another replica holds it");
                warn!(cluster, term = term.0, detail, "the cluster's lock is lost: no new member is started");
            }
            (LockChange::Same, Some(trouble)) => warn!(cluster, detail = trouble, "the cluster's lock was not renewed"),
            (LockChange::Same, None) => {}
        }
        self.shared.counters.lock(cluster, round.change != LockChange::Same, round.trouble.is_some());
        // Whoever waits for it, or acts under it, looks again.
        self.wake.notify_one();
    }

    /// What holds from the next decision on.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&lock(&self.rules))
    }

    /// What is used from now on to reach it.
    pub fn etcd(&self) -> Arc<E> {
        Arc::clone(&lock(&self.etcd))
    }

    /// Goes on as this says. A run under way keeps what it began with.
    pub(super) fn follow(&self, change: Change<E>) {
        let Change { settings, gates, etcd } = change;
        let old = self.settings();
        if let Some(etcd) = etcd {
            let before = std::mem::replace(&mut *lock(&self.etcd), Arc::new(etcd));
            lock(&self.older).push(Arc::downgrade(&before));
            lock(&self.memory).refused = None;
            info!(cluster = self.name(), endpoints = settings.endpoints.join(","), "reached otherwise from now on");
        }
        if old.endpoints != settings.endpoints || old.discovery != settings.discovery {
            // It may be another cluster: nothing that was seen of the one before counts any more.
            let mut memory = lock(&self.memory);
            let last_defrags = std::mem::take(&mut memory.last_defrags);
            *memory = Memory { last_defrags, ..Memory::new(&settings.policy) };
            self.shared.claims.forget(self.name());
        } else if compaction_age(&old.policy) != compaction_age(&settings.policy) {
            lock(&self.memory).revisions = Memory::new(&settings.policy).revisions;
        }
        self.watch_anew.notify_one();
        self.set_rules(Rules { policy: settings.policy.clone(), selector: settings.selector.clone(), gates });
        *lock(&self.settings) = Arc::new(settings);
    }

    /// Looks whether the files with the credentials changed. Never fails: what is not whole is not taken, and said once.
    pub async fn renew(&self) {
        let mut older: Vec<_> = lock(&self.older).iter().filter_map(Weak::upgrade).collect();
        lock(&self.older).retain(|etcd| etcd.strong_count() > 0);
        older.retain(|etcd| Arc::strong_count(etcd) > 1);
        for etcd in older {
            let _ = timeout(RENEWAL_LIMIT, etcd.renew()).await;
        }
        let renewal = timeout(RENEWAL_LIMIT, self.etcd().renew()).await;
        let mut memory = lock(&self.memory);
        match renewal.unwrap_or_else(|_| Renewal::Refused("the files cannot be read within 2 s".to_owned())) {
            Renewal::Unchanged => memory.refused = None,
            Renewal::Taken => {
                memory.refused = None;
                info!(cluster = self.name(), "the credentials changed: new connections are made with them");
            }
            Renewal::Refused(detail) => {
                if memory.refused.as_ref() != Some(&detail) {
                    warn!(
                        cluster = self.name(),
                        detail, "the changed credentials are not taken: going on with those before"
                    );
                }
                memory.refused = Some(detail);
            }
        }
    }

    fn set_rules(&self, rules: Rules) {
        self.shared.counters.expect_gates(self.name(), rules.gates.iter().map(|gate| &gate.rule));
        *lock(&self.rules) = Arc::new(rules);
        // Whoever waits for a window or an approval looks again.
        self.wake.notify_one();
    }

    /// Its configuration.
    pub fn settings(&self) -> Arc<ClusterSettings> {
        Arc::clone(&lock(&self.settings))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Learns the last attempts on the members from the runs of earlier processes.
    pub fn remember(&self, runs: &[RunView]) {
        for run in runs.iter().filter(|run| run.request.cluster == self.name()) {
            let Some(ended) = run.finished_at else { continue };
            for result in run.members.iter().filter(|result| !matches!(result.end, MemberEnd::NotSent { .. })) {
                let last = LastDefrag { at: ended, result: result.clone() };
                lock(&self.memory).last_defrags.insert(result.intent.member_id, last);
            }
        }
    }

    /// Closes a run that an earlier process left open after its start.
    pub async fn close_interrupted(&self, view: &RunView) -> Result<(), JournalError> {
        let outcome = Outcome::Interrupted { reason: Reason::ProcessEnded };
        self.end_run(view.id, view.request.trigger, outcome).await
    }

    /// A cheap look at all members, within `budget`; remembered for whoever asks next.
    pub(super) async fn glance(&self, budget: Duration) -> (Fact<()>, Option<ClusterFacts>) {
        let known = lock(&self.memory).membership.clone();
        let quotas = lock(&self.memory).quotas.clone();
        let remembered = |member: &crate::core::cluster::Member| {
            let (quota, seen) = quotas.get(&member.id)?;
            (seen.elapsed() < QUOTA_REMEMBERED_FOR).then_some(*quota)
        };
        let etcd = self.etcd();
        let (listed, observed) = observer::glance(&*etcd, budget, known, remembered).await;
        let facts = observed.map(|(membership, facts)| {
            // What a connection of before saw is shown once more, and not remembered.
            if Arc::ptr_eq(&etcd, &self.etcd()) {
                self.learn(membership, &facts, &quotas);
            }
            facts
        });
        lock(&self.memory).troubles.saw(self.name(), listed.as_ref().err(), facts.as_ref());
        self.sight.saw(listed.is_ok(), facts.as_ref());
        (listed, facts)
    }

    /// What a scrape shows of this cluster, within `budget`.
    pub async fn sample(&self, budget: Duration) -> ClusterSample {
        let (listed, facts) = self.glance(budget).await;
        let (now, rules) = (self.shared.clock.now(), self.rules());
        let policy = &rules.policy;
        let desk = lock(&self.desk);
        let admission = AdmissionSample {
            run_active: desk.active.is_some(),
            queue_depth: usize::from(desk.queued.is_some()),
            breaker_open: desk.ledger.breaker(policy, now).is_some(),
            paused: desk.ledger.paused(now).is_some(),
            next_window: policy.windows.next_opening(now),
            lock_held: self.lock.view().held().is_some(),
        };
        let defragmenting = desk.defragmenting;
        drop(desk);
        let last = |id: MemberId| lock(&self.memory).last_defrags.get(&id).cloned();
        let cluster_id = facts.as_ref().map(|facts| facts.cluster_id);
        let mut sample = ClusterSample::new(self.name().to_owned(), listed.is_ok(), facts, defragmenting, last);
        sample.admission = Some(admission);
        sample.error = listed.err().map(|unknown| unknown.kind);
        sample.cluster_id = cluster_id;
        sample.is_duplicate = !self.shared.claims.same_as(self.name()).is_empty();
        sample.credentials_refused = lock(&self.memory).refused.is_some();
        sample
    }

    /// Looks at the cluster's revision again and again, for a compaction by age. Never ends, but has nothing to do
    /// where there is none.
    pub async fn watch_revisions(&self) -> Infallible {
        loop {
            let interval = lock(&self.memory).revisions.as_ref().map(Revisions::interval);
            let Some(interval) = interval else {
                self.watch_anew.notified().await;
                continue;
            };
            let etcd = self.etcd();
            if let Ok(facts) = observer::look(&*etcd, observer::LOOK_BUDGET).await
                && Arc::ptr_eq(&etcd, &self.etcd())
            {
                self.saw_revision(&facts);
            }
            drop(etcd);
            tokio::select! {
                biased;
                () = sleep(interval) => {}
                () = self.watch_anew.notified() => {}
            }
        }
    }

    fn saw_revision(&self, facts: &ClusterFacts) {
        if let (Some(revisions), Some(revision)) = (&mut lock(&self.memory).revisions, facts.oldest_revision()) {
            revisions.saw(Instant::now(), revision);
        }
    }

    /// The newest revision that is old enough to be compacted, for a policy that says so by age.
    pub(super) fn old_revision(&self) -> Option<u64> {
        let memory = lock(&self.memory);
        let revisions = memory.revisions.as_ref()?;
        let old = revisions.old_enough(Instant::now());
        if old.is_none() {
            info!(cluster = self.name(), "not compacting: the cluster has not been watched for long enough yet");
        }
        old
    }

    fn learn(&self, membership: Membership, facts: &ClusterFacts, before: &BTreeMap<MemberId, (ByteSize, Instant)>) {
        let now = Instant::now();
        let same_as = self.shared.claims.saw(membership.cluster_id, self.name());
        let mut memory = lock(&self.memory);
        // Once, by the last of the entries.
        if memory.same_as != same_as && same_as.iter().all(|other| other.as_str() < self.name()) && !same_as.is_empty()
        {
            let (id, others) = (membership.cluster_id.to_string(), same_as.join(", "));
            warn!(
                cluster = self.name(),
                others,
                cluster_id = id,
                "several entries of the configuration lead to one etcd cluster: keep one of them"
            );
        }
        memory.same_as = same_as;
        memory.membership = Some(membership);
        for member in &facts.members {
            let Ok(status) = &member.status else { continue };
            let id = member.member.id;
            let asked = matches!(&member.gauges, Some(Ok(gauges)) if gauges.quota.is_some());
            if let Some(quota) = status.quota.filter(|_| asked || !before.contains_key(&id)) {
                memory.quotas.insert(id, (quota, now));
            }
            if memory.warned.insert(status.version.clone()) {
                log::version_warnings(self.name(), &status.version);
            }
        }
    }

    /// The term of the lock, while this replica certainly holds it.
    pub fn held_term(&self) -> Option<crate::core::lock::Term> {
        self.lock.view().held()
    }

    /// Whether this replica is the one that acts.
    pub(super) fn acts(&self) -> bool {
        self.lock.view().held().is_some()
    }

    /// Why it is not.
    pub(super) fn acts_not(&self) -> Reason {
        let detail = || "the lock is just changing hands".to_owned();
        self.lock.view().may_begin().err().unwrap_or_else(|| Reason::LockUnknown { detail: detail() })
    }

    fn lock_summary(&self) -> Option<LockSummary> {
        let view = self.lock.view();
        self.lock.is_needed().then(|| {
            let (term, other) = (view.held(), view.holder());
            LockSummary {
                held: term.is_some(),
                term,
                holder: other.as_ref().map(|holder| holder.name.clone()),
                url: other.and_then(|holder| holder.url),
            }
        })
    }

    /// For the API and the status page.
    pub fn summary(&self) -> ClusterSummary {
        let (now, rules) = (self.shared.clock.now(), self.rules());
        let policy = &rules.policy;
        let desk = lock(&self.desk);
        let cooldown_until = match desk.ledger.cooldown(policy, now) {
            Some(Reason::Cooldown { until }) => Some(until),
            _ => None,
        };
        let idle = desk.queued.is_none() && desk.active.is_none();
        ClusterSummary {
            name: self.name().to_owned(),
            mode: policy.mode,
            active_run: desk.active.as_ref().map(|(run, _)| *run),
            queued_run: desk.queued.as_ref().map(|(run, _)| *run),
            waiting_for: desk.waiting_for.clone().map(Told::from),
            cooldown_until,
            paused: desk.ledger.paused(now).map(Told::from),
            breaker: desk.ledger.breaker(policy, now).map(Told::from),
            next_window: policy.windows.next_opening(now),
            window_open: policy.windows.open_at(now),
            retry_at: desk.ledger.next_attempt(now).filter(|_| idle).map(|next| next.at),
            same_as: self.shared.claims.same_as(self.name()),
            leaving: desk.retired,
            lock: self.lock_summary(),
        }
    }
}

/// Keeps counters and the cluster's state up with a run.
pub(super) struct StateProgress<'a, E, J> {
    pub(super) cluster: &'a Cluster<E, J>,
    pub(super) trigger: Trigger,
}

impl<E: Etcd, J: Journal> Progress for StateProgress<'_, E, J> {
    fn planned(&self, plan: &Plan) {
        lock(&self.cluster.desk).emergency = plan.emergency;
        self.cluster.shared.counters.planned(self.cluster.name(), plan);
    }

    fn defragmenting(&self, intent: &Intent) {
        lock(&self.cluster.desk).defragmenting = Some(intent.member_id);
        self.cluster.shared.counters.started(self.cluster.name(), intent.need);
    }

    /// What comes now is the recovery. A member that does not answer any more is down, and alerts must say so. Where
    /// no answer came, the server may still be at it, and the mark stays.
    fn defragmented(&self, _intent: &Intent) {
        lock(&self.cluster.desk).defragmenting = None;
    }

    fn member_ended(&self, result: &MemberResult) {
        lock(&self.cluster.desk).defragmenting = None;
        if matches!(result.end, MemberEnd::NotSent { .. }) {
            return;
        }
        self.cluster.shared.counters.member_ended(self.cluster.name(), result);
        let last = LastDefrag { at: self.cluster.shared.clock.now(), result: result.clone() };
        lock(&self.cluster.memory).last_defrags.insert(result.intent.member_id, last);
    }

    fn gate(&self, result: &GateResult) {
        self.cluster.shared.counters.gate(self.cluster.name(), result);
    }

    fn finished(&self, outcome: &Outcome, took: Duration) {
        self.cluster.shared.counters.run_ended(self.cluster.name(), self.trigger, outcome, Some(took));
    }
}

fn compaction_age(policy: &Policy) -> Option<Duration> {
    match policy.compaction {
        Some(Compaction::OlderThan(age)) => Some(age),
        _ => None,
    }
}

// A panic elsewhere while the lock was held leaves these structures whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stops the runs of a process.
pub fn stop_channel() -> (watch::Sender<Option<Reason>>, driver::Stop) {
    watch::channel(None)
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
pub(super) mod tests;
