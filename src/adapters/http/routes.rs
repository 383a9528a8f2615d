//! The routes and their handlers.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::{Request, StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    auth::{AccessPolicy, ProtectedAction},
    body::MAX_BODY_BYTES,
    extract::{Path, Query},
    guard, openapi, orders, page, runs, scrape,
    site::{Options, Site, problem},
    web::Web,
    webhook,
};
use crate::ports::service::{CommandError, Service};

/// Clusters that are observed for the list of clusters, if their last observation is some seconds old.
const MOST_OBSERVED: usize = 32;
/// The list of runs is meant for people.
const MAX_RUNS: u32 = 1_000;

pub fn router<S: Service>(service: Arc<S>, access: AccessPolicy, web: Arc<Web>, options: Options) -> Router {
    let site = Arc::new(Site::new(service, access, web, options));
    let at = |route: &str| site.path(route);
    let mut router = page::routes(Router::new(), at)
        .route(&at(&site.options.telemetry_path), get(scrape::metrics::<S>))
        .route(&at("/probe"), get(scrape::probe::<S>))
        .route(&at("/api/v1/alerts"), post(webhook::receive::<S>))
        .route(&at("/api/v1/clusters"), get(clusters::<S>))
        .route(&at("/api/v1/clusters/{name}/members"), get(members::<S>))
        .route(&at("/api/v1/clusters/{name}/plan"), get(plan::<S>))
        .route(&at("/api/v1/clusters/{name}/pause"), orders::command(orders::PAUSE))
        .route(&at("/api/v1/clusters/{name}/resume"), orders::command(orders::RESUME))
        .route(&at("/api/v1/clusters/{name}/cancel"), orders::command(orders::CANCEL))
        .route(&at("/api/v1/clusters/{name}/run"), orders::command(orders::RUN))
        .route(&at("/api/v1/runs/{id}/approve"), post(orders::approve::<S>))
        .route(&at("/api/v1/runs/{id}/reject"), post(orders::reject::<S>))
        .route(&at("/api/v1/runs"), get(list_runs::<S>))
        .route(&at("/api/v1/runs/{id}"), get(runs::show::<S>))
        .route(&at("/api/v1/openapi.json"), get(openapi_document::<S>))
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

async fn ready<S: Service>(State(site): State<Arc<Site<S>>>) -> Response {
    match site.service.not_ready().await {
        None => "defragd is ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Needs what actions need, also where there is no receiver, but no content type: Prometheus-style reload requests send none.
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

async fn openapi_document<S: Service>(State(site): State<Arc<Site<S>>>) -> Json<serde_json::Value> {
    Json(openapi::document(&site.options.link_prefix, &site.options.telemetry_path))
}

async fn clusters<S: Service>(State(site): State<Arc<Site<S>>>) -> Response {
    // A state must not be of long ago. As for a page: of a large fleet only what is old, in the background.
    let names: Vec<_> = site.service.clusters().into_iter().map(|cluster| cluster.name).collect();
    site.service.refresh(if names.len() <= MOST_OBSERVED { &names } else { &[] }).await;
    Json(serde_json::json!({ "clusters": site.service.clusters(), "shard": site.service.shard() })).into_response()
}

/// As observed for the page.
async fn members<S: Service>(State(site): State<Arc<Site<S>>>, Path(cluster): Path<String>) -> Response {
    site.service.refresh(std::slice::from_ref(&cluster)).await;
    match (site.service.view(&cluster), site.service.elsewhere(&cluster)) {
        (Some(view), _) => Json(view.status()).into_response(),
        (None, Some(elsewhere)) => problem(StatusCode::MISDIRECTED_REQUEST, &elsewhere.to_string()),
        (None, None) => problem(StatusCode::NOT_FOUND, &CommandError::UnknownCluster(cluster).to_string()),
    }
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
        // The members cannot be observed.
        Err(error @ CommandError::Refused(_)) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Err(error) => problem(orders::status(&error), &error.to_string()),
    }
}

#[derive(Deserialize)]
struct RunsQuery {
    limit: Option<u32>,
}

async fn list_runs<S: Service>(State(site): State<Arc<Site<S>>>, Query(query): Query<RunsQuery>) -> Response {
    match site.service.runs(query.limit.unwrap_or(50).min(MAX_RUNS) as usize).await {
        Ok(runs) => Json(serde_json::json!({ "runs": runs })).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
