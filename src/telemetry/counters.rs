//! The metrics that are kept between scrapes: counters of runs, decisions and webhook requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::atomic::AtomicU64,
    time::Duration,
};

use parking_lot::Mutex;
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
use strum::VariantNames;

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

type ClusterLabel = [(&'static str, String); 1];
type GateLabels = [(&'static str, String); 2];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabels {
    etcd_cluster: String,
    trigger: &'static str,
    outcome: &'static str,
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
struct CheckLabels {
    etcd_cluster: String,
    gate: String,
    moment: &'static str,
    result: &'static str,
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

super::metrics! {
    struct Metrics {
        shard_ordinal: Gauge = "shard_ordinal",
            "Which shard of the configured clusters this process has, counted from 0";
        total_shards: Gauge = "total_shards",
            "How many shards the configured clusters are divided among (--total-shards)";
        config_read: Gauge = "config_last_reload_successful",
            "Whether the configuration was applied when it was last loaded";
        config_read_at: Gauge<f64, AtomicU64> = "config_last_reload_success_timestamp_seconds",
            "When a configuration was last applied, as Unix time";
        web_config_read: Gauge = "web_config_last_reload_successful",
            "Whether --web.config.file and its certificates were valid when they last changed";
        runs: Family<RunLabels, Counter> = "runs",
            "Runs that ended, by what requested them and their outcome";
        run_duration: Family<ClusterLabel, Histogram, fn() -> Histogram> = "run_duration_seconds",
            "How long runs took, from the first observation to the end",
            // 1 s to 2 h 16 min: one tiny member to a fleet's largest cluster with long pauses.
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 2.0, 14)));
        reclaimed: Family<ClusterLabel, Counter> = "reclaimed_bytes",
            "How much smaller the members' database files became in runs";
        defrags: Family<ResultLabels, Counter> = "member_defrags",
            "Attempts to defragment a member, by result";
        decisions: Family<DecisionLabels, Counter> = "decisions",
            "Decisions about members and runs, by reason";
        gate_checks: Family<CheckLabels, Counter> = "gate_checks",
            "Checks of the gate, by moment and result";
        gate_passed: Family<GateLabels, Gauge> = "gate_passed",
            "Whether the gate's last check passed";
        gate_duration: Family<GateLabels, Gauge<f64, AtomicU64>> = "gate_duration_seconds",
            "Duration of the gate's last check";
        lock_transitions: Family<ClusterLabel, Counter> = "lock_transitions",
            "How often this replica acquired or lost the cluster's lock";
        lock_errors: Family<ClusterLabel, Counter> = "lock_errors",
            "Failed renewals of the cluster's lock, and notes between its holders that could not be read or written";
        webhook_requests: Family<[(&'static str, u16); 1], Counter> = "webhook_requests",
            "Requests to the webhook, by HTTP status";
        notifications: Family<NotificationLabels, Counter> = "notifications",
            "Notifications of runs, by target and result";
        webhook_alerts: Family<[(&'static str, &'static str); 2], Counter> = "webhook_alerts",
            "Alerts that the webhook received, by decision and reason";
        build: Family<[(&'static str, &'static str); 2], Gauge> = "build_info",
            "Version of this program; always 1";
    }
}

/// All counters of the process, and the registry that exposes them.
pub struct Counters {
    /// Metrics about the requests for metrics.
    pub scrapes: Scrapes,
    registry: Registry,
    process: Registry,
    metrics: Metrics,
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

fn cluster_label(cluster: &str) -> ClusterLabel {
    [("etcd_cluster", cluster.to_owned())]
}

fn gate_labels(cluster: &str, gate: &str) -> GateLabels {
    [("etcd_cluster", cluster.to_owned()), ("gate", gate.to_owned())]
}

fn run_labels(cluster: &str) -> impl Iterator<Item = RunLabels> {
    let outcomes =
        Trigger::ALL.into_iter().flat_map(|trigger| Outcome::VARIANTS.iter().map(move |outcome| (trigger, *outcome)));
    outcomes.map(|(trigger, outcome)| RunLabels { etcd_cluster: cluster.to_owned(), trigger: trigger.label(), outcome })
}

fn result_labels(cluster: &str) -> [ResultLabels; MemberResult::LABELS.len()] {
    MemberResult::LABELS.map(|result| ResultLabels { etcd_cluster: cluster.to_owned(), result })
}

fn check_labels(
    cluster: &str,
    gate: &str,
    moments: impl IntoIterator<Item = Moment>,
) -> impl Iterator<Item = CheckLabels> {
    let results = moments.into_iter().flat_map(|moment| GateResult::LABELS.map(|result| (moment.label(), result)));
    results.map(|(moment, result)| CheckLabels {
        etcd_cluster: cluster.to_owned(),
        gate: gate.to_owned(),
        moment,
        result,
    })
}

impl Counters {
    /// Counters at 0 for these clusters: a counter that appears only with its first event hides that
    /// event from `rate()`.
    pub fn new<'a>(clusters: impl IntoIterator<Item = &'a str>) -> Self {
        let counters = Self::at_start(true);
        for code in [202, 400, 401, 403, 408, 413, 415, 503_u16] {
            let _ = counters.metrics.webhook_requests.get_or_create(&[("code", code)]);
        }
        for cluster in clusters {
            counters.expect_cluster(cluster);
        }
        counters
    }

    /// For a process that starts no runs: no cluster has counters of runs. They would be half of a large fleet's page,
    /// and stay at 0.
    pub fn without_runs() -> Self {
        Self::at_start(false)
    }

    fn at_start(runs_happen: bool) -> Self {
        let mut registry = Registry::with_prefix("defragd");
        let (scrapes, metrics) = (Scrapes::at_zero(&mut registry), Metrics::registered(&mut registry));
        // defragd does not start with an invalid configuration.
        metrics.web_config_read.set(1);
        metrics.config_read.set(1);
        metrics.total_shards.set(1);
        let version = env!("CARGO_PKG_VERSION");
        let revision = option_env!("DEFRAGD_REVISION").unwrap_or("unknown");
        metrics.build.get_or_create(&[("version", version), ("revision", revision)]).set(1);
        registry.register_collector(Box::new(RuntimeCollector));
        let mut process = Registry::default();
        process.register_collector(Box::new(ProcessCollector));
        Self { scrapes, registry, process, metrics, runs_happen, cluster_series: Mutex::default() }
    }

    /// Starts the counters of one more cluster at 0.
    pub fn expect_cluster(&self, cluster: &str) {
        if !self.runs_happen {
            return;
        }
        run_labels(cluster).for_each(|labels| drop(self.metrics.runs.get_or_create(&labels)));
        for labels in &result_labels(cluster) {
            let _ = self.metrics.defrags.get_or_create(labels);
        }
        let label = cluster_label(cluster);
        let _ = self.metrics.run_duration.get_or_create(&label);
        for counters in [&self.metrics.reclaimed, &self.metrics.lock_transitions, &self.metrics.lock_errors] {
            let _ = counters.get_or_create(&label);
        }
    }

    pub fn forget_cluster(&self, cluster: &str) {
        for labels in run_labels(cluster) {
            self.metrics.runs.remove(&labels);
        }
        for labels in result_labels(cluster) {
            self.metrics.defrags.remove(&labels);
        }
        let label = cluster_label(cluster);
        self.metrics.run_duration.remove(&label);
        for counters in [&self.metrics.reclaimed, &self.metrics.lock_transitions, &self.metrics.lock_errors] {
            counters.remove(&label);
        }
        let ClusterSeries { decisions, gates } = self.cluster_series.lock().remove(cluster).unwrap_or_default();
        for (decision, reason) in decisions {
            self.metrics.decisions.remove(&DecisionLabels { etcd_cluster: cluster.to_owned(), decision, reason });
        }
        for gate in gates {
            let labels = gate_labels(cluster, &gate);
            self.metrics.gate_passed.remove(&labels);
            self.metrics.gate_duration.remove(&labels);
            for labels in check_labels(cluster, &gate, Moment::ALL) {
                self.metrics.gate_checks.remove(&labels);
            }
        }
    }

    fn decide(&self, cluster: &str, decision: &'static str, reason: &'static str) {
        self.cluster_series.lock().entry(cluster.to_owned()).or_default().decisions.insert((decision, reason));
        self.metrics
            .decisions
            .get_or_create(&DecisionLabels { etcd_cluster: cluster.to_owned(), decision, reason })
            .inc();
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
        self.decide(cluster, "start", need.into());
    }

    /// Starts the counters of a cluster's gates at 0, for the moments at which they are checked.
    pub fn expect_gates<'a>(&self, cluster: &str, gates: impl IntoIterator<Item = &'a GateRule>) {
        for gate in gates.into_iter().filter(|_| self.runs_happen) {
            self.cluster_series.lock().entry(cluster.to_owned()).or_default().gates.insert(gate.name.clone());
            let checks = check_labels(cluster, &gate.name, gate.when.iter().copied());
            checks.for_each(|labels| drop(self.metrics.gate_checks.get_or_create(&labels)));
        }
    }

    /// Sets this process's shard; `None` if it has all clusters.
    pub fn shard(&self, here: Option<Shard>) {
        let Shard { ordinal, total } = here.unwrap_or(Shard { ordinal: 0, total: 1 });
        self.metrics.shard_ordinal.set(ordinal.into());
        self.metrics.total_shards.set(total.into());
    }

    /// Records a read of the configuration, with the time at which it was applied if it was valid.
    pub fn config_read(&self, taken_over_at: Option<jiff::Timestamp>) {
        self.metrics.config_read.set(i64::from(taken_over_at.is_some()));
        if let Some(at) = taken_over_at {
            self.metrics.config_read_at.set(at.as_duration().as_secs_f64());
        }
    }

    /// Records a change of the web configuration, and whether it was applied.
    pub fn web_config_read(&self, taken: bool) {
        self.metrics.web_config_read.set(i64::from(taken));
    }

    pub fn gate(&self, cluster: &str, result: &GateResult) {
        let (moment, label) = (result.moment.label(), result.label());
        let labels = gate_labels(cluster, &result.gate);
        self.metrics.gate_passed.get_or_create(&labels).set(i64::from(result.passed));
        self.metrics.gate_duration.get_or_create(&labels).set(result.took.as_secs_f64());
        let [(_, etcd_cluster), (_, gate)] = labels;
        self.metrics.gate_checks.get_or_create(&CheckLabels { etcd_cluster, gate, moment, result: label }).inc();
    }

    /// Records the end of the attempt on a member.
    pub fn member_ended(&self, cluster: &str, result: &MemberResult) {
        let labels = ResultLabels { etcd_cluster: cluster.to_owned(), result: result.label() };
        self.metrics.defrags.get_or_create(&labels).inc();
        self.metrics.reclaimed.get_or_create(&cluster_label(cluster)).inc_by(result.reclaimed().0);
    }

    /// Records the end of a run. `took` is `None` for one that never began.
    pub fn run_ended(&self, cluster: &str, trigger: Trigger, outcome: &Outcome, took: Option<Duration>) {
        let etcd_cluster = cluster.to_owned();
        let labels = RunLabels { etcd_cluster, trigger: trigger.label(), outcome: outcome.label() };
        self.metrics.runs.get_or_create(&labels).inc();
        if let Some(took) = took {
            self.metrics.run_duration.get_or_create(&cluster_label(cluster)).observe(took.as_secs_f64());
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
        let labels = cluster_label(cluster);
        self.metrics.lock_transitions.get_or_create(&labels).inc_by(u64::from(changed));
        self.metrics.lock_errors.get_or_create(&labels).inc_by(u64::from(failed));
    }

    pub fn notifications(&self) -> NotificationCounter {
        NotificationCounter(self.metrics.notifications.clone())
    }

    /// Counts an answer to a webhook request.
    pub fn webhook(&self, code: u16) {
        self.metrics.webhook_requests.get_or_create(&[("code", code)]).inc();
    }

    /// Counts a decision about an alert of a webhook request.
    pub fn alert(&self, decision: &AlertDecision) {
        let (decision, reason) = decision.labels();
        self.metrics.webhook_alerts.get_or_create(&[("decision", decision), ("reason", reason)]).inc();
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
