//! The configuration: the file, and its keys with their checks.
//!
//! Each key is declared once, as a field of the structure that uses it: here, in [`crate::ports`] or in [`crate::core`].
//! serde reads these structures as they are (a typing mistake in a safety limit must not fall back to a default, so unknown
//! keys are errors), and their `check` finds what a type alone does not. Every problem is reported at once, each with its
//! line and key path ([`source`]). Secrets come from files only, and are read when they are needed, never stored here.
//!
//! The doc comments of keys are also their descriptions in `docs/reference/configuration.md` and in the JSON schema
//! ([`schema`]), beside what the `schemars` attributes add: `default`, or `x-default` in words where it is no value;
//! `range` and `x-range`; `x-restart` where a reload does not apply the key. Tests try each of them.

mod cluster;
pub mod effective;
mod lock;
pub mod modules;
mod problem;
pub mod schema;
mod shards;
pub mod source;
#[cfg(test)]
mod tests;
pub mod web;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

pub use self::{
    cluster::ClusterSettings,
    lock::{LockKind, LockSettings},
    modules::ModuleSettings,
    problem::{ConfigError, Place, Problem},
    shards::ShardSettings,
    source::Source,
};
use crate::{
    core::{alert::Selector, check::Problems},
    ports::notifier::NotifySettings,
};

/// Each target has a queue and a task.
const MAX_TARGETS: usize = 20;

/// defragd's configuration file.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "File")]
pub struct Settings {
    /// The clusters that are observed and defragmented. May be left out only if there are `modules`.
    #[serde(default)]
    pub clusters: Vec<ClusterSettings>,
    /// Which of several replicas of defragd acts on a cluster. All replicas export metrics and receive alerts.
    /// Left out, there is one replica.
    #[serde(default)]
    #[schemars(extend("x-restart" = true))]
    pub lock: LockSettings,
    /// How the clusters are divided among several processes that share this configuration. Left out, one process has
    /// all of them.
    #[serde(default)]
    #[schemars(extend("x-restart" = true))]
    pub shards: ShardSettings,
    /// How `GET /probe?module=NAME&target=HOST:PORT` connects to clusters that are not configured above. They are
    /// measured, never defragmented.
    #[serde(default)]
    pub modules: BTreeMap<String, ModuleSettings>,
    /// Where runs are announced, at most 20 targets. A run never waits for them: a notification that fails three times
    /// is counted in `defragd_notifications_total` and dropped.
    #[serde(default)]
    #[schemars(extend("x-restart" = true))]
    pub notify: Vec<NotifySettings>,
    /// As it is exposed to clients: what is written, with the flags that override it, without values of headers and what
    /// follows the host in secret URLs. All other secrets are in files, of which it has the paths.
    #[serde(skip)]
    pub redacted: Value,
    /// Which alerts concern the clusters of other shards.
    #[serde(skip)]
    pub elsewhere: Vec<Selector>,
}

/// Keys that flags set, in place of those of the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Of every cluster's policy.
    pub policy: serde_json::Map<String, Value>,
    pub lock: serde_json::Map<String, Value>,
    pub shards: serde_json::Map<String, Value>,
}

impl Overrides {
    /// In the form of the file. Its list of one cluster stands for all of them.
    fn file(&self) -> Value {
        let mut file = json!({});
        if !self.policy.is_empty() {
            file["clusters"] = json!([{ "policy": self.policy }]);
        }
        for (key, keys) in [("lock", &self.lock), ("shards", &self.shards)] {
            if !keys.is_empty() {
                file[key] = keys.clone().into();
            }
        }
        file
    }
}

impl Settings {
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        Self::from_source(&mut Source::open(path)?, &Overrides::default())
    }

    /// From a text that is not in a file.
    pub fn from_text(text: &str) -> Result<Self, ConfigError> {
        Self::from_source(&mut Source::from_text(text), &Overrides::default())
    }

    /// Reads and checks a file, with some keys from elsewhere.
    pub fn from_source(source: &mut Source, over: &Overrides) -> Result<Self, ConfigError> {
        let Some(mut settings) = source.read_with::<Self>(&over.file()) else { return Err(source.error(Vec::new())) };
        let mut problems = Problems::default();
        settings.check(&mut problems);
        source.judge(problems)?;
        settings.redacted = source.redacted();
        Ok(settings)
    }

    fn check(&mut self, problems: &mut Problems) {
        if self.clusters.is_empty() && self.modules.is_empty() {
            problems.add("clusters", "needs at least one cluster");
        }
        if self.notify.len() > MAX_TARGETS {
            let what = format!("has {} targets, and at most {MAX_TARGETS} are allowed", self.notify.len());
            problems.add("notify", what);
        }
        let mut names = BTreeSet::new();
        for (index, target) in self.notify.iter().enumerate() {
            let mut at = problems.at(format!("notify[{index}]"));
            if !names.insert(&target.name) {
                at.add("name", "is used twice");
            }
            target.check(at);
        }
        for (index, cluster) in self.clusters.iter_mut().enumerate() {
            cluster.check(problems.at(format!("clusters[{index}]")));
        }
        cluster::check_apart(&self.clusters, problems);
        for (name, module) in &mut self.modules {
            module.check(name, problems.at(format!("modules.{name}")));
        }
        self.lock.check(problems.at("lock"));
        self.shards.check(problems.at("shards"));
    }
}
