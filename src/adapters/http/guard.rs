//! What every request passes before its route, whatever the path: the rate limit of `--web.config.file`, the limits of
//! a request's head ([`super::head`]) and the file's password check, after a look at changed files. Adds the file's
//! headers to every answer, and counts the answers to webhooks. Only requests that hyper refuses do not come here.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::warn;

use super::{
    auth::Proof,
    head::HeadProblem,
    site::{Site, problem},
    web::{Active, Checked},
};
use crate::ports::service::Service;

pub(super) async fn pass<S: Service>(State(site): State<Arc<Site<S>>>, request: Request, next: Next) -> Response {
    let active = site.web.current().await;
    if site.access.renew().await {
        site.sessions.close_all();
    }
    let is_webhook = request.method() == Method::POST && request.uri().path() == site.path("/api/v1/alerts");
    let (mut parts, body) = request.into_parts();
    let mut response = match admit(&site, &active, &parts).await {
        Ok(proof) => {
            parts.extensions.insert(proof);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => refusal,
    };
    if is_webhook {
        site.service.count_webhook(response.status().as_u16());
    }
    response.headers_mut().extend(active.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    response
}

/// Admits the request and returns how it is authenticated, or the refusal.
async fn admit<S>(site: &Site<S>, active: &Active, request: &Parts) -> Result<Proof, Response> {
    let mut proof = request.extensions.get::<Proof>().copied().unwrap_or_default();
    if let Some(bucket) = active.bucket.as_ref().filter(|bucket| !bucket.allows(Instant::now())) {
        let wait = [(header::RETRY_AFTER, bucket.retry_after())];
        let refusal =
            problem(StatusCode::TOO_MANY_REQUESTS, "too many requests: see rate_limit in the web configuration");
        return Err((wait, refusal).into_response());
    }
    if let Some(HeadProblem { status, what }) = request.extensions.get() {
        warn!(path = request.uri.path(), why = what, "refused a request for its head");
        return Err(problem(*status, what));
    }
    let Some(users) = &active.users else { return Ok(proof) };
    if site.access.knows(&request.headers) {
        return Ok(proof);
    }
    match users.check(request.headers.get(header::AUTHORIZATION)).await {
        Checked::Known => {
            proof.password = true;
            Ok(proof)
        }
        Checked::Unknown => {
            warn!(path = request.uri.path(), "request without a valid user and password");
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"defragd\"")];
            Err((challenge, problem(StatusCode::UNAUTHORIZED, "a user and a password are required")).into_response())
        }
        Checked::Busy => {
            Err(problem(StatusCode::SERVICE_UNAVAILABLE, "too many passwords are being checked: try again later"))
        }
    }
}
