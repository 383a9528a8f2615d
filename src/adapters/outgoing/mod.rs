//! The HTTP that we speak as a client: to a running defragd, to Alertmanager, and to what the gates look at.
//!
//! Each call has a deadline and a limit on its answer, follows no redirect unless it is asked to, and uses no
//! proxy: a token must not go anywhere but where it was meant for. [`access`] is how a server is spoken to.

pub mod access;
mod alertmanager;
mod credentials;
mod defragd;
mod file;
mod notify;
mod peers;
pub(in crate::adapters) mod prometheus;
mod text;
mod tls;

use std::{path::PathBuf, time::Duration};

use reqwest::Method;
use serde_json::Value;
use thiserror::Error;
use url::Url;

pub use access::ClientSettings;
pub use alertmanager::Alertmanager;
pub use credentials::Credentials;
pub(in crate::adapters) use credentials::Secrets;
pub use defragd::{ControlClient, HealthClient};
pub use notify::{NotifyFormat, NotifyTarget};
pub use peers::HttpPeers;
pub use prometheus::{Grid, Prometheus, RangeSeries, SeriesLabels};
pub(in crate::adapters) use text::{detail, excerpt, shown};
pub use tls::ClientTls;

/// Long enough for a server in trouble, short enough for a person at a terminal.
const DEADLINE: Duration = Duration::from_secs(10);
/// Thousands of alerts fit in; a page of something else that never ends does not.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Why a call failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// A file cannot be used.
    #[error("cannot read {what} {}: {detail}", path.display())]
    File { what: &'static str, path: PathBuf, detail: String },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// A header cannot be sent.
    #[error("the header {0:?} has a name or a value that cannot be sent")]
    Header(String),
    /// The address is none.
    #[error("{url:?} is not an http:// or https:// URL: {detail}")]
    Url { url: String, detail: String },
    #[error("cannot reach {url}: {detail}")]
    Unreachable {
        /// Without credentials.
        url: String,
        detail: String,
    },
    /// An answer that says no.
    #[error("{url} answered {status}: {detail}")]
    Refused {
        /// Without credentials.
        url: String,
        /// HTTP status.
        status: u16,
        detail: String,
    },
    /// An answer that is not what it should be.
    #[error("{url} answered what is not understood: {detail}")]
    NotUnderstood {
        /// Without credentials.
        url: String,
        detail: String,
    },
}

/// An address that is called, with what it takes to do so.
#[derive(Clone, Debug)]
pub(in crate::adapters) struct Remote {
    base: Url,
    access: ClientSettings,
    max_answer_bytes: usize,
}

/// The JSON of a good answer.
pub(in crate::adapters) struct Heard {
    pub(in crate::adapters) json: Value,
    /// What was sent and must not be shown.
    pub(in crate::adapters) secrets: Secrets,
}

impl Remote {
    /// At this address, for our own commands.
    fn plain(url: &str, token_file: Option<PathBuf>, ca_file: Option<PathBuf>) -> Result<Self, CallError> {
        let access = ClientSettings {
            credentials: Credentials::bearer(token_file),
            tls: ClientTls { ca_file, ..ClientTls::default() },
            timeout: DEADLINE,
            follow_redirects: false,
        };
        Self::new(url, access, MAX_ANSWER_BYTES)
    }

    /// Looks at the address and the TLS files; the credentials are read when they are needed.
    pub(in crate::adapters) fn new(
        url: &str,
        access: ClientSettings,
        max_answer_bytes: usize,
    ) -> Result<Self, CallError> {
        let bad = |detail: &str| CallError::Url { url: url.to_owned(), detail: detail.to_owned() };
        let mut base = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(bad("it has another scheme, or no host"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            // Not shown: the URL is in every error.
            let url = format!("{}://…", base.scheme());
            return Err(CallError::Url { url, detail: "it has a user or password in it".to_owned() });
        }
        // So that `join` keeps a route prefix.
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        access.try_tls(&base)?;
        Ok(Self { base, access, max_answer_bytes })
    }

    pub(in crate::adapters) fn url(&self, path: &str) -> Result<Url, CallError> {
        let bad =
            |error: url::ParseError| CallError::Url { url: format!("{}{path}", self.base), detail: error.to_string() };
        self.base.join(path).map_err(bad)
    }

    /// Sends, and reads the JSON of a good answer.
    pub(in crate::adapters) async fn call(
        &self,
        method: Method,
        url: &Url,
        body: Option<&Value>,
    ) -> Result<Heard, CallError> {
        let answer = self.access.ask(method, url, body, self.max_answer_bytes).await?;
        let url = || shown(url);
        let json = serde_json::from_slice::<Value>(&answer.body);
        if !(200..300).contains(&answer.status) {
            let said = json.ok().and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
            let text = said.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned());
            let detail = excerpt(&answer.secrets.mask(&text));
            return Err(CallError::Refused { url: url(), status: answer.status, detail });
        }
        if answer.is_cut {
            let detail = format!("it is longer than {} bytes", self.max_answer_bytes);
            return Err(CallError::NotUnderstood { url: url(), detail });
        }
        let json = json.map_err(|error| CallError::NotUnderstood { url: url(), detail: error.to_string() })?;
        Ok(Heard { json, secrets: answer.secrets })
    }
}
