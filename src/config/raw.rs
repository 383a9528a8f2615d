//! The configuration file as it is written. Unknown keys are errors: a typing mistake in a safety limit
//! must not fall back to a default.

pub mod gates;
pub mod lock;
pub mod modules;

use std::{collections::BTreeMap, path::PathBuf};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::{Source, gates::notify::NotifyKeys};
use crate::core::{
    alert::Labels,
    policy::{LeaderPolicy, Mode, OpenSnapshotPolicy, VerifyPolicy},
    time::Time,
};

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The fleet.
    #[serde(default)]
    pub clusters: Vec<Cluster>,
    /// Which of several replicas acts.
    pub lock: Option<lock::Lock>,
    /// How `/probe` speaks to clusters that are not in it.
    #[serde(default)]
    pub modules: BTreeMap<String, modules::Module>,
    /// Whom runs are told to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<NotifyKeys>,
}

/// One cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Any of its members' client URLs; one is enough.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Finds them by SRV records.
    pub discovery_srv: Option<DiscoverySrv>,
    /// TLS files.
    #[serde(default)]
    pub tls: Tls,
    /// etcd's own users.
    pub auth: Option<Auth>,
    /// Metrics pages that are not at the client URLs.
    pub metrics: Option<Metrics>,
    /// The members' `--quota-backend-bytes`, where they do not report it.
    pub quota: Option<ByteSize>,
    /// Sets of labels; an alert that carries all of one set concerns this cluster.
    #[serde(rename = "match")]
    pub matches: Option<Vec<Labels>>,
    /// When to act.
    #[serde(default)]
    pub policy: PolicyKeys,
    /// What is checked outside etcd.
    #[serde(default)]
    pub gates: Vec<gates::Gate>,
}

/// SRV records, as etcdctl's flags of these names.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DiscoverySrv {
    /// `--discovery-srv`
    pub domain: String,
    /// `--discovery-srv-name`
    pub name: Option<String>,
    /// `--insecure-discovery`, with its default.
    #[serde(default = "yes")]
    pub insecure: bool,
    /// Like `127.0.0.1:8600`; the system's where absent.
    pub nameserver: Option<std::net::SocketAddr>,
}

fn yes() -> bool {
    true
}

/// TLS files.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// Where the members' metrics pages are.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// With `{host}` or `{member}` in its host.
    pub url: String,
    /// TLS files for it.
    pub tls: Option<Tls>,
}

/// etcd's own users.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// A user with the root role.
    pub username: String,
    /// The file with its password.
    pub password_file: PathBuf,
}

/// What differs from the default policy. Durations like `10s`, `6h`, `1d12h`, `2w`; sizes like `100MiB`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyKeys {
    /// `observe`, `approve` or `enforce`.
    pub mode: Option<Mode>,
    /// 0–1.
    pub min_fragmentation_ratio: Option<f64>,
    /// Size.
    pub min_reclaimable: Option<ByteSize>,
    /// 0–1.
    pub quota_usage_ratio: Option<f64>,
    /// Size.
    pub quota_min_reclaimable: Option<ByteSize>,
    /// Duration.
    pub pause_between_members: Option<Time>,
    /// Duration.
    pub defrag_deadline: Option<Time>,
    /// Duration.
    pub recovery_timeout: Option<Time>,
    /// Duration.
    pub cooldown: Option<Time>,
    /// `auto`, `last`, `last_after_transfer` or `skip`.
    pub leader: Option<LeaderPolicy>,
    /// Duration.
    pub transfer_above: Option<Time>,
    /// Duration.
    pub liveness_budget: Option<Time>,
    /// Duration.
    pub max_expected_stall: Option<Time>,
    /// `wait` or `ignore`.
    pub on_open_snapshot: Option<OpenSnapshotPolicy>,
    /// Compact before the first member; off where absent.
    pub compaction: Option<CompactionKeys>,
    /// `none` or `hash`.
    pub verify: Option<VerifyPolicy>,
    /// Disarm NOSPACE once every member is well below its quota.
    pub disarm_nospace: Option<bool>,
    /// Accept clusters of one or two members.
    pub allow_without_quorum_slack: Option<bool>,
    /// An expression.
    pub rule: Option<String>,
    /// When runs may begin.
    pub windows: Option<Vec<Window>>,
    /// When a run is requested without an alert.
    pub schedule: Option<Vec<ScheduleLine>>,
    /// Whether NOSPACE or a nearly full quota overrides windows, cooldown and daily limit.
    pub emergency: Option<bool>,
    /// Number of runs.
    pub max_runs_per_day: Option<u32>,
    /// Number of runs.
    pub breaker_failures: Option<u32>,
    /// Duration.
    pub breaker_reset_after: Option<Time>,
    /// Duration.
    pub approval_timeout: Option<Time>,
}

/// A weekly maintenance window.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Like `sat` or `saturday`; none means every day.
    #[serde(default)]
    pub days: Vec<String>,
    /// Like `02:00`.
    pub start: String,
    /// Like `05:00`; before `start`, it is on the next day.
    pub end: String,
    /// IANA name, like `Europe/Berlin`.
    pub timezone: String,
}

/// Times at which a run is requested.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleLine {
    /// Minute, hour, day of month, month, day of week, like `0 3 * * sun`.
    pub cron: String,
    /// IANA name, like `Europe/Berlin`; UTC where absent.
    pub timezone: Option<String>,
}

/// Compaction before a run.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CompactionKeys {
    /// How many revisions before the present one stay readable.
    pub keep_revisions: Option<u64>,
    /// Duration: what was written within it stays readable.
    pub older_than: Option<Time>,
}

impl PolicyKeys {
    /// These keys, with those of `over` in front.
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

/// Reads a text that is in no file. The error has all that is wrong with its shape.
pub fn parse(text: &str) -> Result<File, String> {
    let mut source = Source::from_text(text);
    let file = source.read().ok_or_else(Vec::new);
    source.judge(file).map_err(|error| error.to_string())
}

impl File {
    /// What is written, under the flags that override it: without what is not, and without any secret. Those are in
    /// files, of which it has the paths, and in gates' headers, of which it has the names.
    pub fn redacted(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        without_nothing(&mut value);
        value
    }
}

/// Leaves out what is null or empty.
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
