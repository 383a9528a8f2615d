//! The kinds of gates: the keys of each, and what is wrong with their values.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{matcher, query};
use crate::{
    core::{
        check::{At, TEXT, read_from_text},
        expect::{Pattern, Samples, Statuses},
        time::{self, Time},
    },
    ports::access::{ClientTls, Credentials, Headers, SecretUrl, User, check_url_source, host_and_port},
};

/// A shorter timeout fails just because a machine is busy.
const MIN_TIME: Duration = Duration::from_millis(100);
/// A server that takes longer for one answer is unhealthy.
pub const TIMEOUTS: (Duration, Duration) = (MIN_TIME, Duration::from_mins(1));
/// For longer waits there is `for`.
const INTERVALS: (Duration, Duration) = (MIN_TIME, Duration::from_mins(10));
/// A longer check would delay a run by more than the run itself takes.
pub(super) const MAX_CHECK: Duration = Duration::from_hours(1);
const MAX_ATTEMPTS: u32 = 100;
/// The query is sent in a URL.
const MAX_QUERY_BYTES: usize = 4_000;

pub const fn default_timeout() -> Duration {
    Duration::from_secs(5)
}

const fn default_attempts() -> u32 {
    3
}

const fn default_interval() -> Duration {
    Duration::from_secs(1)
}

fn get() -> String {
    "GET".to_owned()
}

/// A kind that asks a server over HTTP: its own keys, and the keys that all of these kinds have. (serde cannot refuse unknown
/// keys where a structure is flattened into another one.)
macro_rules! over_http {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$of:meta])* pub $key:ident: $value:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$of])* pub $key: $value,)*
            /// File with the URL, if that is a secret. It is read for each attempt. Excludes `url`.
            #[schemars(extend("x-default" = "none"))]
            pub url_file: Option<PathBuf>,
            /// Headers to send, by name, at most 20. Never a secret.
            #[serde(default)]
            #[schemars(extend("x-default" = "none"))]
            pub headers: Headers,
            /// Headers to send whose values are read from files, by name.
            #[serde(default)]
            #[schemars(extend("x-default" = "none"))]
            pub header_files: BTreeMap<String, PathBuf>,
            /// File with a bearer token, sent as `Authorization: Bearer …`. Excludes `basic_auth`.
            #[schemars(extend("x-default" = "none"))]
            pub bearer_token_file: Option<PathBuf>,
            /// User and password, sent as `Authorization: Basic …`.
            pub basic_auth: Option<User>,
            /// TLS, for `https://`.
            #[serde(default)]
            pub tls: ClientTls,
            /// How long one attempt may take.
            #[serde(default = "default_timeout", deserialize_with = "time::duration")]
            #[schemars(with = "Time", extend("default" = "5s", "x-range" = ["100ms", "1m"]))]
            pub timeout: Duration,
            /// How many attempts are made. The check passes as soon as one succeeds.
            #[serde(default = "default_attempts")]
            #[schemars(range(min = 1, max = 100))]
            pub attempts: u32,
            /// The time between two attempts.
            #[serde(default = "default_interval", deserialize_with = "time::duration")]
            #[schemars(with = "Time", extend("default" = "1s", "x-range" = ["100ms", "10m"]))]
            pub interval: Duration,
        }

        impl $name {
            pub fn credentials(&self) -> Credentials {
                Credentials {
                    headers: self.headers.clone(),
                    header_files: self.header_files.clone(),
                    bearer_token_file: self.bearer_token_file.clone(),
                    basic_auth: self.basic_auth.clone(),
                }
            }

            fn check_access(&self, at: &mut At<'_>, with_query: bool) {
                check_url_source(at, self.url.as_ref(), self.url_file.as_ref(), with_query);
                self.tries().check(at);
                self.credentials().check(at.key(""), &self.tls, self.url.as_ref());
            }
        }
    };
}

over_http! {
    /// The answer of a URL.
    pub struct HttpGate {
        /// The URL to request. Only its scheme, host and port are ever shown. Excludes `url_file`.
        #[schemars(with = "Option<String>", extend("x-default" = "required without `url_file`"))]
        pub url: Option<SecretUrl>,
        /// `GET`, `HEAD`, `OPTIONS` or `POST`.
        #[serde(default = "get")]
        pub method: String,
        /// Status codes to accept, single ones or classes, like `[2xx, 401]`.
        #[serde(default)]
        #[schemars(extend("default" = ["2xx"]))]
        pub expect_status: Statuses,
        /// A regular expression that must be found in the first 64 KiB of the body.
        #[schemars(extend("x-default" = "any body"))]
        pub expect_body: Option<Pattern>,
        /// How long further attempts must keep succeeding after the first success.
        #[serde(rename = "for", default, deserialize_with = "time::duration")]
        #[schemars(with = "Time", extend("default" = "0s", "x-range" = ["0s", "1h"]))]
        pub hold: Duration,
        /// Whether to follow redirects.
        #[serde(default)]
        pub follow_redirects: bool,
    }
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpGate {
    /// `HOST:PORT`, with brackets around an IPv6 address.
    #[schemars(with = "String")]
    pub address: Address,
    /// If it is there, a TLS handshake must succeed, too; `{}` trusts the system's authorities.
    pub tls: Option<ClientTls>,
    /// How long one attempt may take.
    #[serde(default = "default_timeout", deserialize_with = "time::duration")]
    #[schemars(with = "Time", extend("default" = "5s", "x-range" = ["100ms", "1m"]))]
    pub timeout: Duration,
    /// How many attempts are made. The check passes as soon as one succeeds.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// The time between two attempts.
    #[serde(default = "default_interval", deserialize_with = "time::duration")]
    #[schemars(with = "Time", extend("default" = "1s", "x-range" = ["100ms", "10m"]))]
    pub interval: Duration,
}

over_http! {
    /// A query of Prometheus.
    pub struct PromqlGate {
        /// Base URL of Prometheus, with its route prefix if it has one. Excludes `url_file`.
        #[schemars(with = "Option<String>", extend("x-default" = "required without `url_file`"))]
        pub url: Option<SecretUrl>,
        /// A PromQL query. `$etcd_cluster` stands for this cluster's name.
        pub query: String,
        /// What the query must return: `empty` (no sample), `not_empty`, `{above: 1}` or `{below: 1}`. The last two need at
        /// least one sample, so they notice a metric that is gone.
        #[serde(default)]
        #[schemars(extend("default" = "empty"))]
        pub expect: Samples,
    }
}

over_http! {
    /// Alerts.
    pub struct AlertmanagerGate {
        /// Base URL of Alertmanager, with its route prefix if it has one. Excludes `url_file`.
        #[schemars(with = "Option<String>", extend("x-default" = "required without `url_file`"))]
        pub url: Option<SecretUrl>,
        /// Matchers in Alertmanager's syntax, like `severity="critical"`. An active alert that all of them match fails the
        /// gate. They must not match the alert that requested the run.
        pub matchers: Vec<String>,
        /// Names of alerts to ignore.
        #[serde(default)]
        #[schemars(extend("x-default" = "none"))]
        pub ignore: Vec<String>,
    }
}

/// `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    /// Not 0.
    pub port: u16,
}

read_from_text!(
    Address,
    TEXT,
    |text| {
        let found = host_and_port(text).map(|(host, port)| Self { host, port });
        found.ok_or("is not HOST:PORT, like 10.0.0.1:443, example.org:443 or [2001:db8::1]:443")
    },
    || Self { host: String::new(), port: 0 }
);

/// How often and how long a check is attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// Of one attempt.
    pub timeout: Duration,
    /// At least one.
    pub attempts: u32,
    /// Between attempts.
    pub interval: Duration,
    /// How long it must keep succeeding after the first success, checked at every interval.
    pub hold: Duration,
}

impl Tries {
    fn check(self, at: &mut At<'_>) {
        let Self { timeout, attempts, interval, hold } = self;
        at.time("timeout", timeout, TIMEOUTS);
        at.time("interval", interval, INTERVALS);
        at.time("for", hold, (Duration::ZERO, MAX_CHECK));
        if !(1..=MAX_ATTEMPTS).contains(&attempts) {
            at.add("attempts", format!("is {attempts}, but must be from 1 to {MAX_ATTEMPTS}"));
        } else if timeout.saturating_add(interval).saturating_mul(attempts).saturating_add(hold) > MAX_CHECK {
            let what =
                format!("times (timeout {timeout:?} + interval {interval:?}), and for {hold:?}, are more than an hour");
            at.add("attempts", what);
        }
    }
}

impl HttpGate {
    pub fn tries(&self) -> Tries {
        Tries { timeout: self.timeout, attempts: self.attempts, interval: self.interval, hold: self.hold }
    }

    pub(super) fn check(&mut self, mut at: At<'_>) {
        self.method = self.method.trim().to_ascii_uppercase();
        if !["GET", "HEAD", "OPTIONS", "POST"].contains(&self.method.as_str()) {
            let what =
                format!("is {:?}, but a check must not change anything: use GET, HEAD, OPTIONS or POST", self.method);
            at.add("method", what);
        }
        if self.expect_status.is_empty() {
            at.add("expect_status", "is empty; remove it for 2xx");
        }
        if self.expect_body.is_some() && self.method == "HEAD" {
            at.add("expect_body", "needs another method: the answer to HEAD has no body");
        }
        self.check_access(&mut at, true);
    }
}

impl TcpGate {
    pub fn tries(&self) -> Tries {
        Tries { timeout: self.timeout, attempts: self.attempts, interval: self.interval, hold: Duration::ZERO }
    }

    pub(super) fn check(&self, mut at: At<'_>) {
        self.tries().check(&mut at);
        if let Some(tls) = &self.tls {
            tls.check(at.key("tls"));
        }
    }
}

impl PromqlGate {
    pub fn tries(&self) -> Tries {
        Tries { timeout: self.timeout, attempts: self.attempts, interval: self.interval, hold: Duration::ZERO }
    }

    pub(super) fn check(&self, mut at: At<'_>) {
        if self.query.trim().is_empty() {
            at.add("query", "must not be empty");
        }
        if self.query.len() > MAX_QUERY_BYTES {
            at.add("query", format!("is longer than {MAX_QUERY_BYTES} bytes; use a recording rule instead"));
        } else if let Some(name) = query::variable(&self.query) {
            // Copied from a dashboard. In Prometheus, a `$` followed by a word never matches anything.
            at.add("query", format!("has the variable {name}, but only {} is supported", query::CLUSTER_VARIABLE));
        }
        if let Samples::Above(limit) | Samples::Below(limit) = self.expect
            && !limit.is_finite()
        {
            at.add("expect", format!("is {limit}, but must be a number"));
        }
        self.check_access(&mut at, false);
    }
}

impl AlertmanagerGate {
    pub fn tries(&self) -> Tries {
        Tries { timeout: self.timeout, attempts: self.attempts, interval: self.interval, hold: Duration::ZERO }
    }

    pub(super) fn check(&mut self, mut at: At<'_>) {
        if self.matchers.is_empty() {
            at.add("matchers", "is empty, and would match every alert, including the one that started the run");
        }
        for (index, text) in self.matchers.iter_mut().enumerate() {
            *text = text.trim().to_owned();
            if let Err(error) = matcher::check(text) {
                at.add(&format!("matchers[{index}]"), error.to_string());
            }
        }
        for (index, name) in self.ignore.iter().enumerate() {
            if name.trim().is_empty() || name.contains(['=', '~', '{']) {
                let what = "is not the name of an alert; use matchers for other conditions, such as 'team!=\"x\"'";
                at.add(&format!("ignore[{index}]"), what);
            }
        }
        self.check_access(&mut at, false);
    }
}
