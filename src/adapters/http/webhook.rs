//! `POST /api/v1/alerts`. Alertmanager repeats a notification only after 5xx, so 503 means "not written
//! down yet", and whatever can never work gets a 4xx.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::time::timeout;
use tracing::{error, warn};

use super::{
    auth::Access,
    routes::{MAX_BODY_BYTES, Site, problem},
};
use crate::{core::alert::Notification, ports::service::Service};

/// A sender that takes longer for its body holds a connection that others need.
const BODY_LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn receive<S: Service>(State(site): State<Arc<Site<S>>>, request: Request<Body>) -> Response {
    let response = answer(&site, request).await;
    site.service.count_webhook(response.status().as_u16());
    response
}

async fn answer<S: Service>(site: &Site<S>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    if matches!(site.options.access, Access::Closed) {
        return problem(StatusCode::FORBIDDEN, "the receiver is switched off (--exporter-only)");
    }
    if !site.options.access.allows(&parts.headers) {
        warn!("webhook request without the right bearer token");
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (challenge, problem(StatusCode::UNAUTHORIZED, "a valid bearer token is needed")).into_response();
    }
    if !is_json(&parts.headers) {
        // Not only tidiness: a web page in an operator's browser cannot send this type to another site
        // without being allowed to, so it cannot reach a receiver on loopback.
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json");
    }
    let Ok(body) = timeout(BODY_LIMIT, to_bytes(body, MAX_BODY_BYTES)).await else {
        return problem(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
    };
    let Ok(body) = body else {
        let what = format!("the body is longer than {MAX_BODY_BYTES} bytes, or ended too early");
        return problem(StatusCode::PAYLOAD_TOO_LARGE, &what);
    };
    let notification: Notification = match serde_json::from_slice(&body) {
        Ok(notification) => notification,
        Err(error) => {
            let what = format!("the body is not an Alertmanager notification: {error}");
            warn!(%error, "webhook request with a body that is not a notification");
            return problem(StatusCode::BAD_REQUEST, &what);
        }
    };
    match site.service.notify(notification).await {
        Ok(alerts) => (StatusCode::ACCEPTED, Json(serde_json::json!({ "alerts": alerts }))).into_response(),
        Err(failure) => {
            error!(error = %failure, "a request could not be written down; the sender is told to try again");
            problem(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string())
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
