//! The actions of the API: `POST /api/v1/clusters/{name}/pause|resume|run|cancel`, `POST
//! /api/v1/runs/{id}/approve|reject`.
//!
//! All of them need the admin token or, if none is configured, what the webhook needs: each can cause or prevent a
//! write to etcd.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderValue, Request, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use serde::Deserialize;
use tracing::{error, warn};

use super::{
    auth::{Proof, ProtectedAction},
    body::{discard, read},
    extract::Path,
    origin::{is_of_another_site, is_rebound},
    site::{Site, problem},
};
use crate::{
    core::{explain::Explained, history::RunId, time::Time, wire::Object},
    ports::{
        peers::FORWARDED_HEADER,
        service::{Command, CommandError, CommandOutcome, Service},
    },
};

/// A name and a sentence.
pub(super) const MAX_ORDER_BYTES: usize = 16 << 10;
/// Names and reasons go to the journal, the log and the API.
pub(super) const MAX_TEXT_CHARS: usize = 500;

/// More than any cluster has.
pub(super) const MAX_MEMBERS: usize = 100;

/// The body; everything is optional but a pause's reason.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderBody {
    #[serde(default)]
    by: String,
    #[serde(default)]
    reason: String,
    /// How long a pause lasts, like `2h` or `1d`.
    #[serde(rename = "for")]
    lasts: Option<Time>,
    /// The only members that a run is about.
    #[serde(default)]
    members: Vec<String>,
    /// Whether another replica forwarded the request.
    #[serde(skip)]
    forwarded: bool,
}

/// Refuses clients that may not cause a write to etcd. On loopback, where no credentials are needed, the content type
/// also keeps out web pages in an operator's browser: they cannot send this one.
pub(super) fn refuse<S>(site: &Site<S>, action: ProtectedAction, parts: &Parts) -> Option<Response> {
    if site.access.is_closed() {
        return Some(problem(StatusCode::FORBIDDEN, "the receiver is disabled (--exporter-only)"));
    }
    if let Some(refusal) = forbid(site, action, parts) {
        return Some(refusal);
    }
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_json = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return Some(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json"));
    }
    let is_encoded = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    let is_encoded = parts.headers.get_all(header::CONTENT_ENCODING).iter().any(is_encoded);
    is_encoded.then(|| problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Encoding is not supported"))
}

/// Refuses requests without the credentials that this needs, and those of other sites' pages.
pub(super) fn forbid<S>(site: &Site<S>, action: ProtectedAction, parts: &Parts) -> Option<Response> {
    let (access, headers, external) = (&site.access, &parts.headers, site.options.external_url.as_ref());
    let proof = parts.extensions.get::<Proof>().copied().unwrap_or_default();
    if !access.allows(action, headers, proof) {
        warn!(path = parts.uri.path(), "request without a valid bearer token");
        if access.knows(headers) {
            return Some(problem(StatusCode::FORBIDDEN, "this bearer token does not allow this action"));
        }
        if !access.needs_token(action) {
            let what = "no token is configured: pass --web.admin-token-file, or reload with SIGHUP";
            return Some(problem(StatusCode::UNAUTHORIZED, what));
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return Some(
            (challenge, problem(StatusCode::UNAUTHORIZED, "a valid bearer token is required")).into_response(),
        );
    }
    let what = if !access.needs_token(action) && is_of_another_site(parts, external) {
        "the request comes from another site's page, or --web.external-url is not the URL of this one"
    } else if access.is_free(action, proof) && is_rebound(parts, external) {
        // Otherwise a foreign page whose DNS name points to 127.0.0.1 would be let in, whatever the content type.
        "without a token, browsers must use a loopback name or the host of --web.external-url"
    } else {
        return None;
    };
    warn!(path = parts.uri.path(), why = what, "refused a browser");
    Some(problem(StatusCode::FORBIDDEN, what))
}

async fn read_order<S>(site: &Site<S>, request: Request<Body>) -> Result<OrderBody, Response> {
    let (parts, body) = request.into_parts();
    if let Some(refusal) = refuse(site, ProtectedAction::Order, &parts) {
        discard(body).await;
        return Err(refusal);
    }
    let bad = |what: &str| problem(StatusCode::BAD_REQUEST, what);
    let body = read(body, MAX_ORDER_BYTES).await;
    let body = body.map_err(|error| problem(error.status(), &error.to_string()))?;
    let mut order_body = OrderBody::default();
    if !body.is_empty() {
        Object(order_body) = serde_json::from_slice(&body).map_err(|error| {
            bad(&format!(
                "the body must be {{\"by\": …, \"reason\": …, \"for\": \"2h\", \"members\": [\"etcd-1\"]}}: {error}"
            ))
        })?;
    }
    if order_body.by.chars().count().max(order_body.reason.chars().count()) > MAX_TEXT_CHARS {
        return Err(bad(&format!("by and reason are limited to {MAX_TEXT_CHARS} characters each")));
    }
    if order_body.members.len() > MAX_MEMBERS {
        return Err(bad(&format!("members is limited to {MAX_MEMBERS} names")));
    }
    if order_body.by.trim().is_empty() {
        "unknown user (API)".clone_into(&mut order_body.by);
    }
    order_body.forwarded = is_forwarded(&parts);
    Ok(order_body)
}

/// A route for a command on a cluster.
pub(super) fn command<S: Service>(build: BuildCommand) -> MethodRouter<Arc<Site<S>>> {
    post(async move |State(site): State<Arc<Site<S>>>, Path(cluster): Path<String>, request: Request<Body>| {
        ordered(&site, &cluster, request, build).await
    })
}

/// Makes a command of the body, or says what is wrong with the body.
type BuildCommand = fn(&mut OrderBody) -> Result<Command, &'static str>;

pub(super) const PAUSE: BuildCommand = |body| {
    if body.reason.trim().is_empty() {
        return Err("a pause needs a reason");
    }
    let lasts = body.lasts.map(Duration::from);
    if lasts.is_some_and(|lasts| lasts.is_zero()) {
        return Err("for must be a duration above 0, such as 2h");
    }
    Ok(Command::Pause { reason: std::mem::take(&mut body.reason), lasts })
};
pub(super) const RESUME: BuildCommand = |body| Ok(Command::Resume { reason: std::mem::take(&mut body.reason) });
pub(super) const CANCEL: BuildCommand = |body| Ok(Command::Cancel { reason: std::mem::take(&mut body.reason) });
pub(super) const RUN: BuildCommand = |body| Ok(Command::Run { members: std::mem::take(&mut body.members) });

pub(super) async fn approve<S: Service>(
    State(site): State<Arc<Site<S>>>,
    Path(id): Path<i64>,
    request: Request<Body>,
) -> Result<Response, Response> {
    let OrderBody { by, forwarded, .. } = read_order(&site, request).await?;
    Ok(decided(id, site.service.approve(RunId(id), by, forwarded).await))
}

pub(super) async fn reject<S: Service>(
    State(site): State<Arc<Site<S>>>,
    Path(id): Path<i64>,
    request: Request<Body>,
) -> Result<Response, Response> {
    let OrderBody { by, reason, forwarded, .. } = read_order(&site, request).await?;
    if reason.trim().is_empty() {
        return Err(problem(StatusCode::BAD_REQUEST, "a rejection needs a reason"));
    }
    Ok(decided(id, site.service.reject(RunId(id), by, reason, forwarded).await))
}

fn decided(id: i64, outcome: Result<CommandOutcome, CommandError>) -> Response {
    match outcome {
        Ok(CommandOutcome::Forwarded { holder, answer }) => passed(&holder, answer),
        Ok(CommandOutcome::Done(_)) => Json(serde_json::json!({ "run": id })).into_response(),
        Err(error) => refused(&error),
    }
}

/// Whether another replica forwarded this request.
pub(super) fn is_forwarded(parts: &Parts) -> bool {
    parts.headers.contains_key(FORWARDED_HEADER)
}

async fn ordered<S: Service>(
    site: &Site<S>,
    cluster: &str,
    request: Request<Body>,
    build: BuildCommand,
) -> Result<Response, Response> {
    let mut order_body = read_order(site, request).await?;
    let command = build(&mut order_body).map_err(|what| problem(StatusCode::BAD_REQUEST, what))?;
    Ok(match site.service.command(cluster, order_body.by, command, order_body.forwarded).await {
        Ok(CommandOutcome::Forwarded { holder, answer }) => passed(&holder, answer),
        Ok(CommandOutcome::Done(Some(run))) => {
            (StatusCode::ACCEPTED, Json(serde_json::json!({ "run": run }))).into_response()
        }
        Ok(CommandOutcome::Done(None)) => {
            let summary = site.service.clusters().into_iter().find(|summary| summary.name == cluster);
            Json(serde_json::json!({ "cluster": summary })).into_response()
        }
        Err(error) => refused(&error),
    })
}

/// The lock holder's answer, with the holder's name added.
fn passed(holder: &str, mut answer: serde_json::Value) -> Response {
    let status =
        if answer["run"].is_number() && answer["cluster"].is_null() { StatusCode::ACCEPTED } else { StatusCode::OK };
    answer["holder"] = holder.into();
    (status, Json(answer)).into_response()
}

fn refused(failure: &CommandError) -> Response {
    if let CommandError::Refused(reason) = failure {
        let body = Json(serde_json::json!({ "error": failure.to_string(), "reason": Explained::from(reason) }));
        return (StatusCode::CONFLICT, body).into_response();
    }
    problem(status(failure), &failure.to_string())
}

pub(super) fn status(failure: &CommandError) -> StatusCode {
    match failure {
        CommandError::UnknownCluster(_) | CommandError::UnknownRun(_) => StatusCode::NOT_FOUND,
        CommandError::OtherShard(_) => StatusCode::MISDIRECTED_REQUEST,
        CommandError::NotWaiting { .. } | CommandError::NothingToCancel(_) | CommandError::Refused(_) => {
            StatusCode::CONFLICT
        }
        CommandError::Peer { status, .. } => StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY),
        CommandError::NoHolder { .. } => StatusCode::SERVICE_UNAVAILABLE,
        CommandError::Journal(failure) => {
            error!(error = %failure, "cannot record an action in the journal");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
