//! What is answered where.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    auth::Access,
    exposition::{self, OPEN_METRICS, PLAIN_TEXT},
    orders, webhook,
};
use crate::{core::history::RunId, ports::service::Service};

/// A group of a thousand alerts with long annotations fits in.
pub(super) const MAX_BODY_BYTES: usize = 4 << 20;
/// Prometheus's own default, for scrapers that send none.
const DEFAULT_SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// Prometheus's usual interval is below this; whoever asks for more would only hold a connection.
const MAX_SCRAPE_TIMEOUT: Duration = Duration::from_secs(120);
/// The list of runs is for people.
const MAX_RUNS: usize = 1_000;

/// How the router behaves.
#[derive(Clone)]
pub struct Options {
    /// Who may ask for a run.
    pub access: Access,
    /// Where the metrics are.
    pub telemetry_path: String,
    /// Taken off the scrape's own timeout, for the way back.
    pub timeout_offset: Duration,
}

pub(super) struct Site<S> {
    pub(super) service: Arc<S>,
    pub(super) options: Options,
}

/// The router over the application.
pub fn router<S: Service>(service: Arc<S>, options: Options) -> Router {
    let telemetry_path = options.telemetry_path.clone();
    let site = Arc::new(Site { service, options });
    Router::new()
        .route("/", get(landing::<S>))
        .route(&telemetry_path, get(metrics::<S>))
        .route("/api/v1/alerts", post(webhook::receive::<S>))
        .route("/api/v1/clusters", get(clusters::<S>))
        .route("/api/v1/clusters/{name}/pause", post(orders::pause::<S>))
        .route("/api/v1/clusters/{name}/resume", post(orders::resume::<S>))
        .route("/api/v1/clusters/{name}/run", post(orders::run::<S>))
        .route("/api/v1/runs/{id}/approve", post(orders::approve::<S>))
        .route("/api/v1/runs", get(runs::<S>))
        .route("/api/v1/runs/{id}", get(run::<S>))
        .route("/-/healthy", get(|| async { "defragd is healthy\n" }))
        .route("/-/ready", get(ready::<S>))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(site)
}

/// An answer that says what was wrong, for programs and people.
pub(super) fn problem(status: StatusCode, what: &str) -> Response {
    (status, Json(serde_json::json!({ "error": what }))).into_response()
}

async fn landing<S: Service>(State(site): State<Arc<Site<S>>>) -> Html<String> {
    let version = env!("CARGO_PKG_VERSION");
    let metrics = &site.options.telemetry_path;
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>defragd</title>\
         <h1>defragd {version}</h1><p>etcd fragmentation exporter and remediation.</p><ul>\
         <li><a href=\"{metrics}\">Metrics</a><li><a href=\"/api/v1/clusters\">Clusters</a>\
         <li><a href=\"/api/v1/runs\">Runs</a><li><a href=\"/-/ready\">Readiness</a></ul></html>\n"
    ))
}

async fn metrics<S: Service>(State(site): State<Arc<Site<S>>>, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let timeout = text("x-prometheus-scrape-timeout-seconds")
        .and_then(|value| value.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(DEFAULT_SCRAPE_TIMEOUT);
    let timeout = timeout.min(MAX_SCRAPE_TIMEOUT);
    // A timeout that the offset would eat up still leaves half of it for the members.
    let budget = timeout.saturating_sub(site.options.timeout_offset).max(timeout / 2);
    let page = site.service.scrape(budget).await;
    if text("accept").is_some_and(exposition::wants_open_metrics) {
        ([(header::CONTENT_TYPE, OPEN_METRICS)], page).into_response()
    } else {
        ([(header::CONTENT_TYPE, PLAIN_TEXT)], exposition::to_plain_text(&page)).into_response()
    }
}

async fn ready<S: Service>(State(site): State<Arc<Site<S>>>) -> Response {
    match site.service.not_ready() {
        None => "defragd is ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn clusters<S: Service>(State(site): State<Arc<Site<S>>>) -> Response {
    Json(serde_json::json!({ "clusters": site.service.clusters() })).into_response()
}

#[derive(Deserialize)]
struct RunsQuery {
    limit: Option<usize>,
}

async fn runs<S: Service>(State(site): State<Arc<Site<S>>>, Query(query): Query<RunsQuery>) -> Response {
    match site.service.runs(query.limit.unwrap_or(50).min(MAX_RUNS)).await {
        Ok(runs) => Json(serde_json::json!({ "runs": runs })).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn run<S: Service>(State(site): State<Arc<Site<S>>>, Path(id): Path<i64>) -> Response {
    match site.service.run(RunId(id)).await {
        Ok(Some(run)) => Json(run).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, &format!("there is no run {id}")),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
