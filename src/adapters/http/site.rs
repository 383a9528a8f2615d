//! What the handlers share: the service, the options, the limits, and the form of an error.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;
use url::Url;

use super::{auth::AccessPolicy, scrape_reserve::ScrapeReserve, sessions::Sessions, web::Web};

/// Pages that receive events: well below the limit of connections, which scrapers and Alertmanagers need, too.
pub(super) const MAX_STREAMS: usize = 64;

#[derive(Clone, Debug)]
pub struct Options {
    pub telemetry_path: String,
    /// Subtracted from the scrape timeout, to leave time for the answer.
    pub timeout_offset: Duration,
    /// How many scrapes are served at the same time; 0 means no limit.
    pub max_requests: usize,
    /// Prefix of every path: empty, or like `/defragd`.
    pub route_prefix: String,
    /// Prefix of every path in links, which may differ behind a proxy.
    pub link_prefix: String,
    /// The URL that browsers use, if configured.
    pub external_url: Option<Url>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            telemetry_path: "/metrics".to_owned(),
            timeout_offset: Duration::ZERO,
            max_requests: 40,
            route_prefix: String::new(),
            link_prefix: String::new(),
            external_url: None,
        }
    }
}

pub(super) struct Site<S> {
    pub(super) service: Arc<S>,
    /// Who may request runs.
    pub(super) access: AccessPolicy,
    /// TLS, passwords, limits.
    pub(super) web: Arc<Web>,
    pub(super) options: Options,
    pub(super) scrapes: Semaphore,
    pub(super) sessions: Sessions,
    /// One permit for each page that may receive events at the same time.
    pub(super) streams: Arc<Semaphore>,
    pub(super) scrape_reserve: ScrapeReserve,
}

impl<S> Site<S> {
    pub(super) fn new(service: Arc<S>, access: AccessPolicy, web: Arc<Web>, options: Options) -> Self {
        let scrapes = Semaphore::new(match options.max_requests {
            0 => Semaphore::MAX_PERMITS,
            max => max.min(Semaphore::MAX_PERMITS),
        });
        let (sessions, streams) = (Sessions::default(), Arc::new(Semaphore::new(MAX_STREAMS)));
        Self { service, access, web, options, scrapes, sessions, streams, scrape_reserve: ScrapeReserve::default() }
    }

    pub(super) fn path(&self, route: &str) -> String {
        format!("{}{route}", self.options.route_prefix)
    }

    /// The path of a route for clients outside.
    pub(super) fn link(&self, route: &str) -> String {
        format!("{}{route}", self.options.link_prefix)
    }

    /// Whether browsers use HTTPS, possibly through a proxy.
    pub(super) fn is_https(&self) -> bool {
        let external = self.options.external_url.as_ref();
        external.map_or_else(|| self.web.is_tls(), |external| external.scheme() == "https")
    }
}

/// An error as JSON, for programs and people.
pub(super) fn problem(status: StatusCode, what: &str) -> Response {
    (status, Json(serde_json::json!({ "error": what }))).into_response()
}
