//! Checks of the keys that gates and notification targets share: TLS, headers, users, URLs.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
};

use url::Url;

use super::{ClientTls, Credentials, DiscoverySrv, MetricsPage, SecretUrl, TlsFiles, User};
use crate::core::check::At;

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

fn check_url(mut at: At<'_>, url: &SecretUrl, with_query: bool) {
    let query = |url: &Url| {
        if let Some((name, _)) = url.query_pairs().find(|(name, _)| is_secret(name) || name == "key") {
            let what = "which looks like a secret: send it as a header, with header_files";
            Some(format!("contains the parameter {name:?}, {what}"))
        } else {
            (url.query().is_some() && !with_query)
                .then(|| "has a query (?…): write only the base URL, with the route prefix if there is one".to_owned())
        }
    };
    if let Some(what) = url.problem().map(str::to_owned).or_else(|| query(url.expose())) {
        at.add("", what);
    }
}

/// Exactly one of `url` and `url_file`.
pub(in crate::ports) fn check_url_source(
    at: &mut At<'_>,
    url: Option<&SecretUrl>,
    file: Option<&PathBuf>,
    with_query: bool,
) {
    match (url, file) {
        (Some(url), None) => check_url(at.key("url"), url, with_query),
        (None, Some(_)) => {}
        _ => at.add("", "needs exactly one of url and url_file"),
    }
}

impl TlsFiles {
    pub fn check(&self, at: At<'_>) {
        check_identity(at, self.cert_file.as_ref(), self.key_file.as_ref());
    }
}

impl User {
    pub fn check(&self, mut at: At<'_>) {
        if self.username.is_empty() {
            at.add("username", "must not be empty");
        }
    }
}

impl DiscoverySrv {
    pub fn check(&mut self, mut at: At<'_>) {
        let is_name = |text: &str| {
            !text.is_empty() && text.split('.').all(|label| !label.is_empty() && label.len() < 64) && text.len() < 254
        };
        let domain = self.domain.trim_end_matches('.');
        if !is_name(domain) {
            at.add("domain", format!("{:?} is not a domain name; write it like example.com", self.domain));
        }
        self.domain = domain.to_owned();
        if self.name.as_ref().is_some_and(|name| !is_name(name) || name.contains('.')) {
            at.add("name", "must be one part of a name, like prod for _etcd-client-ssl-prod");
        }
    }
}

impl MetricsPage {
    pub fn check(&self, mut at: At<'_>) {
        let Some(tls) = &self.tls else { return };
        if !self.url.is_tls() {
            at.add("tls", "has no effect, because url begins with http://: write https://, or remove tls");
        }
        tls.check(at.key("tls"));
    }
}

/// A certificate and its key are only useful together.
fn check_identity(mut at: At<'_>, cert: Option<&PathBuf>, key: Option<&PathBuf>) {
    match (cert, key) {
        (Some(_), None) => at.add("key_file", "is missing; it is required with cert_file"),
        (None, Some(_)) => at.add("cert_file", "is missing; it is required with key_file"),
        _ => {}
    }
}

impl ClientTls {
    pub fn check(&self, mut at: At<'_>) {
        check_identity(at.key(""), self.cert_file.as_ref(), self.key_file.as_ref());
        if self.insecure_skip_verify && self.ca_file.is_some() {
            at.add("insecure_skip_verify", "cannot be used together with ca_file");
        }
        let bad = |name: &String| !is_host(name) || name.parse::<IpAddr>().is_ok();
        if self.server_name.as_ref().is_some_and(bad) {
            at.add("server_name", "must be a DNS name, like example.org; remove it for an IP address");
        }
    }
}

impl Credentials {
    /// Whether they contain anything that only the configured server may see.
    pub fn are_secret(&self) -> bool {
        self.bearer_token_file.is_some() || self.basic_auth.is_some() || !self.header_files.is_empty()
    }

    /// With the TLS and the URL beside them, if that is not in a file.
    pub fn check(&self, mut at: At<'_>, tls: &ClientTls, url: Option<&SecretUrl>) {
        let mut names = BTreeSet::new();
        let all = self
            .headers
            .0
            .keys()
            .map(|name| ("headers", name))
            .chain(self.header_files.keys().map(|name| ("header_files", name)));
        for (key, name) in all {
            let key_of_it = format!("{key}.{name}");
            if let Some(what) = header_name_problem(name) {
                at.add(&key_of_it, what);
            } else if key == "headers" && is_secret(name) {
                at.add(&key_of_it, "looks like a secret: put it in a file, and name the file in header_files");
            }
            if !names.insert(name.to_ascii_lowercase()) {
                at.add(&key_of_it, "is defined twice");
            }
        }
        if names.len() > MAX_HEADERS {
            at.add("headers", format!("has {} headers, and at most {MAX_HEADERS} are allowed", names.len()));
        }
        for (name, value) in &self.headers.0 {
            if value.len() > MAX_HEADER_BYTES || !value.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
                let what = format!("must be one line of at most {MAX_HEADER_BYTES} ASCII characters");
                at.add(&format!("headers.{name}"), what);
            }
        }
        let ways = [
            self.bearer_token_file.as_ref().map(|_| "bearer_token_file"),
            self.basic_auth.as_ref().map(|_| "basic_auth"),
            names.contains("authorization").then_some("the header Authorization"),
        ];
        let ways: Vec<_> = ways.into_iter().flatten().collect();
        if let [first, second, ..] = ways.as_slice() {
            at.add(first, format!("cannot be used together with {second}"));
        }
        if self.basic_auth.as_ref().is_some_and(|user| user.username.is_empty() || user.username.contains(':')) {
            at.add("basic_auth.username", "must not be empty or contain a colon");
        }
        if self.are_secret() && tls.insecure_skip_verify {
            at.add(
                "tls.insecure_skip_verify",
                "would send the secret to an unverified server; name the CA in ca_file instead",
            );
        }
        tls.check(at.key("tls"));
        if url.is_some_and(|url| url.expose().scheme() == "http") && *tls != ClientTls::default() {
            at.add("tls", "has no effect, because the URL begins with http://: write https://, or remove tls");
        }
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

/// A context without a kubeconfig is a mistake.
pub(in crate::ports) fn check_kubeconfig(at: &mut At<'_>, kubeconfig: Option<&Path>, context: Option<&str>) {
    if context.is_some() && kubeconfig.is_none() {
        at.add("context", "needs kubeconfig: without it, the cluster is the one that defragd runs in");
    }
    if context.is_some_and(|context| context.trim().is_empty()) {
        at.add("context", "must not be empty; remove it to use the kubeconfig's current context");
    }
}

/// The host, without brackets, and the port of `host:port` or `[address]:port`.
pub(in crate::ports) fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().ok()?.to_string(),
        None => Some(host).filter(|host| is_host(host))?.to_owned(),
    };
    Some((host, port))
}
