//! The HTTP that we speak as a client: to a running defragd, and to Alertmanager.
//!
//! Each call has a deadline and a limit on its answer, follows no redirect, and uses no proxy: a token must
//! not go anywhere but where it was meant for.

mod alertmanager;
mod defragd;

use std::{path::PathBuf, time::Duration};

use reqwest::redirect::Policy;
use serde_json::Value;
use thiserror::Error;
use url::Url;

pub use alertmanager::Alertmanager;
pub use defragd::ControlClient;

/// Long enough for a server in trouble, short enough for a person at a terminal.
const DEADLINE: Duration = Duration::from_secs(10);
/// Thousands of alerts fit in; a page of something else that never ends does not.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Why a call failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// A file cannot be used.
    #[error("cannot read {what} {}: {detail}", path.display())]
    File {
        /// What it holds.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// The address is none.
    #[error("{url:?} is not an http:// or https:// URL: {detail}")]
    Url {
        /// As given.
        url: String,
        /// Why not.
        detail: String,
    },
    /// No answer.
    #[error("cannot reach {url}: {detail}")]
    Unreachable {
        /// Without credentials.
        url: String,
        /// What was seen.
        detail: String,
    },
    /// An answer that says no.
    #[error("{url} answered {status}: {detail}")]
    Refused {
        /// Without credentials.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// An answer that is not what it should be.
    #[error("{url} answered what is not understood: {detail}")]
    NotUnderstood {
        /// Without credentials.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// An address that is called, with what it takes to do so.
#[derive(Clone, Debug)]
struct Remote {
    base: Url,
    client: reqwest::Client,
}

impl Remote {
    fn new(url: &str, ca_file: Option<&PathBuf>) -> Result<Self, CallError> {
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
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(DEADLINE)
            .connect_timeout(DEADLINE / 2);
        if let Some(path) = ca_file {
            let file =
                |detail: String| CallError::File { what: "the certificate authorities", path: path.clone(), detail };
            let pem = std::fs::read(path).map_err(|error| file(error.to_string()))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| file(chain(&error)))?;
            builder = builder.tls_certs_only(roots);
        } else if base.scheme() == "http" {
            // A bare machine has no authorities to load, and needs none here.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| bad(&chain(&error)))?;
        Ok(Self { base, client })
    }

    fn url(&self, path: &str) -> Result<Url, CallError> {
        let bad =
            |error: url::ParseError| CallError::Url { url: format!("{}{path}", self.base), detail: error.to_string() };
        self.base.join(path).map_err(bad)
    }

    /// Sends, and reads the JSON of a good answer.
    async fn call(&self, request: reqwest::RequestBuilder, url: &Url) -> Result<Value, CallError> {
        let url = || url.to_string();
        let unreachable = |error: &reqwest::Error| CallError::Unreachable { url: url(), detail: chain(error) };
        let mut answer = request.send().await.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                let detail = format!("it is longer than {MAX_ANSWER_BYTES} bytes");
                return Err(CallError::NotUnderstood { url: url(), detail });
            }
            body.extend_from_slice(&chunk);
        }
        let json = serde_json::from_slice::<Value>(&body);
        if !status.is_success() {
            let said = json.ok().and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
            let text = || String::from_utf8_lossy(&body).trim().chars().take(200).collect();
            return Err(CallError::Refused { url: url(), status: status.as_u16(), detail: said.unwrap_or_else(text) });
        }
        json.map_err(|error| CallError::NotUnderstood { url: url(), detail: error.to_string() })
    }
}

/// The token in a file.
fn token(path: &PathBuf) -> Result<String, CallError> {
    let text = std::fs::read_to_string(path).map_err(|error| CallError::File {
        what: "the token file",
        path: path.clone(),
        detail: error.to_string(),
    })?;
    Ok(text.trim().to_owned())
}

/// An error with its causes: reqwest's own text often ends before the one that helps.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
