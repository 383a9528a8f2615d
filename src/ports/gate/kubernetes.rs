//! The kinds of gates that ask a Kubernetes API server: their keys, and what is wrong with their values.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::kinds::{MAX_CHECK, TIMEOUTS};
use crate::{
    core::{
        check::At,
        time::{self, Time},
    },
    ports::access::check_kubeconfig,
};

/// Selectors are shorter than this.
const MAX_SELECTOR_BYTES: usize = 1_000;

const fn default_grace() -> Duration {
    Duration::from_mins(1)
}

const fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn control_plane() -> String {
    "node-role.kubernetes.io/control-plane".to_owned()
}

/// Pods.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesPodsGate {
    /// The kubeconfig of the Kubernetes cluster.
    #[schemars(extend("x-default" = "the cluster that defragd runs in, by its service account"))]
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig.
    #[schemars(extend("x-default" = "the current context"))]
    pub context: Option<String>,
    /// Namespaces whose pods are observed.
    #[serde(default)]
    #[schemars(extend("x-default" = "all"))]
    pub namespaces: Vec<String>,
    /// As `kubectl get pods --selector`.
    #[schemars(extend("x-default" = "all pods"))]
    pub label_selector: Option<String>,
    /// As `kubectl get pods --field-selector`.
    #[schemars(extend("x-default" = "all pods"))]
    pub field_selector: Option<String>,
    /// How long an unhealthy pod may take to become healthy again.
    #[serde(default = "default_grace", deserialize_with = "time::duration")]
    #[schemars(with = "Time", extend("default" = "1m", "x-range" = ["0s", "1h"]))]
    pub grace: Duration,
    /// How long one request may take.
    #[serde(default = "default_timeout", deserialize_with = "time::duration")]
    #[schemars(with = "Time", extend("default" = "10s", "x-range" = ["100ms", "1m"]))]
    pub timeout: Duration,
}

/// Nodes of the control plane, and their static pods.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesNodesGate {
    /// The kubeconfig of the Kubernetes cluster.
    #[schemars(extend("x-default" = "the cluster that defragd runs in, by its service account"))]
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig.
    #[schemars(extend("x-default" = "the current context"))]
    pub context: Option<String>,
    /// As `kubectl get nodes --selector`. It must select at least one node.
    #[serde(default = "control_plane")]
    pub label_selector: String,
    /// How long the control plane may take to recover after a member. Before the run, the check decides at once.
    #[serde(default = "default_grace", deserialize_with = "time::duration")]
    #[schemars(with = "Time", extend("default" = "1m", "x-range" = ["0s", "1h"]))]
    pub grace: Duration,
    /// How long one request may take.
    #[serde(default = "default_timeout", deserialize_with = "time::duration")]
    #[schemars(with = "Time", extend("default" = "10s", "x-range" = ["100ms", "1m"]))]
    pub timeout: Duration,
}

impl KubernetesPodsGate {
    pub(super) fn check(&self, mut at: At<'_>) {
        check_kubeconfig(&mut at, self.kubeconfig.as_deref(), self.context.as_deref());
        for (index, name) in self.namespaces.iter().enumerate() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let fits = (1..=63).contains(&name.len()) && name.chars().all(plain);
            if !fits || name.starts_with('-') || name.ends_with('-') {
                at.add(&format!("namespaces[{index}]"), format!("{name:?} is not a valid namespace name"));
            }
        }
        check_selector(&mut at, "label_selector", self.label_selector.as_deref());
        check_selector(&mut at, "field_selector", self.field_selector.as_deref());
        at.time("grace", self.grace, (Duration::ZERO, MAX_CHECK));
        at.time("timeout", self.timeout, TIMEOUTS);
    }
}

impl KubernetesNodesGate {
    pub(super) fn check(&self, mut at: At<'_>) {
        check_kubeconfig(&mut at, self.kubeconfig.as_deref(), self.context.as_deref());
        check_selector(&mut at, "label_selector", Some(&self.label_selector));
        at.time("grace", self.grace, (Duration::ZERO, MAX_CHECK));
        at.time("timeout", self.timeout, TIMEOUTS);
    }
}

fn check_selector(at: &mut At<'_>, key: &str, selector: Option<&str>) {
    let bad =
        |text: &str| text.trim().is_empty() || text.len() > MAX_SELECTOR_BYTES || text.chars().any(char::is_control);
    if selector.is_some_and(bad) {
        at.add(key, format!("must be one line of at most {MAX_SELECTOR_BYTES} bytes, and not empty"));
    }
}
