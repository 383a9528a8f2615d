//! The configuration file as it is written. Unknown keys are errors: a typing mistake in a safety limit
//! must not fall back to a default.
//!
//! The doc comments of keys are also their descriptions in `docs/reference/configuration.md` and in the JSON schema
//! ([`super::schema`]), beside what the `schemars` attributes add: `default`, or `x-default` in words where it is no
//! value; `range` and `x-range`; `x-restart` where a reload does not apply the key. Tests try each of them.

pub mod gates;
pub mod lock;
pub mod modules;

use std::{borrow::Cow, collections::BTreeMap, path::PathBuf};

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Source, gates::notify::NotifyKeys};
use crate::core::{
    alert::Labels,
    policy::{LeaderPolicy, Mode, OpenSnapshotPolicy, VerifyPolicy},
    time::Time,
};

/// defragd's configuration file.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The clusters that are observed and defragmented. May be left out only if there are `modules`.
    #[serde(default)]
    pub clusters: Vec<Cluster>,
    /// Which of several replicas of defragd acts on a cluster. All replicas export metrics and receive alerts.
    /// Left out, there is one replica.
    #[schemars(extend("x-restart" = true))]
    pub lock: Option<lock::Lock>,
    /// How `GET /probe?module=NAME&target=HOST:PORT` connects to clusters that are not configured above. They are
    /// measured, never defragmented.
    #[serde(default)]
    pub modules: BTreeMap<String, modules::Module>,
    /// Where runs are announced, at most 20 targets. A run never waits for them: a notification that fails three times
    /// is counted in `defragd_notifications_total` and dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-restart" = true))]
    pub notify: Vec<NotifyKeys>,
}

/// One cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's name, unique in the file. It is the metric label `etcd_cluster`.
    pub name: String,
    /// Client URLs of members. One reachable member is enough to find the others; name several, for the day that one is
    /// down. Without a scheme, it is `https://` if `tls` is set and `http://` if not.
    #[serde(default)]
    #[schemars(extend("x-default" = "required without `discovery_srv`", "x-restart" = LOCK_IN_THE_TARGET))]
    pub endpoints: Vec<String>,
    /// Finds client URLs by DNS SRV records, instead of `endpoints` or in addition to them.
    #[schemars(extend("x-restart" = LOCK_IN_THE_TARGET))]
    pub discovery_srv: Option<DiscoverySrv>,
    /// TLS to the members. The files are read again when they change. With `tls` or `https://` endpoints, nothing is sent
    /// without TLS.
    #[serde(default)]
    #[schemars(extend("x-restart" = LOCK_IN_THE_TARGET))]
    pub tls: Tls,
    /// The etcd user. Only needed where etcd's authentication is on.
    #[schemars(extend("x-restart" = LOCK_IN_THE_TARGET))]
    pub auth: Option<Auth>,
    /// Where the members serve their metrics, if their client URLs do not.
    pub metrics: Option<Metrics>,
    /// The members' `--quota-backend-bytes`, for members that do not report it. A reported quota wins over this one.
    #[schemars(with = "Option<Size>", extend("x-default" = "as reported by the member", "x-range" = ["1MiB", null]))]
    pub quota: Option<ByteSize>,
    /// Sets of labels. An alert that has all labels of one set, with equal values, concerns this cluster.
    #[serde(rename = "match")]
    #[schemars(extend("x-default" = "`[{etcd_cluster: NAME}]`"))]
    pub matches: Option<Vec<Labels>>,
    /// When to defragment, and how carefully.
    #[serde(default)]
    pub policy: PolicyKeys,
    /// Checks outside etcd, at most 50. A gate that fails before the first member refuses the run; one that fails later
    /// stops it. A gate has exactly one kind: `http`, `tcp`, `promql`, `alertmanager` or `kubernetes_pods`.
    #[serde(default)]
    pub gates: Vec<gates::Gate>,
}

/// SRV records, as etcdctl's flags of these names.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscoverySrv {
    /// The domain of the records `_etcd-client-ssl._tcp` and `_etcd-client._tcp`.
    pub domain: String,
    /// Added to the service name, as in `_etcd-client-ssl-NAME._tcp`, for domains with several clusters.
    #[schemars(extend("x-default" = "none"))]
    pub name: Option<String>,
    /// Whether records without TLS are accepted. With `false`, servers must also prove the domain by their certificate.
    #[serde(default = "yes")]
    pub insecure: bool,
    /// The name server to ask, as `IP:PORT`.
    #[schemars(with = "Option<String>", extend("x-default" = "the system's name servers"))]
    pub nameserver: Option<std::net::SocketAddr>,
}

fn yes() -> bool {
    true
}

/// TLS files.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate authorities to trust, or with the server's own certificate if it is its own
    /// authority.
    #[schemars(extend("x-default" = "the system's authorities"))]
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client certificate. Needs `key_file`.
    #[schemars(extend("x-default" = "none"))]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key of `cert_file`.
    #[schemars(extend("x-default" = "none"))]
    pub key_file: Option<PathBuf>,
}

/// Where the members' metrics pages are.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The page's URL, with `{host}` (the host of the member's client URL) or `{member}` (the member's name) in its
    /// host. The page must be that member's own.
    pub url: String,
    /// TLS to this page, for `https://`. The cluster's client certificate and user are not sent to it.
    #[schemars(transform = trusts_the_same_authorities)]
    pub tls: Option<Tls>,
}

fn trusts_the_same_authorities(tls: &mut Schema) {
    if let Some(ca_file) = tls.pointer_mut("/properties/ca_file") {
        ca_file["x-default"] = "`tls.ca_file` beside `metrics`".into();
    }
}

/// etcd's own users.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Name of an etcd user. To defragment, it needs the role `root`.
    pub username: String,
    /// File with the user's password. It is read again when it changes.
    pub password_file: PathBuf,
}

/// What differs from the default policy. Durations like `10s`, `6h`, `1d12h`, `2w`; sizes like `100MiB`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyKeys {
    /// `observe` plans runs and records them, and changes nothing. `approve` starts a run once an operator approves it
    /// with `defragd approve RUN`. `enforce` starts runs by itself.
    #[schemars(extend("default" = "observe"))]
    pub mode: Option<Mode>,
    /// Defragment a member from this fragmentation ratio on (free part of its file), if `min_reclaimable` is reached,
    /// too.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.45, "title" = "ratio"))]
    pub min_fragmentation_ratio: Option<f64>,
    /// The least that a defragmentation must be able to free. 0, or at least one page of etcd's file.
    #[schemars(with = "Option<Size>", extend("default" = "100MiB", "x-range" = ["4KiB", null]))]
    pub min_reclaimable: Option<ByteSize>,
    /// Defragment a member whose file uses this much of its quota, if `quota_min_reclaimable` is reached, too.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.8, "title" = "ratio"))]
    pub quota_usage_ratio: Option<f64>,
    /// As `min_reclaimable`, for members near their quota.
    #[schemars(with = "Option<Size>", extend("default" = "32MiB", "x-range" = ["4KiB", null]))]
    pub quota_min_reclaimable: Option<ByteSize>,
    /// How long the cluster must have been healthy after one member before the next one starts.
    #[schemars(extend("default" = "10s", "x-range" = ["0s", "365d"]))]
    pub pause_between_members: Option<Time>,
    /// How long one defragmentation may take. Past it, it counts as failed and the run stops; etcd itself continues.
    #[schemars(extend("default" = "10m", "x-range" = ["1s", "365d"]))]
    pub defrag_deadline: Option<Time>,
    /// How long the cluster may take to be healthy again after a member.
    #[schemars(extend("default" = "5m", "x-range" = ["1s", "365d"]))]
    pub recovery_timeout: Option<Time>,
    /// The least time between two runs of a cluster.
    #[schemars(extend("default" = "6h", "x-range" = ["0s", "365d"]))]
    pub cooldown: Option<Time>,
    /// What happens to the leader, once all others are done. `last`: it is defragmented as the leader.
    /// `last_after_transfer`: leadership is transferred first. `auto`: leadership is transferred first if the leader is
    /// expected to be unavailable for longer than `transfer_above`. `skip`: it is left alone.
    #[schemars(extend("default" = "auto"))]
    pub leader: Option<LeaderPolicy>,
    /// With `leader: auto`, how long the leader may be expected to be unavailable without a leadership transfer.
    #[schemars(extend("default" = "2s", "x-range" = ["0s", "365d"]))]
    pub transfer_above: Option<Time>,
    /// How long the liveness probe of etcd's containers lets a member hang before the container is killed:
    /// `failureThreshold` times `periodSeconds`, 80 s for kubeadm. A member that is expected to be unavailable for longer
    /// is warned about.
    #[schemars(extend("x-default" = "no warning", "x-range" = ["1s", "365d"]))]
    pub liveness_budget: Option<Time>,
    /// Refuse a run while a member is expected to be unavailable for longer, unless NOSPACE is armed.
    #[schemars(extend("x-default" = "no limit", "x-range" = ["1s", "365d"]))]
    pub max_expected_stall: Option<Time>,
    /// A member that is sending a snapshot, such as a backup, cannot finish a defragmentation and serves nobody until the
    /// snapshot ends. `wait` waits for the snapshot to end; `ignore` defragments the member all the same.
    #[schemars(extend("default" = "wait"))]
    pub on_open_snapshot: Option<OpenSnapshotPolicy>,
    /// Compact the key history before the first member. Left out, nothing is compacted, which is right where another
    /// program does it, as the Kubernetes API server. Exactly one of its keys must be set.
    pub compaction: Option<CompactionKeys>,
    /// After a run that changed something, `hash` compares the voters' data at one revision. If it differs, nothing is
    /// started until `defragd resume`. Each voter reads its whole database for it, and serves nothing meanwhile.
    #[schemars(extend("default" = "none"))]
    pub verify: Option<VerifyPolicy>,
    /// Whether NOSPACE is disarmed once every member's file is below 0.9 of its quota. Never while CORRUPT is armed.
    #[schemars(extend("default" = true))]
    pub disarm_nospace: Option<bool>,
    /// Accept clusters of one or two members, which stop serving while one of them is defragmented.
    #[schemars(extend("default" = false))]
    pub allow_without_quorum_slack: Option<bool>,
    /// An expression that replaces the four thresholds, with the variables `dbSize`, `dbSizeInUse`, `dbSizeFree`,
    /// `dbQuota` (bytes) and `dbQuotaUsage` (0 to 1), like `dbQuotaUsage > 0.8 || dbSizeFree > 200*1024*1024`.
    #[schemars(extend("x-default" = "the thresholds"))]
    pub rule: Option<String>,
    /// Maintenance windows in which runs may start. When a window closes, a run under way starts no further member.
    #[schemars(extend("x-default" = "always open"))]
    pub windows: Option<Vec<Window>>,
    /// Times at which a run is requested without an alert. As with an alert, nothing is done where nothing is needed.
    #[schemars(extend("x-default" = "none"))]
    pub schedule: Option<Vec<ScheduleLine>>,
    /// Whether NOSPACE, or a file at 0.9 of its quota, overrides windows, cooldown and daily limit.
    #[schemars(extend("default" = true))]
    pub emergency: Option<bool>,
    /// Most runs within 24 hours that changed a member.
    #[schemars(range(min = 1), extend("default" = 4))]
    pub max_runs_per_day: Option<u32>,
    /// After this many failed runs in a row the breaker opens: no run starts until `defragd resume`.
    #[schemars(range(min = 1), extend("default" = 3))]
    pub breaker_failures: Option<u32>,
    /// How long after the last failure an open breaker lets one more run try.
    #[schemars(extend("x-default" = "never: only `defragd resume` closes it", "x-range" = ["1s", "365d"]))]
    pub breaker_reset_after: Option<Time>,
    /// With `mode: approve`, how long a request waits for an operator.
    #[schemars(extend("default" = "24h", "x-range" = ["1s", "365d"]))]
    pub approval_timeout: Option<Time>,
}

/// A weekly maintenance window.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Days on which it opens, like `sat` or `saturday`.
    #[serde(default)]
    #[schemars(extend("x-default" = "every day"))]
    pub days: Vec<String>,
    /// When it opens, like `"02:00"`.
    pub start: String,
    /// When it closes, like `"05:00"`. If it is before `start`, it is on the next day; `"24:00"` is the end of the day.
    pub end: String,
    /// IANA name of the time zone, like `Europe/Berlin`.
    pub timezone: String,
}

/// Times at which a run is requested.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleLine {
    /// Five fields: minute, hour, day of month, month, day of week, like `0 3 * * sun`.
    pub cron: String,
    /// IANA name of the time zone, like `Europe/Berlin`.
    #[schemars(extend("default" = "UTC"))]
    pub timezone: Option<String>,
}

/// Compaction before a run.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompactionKeys {
    /// How many of the newest revisions stay readable.
    #[schemars(extend("x-default" = "none"))]
    pub keep_revisions: Option<u64>,
    /// What was written within this time stays readable. Nothing is compacted until defragd has observed the cluster for
    /// as long.
    #[schemars(extend("x-default" = "none", "x-range" = ["1m", "365d"]))]
    pub older_than: Option<Time>,
}

/// How a [`ByteSize`] is written.
pub(super) struct Size;

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "title": "size" })
    }
}

/// When these keys need a restart.
const LOCK_IN_THE_TARGET: &str = "if the cluster's lock is kept in its own etcd";

impl PolicyKeys {
    /// These keys, overridden by those of `over`.
    #[must_use]
    pub fn overridden_by(self, over: &Self) -> Self {
        Self {
            mode: over.mode.or(self.mode),
            min_fragmentation_ratio: over.min_fragmentation_ratio.or(self.min_fragmentation_ratio),
            min_reclaimable: over.min_reclaimable.or(self.min_reclaimable),
            quota_usage_ratio: over.quota_usage_ratio.or(self.quota_usage_ratio),
            quota_min_reclaimable: over.quota_min_reclaimable.or(self.quota_min_reclaimable),
            pause_between_members: over.pause_between_members.or(self.pause_between_members),
            defrag_deadline: over.defrag_deadline.or(self.defrag_deadline),
            recovery_timeout: over.recovery_timeout.or(self.recovery_timeout),
            cooldown: over.cooldown.or(self.cooldown),
            leader: over.leader.or(self.leader),
            transfer_above: over.transfer_above.or(self.transfer_above),
            liveness_budget: over.liveness_budget.or(self.liveness_budget),
            max_expected_stall: over.max_expected_stall.or(self.max_expected_stall),
            on_open_snapshot: over.on_open_snapshot.or(self.on_open_snapshot),
            compaction: over.compaction.or(self.compaction),
            verify: over.verify.or(self.verify),
            disarm_nospace: over.disarm_nospace.or(self.disarm_nospace),
            allow_without_quorum_slack: over.allow_without_quorum_slack.or(self.allow_without_quorum_slack),
            rule: over.rule.clone().or(self.rule),
            windows: over.windows.clone().or(self.windows),
            schedule: over.schedule.clone().or(self.schedule),
            emergency: over.emergency.or(self.emergency),
            max_runs_per_day: over.max_runs_per_day.or(self.max_runs_per_day),
            breaker_failures: over.breaker_failures.or(self.breaker_failures),
            breaker_reset_after: over.breaker_reset_after.or(self.breaker_reset_after),
            approval_timeout: over.approval_timeout.or(self.approval_timeout),
        }
    }
}

/// Parses a text that is not in a file. The error has all problems of its structure.
pub fn parse(text: &str) -> Result<File, String> {
    let mut source = Source::from_text(text);
    let file = source.read().ok_or_else(Vec::new);
    source.judge(file).map_err(|error| error.to_string())
}

impl File {
    /// The configuration with the flags that override it, without absent keys and without secrets. Secrets are in
    /// files, of which it has the paths, and in gates' headers, of which it has the names.
    pub fn redacted(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        without_nothing(&mut value);
        value
    }
}

/// Removes what is null or empty.
fn without_nothing(value: &mut serde_json::Value) {
    use serde_json::Value::{Array, Null, Object};
    match value {
        Object(map) => {
            map.values_mut().for_each(without_nothing);
            map.retain(|_, value| !matches!(value, Null) && value.as_object().is_none_or(|map| !map.is_empty()));
        }
        Array(list) => list.iter_mut().for_each(without_nothing),
        _ => {}
    }
}
