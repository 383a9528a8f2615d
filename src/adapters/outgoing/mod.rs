//! HTTP as a client: to a running defragd, to Alertmanager and Prometheus, and to what the gates check.
//!
//! Each call has a deadline and a limit on its answer, follows no redirect unless configured, and uses no proxy: a
//! token must not go anywhere but to its server. [`access`] is how to talk to a server.

pub mod access;
mod alertmanager;
mod credentials;
mod defragd;
mod file;
mod notify;
mod peers;
pub(in crate::adapters) mod prometheus;
mod shards;
mod text;
mod tls;
mod url_source;

use std::path::PathBuf;

use reqwest::Method;
use serde_json::Value;
use thiserror::Error;
use url::Url;

pub use crate::ports::access::{ClientTls, Credentials};
pub use access::ClientSettings;
pub use alertmanager::Alertmanager;
pub(in crate::adapters) use credentials::Secrets;
pub use defragd::ControlClient;
pub use notify::NotifyTarget;
pub use peers::HttpPeers;
pub use prometheus::{Grid, Prometheus, RangeSeries, SeriesLabels};
pub use shards::HttpShards;
pub(in crate::adapters) use text::{detail, excerpt, redirect_target, shown};
pub(in crate::adapters) use url_source::UrlSource;

/// Enough for thousands of alerts; not for another page that never ends.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Why a call failed.
#[derive(Debug, Error)]
pub enum CallError {
    #[error("cannot read {what} {}: {detail}", path.display())]
    File { what: &'static str, path: PathBuf, detail: String },
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    #[error("the header {0:?} has an invalid name or value")]
    Header(String),
    #[error("{url:?} is not an http:// or https:// URL: {detail}")]
    Url { url: String, detail: String },
    #[error("cannot reach {url}: {detail}")]
    Unreachable {
        /// Without credentials.
        url: String,
        detail: String,
    },
    /// An error status.
    #[error("{url} answered {status}: {detail}")]
    Refused {
        /// Without credentials.
        url: String,
        status: u16,
        detail: String,
        /// The code of defragd's reason, if it gave one.
        reason: Option<String>,
    },
    #[error("{url} sent an unexpected answer: {detail}")]
    NotUnderstood {
        /// Without credentials.
        url: String,
        detail: String,
    },
}

impl CallError {
    /// Whether nothing was sent, because a URL, a header or a file that it was to be sent with is unusable.
    pub fn is_of_settings(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Tls(_) | Self::Header(_) | Self::Url { .. })
    }
}

/// A URL that is called, with what is needed for that.
#[derive(Clone, Debug)]
pub(in crate::adapters) struct Remote {
    base: Url,
    /// What answers must not show of the base, if that is a secret.
    masked: Secrets,
    access: ClientSettings,
    max_answer_bytes: usize,
}

/// The JSON of a good answer.
pub(in crate::adapters) struct Heard {
    pub(in crate::adapters) json: Value,
    /// The secrets that were sent.
    pub(in crate::adapters) secrets: Secrets,
}

impl Remote {
    /// Checks the URL and the TLS files; the credentials are read when they are needed.
    pub(in crate::adapters) fn new(
        url: &str,
        access: ClientSettings,
        max_answer_bytes: usize,
    ) -> Result<Self, CallError> {
        let bad = |detail: &str| {
            // A password or a path may be a secret, also in what is no URL.
            let is_bare =
                !url.contains('@') && url.split_once("://").is_none_or(|(_, rest)| !rest.contains(['/', '?']));
            CallError::Url { url: if is_bare { url } else { "…" }.to_owned(), detail: detail.to_owned() }
        };
        let mut base = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(bad("it needs the scheme http or https, and a host"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(bad("it contains a user or password"));
        }
        keep_prefix(&mut base);
        access.try_tls(&base)?;
        Ok(Self { base, masked: Secrets::default(), access, max_answer_bytes })
    }

    /// The same at another base, which is a secret.
    pub(in crate::adapters) fn at_secret(&self, mut base: Url) -> Self {
        let masked = Secrets::of_url(&base);
        keep_prefix(&mut base);
        Self { base, masked, ..self.clone() }
    }

    pub(in crate::adapters) fn url(&self, path: &str) -> Result<Url, CallError> {
        let bad = |error: url::ParseError| CallError::Url { url: shown(&self.base), detail: error.to_string() };
        self.base.join(path).map_err(bad)
    }

    /// Of defragd's API. The segments of the path are escaped.
    fn api(&self, path: &[impl AsRef<str>]) -> Result<Url, CallError> {
        let mut url = self.url("api/v1/")?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        Ok(url)
    }

    /// Sends, and reads the JSON of a good answer.
    pub(in crate::adapters) async fn call(
        &self,
        method: Method,
        url: &Url,
        body: Option<&Value>,
    ) -> Result<Heard, CallError> {
        let mut answer = self.access.ask(method, url, body, self.max_answer_bytes).await?;
        answer.secrets = answer.secrets.and(&self.masked);
        let url = || shown(url);
        let json = serde_json::from_slice::<Value>(&answer.body);
        if !(200..300).contains(&answer.status) {
            let json = json.unwrap_or_default();
            let said = json["error"].as_str().map(str::to_owned);
            let reason = json["reason"]["code"].as_str().map(str::to_owned);
            let detail = match said {
                Some(said) => detail(&answer.secrets.mask(&said)),
                None => excerpt(&answer.secrets.mask(&String::from_utf8_lossy(&answer.body))),
            };
            return Err(CallError::Refused { url: url(), status: answer.status, detail, reason });
        }
        if answer.is_cut {
            let detail = format!("it is longer than {} bytes", self.max_answer_bytes);
            return Err(CallError::NotUnderstood { url: url(), detail });
        }
        let json = json.map_err(|error| CallError::NotUnderstood { url: url(), detail: error.to_string() })?;
        Ok(Heard { json, secrets: answer.secrets })
    }
}

/// So that `join` keeps a route prefix.
fn keep_prefix(base: &mut Url) {
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
}
