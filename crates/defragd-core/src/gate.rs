//! Gates: checks outside etcd before, during and after a run. This is a gate's result as the run, the journal and the
//! metrics see it. How it is checked is up to an adapter.

use std::{collections::BTreeSet, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strum::{EnumString, IntoStaticStr};

use super::{reason::Reason, wire};

/// When a gate is checked.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    EnumString,
    IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Moment {
    /// Before anything is sent to the cluster.
    Before,
    /// After each member, before the next one.
    Between,
    /// When all the work is done.
    After,
}

impl Moment {
    pub const ALL: [Self; 3] = [Self::Before, Self::Between, Self::After];

    /// As in the configuration, and the metric label.
    pub fn label(self) -> &'static str {
        self.into()
    }

    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Before => "before the first member",
            Self::Between => "after a member",
            Self::After => "at the end of the run",
        }
    }
}

/// The effect of a failed gate on the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The run ends: refused if nothing was sent yet, failed afterwards.
    #[default]
    Stop,
    /// The run continues; the failure is logged, counted and recorded in the journal.
    Warn,
}

/// What a gate checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum GateKind {
    /// Pods that became unhealthy since the run began.
    KubernetesPods,
    /// Nodes of the control plane.
    KubernetesNodes,
    Http,
    /// A connection, with or without TLS.
    Tcp,
    Promql,
    /// Alerts that are active and not silenced.
    Alertmanager,
}

impl GateKind {
    /// As in the configuration, and the metric label.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// A gate in the policy of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateRule {
    /// Unique within the cluster.
    pub name: String,
    pub kind: GateKind,
    /// When it is checked; never empty.
    pub when: BTreeSet<Moment>,
    pub on_failure: OnFailure,
}

/// The result of one check of a gate, as the journal stores it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    pub gate: String,
    /// What it checks. Not `kind` in JSON: there that is the type of a journal entry.
    #[serde(rename = "gate_kind")]
    pub kind: GateKind,
    pub moment: Moment,
    pub passed: bool,
    pub on_failure: OnFailure,
    /// One line for people: what was found and, if it failed, what was expected. Without secrets.
    pub detail: String,
    /// What was found, for programs: status, excerpt, latency, names. Bounded, and without secrets.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub evidence: Map<String, Value>,
    /// The baseline of later checks of the run, for gates that compare. From the check before the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Value>,
    #[serde(rename = "took_seconds", with = "wire::number")]
    pub took: Duration,
}

impl GateResult {
    /// The values of [`GateResult::label`].
    pub const LABELS: [&str; 3] = ["passed", "failed", "warned"];

    /// A stable label for metrics: `warned` is a failure that does not end the run.
    pub const fn label(&self) -> &'static str {
        match (self.passed, self.on_failure) {
            (true, _) => "passed",
            (false, OnFailure::Stop) => "failed",
            (false, OnFailure::Warn) => "warned",
        }
    }

    /// Why the run must not continue, if this result forbids it.
    pub fn against(&self) -> Option<Reason> {
        (!self.passed && self.on_failure == OnFailure::Stop).then(|| Reason::GateFailed {
            gate: self.gate.clone(),
            moment: self.moment,
            detail: self.detail.clone(),
        })
    }
}
