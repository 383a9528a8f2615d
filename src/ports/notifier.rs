//! Notifications about the start and end of runs.
//!
//! Contract: one delivery takes no longer than its own timeout, and the error says whether a retry could help. Failures
//! never affect a run: no run waits for a delivery, and none ends differently because of one.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    access::{ClientTls, Credentials, Headers, SecretUrl, User, check_kubeconfig, check_url_source},
    gate::kinds,
};
use crate::core::{
    check::At,
    history::{AlertKey, RunId, Trigger},
    time::{self, Time},
};

/// One target. It must have exactly one of the kinds.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifySettings {
    /// The target's name, unique: letters, digits, - and _. It is the metric label `target`.
    pub name: String,
    /// An annotation in Grafana over the time of each run that ended.
    pub grafana: Option<NotifyAccess>,
    /// JSON to a URL when a run starts and when it ends: event, cluster, run, outcome, reason, reclaimed bytes, members,
    /// link.
    pub webhook: Option<NotifyAccess>,
    /// An Event in Kubernetes when a run starts (`RunStarted`) and when it ends (`RunFinished`, or `RunFailed` with the
    /// type Warning).
    pub kubernetes_event: Option<NotifyEvent>,
}

/// How to reach a target.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyAccess {
    /// Grafana's base URL, or the webhook's full URL. Only its scheme, host and port are ever shown. Excludes `url_file`.
    #[schemars(with = "Option<String>", extend("x-default" = "required without `url_file`"))]
    pub url: Option<SecretUrl>,
    /// File with the URL, for services whose URL is a secret. It is read for each notification. Excludes `url`.
    #[schemars(extend("x-default" = "none"))]
    pub url_file: Option<PathBuf>,
    /// File with a bearer token, sent as `Authorization: Bearer …`. Excludes `basic_auth`.
    #[schemars(extend("x-default" = "none"))]
    pub bearer_token_file: Option<PathBuf>,
    /// User and password, sent as `Authorization: Basic …`.
    pub basic_auth: Option<User>,
    /// Headers to send whose values are read from files, by name.
    #[serde(default)]
    #[schemars(extend("x-default" = "none"))]
    pub header_files: BTreeMap<String, PathBuf>,
    /// TLS, for `https://`.
    #[serde(default)]
    pub tls: ClientTls,
    /// How long one attempt may take.
    #[serde(default = "kinds::default_timeout", deserialize_with = "time::duration")]
    #[schemars(with = "Time", extend("default" = "5s", "x-range" = ["100ms", "1m"]))]
    pub timeout: Duration,
}

/// How to record Events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyEvent {
    /// The kubeconfig of the Kubernetes cluster. Needs `regarding`.
    #[schemars(extend("x-default" = "the cluster that defragd runs in, by its service account"))]
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig.
    #[schemars(extend("x-default" = "the current context"))]
    pub context: Option<String>,
    /// The object that the Events are about.
    #[schemars(extend("x-default" = "the pod that defragd runs in: $POD_NAME, $POD_NAMESPACE, $POD_UID, which the chart sets"))]
    pub regarding: Option<EventObject>,
    /// How long one attempt may take.
    #[serde(default = "kinds::default_timeout", deserialize_with = "time::duration")]
    #[schemars(with = "Time", extend("default" = "5s", "x-range" = ["100ms", "1m"]))]
    pub timeout: Duration,
}

/// An object of Kubernetes. It need not exist.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventObject {
    /// As in a manifest: `v1`, `apps/v1`.
    pub api_version: String,
    /// As in a manifest: `Deployment`, `Node`.
    pub kind: String,
    /// As in `metadata.name`.
    pub name: String,
    /// Events are in the namespace of their object, and in `default` if it has none.
    #[schemars(extend("x-default" = "none"))]
    pub namespace: Option<String>,
}

/// What a target is.
#[derive(Clone, Copy, Debug)]
pub enum NotifyKind<'a> {
    Http(NotifyFormat, &'a NotifyAccess),
    KubernetesEvent(&'a NotifyEvent),
}

/// What an HTTP target receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyFormat {
    /// Grafana's annotations API: one region per run, when it has ended.
    Grafana,
    /// The notice as it is, when a run starts and when it ends.
    Webhook,
}

impl NotifySettings {
    /// `None` unless there is exactly one, as it is once the settings are checked.
    pub fn target(&self) -> Option<NotifyKind<'_>> {
        match (&self.grafana, &self.webhook, &self.kubernetes_event) {
            (Some(access), None, None) => Some(NotifyKind::Http(NotifyFormat::Grafana, access)),
            (None, Some(access), None) => Some(NotifyKind::Http(NotifyFormat::Webhook, access)),
            (None, None, Some(event)) => Some(NotifyKind::KubernetesEvent(event)),
            _ => None,
        }
    }

    pub fn check(&self, mut at: At<'_>) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || !self.name.chars().all(is_plain) {
            at.add("name", "must be letters, digits, - and _: it is a metric label");
        }
        match self.target() {
            Some(NotifyKind::Http(NotifyFormat::Grafana, access)) => access.check(at.key("grafana"), false),
            Some(NotifyKind::Http(NotifyFormat::Webhook, access)) => access.check(at.key("webhook"), true),
            Some(NotifyKind::KubernetesEvent(event)) => event.check(at.key("kubernetes_event")),
            None => at.add("", "needs exactly one of grafana, webhook and kubernetes_event"),
        }
    }
}

impl NotifyAccess {
    pub fn credentials(&self) -> Credentials {
        Credentials {
            headers: Headers::default(),
            header_files: self.header_files.clone(),
            bearer_token_file: self.bearer_token_file.clone(),
            basic_auth: self.basic_auth.clone(),
        }
    }

    fn check(&self, mut at: At<'_>, with_query: bool) {
        check_url_source(&mut at, self.url.as_ref(), self.url_file.as_ref(), with_query);
        at.time("timeout", self.timeout, kinds::TIMEOUTS);
        self.credentials().check(at, &self.tls, self.url.as_ref());
    }
}

impl NotifyEvent {
    fn check(&self, mut at: At<'_>) {
        check_kubeconfig(&mut at, self.kubeconfig.as_deref(), self.context.as_deref());
        if self.kubeconfig.is_some() && self.regarding.is_none() {
            at.add(
                "regarding",
                "is required with kubeconfig: defragd may run outside that cluster, where it has no pod",
            );
        }
        at.time("timeout", self.timeout, kinds::TIMEOUTS);
        let Some(EventObject { api_version, kind, name, namespace }) = &self.regarding else { return };
        // They are part of the request's path and of the Event's name.
        let is_plain = |text: &str, others: &[char]| {
            !text.is_empty()
                && text.len() <= 253
                && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(&c))
        };
        let mut at = at.key("regarding");
        for (key, value, others) in [
            ("api_version", Some(api_version), &['/', '.', '-'][..]),
            ("kind", Some(kind), &[]),
            ("name", Some(name), &['.', '-']),
            ("namespace", namespace.as_ref(), &['-']),
        ] {
            if let Some(value) = value.filter(|value| !is_plain(value, others)) {
                at.add(key, format!("{value:?} is not valid in Kubernetes"));
            }
        }
    }
}

/// The content of a notification, and the JSON of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notice {
    /// `run_started` or `run_finished`.
    pub event: &'static str,
    pub cluster: String,
    pub run: RunId,
    pub trigger: Trigger,
    /// The alerts that requested it, with the labels that are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertKey>,
    /// When it began in this process.
    pub started_at: Timestamp,
    /// The URL of the run's page, if `--web.external-url` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct End {
    pub finished_at: Timestamp,
    /// As the metrics' label.
    pub outcome: &'static str,
    /// The reason's label, if there is one.
    pub reason_code: Option<&'static str>,
    /// The reason in words.
    pub reason: Option<String>,
    /// What an operator does about it.
    pub advice: Option<&'static str>,
    /// How much smaller the files became, bytes.
    pub reclaimed_bytes: u64,
    /// The members that were attempted, in order.
    pub members: Vec<String>,
}

/// Why a notification was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// Without secrets.
    pub detail: String,
    /// Whether a retry could help.
    pub may_pass: bool,
}

pub trait Notifier: Send + Sync + 'static {
    /// Its name in the configuration, and the metric label.
    fn name(&self) -> &str;

    /// Whether this target wants the notification.
    fn wants(&self, notice: &Notice) -> bool;

    fn deliver<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), Undelivered>>;
}
