//! One configured cluster: what it shares with its requests ([`super::requests`]) and with the worker that
//! serves them ([`super::worker`]), and how it shows itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytesize::ByteSize;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, Semaphore, watch},
    time::{Instant, sleep},
};
use tracing::info;

use super::{claims::Claims, driver, log, observer, revisions::Revisions};
use crate::{
    config::ClusterSettings,
    core::{
        admission::Ledger,
        alert::Selector,
        cluster::{ClusterFacts, MemberId},
        gate::GateResult,
        history::{Intent, MemberEnd, MemberResult, Outcome, Request, RunId, RunView, Trigger},
        plan::Plan,
        policy::{Compaction, Policy},
        reason::Reason,
    },
    ports::{
        clock::Clock,
        etcd::{Etcd, Membership},
        gate::Gate,
        journal::{Journal, JournalError},
        progress::Progress,
        service::{ClusterSummary, Told},
    },
    telemetry::{
        counters::Counters,
        members::{AdmissionSample, ClusterSample, LastDefrag},
    },
};

/// A quota changes only with a restart of the member; this bounds how long the old one is shown.
const QUOTA_REMEMBERED_FOR: Duration = Duration::from_mins(5);

/// As etcdctl's default command timeout.
const LOOK_BUDGET: Duration = Duration::from_secs(5);

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
}

/// See the module.
pub struct Cluster<E, J> {
    /// As it started; for what may change meanwhile, see the rules.
    settings: ClusterSettings,
    rules: Mutex<Arc<Rules>>,
    pub(super) etcd: E,
    pub(super) shared: Arc<Shared<J>>,
    pub(super) desk: Mutex<Desk>,
    // Held from the decision about a request to its record, so that two webhooks cannot both be first, and a
    // request is not cancelled while it begins.
    pub(super) admission: AsyncMutex<()>,
    pub(super) wake: Notify,
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
    defragmenting: Option<MemberId>,
}

/// What is remembered between observations.
#[derive(Default)]
struct Memory {
    membership: Option<Membership>,
    quotas: BTreeMap<MemberId, (ByteSize, Instant)>,
    last_defrags: BTreeMap<MemberId, LastDefrag>,
    revisions: Option<Revisions>,
    warned: BTreeSet<String>,
}

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// A cluster without requests.
    pub fn new(settings: ClusterSettings, etcd: E, shared: Arc<Shared<J>>) -> Self {
        let revisions = match settings.policy.compaction {
            Some(Compaction::OlderThan(age)) => Some(Revisions::new(age)),
            _ => None,
        };
        let memory = Memory { revisions, ..Memory::default() };
        let (policy, selector) = (settings.policy.clone(), settings.selector.clone());
        Self {
            settings,
            rules: Mutex::new(Arc::new(Rules { policy, selector, gates: Vec::new() })),
            etcd,
            shared,
            desk: Mutex::default(),
            admission: AsyncMutex::default(),
            wake: Notify::new(),
            memory: Mutex::new(memory),
        }
    }

    /// The same, with checks of the world outside etcd.
    #[must_use]
    pub fn with_gates(self, gates: Vec<Gate>) -> Self {
        let rules = self.rules();
        self.follow(Rules { policy: rules.policy.clone(), selector: rules.selector.clone(), gates });
        self
    }

    /// What holds from the next decision on.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&lock(&self.rules))
    }

    /// New rules. A run under way keeps those that it began with.
    pub(super) fn follow(&self, rules: Rules) {
        self.shared.counters.expect_gates(self.name(), rules.gates.iter().map(|gate| &gate.rule));
        *lock(&self.rules) = Arc::new(rules);
        // Whoever waits for a window or an approval looks again.
        self.wake.notify_one();
    }

    /// Its configuration, as it started.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    pub(super) fn name(&self) -> &str {
        &self.settings.name
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

    /// What a scrape shows of this cluster, within `budget`.
    pub async fn sample(&self, budget: Duration) -> ClusterSample {
        let known = lock(&self.memory).membership.clone();
        let quotas = lock(&self.memory).quotas.clone();
        let remembered = |member: &crate::core::cluster::Member| {
            let (quota, seen) = quotas.get(&member.id)?;
            (seen.elapsed() < QUOTA_REMEMBERED_FOR).then_some(*quota)
        };
        let (up, observed) = observer::glance(&self.etcd, budget, known, remembered).await;
        let facts = observed.map(|(membership, facts)| {
            self.learn(membership, &facts, &quotas);
            facts
        });
        let (now, rules) = (self.shared.clock.now(), self.rules());
        let policy = &rules.policy;
        let desk = lock(&self.desk);
        let admission = AdmissionSample {
            run_active: desk.active.is_some(),
            queue_depth: usize::from(desk.queued.is_some()),
            breaker_open: desk.ledger.breaker(policy, now).is_some(),
            paused: desk.ledger.paused(now).is_some(),
            next_window: policy.windows.next_opening(now),
        };
        let defragmenting = desk.defragmenting;
        drop(desk);
        let last = |id: MemberId| lock(&self.memory).last_defrags.get(&id).cloned();
        let mut sample = ClusterSample::new(self.name().to_owned(), up, facts, defragmenting, last);
        sample.admission = admission;
        sample
    }

    /// Looks at the cluster's revision again and again, for a compaction by age. Ends at once where there is none.
    pub async fn watch_revisions(&self) {
        loop {
            let Some(interval) = lock(&self.memory).revisions.as_ref().map(Revisions::interval) else { return };
            if let Ok(facts) = observer::look(&self.etcd, LOOK_BUDGET).await {
                self.saw_revision(&facts);
            }
            sleep(interval).await;
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
        let mut memory = lock(&self.memory);
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
            retry_at: desk.ledger.retry().filter(|_| idle).map(|retry| retry.at),
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
