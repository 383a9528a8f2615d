//! How to talk to a server: one request on a separate connection, with everything that it needs read from its files at
//! that moment.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use reqwest::{
    Client, Method, StatusCode,
    header::{HOST, HeaderMap, HeaderValue, LOCATION},
    redirect::Policy,
};
use serde_json::Value;
use tokio::{net::lookup_host, task::spawn_blocking, time::timeout};
use url::{Origin, Url};

use super::{
    CallError, ClientTls, Credentials, Secrets,
    text::{detail, shown},
};
use crate::adapters::{causes::chain, tls};

/// Long enough for an overloaded server, short enough for an operator at a terminal.
const DEADLINE: Duration = Duration::from_secs(10);
/// As many as any reasonable site needs.
const MAX_REDIRECTS: usize = 5;
/// Our name in the servers' logs.
const USER_AGENT: &str = concat!("defragd/", env!("CARGO_PKG_VERSION"));

/// How to talk to a server.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    pub credentials: Credentials,
    pub tls: ClientTls,
    /// For everything: files, names, connection, answer.
    pub timeout: Duration,
    /// Whether to follow redirects; with credentials only within the same server.
    pub follow_redirects: bool,
}

pub(in crate::adapters) struct Answer {
    pub(in crate::adapters) status: u16,
    /// As much of it as was requested.
    pub(in crate::adapters) body: Vec<u8>,
    pub(in crate::adapters) is_cut: bool,
    /// The redirect's target, if it is not followed.
    pub(in crate::adapters) location: Option<String>,
    /// The secrets that were sent.
    pub(in crate::adapters) secrets: Secrets,
}

/// A client for one request.
struct Opened {
    client: Client,
    headers: HeaderMap,
    secrets: Secrets,
    /// With the name to request as its host.
    url: Url,
}

impl ClientSettings {
    /// Without redirects.
    pub fn new(credentials: Credentials, tls: ClientTls, timeout: Duration) -> Self {
        Self { credentials, tls, timeout, follow_redirects: false }
    }

    /// Of a command's flags.
    pub fn of_flags(token_file: Option<PathBuf>, ca_file: Option<PathBuf>) -> Self {
        Self::new(Credentials::bearer(token_file), ClientTls { ca_file, ..ClientTls::default() }, DEADLINE)
    }

    /// Whether the TLS files are usable. Blocks while they are read.
    pub(super) fn try_tls(&self, url: &Url) -> Result<(), CallError> {
        self.client(url, url, &[], false).map(drop)
    }

    /// Whether all files are usable. Blocks while they are read.
    pub(in crate::adapters) fn try_files(&self, url: &Url) -> Result<(), CallError> {
        self.try_tls(url)?;
        self.credentials.read().map(drop)
    }

    /// Sends one request. At most `keep` bytes of the body are read; the connection is closed afterwards.
    pub(in crate::adapters) async fn ask(
        &self,
        method: Method,
        url: &Url,
        body: Option<&Value>,
        keep: usize,
    ) -> Result<Answer, CallError> {
        let late = || CallError::Unreachable {
            url: shown(url),
            detail: format!("no complete answer within {:?}", self.timeout),
        };
        timeout(self.timeout, self.ask_in_time(method, url, body, keep)).await.map_err(|_| late())?
    }

    async fn ask_in_time(
        &self,
        method: Method,
        url: &Url,
        body: Option<&Value>,
        keep: usize,
    ) -> Result<Answer, CallError> {
        let unreachable = |error: String| CallError::Unreachable { url: shown(url), detail: detail(&error) };
        let failed = |error: reqwest::Error| unreachable(chain(&error.without_url()));
        let opened = self.open(url).await?;
        let mut request = opened.client.request(method, opened.url).headers(opened.headers);
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let location = answer.headers().get(LOCATION).filter(|_| status.is_redirection());
        let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        let mut is_cut = false;
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            let room = keep - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                is_cut = true;
                break;
            }
        }
        Ok(Answer { status: StatusCode::as_u16(&status), body, is_cut, location, secrets: opened.secrets })
    }

    async fn open(&self, url: &Url) -> Result<Opened, CallError> {
        let unreachable = |error: String| CallError::Unreachable { url: shown(url), detail: detail(&error) };
        let mut renamed = url.clone();
        let mut addresses = Vec::new();
        if let (Some(name), Some(host), Some(port)) = (&self.tls.server_name, url.host(), url.port_or_known_default()) {
            // The client requests and verifies the host of its URL: so that becomes the name, at the real address.
            let host = match host {
                url::Host::Domain(name) => name.to_owned(),
                url::Host::Ipv4(address) => address.to_string(),
                url::Host::Ipv6(address) => address.to_string(),
            };
            addresses.extend(lookup_host((host, port)).await.map_err(|error| unreachable(chain(&error)))?);
            renamed.set_host(Some(name)).map_err(|error| unreachable(error.to_string()))?;
        }
        let (access, original) = (self.clone(), url.clone());
        // Files: on a worker thread, a dead network file system would block the whole process.
        let blocking = move || {
            let (mut headers, secrets) = access.credentials.read()?;
            let is_elsewhere = original != renamed || headers.contains_key(HOST);
            let client = access.client(&original, &renamed, &addresses, is_elsewhere)?;
            if original != renamed
                && !headers.contains_key(HOST)
                && let Some(host) = authority(&original).and_then(|host| HeaderValue::from_str(&host).ok())
            {
                headers.insert(HOST, host);
            }
            Ok(Opened { client, headers, secrets, url: renamed })
        };
        spawn_blocking(blocking).await.map_err(|error| unreachable(error.to_string()))?
    }

    /// `is_bound` says that the headers are only for this server.
    fn client(&self, original: &Url, url: &Url, addresses: &[SocketAddr], is_bound: bool) -> Result<Client, CallError> {
        // A redirect may lead from http to https, so that needs CAs as well.
        let is_plain = url.scheme() == "http" && !self.follow_redirects;
        let mut tls = if is_plain { tls::trusting_nobody().map_err(CallError::Tls)? } else { self.tls.config()? };
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut builder = Client::builder()
            .no_proxy()
            .http1_only()
            .user_agent(USER_AGENT)
            .redirect(self.redirects(vec![original.origin(), url.origin()], is_bound))
            .tls_backend_preconfigured(tls);
        if let (false, Some(name)) = (addresses.is_empty(), &self.tls.server_name) {
            builder = builder.resolve_to_addrs(name, addresses);
        }
        builder.build().map_err(|error| CallError::Tls(chain(&error)))
    }

    fn redirects(&self, ours: Vec<Origin>, is_bound: bool) -> Policy {
        if !self.follow_redirects {
            return Policy::none();
        }
        let is_bound = is_bound || self.credentials.are_secret();
        Policy::custom(move |attempt| {
            let from_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
            if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error(format!("more than {MAX_REDIRECTS} redirects"))
            } else if from_https && attempt.url().scheme() == "http" {
                attempt.error("it redirects from https to http")
            } else if is_bound && !ours.contains(&attempt.url().origin()) {
                attempt.error("it redirects to another server, which must not get our headers")
            } else {
                attempt.follow()
            }
        })
    }
}

/// Host and port, as the header `Host` has them.
fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}
