//! Gates as they are written. Each has exactly one of the kinds; [`crate::config::gates`] checks that.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::core::{
    gate::{Moment, OnFailure},
    time::Time,
};

/// One gate.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Unique within the cluster.
    pub name: String,
    /// `before`, `between`, `after`; all if absent.
    pub when: Option<Vec<Moment>>,
    /// `stop` or `warn`.
    pub on_failure: Option<OnFailure>,
    /// A kind.
    pub http: Option<Http>,
    /// A kind.
    pub tcp: Option<Tcp>,
    /// A kind.
    pub promql: Option<Promql>,
    /// A kind.
    pub alertmanager: Option<Alertmanager>,
    /// A kind.
    pub kubernetes_pods: Option<KubernetesPods>,
    /// Only here to be refused with an explanation, whatever its value.
    #[serde(skip_serializing)]
    pub exec: Option<IgnoredAny>,
}

/// TLS, as in blackbox exporter's modules.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The name to request and to verify.
    pub server_name: Option<String>,
    /// Accept any server certificate.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// A user and a file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// Name.
    pub username: String,
    /// The file with its password.
    pub password_file: PathBuf,
}

/// A status code, or a class of them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Status {
    /// Like 200.
    Code(i64),
    /// Like `2xx`.
    Class(String),
}

/// The answer of a URL.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where.
    pub url: String,
    /// `GET` where absent.
    pub method: Option<String>,
    /// Sent as they are.
    #[serde(default, serialize_with = "names_only")]
    pub headers: BTreeMap<String, String>,
    /// Sent with the content of the files.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// `Authorization: Bearer …` with the content of the file.
    pub bearer_token_file: Option<PathBuf>,
    /// `Authorization: Basic …`.
    pub basic_auth: Option<BasicAuth>,
    /// `2xx` where absent.
    pub expect_status: Option<Vec<Status>>,
    /// A regular expression.
    pub expect_body: Option<String>,
    /// TLS.
    #[serde(default)]
    pub tls: Tls,
    /// Of one attempt.
    pub timeout: Option<Time>,
    /// How often to try.
    pub attempts: Option<u32>,
    /// Between attempts.
    pub interval: Option<Time>,
    /// How long it must keep succeeding.
    #[serde(rename = "for")]
    pub hold: Option<Time>,
    /// Whether to follow redirects.
    #[serde(default)]
    pub follow_redirects: bool,
}

/// A connection.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// Host and port.
    pub address: String,
    /// A handshake too.
    pub tls: Option<Tls>,
    /// Of one attempt.
    pub timeout: Option<Time>,
    /// How often to try.
    pub attempts: Option<u32>,
    /// Between attempts.
    pub interval: Option<Time>,
}

/// A query of Prometheus.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Promql {
    /// Prometheus, with its route prefix if it has one.
    pub url: String,
    /// PromQL.
    pub query: String,
    /// `empty` where absent.
    pub expect: Option<Expect>,
    /// Sent as they are.
    #[serde(default, serialize_with = "names_only")]
    pub headers: BTreeMap<String, String>,
    /// Sent with the content of the files.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// `Authorization: Bearer …` with the content of the file.
    pub bearer_token_file: Option<PathBuf>,
    /// `Authorization: Basic …`.
    pub basic_auth: Option<BasicAuth>,
    /// TLS.
    #[serde(default)]
    pub tls: Tls,
    /// Of one attempt.
    pub timeout: Option<Time>,
    /// How often to try.
    pub attempts: Option<u32>,
    /// Between attempts.
    pub interval: Option<Time>,
}

/// The result that passes: `empty`, `not_empty`, `{above: 1}` or `{below: 1}`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
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
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Alertmanager {
    /// Alertmanager, with its route prefix if it has one.
    pub url: String,
    /// An alert that matches all of them is a failure.
    pub matchers: Vec<String>,
    /// Names of alerts that do not count as failures.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Sent as they are.
    #[serde(default, serialize_with = "names_only")]
    pub headers: BTreeMap<String, String>,
    /// Sent with the content of the files.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// `Authorization: Bearer …` with the content of the file.
    pub bearer_token_file: Option<PathBuf>,
    /// `Authorization: Basic …`.
    pub basic_auth: Option<BasicAuth>,
    /// TLS.
    #[serde(default)]
    pub tls: Tls,
    /// Of one attempt.
    pub timeout: Option<Time>,
    /// How often to try.
    pub attempts: Option<u32>,
    /// Between attempts.
    pub interval: Option<Time>,
}

/// Pods.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesPods {
    /// The cluster that defragd runs in, if absent.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's current context, if absent.
    pub context: Option<String>,
    /// All where empty.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// As `kubectl --selector`.
    pub label_selector: Option<String>,
    /// As `kubectl --field-selector`.
    pub field_selector: Option<String>,
    /// How long a pod may be unhealthy.
    pub grace: Option<Time>,
    /// Of one request.
    pub timeout: Option<Time>,
}

/// Values of headers are often secrets.
fn names_only<S: serde::Serializer>(headers: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.keys().map(|name| (name, "***")))
}
