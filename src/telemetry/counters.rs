//! The metrics that are kept between scrapes: counters of runs, decisions and webhook requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::atomic::AtomicU64,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::{
    members::{ClusterSample, MemberCollector},
    process::ProcessCollector,
    runtime::RuntimeCollector,
    scrapes::Scrapes,
};
use crate::{
    core::{
        gate::{GateResult, GateRule, Moment},
        history::{MemberResult, Outcome, Trigger},
        plan::{Decision, Plan},
        policy::Need,
        reason::Reason,
        shard::Shard,
    },
    ports::service::AlertDecision,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabels {
    etcd_cluster: String,
    trigger: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabels {
    etcd_cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    etcd_cluster: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    etcd_cluster: String,
    decision: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GateLabels {
    etcd_cluster: String,
    gate: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    etcd_cluster: String,
    gate: String,
    moment: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlertLabels {
    decision: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotificationLabels {
    target: String,
    result: &'static str,
}

/// Counts notifications by target and result; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct NotificationCounter(Family<NotificationLabels, Counter>);

impl NotificationCounter {
    /// Where a counter starts at 0.
    pub const RESULTS: [&'static str; 3] = ["sent", "failed", "dropped"];

    /// Starts the counters of a notification target at 0.
    pub fn expect(&self, target: &str) {
        for result in Self::RESULTS {
            let _ = self.0.get_or_create(&NotificationLabels { target: target.to_owned(), result });
        }
    }

    /// One of [`Self::RESULTS`].
    pub fn count(&self, target: &str, result: &'static str) {
        self.0.get_or_create(&NotificationLabels { target: target.to_owned(), result }).inc();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: u16,
}

type Histograms = Family<ClusterLabels, Histogram, fn() -> Histogram>;

/// All counters of the process, and the registry that exposes them.
pub struct Counters {
    /// Metrics about the requests for metrics.
    pub scrapes: Scrapes,
    registry: Registry,
    process: Registry,
    runs: Family<RunLabels, Counter>,
    run_duration: Histograms,
    reclaimed: Family<ClusterLabels, Counter>,
    defrags: Family<ResultLabels, Counter>,
    decisions: Family<DecisionLabels, Counter>,
    gate_checks: Family<CheckLabels, Counter>,
    gate_passed: Family<GateLabels, Gauge>,
    gate_duration: Family<GateLabels, Gauge<f64, AtomicU64>>,
    webhook_requests: Family<CodeLabels, Counter>,
    notifications: NotificationCounter,
    webhook_alerts: Family<AlertLabels, Counter>,
    web_config_read: Gauge,
    lock_transitions: Family<ClusterLabels, Counter>,
    lock_errors: Family<ClusterLabels, Counter>,
    shard_ordinal: Gauge,
    total_shards: Gauge,
    config_read: Gauge,
    config_read_at: Gauge<f64, AtomicU64>,
    /// Whether there may be runs.
    runs_happen: bool,
    cluster_series: Mutex<BTreeMap<String, ClusterSeries>>,
}

/// The series of a cluster beyond those that every cluster has: a metric family cannot list its own.
#[derive(Default)]
struct ClusterSeries {
    decisions: BTreeSet<(&'static str, &'static str)>,
    gates: BTreeSet<String>,
}

impl Counters {
    /// Counters at 0 for these clusters: a counter that appears only with its first event hides that
    /// event from `rate()`.
    pub fn new<'a>(clusters: impl IntoIterator<Item = &'a str>) -> Self {
        let counters = Self::registered(true);
        for cluster in clusters {
            counters.expect_cluster(cluster);
        }
        counters
    }

    /// For a process that starts no runs: no cluster has counters of runs. They would be half of a large fleet's page,
    /// and stay at 0.
    pub fn without_runs() -> Self {
        Self::registered(false)
    }

    fn registered(runs_happen: bool) -> Self {
        // 1 s to 2 h 16 min: one tiny member to a fleet's largest cluster with long pauses.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(1.0, 2.0, 14));
        let mut registry = Registry::with_prefix("defragd");
        let mut counters = Self {
            scrapes: Scrapes::new(&mut registry),
            registry,
            process: Registry::default(),
            runs: Family::default(),
            run_duration: Family::new_with_constructor(histogram),
            reclaimed: Family::default(),
            defrags: Family::default(),
            decisions: Family::default(),
            gate_checks: Family::default(),
            gate_passed: Family::default(),
            gate_duration: Family::default(),
            webhook_requests: Family::default(),
            notifications: NotificationCounter::default(),
            webhook_alerts: Family::default(),
            web_config_read: Gauge::default(),
            lock_transitions: Family::default(),
            lock_errors: Family::default(),
            shard_ordinal: Gauge::default(),
            total_shards: Gauge::default(),
            config_read: Gauge::default(),
            config_read_at: Gauge::default(),
            runs_happen,
            cluster_series: Mutex::default(),
        };
        counters.register();
        counters
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        // defragd does not start with an invalid configuration.
        self.web_config_read.set(1);
        self.config_read.set(1);
        self.total_shards.set(1);
        let ordinal = "Which shard of the configured clusters this process has, counted from 0";
        registry.register("shard_ordinal", ordinal, self.shard_ordinal.clone());
        let total = "How many shards the configured clusters are divided among (--total-shards)";
        registry.register("total_shards", total, self.total_shards.clone());
        registry.register(
            "config_last_reload_successful",
            "Whether the configuration was applied when it was last loaded",
            self.config_read.clone(),
        );
        registry.register(
            "config_last_reload_success_timestamp_seconds",
            "When a configuration was last applied, as Unix time",
            self.config_read_at.clone(),
        );
        registry.register(
            "web_config_last_reload_successful",
            "Whether --web.config.file and its certificates were valid when they last changed",
            self.web_config_read.clone(),
        );
        registry.register("runs", "Runs that ended, by what requested them and their outcome", self.runs.clone());
        registry.register(
            "run_duration_seconds",
            "How long runs took, from the first observation to the end",
            self.run_duration.clone(),
        );
        registry.register(
            "reclaimed_bytes",
            "How much smaller the members' database files became in runs",
            self.reclaimed.clone(),
        );
        registry.register("member_defrags", "Attempts to defragment a member, by result", self.defrags.clone());
        registry.register("decisions", "Decisions about members and runs, by reason", self.decisions.clone());
        registry.register("gate_checks", "Checks of the gate, by moment and result", self.gate_checks.clone());
        registry.register("gate_passed", "Whether the gate's last check passed", self.gate_passed.clone());
        registry.register("gate_duration_seconds", "Duration of the gate's last check", self.gate_duration.clone());
        registry.register(
            "lock_transitions",
            "How often this replica acquired or lost the cluster's lock",
            self.lock_transitions.clone(),
        );
        registry.register(
            "lock_errors",
            "Failed renewals of the cluster's lock, and notes between its holders that could not be read or written",
            self.lock_errors.clone(),
        );
        registry.register("webhook_requests", "Requests to the webhook, by HTTP status", self.webhook_requests.clone());
        registry.register("notifications", "Notifications of runs, by target and result", self.notifications.0.clone());
        registry.register(
            "webhook_alerts",
            "Alerts that the webhook received, by decision and reason",
            self.webhook_alerts.clone(),
        );
        let build: Family<Vec<(&str, &str)>, Gauge> = Family::default();
        let version = env!("CARGO_PKG_VERSION");
        let revision = option_env!("DEFRAGD_REVISION").unwrap_or("unknown");
        build.get_or_create(&vec![("version", version), ("revision", revision)]).set(1);
        registry.register("build_info", "Version of this program; always 1", build);
        self.registry.register_collector(Box::new(RuntimeCollector));
        self.process.register_collector(Box::new(ProcessCollector));
    }

    /// Starts the counters of one more cluster at 0.
    pub fn expect_cluster(&self, cluster: &str) {
        if !self.runs_happen {
            return;
        }
        let etcd_cluster = || cluster.to_owned();
        for trigger in Trigger::ALL {
            for outcome in Outcome::LABELS {
                let labels = RunLabels { etcd_cluster: etcd_cluster(), trigger: trigger.label(), outcome };
                let _ = self.runs.get_or_create(&labels);
            }
        }
        for result in MemberResult::LABELS {
            let _ = self.defrags.get_or_create(&ResultLabels { etcd_cluster: etcd_cluster(), result });
        }
        let _ = self.reclaimed.get_or_create(&ClusterLabels { etcd_cluster: etcd_cluster() });
        let _ = self.run_duration.get_or_create(&ClusterLabels { etcd_cluster: etcd_cluster() });
        let _ = self.lock_transitions.get_or_create(&ClusterLabels { etcd_cluster: etcd_cluster() });
        let _ = self.lock_errors.get_or_create(&ClusterLabels { etcd_cluster: etcd_cluster() });
    }

    pub fn forget_cluster(&self, cluster: &str) {
        let cluster_series = self.cluster_series().remove(cluster).unwrap_or_default();
        let etcd_cluster = || cluster.to_owned();
        for trigger in Trigger::ALL {
            for outcome in Outcome::LABELS {
                self.runs.remove(&RunLabels { etcd_cluster: etcd_cluster(), trigger: trigger.label(), outcome });
            }
        }
        for result in MemberResult::LABELS {
            self.defrags.remove(&ResultLabels { etcd_cluster: etcd_cluster(), result });
        }
        self.reclaimed.remove(&ClusterLabels { etcd_cluster: etcd_cluster() });
        self.run_duration.remove(&ClusterLabels { etcd_cluster: etcd_cluster() });
        self.lock_transitions.remove(&ClusterLabels { etcd_cluster: etcd_cluster() });
        self.lock_errors.remove(&ClusterLabels { etcd_cluster: etcd_cluster() });
        for (decision, reason) in cluster_series.decisions {
            self.decisions.remove(&DecisionLabels { etcd_cluster: etcd_cluster(), decision, reason });
        }
        for gate in cluster_series.gates {
            let labels = GateLabels { etcd_cluster: etcd_cluster(), gate: gate.clone() };
            self.gate_passed.remove(&labels);
            self.gate_duration.remove(&labels);
            for moment in Moment::ALL.map(Moment::label) {
                for result in GateResult::LABELS {
                    let (etcd_cluster, gate) = (etcd_cluster(), gate.clone());
                    self.gate_checks.remove(&CheckLabels { etcd_cluster, gate, moment, result });
                }
            }
        }
    }

    // A panic elsewhere while the mutex was locked leaves the sets consistent.
    fn cluster_series(&self) -> MutexGuard<'_, BTreeMap<String, ClusterSeries>> {
        self.cluster_series.lock()
    }

    fn decide(&self, cluster: &str, decision: &'static str, reason: &'static str) {
        self.cluster_series().entry(cluster.to_owned()).or_default().decisions.insert((decision, reason));
        self.decisions.get_or_create(&DecisionLabels { etcd_cluster: cluster.to_owned(), decision, reason }).inc();
    }

    /// Counts the members that a plan skips, by reason.
    pub fn planned(&self, cluster: &str, plan: &Plan) {
        for step in &plan.steps {
            if let Decision::Skip { reason } = &step.decision {
                self.decide(cluster, "skip", reason.label());
            }
        }
    }

    /// Counts a request that is not accepted.
    pub fn not_taken(&self, cluster: &str, reason: &Reason) {
        self.decide(cluster, "ignore", reason.label());
    }

    /// Counts a request that begins to wait.
    pub fn waiting(&self, cluster: &str, reason: &Reason) {
        self.decide(cluster, "wait", reason.label());
    }

    /// Counts a member that is started.
    pub fn started(&self, cluster: &str, need: Need) {
        let reason = match need {
            Need::NoSpace => "no_space",
            Need::QuotaPressure => "quota_pressure",
            Need::Fragmented => "fragmented",
            Need::Rule => "rule",
        };
        self.decide(cluster, "start", reason);
    }

    /// Starts the counters of a cluster's gates at 0, for the moments at which they are checked.
    pub fn expect_gates<'a>(&self, cluster: &str, gates: impl IntoIterator<Item = &'a GateRule>) {
        for gate in gates.into_iter().filter(|_| self.runs_happen) {
            self.cluster_series().entry(cluster.to_owned()).or_default().gates.insert(gate.name.clone());
            for (moment, result) in
                gate.when.iter().flat_map(|moment| GateResult::LABELS.map(|result| (moment, result)))
            {
                let (etcd_cluster, gate, moment) = (cluster.to_owned(), gate.name.clone(), moment.label());
                let _ = self.gate_checks.get_or_create(&CheckLabels { etcd_cluster, gate, moment, result });
            }
        }
    }

    /// Sets this process's shard; `None` if it has all clusters.
    pub fn shard(&self, here: Option<Shard>) {
        let Shard { ordinal, total } = here.unwrap_or(Shard { ordinal: 0, total: 1 });
        self.shard_ordinal.set(ordinal.into());
        self.total_shards.set(total.into());
    }

    /// Records a read of the configuration, with the time at which it was applied if it was valid.
    pub fn config_read(&self, taken_over_at: Option<jiff::Timestamp>) {
        self.config_read.set(i64::from(taken_over_at.is_some()));
        if let Some(at) = taken_over_at {
            self.config_read_at.set(at.as_duration().as_secs_f64());
        }
    }

    /// Records a change of the web configuration, and whether it was applied.
    pub fn web_config_read(&self, taken: bool) {
        self.web_config_read.set(i64::from(taken));
    }

    pub fn gate(&self, cluster: &str, result: &GateResult) {
        let (moment, label) = (result.moment.label(), result.label());
        let labels = GateLabels { etcd_cluster: cluster.to_owned(), gate: result.gate.clone() };
        self.gate_passed.get_or_create(&labels).set(i64::from(result.passed));
        self.gate_duration.get_or_create(&labels).set(result.took.as_secs_f64());
        let GateLabels { etcd_cluster, gate } = labels;
        self.gate_checks.get_or_create(&CheckLabels { etcd_cluster, gate, moment, result: label }).inc();
    }

    /// Records the end of the attempt on a member.
    pub fn member_ended(&self, cluster: &str, result: &MemberResult) {
        let labels = ResultLabels { etcd_cluster: cluster.to_owned(), result: result.label() };
        self.defrags.get_or_create(&labels).inc();
        self.reclaimed.get_or_create(&ClusterLabels { etcd_cluster: cluster.to_owned() }).inc_by(result.reclaimed().0);
    }

    /// Records the end of a run. `took` is `None` for one that never began.
    pub fn run_ended(&self, cluster: &str, trigger: Trigger, outcome: &Outcome, took: Option<Duration>) {
        let etcd_cluster = cluster.to_owned();
        let labels = RunLabels { etcd_cluster, trigger: trigger.label(), outcome: outcome.label() };
        self.runs.get_or_create(&labels).inc();
        if let Some(took) = took {
            let labels = ClusterLabels { etcd_cluster: cluster.to_owned() };
            self.run_duration.get_or_create(&labels).observe(took.as_secs_f64());
        }
        let decision = if matches!(outcome, Outcome::Refused { .. }) { "refuse" } else { "stop" };
        if let Some(reason) = outcome.reason().map(Reason::label) {
            self.decide(cluster, decision, reason);
        }
        if matches!(outcome, Outcome::Observed { .. }) {
            self.decide(cluster, "refuse", Reason::ObserveMode.label());
        }
    }

    /// Records a renewal of the lock, failed or not, and whether the lock was acquired or lost.
    pub fn lock(&self, cluster: &str, changed: bool, failed: bool) {
        let labels = ClusterLabels { etcd_cluster: cluster.to_owned() };
        self.lock_transitions.get_or_create(&labels).inc_by(u64::from(changed));
        self.lock_errors.get_or_create(&labels).inc_by(u64::from(failed));
    }

    pub fn notifications(&self) -> NotificationCounter {
        self.notifications.clone()
    }

    /// Counts an answer to a webhook request.
    pub fn webhook(&self, code: u16) {
        self.webhook_requests.get_or_create(&CodeLabels { code }).inc();
    }

    /// Counts a decision about an alert of a webhook request.
    pub fn alert(&self, decision: &AlertDecision) {
        let (decision, reason) = decision.labels();
        self.webhook_alerts.get_or_create(&AlertLabels { decision, reason }).inc();
    }

    /// Writes everything in the OpenMetrics text format, with one observation of the clusters, in small pieces: a large
    /// fleet's page has megabytes, and compressing it must not need all of it in memory.
    pub fn render(&self, clusters: Vec<ClusterSample>, mut page: &mut dyn fmt::Write) -> Result<(), fmt::Error> {
        let mut members = Registry::with_prefix("defragd");
        members.register_collector(Box::new(MemberCollector::new(clusters)));
        for registry in [&members, &self.registry, &self.process] {
            text::encode_registry(&mut page, registry)?;
        }
        text::encode_eof(&mut page)
    }
}
