//! The keys that several kinds of gates share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use url::Url;

use super::{AccessSettings, MAX_CHECK, Problems, TlsSettings, TrySettings, raw};
use crate::{config::validate::identity, core::time::Time};

/// A shorter timeout fails just because a machine is busy.
const MIN_TIME: Duration = Duration::from_millis(100);
/// A server that takes longer for one answer is unhealthy.
const MAX_TIMEOUT: Duration = Duration::from_mins(1);
/// For longer waits there is `for`.
const MAX_INTERVAL: Duration = Duration::from_mins(10);
const MAX_ATTEMPTS: u32 = 100;
const MAX_HEADERS: usize = 20;
const MAX_HEADER_BYTES: usize = 1_000;

/// Parts of names of headers and query parameters that hold secrets.
const SECRET_WORDS: [&str; 13] = [
    "authoriz",
    "authentic",
    "token",
    "secret",
    "password",
    "passwd",
    "pwd",
    "apikey",
    "accesskey",
    "cookie",
    "session",
    "signature",
    "credential",
];

/// The keys with secrets or for TLS that all kinds with HTTP have.
pub(super) struct HttpKeys {
    pub(super) headers: BTreeMap<String, String>,
    pub(super) header_files: BTreeMap<String, PathBuf>,
    pub(super) bearer_token_file: Option<PathBuf>,
    pub(super) basic_auth: Option<raw::BasicAuth>,
    pub(super) tls: raw::Tls,
}

/// A place in the file, and the problems found there.
pub(super) struct At<'a> {
    path: &'a str,
    problems: &'a mut Problems,
}

impl<'a> At<'a> {
    pub(super) fn new(path: &'a str, problems: &'a mut Problems) -> Self {
        Self { path, problems }
    }

    pub(super) fn add(&mut self, key: &str, what: impl Into<String>) {
        self.problems.add(format!("{}.{key}", self.path), what);
    }

    /// The value, or its problem.
    pub(super) fn good<T, E: Display>(&mut self, key: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.add(key, error.to_string())).ok()
    }

    /// A URL. It never appears in a problem: it may contain a secret.
    pub(super) fn url(&mut self, key: &str, text: &str, with_query: bool) -> Option<Url> {
        let url = Url::parse(text.trim())
            .map_err(|error| {
                self.add(key, format!("is not a URL ({error}); write it like https://10.0.0.1:6443/readyz"));
            })
            .ok()?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            self.add(key, "must begin with http:// or https:// and have a host");
        } else if !url.username().is_empty() || url.password().is_some() {
            self.add(key, "contains a user or password: use basic_auth with username and password_file");
        } else if let Some((name, _)) = url.query_pairs().find(|(name, _)| is_secret(name) || name == "key") {
            let what = format!(
                "contains the parameter {name:?}, which looks like a secret: send it as a header, with header_files"
            );
            self.add(key, what);
        } else if url.query().is_some() && !with_query {
            self.add(key, "has a query (?…): write only the base URL, with the route prefix if there is one");
        } else if url.fragment().is_some() {
            self.add(key, "has a fragment (#…), which is not sent to servers");
        } else if url.port() == Some(0) {
            self.add(key, "has the port 0");
        } else {
            return Some(url);
        }
        None
    }

    /// `host:port` or `[address]:port`.
    pub(super) fn host_and_port(&mut self, key: &str, text: &str) -> Option<(String, u16)> {
        let found = text.trim().rsplit_once(':').and_then(|(host, port)| {
            let port = port.parse().ok().filter(|port| *port != 0)?;
            let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let host = match bracketed {
                Some(inner) => inner.parse::<Ipv6Addr>().ok()?.to_string(),
                None => Some(host).filter(|host| is_host(host))?.to_owned(),
            };
            Some((host, port))
        });
        if found.is_none() {
            self.add(key, "is not HOST:PORT, like 10.0.0.1:443, example.org:443 or [2001:db8::1]:443");
        }
        found
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        value: Option<Time>,
        (least, most): (Duration, Duration),
        default: Duration,
    ) -> Duration {
        let Some(value) = value else { return default };
        let time = Duration::from(value);
        if (least..=most).contains(&time) {
            return time;
        }
        self.add(key, format!("is {value}, but must be from {} to {}", Time::from(least), Time::from(most)));
        default
    }

    pub(super) fn timeout(&mut self, value: Option<Time>, default: Duration) -> Duration {
        self.duration("timeout", value, (MIN_TIME, MAX_TIMEOUT), default)
    }

    pub(super) fn tries(
        &mut self,
        timeout: Option<Time>,
        attempts: Option<u32>,
        interval: Option<Time>,
        hold: Option<Time>,
    ) -> TrySettings {
        let timeout = self.timeout(timeout, Duration::from_secs(5));
        let interval = self.duration("interval", interval, (MIN_TIME, MAX_INTERVAL), Duration::from_secs(1));
        let hold = self.duration("for", hold, (Duration::ZERO, MAX_CHECK), Duration::ZERO);
        let attempts = match attempts {
            Some(attempts) if !(1..=MAX_ATTEMPTS).contains(&attempts) => {
                self.add("attempts", format!("is {attempts}, but must be from 1 to {MAX_ATTEMPTS}"));
                1
            }
            attempts => attempts.unwrap_or(3),
        };
        let longest = (timeout + interval) * attempts + hold;
        if longest > MAX_CHECK {
            let what =
                format!("times (timeout {timeout:?} + interval {interval:?}), and for {hold:?}, are more than an hour");
            self.add("attempts", what);
        }
        TrySettings { timeout, attempts, interval, hold }
    }

    pub(super) fn access(&mut self, raw: HttpKeys, url: Option<&Url>) -> AccessSettings {
        let mut names = BTreeSet::new();
        let all = raw
            .headers
            .keys()
            .map(|name| ("headers", name))
            .chain(raw.header_files.keys().map(|name| ("header_files", name)));
        for (key, name) in all {
            let at = format!("{key}.{name}");
            if let Some(what) = header_name_problem(name) {
                self.add(&at, what);
            } else if key == "headers" && is_secret(name) {
                self.add(&at, "looks like a secret: put it in a file, and name the file in header_files");
            }
            if !names.insert(name.to_ascii_lowercase()) {
                self.add(&at, "is defined twice");
            }
        }
        if names.len() > MAX_HEADERS {
            self.add("headers", format!("has {} headers, and at most {MAX_HEADERS} are allowed", names.len()));
        }
        for (name, value) in &raw.headers {
            if value.len() > MAX_HEADER_BYTES || !value.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
                let what = format!("must be one line of at most {MAX_HEADER_BYTES} ASCII characters");
                self.add(&format!("headers.{name}"), what);
            }
        }
        let ways = [
            raw.bearer_token_file.as_ref().map(|_| "bearer_token_file"),
            raw.basic_auth.as_ref().map(|_| "basic_auth"),
            names.contains("authorization").then_some("the header Authorization"),
        ];
        let ways: Vec<_> = ways.into_iter().flatten().collect();
        if let [first, second, ..] = ways.as_slice() {
            self.add(first, format!("cannot be used together with {second}"));
        }
        if raw.basic_auth.as_ref().is_some_and(|auth| auth.username.is_empty() || auth.username.contains(':')) {
            self.add("basic_auth.username", "must not be empty or contain a colon");
        }
        let has_secret = raw.bearer_token_file.is_some() || raw.basic_auth.is_some() || !raw.header_files.is_empty();
        if has_secret && raw.tls.insecure_skip_verify {
            self.add(
                "tls.insecure_skip_verify",
                "would send the secret to an unverified server; name the CA in ca_file instead",
            );
        }
        let tls = self.tls(raw.tls);
        if url.is_some_and(|url| url.scheme() == "http") && tls != TlsSettings::default() {
            self.add("tls", "has no effect, because the URL begins with http://: write https://, or remove tls");
        }
        AccessSettings {
            headers: raw.headers,
            header_files: raw.header_files,
            bearer_token_file: raw.bearer_token_file,
            basic_auth: raw.basic_auth.map(|auth| (auth.username, auth.password_file)),
            tls,
        }
    }

    pub(super) fn tls(&mut self, raw: raw::Tls) -> TlsSettings {
        let identity_files = identity(&format!("{}.tls", self.path), raw.cert_file, raw.key_file, self.problems);
        if raw.insecure_skip_verify && raw.ca_file.is_some() {
            self.add("tls.insecure_skip_verify", "cannot be used together with ca_file");
        }
        let bad = |name: &String| !is_host(name) || name.parse::<IpAddr>().is_ok();
        if raw.server_name.as_ref().is_some_and(bad) {
            self.add("tls.server_name", "must be a DNS name, like example.org; remove it for an IP address");
        }
        TlsSettings {
            ca_file: raw.ca_file,
            identity_files,
            server_name: raw.server_name,
            insecure_skip_verify: raw.insecure_skip_verify,
        }
    }
}

pub(super) fn status_word(status: raw::Status) -> String {
    match status {
        raw::Status::Code(code) => code.to_string(),
        raw::Status::Class(class) => class,
    }
}

/// Whether a header or parameter of this name most likely holds a secret. Dashes and case do not matter.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_', '.'], "");
    ["auth", "xauth", "sig"].contains(&name.as_str()) || SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn header_name_problem(name: &str) -> Option<&'static str> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || name.len() > 100 || !name.chars().all(token) {
        return Some("is not a valid header name");
    }
    let ours = ["connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer"];
    ours.contains(&name.to_ascii_lowercase().as_str()).then_some("is set by defragd and cannot be configured")
}

/// A DNS name or an IPv4 address, roughly: enough to find typing mistakes.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty() && label.len() <= 63 && label.chars().all(plain)
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}
