//! The routes and their handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{Request, StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use url::Url;

use super::{
    auth::{AccessPolicy, ProtectedAction},
    guard, orders, page, scrape,
    web::Web,
    webhook,
};
use crate::{
    core::{
        history::{RunId, RunView},
        plan_view::PlanView,
        scrape_reserve::ScrapeReserve,
    },
    ports::service::{PlanError, Service},
};

/// A group of twenty thousand alerts fits: Alertmanager does not resend what is refused for its length.
pub(super) const MAX_BODY_BYTES: usize = 16 << 20;
/// Clusters that are observed for the list of clusters, if their last observation is some seconds old.
const MOST_OBSERVED: usize = 32;
/// The list of runs is meant for people.
const MAX_RUNS: usize = 1_000;

#[derive(Clone)]
pub struct Options {
    /// Who may request runs.
    pub access: AccessPolicy,
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
    /// TLS, passwords, limits.
    pub web: Arc<Web>,
}

pub(super) struct Site<S> {
    pub(super) service: Arc<S>,
    pub(super) options: Options,
    pub(super) scrapes: Semaphore,
    pub(super) page: page::PageState,
    pub(super) packing: ScrapeReserve,
}

impl<S> Site<S> {
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
        external.map_or_else(|| self.options.web.is_tls(), |external| external.scheme() == "https")
    }
}

pub fn router<S: Service>(service: Arc<S>, options: Options) -> Router {
    let scrapes = Semaphore::new(match options.max_requests {
        0 => Semaphore::MAX_PERMITS,
        max => max.min(Semaphore::MAX_PERMITS),
    });
    let site = Arc::new(Site {
        service,
        options,
        scrapes,
        page: page::PageState::default(),
        packing: ScrapeReserve::default(),
    });
    let at = |route: &str| site.path(route);
    let mut router = page::routes(Router::new(), at)
        .route(&at(&site.options.telemetry_path), get(scrape::metrics::<S>))
        .route(&at("/probe"), get(scrape::probe::<S>))
        .route(&at("/api/v1/alerts"), post(webhook::receive::<S>))
        .route(&at("/api/v1/clusters"), get(clusters::<S>))
        .route(&at("/api/v1/clusters/{name}/plan"), get(plan::<S>))
        .route(&at("/api/v1/clusters/{name}/pause"), post(orders::pause::<S>))
        .route(&at("/api/v1/clusters/{name}/resume"), post(orders::resume::<S>))
        .route(&at("/api/v1/clusters/{name}/cancel"), post(orders::cancel::<S>))
        .route(&at("/api/v1/clusters/{name}/run"), post(orders::run::<S>))
        .route(&at("/api/v1/runs/{id}/approve"), post(orders::approve::<S>))
        .route(&at("/api/v1/runs/{id}/reject"), post(orders::reject::<S>))
        .route(&at("/api/v1/runs"), get(runs::<S>))
        .route(&at("/api/v1/runs/{id}"), get(run::<S>))
        .route(&at("/-/healthy"), get(|| async { "defragd is healthy\n" }))
        .route(&at("/-/ready"), get(ready::<S>))
        .route(&at("/config"), get(config::<S>))
        .route(&at("/-/reload"), post(reload::<S>));
    if !site.options.route_prefix.is_empty() {
        let to_landing = Redirect::temporary(&format!("{}/", site.options.link_prefix));
        let also = to_landing.clone();
        router = router
            .route("/", get(move || async move { to_landing }))
            .route(&site.options.route_prefix, get(move || async move { also }));
    }
    router
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(&site), guard::pass::<S>))
        .with_state(site)
}

/// An error as JSON, for programs and people.
pub(super) fn problem(status: StatusCode, what: &str) -> Response {
    (status, Json(serde_json::json!({ "error": what }))).into_response()
}

async fn ready<S: Service>(State(site): State<Arc<Site<S>>>) -> Response {
    match site.service.not_ready().await {
        None => "defragd is ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Needs what actions need, except for the content type: Prometheus-style reload requests send none.
async fn reload<S: Service>(State(site): State<Arc<Site<S>>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    if let Some(refusal) = orders::forbid(&site, ProtectedAction::Order, &parts) {
        return refusal;
    }
    match site.service.reload().await {
        Ok(()) => "configuration reloaded\n".into_response(),
        Err(problems) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{problems}\n")).into_response(),
    }
}

async fn config<S: Service>(State(site): State<Arc<Site<S>>>) -> Response {
    match serde_json::to_string_pretty(&site.service.configuration()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn clusters<S: Service>(State(site): State<Arc<Site<S>>>) -> Response {
    // A state must not be of long ago. As for a page: of a large fleet only what is old, in the background.
    let names: Vec<_> = site.service.clusters().into_iter().map(|cluster| cluster.name).collect();
    site.service.refresh(if names.len() <= MOST_OBSERVED { &names } else { &[] }).await;
    Json(serde_json::json!({ "clusters": site.service.clusters() })).into_response()
}

#[derive(Deserialize)]
struct PlanQuery {
    #[serde(default)]
    as_manual: bool,
}

async fn plan<S: Service>(
    State(site): State<Arc<Site<S>>>,
    Path(cluster): Path<String>,
    Query(query): Query<PlanQuery>,
) -> Response {
    match site.service.plan(&cluster, query.as_manual).await {
        Ok(plan) => Json(plan).into_response(),
        Err(error @ PlanError::UnknownCluster(_)) => problem(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
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
        Ok(Some(run)) => Json(with_plan(&site, run).await).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, &format!("there is no run {id}")),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A run with what an operator needs who is to approve it.
#[derive(Serialize)]
struct PlannedRun {
    #[serde(flatten)]
    run: RunView,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanView>,
    /// Why there is no plan of a run that waits for approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan_error: Option<String>,
}

async fn with_plan<S: Service>(site: &Site<S>, run: RunView) -> PlannedRun {
    let cluster = site.service.view(&run.request.cluster);
    let request = cluster.and_then(|view| view.summary.request).filter(|request| request.run == Some(run.id));
    if !request.is_some_and(|request| request.awaits_approval()) {
        return PlannedRun { run, plan: None, plan_error: None };
    }
    match site.service.plan(&run.request.cluster, false).await {
        Ok(plan) => PlannedRun { run, plan: Some(plan), plan_error: None },
        Err(error) => PlannedRun { run, plan: None, plan_error: Some(error.to_string()) },
    }
}
