//! Gates as they are written. Each has exactly one of the kinds; [`crate::config::gates`] checks that.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::core::{
    gate::{Moment, OnFailure},
    time::Time,
};

/// One gate.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// The gate's name, unique within the cluster: 1 to 63 of a-z, 0-9, _ and -. It is a metric label.
    pub name: String,
    /// When the gate is checked: `before` the first member, `between` two members, `after` the last one.
    #[schemars(extend("x-default" = "all three"))]
    pub when: Option<Vec<Moment>>,
    /// `stop` refuses or stops the run. `warn` logs and counts the failure, and the run continues.
    #[schemars(extend("default" = "stop"))]
    pub on_failure: Option<OnFailure>,
    /// Passes if a URL answers as expected.
    pub http: Option<Http>,
    /// Passes if a connection can be opened, and is not closed again at once.
    pub tcp: Option<Tcp>,
    /// Passes if a query of Prometheus returns what is expected.
    pub promql: Option<Promql>,
    /// Passes if no active alert matches. Silenced and inhibited alerts do not count.
    pub alertmanager: Option<Alertmanager>,
    /// Passes if no pod has become unhealthy since the run began. Needs `before` in `when`.
    pub kubernetes_pods: Option<KubernetesPods>,
    /// Only here to be refused with an explanation, whatever its value.
    #[serde(skip_serializing)]
    #[schemars(skip)]
    pub exec: Option<IgnoredAny>,
}

/// TLS, as in blackbox exporter's modules.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate authorities to trust.
    #[schemars(extend("x-default" = "the system's authorities"))]
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client certificate. Needs `key_file`.
    #[schemars(extend("x-default" = "none"))]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key of `cert_file`.
    #[schemars(extend("x-default" = "none"))]
    pub key_file: Option<PathBuf>,
    /// The DNS name to ask for and to verify.
    #[schemars(extend("x-default" = "the host of the address"))]
    pub server_name: Option<String>,
    /// Accept any certificate. Excludes `ca_file` and everything that sends a secret.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// A user and a file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// The user's name.
    pub username: String,
    /// File with the user's password.
    pub password_file: PathBuf,
}

/// A status code, or a class of them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Status {
    /// Like 200.
    Code(i64),
    /// Like `2xx`.
    Class(String),
}

/// The answer of a URL.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// The URL to request.
    pub url: String,
    /// `GET`, `HEAD`, `OPTIONS` or `POST`.
    #[schemars(extend("default" = "GET"))]
    pub method: Option<String>,
    /// Headers to send, by name, at most 20. Never a secret.
    #[serde(default, serialize_with = "names_only")]
    #[schemars(extend("x-default" = "none"))]
    pub headers: BTreeMap<String, String>,
    /// Headers to send whose values are read from files, by name.
    #[serde(default)]
    #[schemars(extend("x-default" = "none"))]
    pub header_files: BTreeMap<String, PathBuf>,
    /// File with a bearer token, sent as `Authorization: Bearer …`. Excludes `basic_auth`.
    #[schemars(extend("x-default" = "none"))]
    pub bearer_token_file: Option<PathBuf>,
    /// User and password, sent as `Authorization: Basic …`.
    pub basic_auth: Option<BasicAuth>,
    /// Status codes to accept, single ones or classes, like `[2xx, 401]`.
    #[schemars(extend("default" = ["2xx"]))]
    pub expect_status: Option<Vec<Status>>,
    /// A regular expression that must be found in the first 64 KiB of the body.
    #[schemars(extend("x-default" = "any body"))]
    pub expect_body: Option<String>,
    /// TLS, for `https://`.
    #[serde(default)]
    pub tls: Tls,
    /// How long one attempt may take.
    #[schemars(extend("default" = "5s", "x-range" = ["100ms", "1m"]))]
    pub timeout: Option<Time>,
    /// How many attempts are made. The check passes as soon as one succeeds.
    #[schemars(range(min = 1, max = 100), extend("default" = 3))]
    pub attempts: Option<u32>,
    /// The time between two attempts.
    #[schemars(extend("default" = "1s", "x-range" = ["100ms", "10m"]))]
    pub interval: Option<Time>,
    /// How long further attempts must keep succeeding after the first success.
    #[serde(rename = "for")]
    #[schemars(extend("default" = "0s", "x-range" = ["0s", "1h"]))]
    pub hold: Option<Time>,
    /// Whether to follow redirects.
    #[serde(default)]
    pub follow_redirects: bool,
}

/// A connection.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// `HOST:PORT`, with brackets around an IPv6 address.
    pub address: String,
    /// If it is there, a TLS handshake must succeed, too; `{}` trusts the system's authorities.
    pub tls: Option<Tls>,
    /// How long one attempt may take.
    #[schemars(extend("default" = "5s", "x-range" = ["100ms", "1m"]))]
    pub timeout: Option<Time>,
    /// How many attempts are made. The check passes as soon as one succeeds.
    #[schemars(range(min = 1, max = 100), extend("default" = 3))]
    pub attempts: Option<u32>,
    /// The time between two attempts.
    #[schemars(extend("default" = "1s", "x-range" = ["100ms", "10m"]))]
    pub interval: Option<Time>,
}

/// A query of Prometheus.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Promql {
    /// Base URL of Prometheus, with its route prefix if it has one.
    pub url: String,
    /// A PromQL query. `$etcd_cluster` stands for this cluster's name.
    pub query: String,
    /// What the query must return: `empty` (no sample), `not_empty`, `{above: 1}` or `{below: 1}`. The last two need at
    /// least one sample, so they notice a metric that is gone.
    #[schemars(extend("default" = "empty"))]
    pub expect: Option<Expect>,
    /// Headers to send, by name, at most 20. Never a secret.
    #[serde(default, serialize_with = "names_only")]
    #[schemars(extend("x-default" = "none"))]
    pub headers: BTreeMap<String, String>,
    /// Headers to send whose values are read from files, by name.
    #[serde(default)]
    #[schemars(extend("x-default" = "none"))]
    pub header_files: BTreeMap<String, PathBuf>,
    /// File with a bearer token, sent as `Authorization: Bearer …`. Excludes `basic_auth`.
    #[schemars(extend("x-default" = "none"))]
    pub bearer_token_file: Option<PathBuf>,
    /// User and password, sent as `Authorization: Basic …`.
    pub basic_auth: Option<BasicAuth>,
    /// TLS, for `https://`.
    #[serde(default)]
    pub tls: Tls,
    /// How long one attempt may take.
    #[schemars(extend("default" = "5s", "x-range" = ["100ms", "1m"]))]
    pub timeout: Option<Time>,
    /// How many attempts are made. The check passes as soon as one succeeds.
    #[schemars(range(min = 1, max = 100), extend("default" = 3))]
    pub attempts: Option<u32>,
    /// The time between two attempts.
    #[schemars(extend("default" = "1s", "x-range" = ["100ms", "10m"]))]
    pub interval: Option<Time>,
}

/// What a query must give: `empty`, `not_empty`, `{above: 1}` or `{below: 1}`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// No sample.
    Empty,
    /// A sample.
    NotEmpty,
    /// Samples above.
    Above(f64),
    /// Samples below.
    Below(f64),
}

/// Alerts.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alertmanager {
    /// Base URL of Alertmanager, with its route prefix if it has one.
    pub url: String,
    /// Matchers in Alertmanager's syntax, like `severity="critical"`. An active alert that all of them match fails the
    /// gate. They must not match the alert that requested the run.
    pub matchers: Vec<String>,
    /// Names of alerts to ignore.
    #[serde(default)]
    #[schemars(extend("x-default" = "none"))]
    pub ignore: Vec<String>,
    /// Headers to send, by name, at most 20. Never a secret.
    #[serde(default, serialize_with = "names_only")]
    #[schemars(extend("x-default" = "none"))]
    pub headers: BTreeMap<String, String>,
    /// Headers to send whose values are read from files, by name.
    #[serde(default)]
    #[schemars(extend("x-default" = "none"))]
    pub header_files: BTreeMap<String, PathBuf>,
    /// File with a bearer token, sent as `Authorization: Bearer …`. Excludes `basic_auth`.
    #[schemars(extend("x-default" = "none"))]
    pub bearer_token_file: Option<PathBuf>,
    /// User and password, sent as `Authorization: Basic …`.
    pub basic_auth: Option<BasicAuth>,
    /// TLS, for `https://`.
    #[serde(default)]
    pub tls: Tls,
    /// How long one attempt may take.
    #[schemars(extend("default" = "5s", "x-range" = ["100ms", "1m"]))]
    pub timeout: Option<Time>,
    /// How many attempts are made. The check passes as soon as one succeeds.
    #[schemars(range(min = 1, max = 100), extend("default" = 3))]
    pub attempts: Option<u32>,
    /// The time between two attempts.
    #[schemars(extend("default" = "1s", "x-range" = ["100ms", "10m"]))]
    pub interval: Option<Time>,
}

/// Pods.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesPods {
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
    #[schemars(extend("default" = "1m", "x-range" = ["0s", "1h"]))]
    pub grace: Option<Time>,
    /// How long one request may take.
    #[schemars(extend("default" = "10s", "x-range" = ["100ms", "1m"]))]
    pub timeout: Option<Time>,
}

/// Values of headers are often secrets.
fn names_only<S: serde::Serializer>(headers: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.keys().map(|name| (name, "***")))
}
