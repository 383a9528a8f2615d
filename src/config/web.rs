//! `--web.config.file`, in exporter-toolkit's format: from the written form to the meaning.
//!
//! What that format allows and rustls does not support (TLS 1.0 and 1.1, CBC, `CurveP521`) is refused with the
//! supported values. It is stricter than the original, which is silent about keys without effect: here they are errors.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::Deserialize;
use strum::VariantNames;

use super::{problem::ConfigError, source::Source};
use crate::{
    core::{check::Problems, time::Time},
    ports::web::{CIPHER_SUITES, CURVES, ClientAuth, PasswordHash, Pem, RateLimit, TlsVersion, WebConfig, WebTls},
};

/// bcrypt's time doubles with each step; at 18, one check takes 10 to 20 seconds of a core.
const MAX_BCRYPT_COST: u32 = 18;
/// What may be added to answers, and the values where they are limited.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// The web configuration file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// HTTPS. Left out, the server speaks plain HTTP. Once it was set, taking it out needs a restart.
    tls_server_config: Option<Tls>,
    /// Options of the HTTP server.
    http_server_config: Option<Http>,
    /// Users by name, with the bcrypt hash of their password: `htpasswd -nBC 10 NAME`. The cost is 4 to 18; with each step
    /// a check takes twice as long, and two run at once: above 12, clients wait for seconds. Once it was set, taking it out
    /// needs a restart.
    #[schemars(extend("x-default" = "no password is asked for"))]
    basic_auth_users: Option<BTreeMap<String, String>>,
    /// A limit for all requests together; those above it are answered with 429.
    rate_limit: Option<Limit>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    /// The server's certificate chain as PEM text. Excludes `cert_file`.
    #[schemars(extend("x-default" = "required without `cert_file`"))]
    cert: String,
    /// The certificate's private key as PEM text. Excludes `key_file`.
    #[schemars(extend("x-default" = "required without `key_file`"))]
    key: String,
    /// Authorities that sign the clients' certificates, as PEM text. Excludes `client_ca_file`.
    #[schemars(extend("x-default" = "none"))]
    client_ca: String,
    /// PEM file with the server's certificate chain. It is read again when it changes, as all files here.
    #[schemars(extend("x-default" = "required without `cert`"))]
    cert_file: PathBuf,
    /// PEM file with the certificate's private key.
    #[schemars(extend("x-default" = "required without `key`"))]
    key_file: PathBuf,
    /// PEM file with the authorities that sign the clients' certificates.
    #[schemars(extend("x-default" = "the system's, where `client_auth_type` verifies"))]
    client_ca_file: PathBuf,
    /// What is asked of clients, by Go's names. Where the system's authorities verify, a certificate allows no actions
    /// unless, with `RequireAndVerifyClientCert`, `client_allowed_sans` names the clients. Once it was `RequireAndVerifyClientCert`, weakening it needs a
    /// restart.
    #[schemars(extend("default" = "NoClientCert", "enum" = ClientAuth::VARIANTS))]
    client_auth_type: String,
    /// Names of which a client's certificate must have one. Needs a `client_auth_type` that requires a certificate.
    #[schemars(extend("x-default" = "any name"))]
    client_allowed_sans: Option<Vec<String>>,
    /// The oldest version of TLS.
    #[schemars(extend("default" = "TLS12", "enum" = ["TLS12", "TLS13"]))]
    min_version: Option<String>,
    /// The newest version of TLS.
    #[schemars(extend("default" = "TLS13", "enum" = ["TLS12", "TLS13"]))]
    max_version: Option<String>,
    /// Cipher suites by Go's names, in the order of preference.
    #[schemars(extend("x-default" = "all", "items" = { "type": "string", "enum": CIPHER_SUITES }))]
    cipher_suites: Option<Vec<String>>,
    /// Whether the server's order of suites decides, or the client's.
    #[schemars(extend("default" = true))]
    prefer_server_cipher_suites: Option<bool>,
    /// Groups for the key exchange by Go's names, in the order of preference.
    #[schemars(extend("x-default" = "all", "items" = { "type": "string", "enum": CURVES }))]
    curve_preferences: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Http {
    /// Whether HTTP/2 is offered over TLS.
    #[schemars(extend("default" = true))]
    http2: Option<bool>,
    /// Headers to add to every answer: `Content-Security-Policy`, `Strict-Transport-Security`, `X-Content-Type-Options`,
    /// `X-Frame-Options` and `X-XSS-Protection`.
    #[schemars(extend("x-default" = "none"))]
    headers: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Limit {
    /// One request is allowed per interval, like `100ms`. 0 is no limit.
    #[schemars(extend("title" = "duration", "default" = "0s"))]
    interval: Option<String>,
    /// How many requests may come at once. 0 refuses every request.
    #[schemars(extend("default" = 0))]
    burst: Option<u32>,
}

/// Reads and checks the file. Relative paths in it start at its directory.
pub fn from_file(path: &Path) -> Result<WebConfig, ConfigError> {
    from_source(&mut Source::open(path)?)
}

/// Reads and checks the written form.
pub fn from_source(source: &mut Source) -> Result<WebConfig, ConfigError> {
    // An empty file is valid: plain HTTP without authentication.
    let file = if source.is_blank() { Some(File::default()) } else { source.read() };
    let Some(file) = file else { return Err(source.error(Vec::new())) };
    let mut problems = Problems::default();
    let config = check(file, &mut problems);
    source.judge(problems)?;
    Ok(config)
}

fn check(file: File, problems: &mut Problems) -> WebConfig {
    let http = file.http_server_config.unwrap_or_default();
    WebConfig {
        tls: file.tls_server_config.and_then(|raw| tls(raw, problems)),
        http2: http.http2.unwrap_or(true),
        headers: headers(http.headers.unwrap_or_default(), problems),
        users: users(file.basic_auth_users.unwrap_or_default(), problems),
        rate_limit: file.rate_limit.and_then(|raw| rate_limit(&raw, problems)),
    }
}

fn tls(raw: Tls, problems: &mut Problems) -> Option<WebTls> {
    let at = |key: &str| format!("tls_server_config.{key}");
    let written = &raw.client_auth_type;
    let client_auth = if written.is_empty() { Some(ClientAuth::None) } else { written.parse().ok() };
    if client_auth.is_none() {
        let what = format!("{written:?} is not one of {}", ClientAuth::VARIANTS.join(", "));
        problems.add(at("client_auth_type"), what);
    }
    let is_not = |judge: fn(ClientAuth) -> bool| client_auth.is_some_and(|auth| !judge(auth));
    let mut version = |key: &str, text: Option<&str>, default| match text {
        None | Some("") => default,
        Some("TLS12") => TlsVersion::Tls12,
        Some("TLS13") => TlsVersion::Tls13,
        Some(other) => {
            problems.add(at(key), format!("{other:?} is not supported: write TLS12 or TLS13"));
            default
        }
    };
    let min_version = version("min_version", raw.min_version.as_deref(), TlsVersion::Tls12);
    let max_version = version("max_version", raw.max_version.as_deref(), TlsVersion::Tls13);
    if min_version > max_version {
        problems.add(at("max_version"), "is older than min_version");
    }
    let mut known = |key: &str, names: &[String], all: &[&str]| {
        for (index, name) in names.iter().enumerate().filter(|(_, name)| !all.contains(&name.as_str())) {
            problems.add(format!("{}[{index}]", at(key)), format!("{name:?} is not supported: use {}", all.join(", ")));
        }
    };
    let cipher_suites = raw.cipher_suites.unwrap_or_default();
    let curve_preferences = raw.curve_preferences.unwrap_or_default();
    known("cipher_suites", &cipher_suites, &CIPHER_SUITES);
    known("curve_preferences", &curve_preferences, &CURVES);

    let mut pem = |key: &str, inline: String, file: PathBuf| match (inline.is_empty(), file.as_os_str().is_empty()) {
        (true, true) => None,
        (false, true) => Some(Pem::Inline(inline)),
        (true, false) => Some(Pem::File(file)),
        (false, false) => {
            problems.add(at(key), format!("cannot be used together with {key}_file"));
            Some(Pem::Inline(inline))
        }
    };
    let cert = pem("cert", raw.cert, raw.cert_file);
    let key = pem("key", raw.key, raw.key_file);
    let client_ca = pem("client_ca", raw.client_ca, raw.client_ca_file);
    let sans_given = raw.client_allowed_sans.is_some();
    if client_ca.is_some() && is_not(ClientAuth::verifies) {
        let what = "has no effect: client_auth_type must be VerifyClientCertIfGiven or RequireAndVerifyClientCert";
        problems.add(at("client_ca"), what);
    }
    if sans_given && is_not(ClientAuth::requires) {
        let what = "needs client_auth_type RequireAndVerifyClientCert or RequireAnyClientCert";
        problems.add(at("client_allowed_sans"), what);
    }
    let client_allowed_sans = raw.client_allowed_sans.unwrap_or_default();
    if sans_given && client_allowed_sans.is_empty() {
        problems.add(
            at("client_allowed_sans"),
            "is empty, so every client would be refused; remove it to accept all names",
        );
    }
    for (name, part) in [("cert", &cert), ("key", &key)] {
        if part.is_none() {
            problems.add(at(&format!("{name}_file")), format!("is missing (or set {name} to the PEM text itself)"));
        }
    }
    Some(WebTls {
        cert: cert?,
        key: key?,
        client_ca,
        client_auth: client_auth?,
        client_allowed_sans,
        min_version,
        max_version,
        cipher_suites,
        prefer_server_cipher_suites: raw.prefer_server_cipher_suites.unwrap_or(true),
        curve_preferences,
    })
}

fn headers(raw: BTreeMap<String, String>, problems: &mut Problems) -> BTreeMap<String, String> {
    for (name, value) in &raw {
        let at = format!("http_server_config.headers.{name}");
        let Some((_, allowed)) = HEADERS.iter().find(|(known, _)| known == name) else {
            let names: Vec<_> = HEADERS.iter().map(|(name, _)| *name).collect();
            problems.add(at, format!("cannot be set: only {}", names.join(", ")));
            continue;
        };
        if !allowed.is_empty() && !value.is_empty() && !allowed.contains(&value.as_str()) {
            problems.add(at, format!("{value:?} is not allowed: write {}", allowed.join(" or ")));
        } else if !value.chars().all(|c| matches!(c, ' '..='~')) {
            problems.add(at, "must be one line of plain characters");
        }
    }
    raw.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn users(raw: BTreeMap<String, String>, problems: &mut Problems) -> BTreeMap<String, PasswordHash> {
    for (name, hash) in &raw {
        let at = format!("basic_auth_users.{name}");
        if name.is_empty() || name.contains(':') {
            problems.add(at, "a user's name must not be empty or contain a colon");
        } else {
            match bcrypt_cost(hash) {
                None => problems.add(at, "is not a bcrypt hash; generate one with: htpasswd -nBC 10 '' | tr -d ':\\n'"),
                Some(cost) if !(4..=MAX_BCRYPT_COST).contains(&cost) => {
                    problems.add(at, format!("has cost {cost}, but must have a cost from 4 to {MAX_BCRYPT_COST}"));
                }
                Some(_) => {}
            }
        }
    }
    raw.into_iter().map(|(name, hash)| (name, PasswordHash(hash))).collect()
}

/// The cost, if the text is `$2y$10$` and 53 characters of bcrypt's own base 64.
fn bcrypt_cost(hash: &str) -> Option<u32> {
    let rest = ["$2a$", "$2b$", "$2x$", "$2y$"].iter().find_map(|prefix| hash.strip_prefix(prefix))?;
    let (cost, digest) = rest.split_once('$')?;
    let fits = digest.len() == 53 && digest.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '/');
    (fits && cost.len() == 2).then(|| cost.parse().ok())?
}

fn rate_limit(raw: &Limit, problems: &mut Problems) -> Option<RateLimit> {
    let text = raw.interval.as_deref().unwrap_or_default();
    if matches!(text, "" | "0" | "0s") {
        return None;
    }
    let interval = match text.parse::<Time>().map(Duration::from) {
        Ok(interval) if !interval.is_zero() => interval,
        _ => {
            problems
                .add("rate_limit.interval", format!("{text:?} is not a duration like 1s or 100ms; 0 means no limit"));
            return None;
        }
    };
    Some(RateLimit { interval, burst: raw.burst.unwrap_or_default() })
}

#[cfg(test)]
#[path = "web_tests.rs"]
mod tests;
