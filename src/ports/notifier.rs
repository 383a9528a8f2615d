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
    access::{ClientTls, Credentials, Headers, SecretUrl, User, check_url},
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
    /// An annotation in Grafana over the time of each run that ended. Excludes `webhook`.
    pub grafana: Option<NotifyAccess>,
    /// JSON to a URL when a run starts and when it ends: event, cluster, run, outcome, reason, reclaimed bytes, members,
    /// link. Excludes `grafana`.
    pub webhook: Option<NotifyAccess>,
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

/// What a target receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyFormat {
    /// Grafana's annotations API: one region per run, when it has ended.
    Grafana,
    /// The notice as it is, when a run starts and when it ends.
    Webhook,
}

impl NotifySettings {
    /// `None` unless there is exactly one, as it is once the settings are checked.
    pub fn target(&self) -> Option<(NotifyFormat, &NotifyAccess)> {
        match (&self.grafana, &self.webhook) {
            (Some(access), None) => Some((NotifyFormat::Grafana, access)),
            (None, Some(access)) => Some((NotifyFormat::Webhook, access)),
            _ => None,
        }
    }

    pub fn check(&self, mut at: At<'_>) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || !self.name.chars().all(is_plain) {
            at.add("name", "must be letters, digits, - and _: it is a metric label");
        }
        match self.target() {
            Some((NotifyFormat::Grafana, access)) => access.check(at.key("grafana"), false),
            Some((NotifyFormat::Webhook, access)) => access.check(at.key("webhook"), true),
            None => at.add("", "needs exactly one of grafana and webhook"),
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
        match (&self.url, &self.url_file) {
            (Some(url), None) => check_url(at.key("url"), url, with_query),
            (None, Some(_)) => {}
            _ => at.add("", "needs exactly one of url and url_file"),
        }
        at.time("timeout", self.timeout, kinds::TIMEOUTS);
        self.credentials().check(at, &self.tls, self.url.as_ref());
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
