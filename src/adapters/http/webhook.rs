//! `POST /api/v1/alerts`. Alertmanager repeats a notification only after 5xx, so 503 means "not recorded yet", here or by
//! the shard that the cluster belongs to, and a notification that can never work gets a 4xx.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
};
use tracing::{error, warn};

use super::{
    auth::ProtectedAction,
    body::{MAX_BODY_BYTES, discard, read},
    orders::{self, refuse},
    site::{Site, problem},
};
use crate::{
    core::{
        alert::{ForeignAlerts, Notification},
        wire::Object,
    },
    ports::{peers::SHARD_HEADER, service::Service},
};

pub(super) async fn receive<S: Service>(
    State(site): State<Arc<Site<S>>>,
    request: Request<Body>,
) -> Result<Response, Response> {
    let (parts, body) = request.into_parts();
    if let Some(refusal) = refuse(&site, ProtectedAction::Notify, &parts) {
        discard(body).await;
        return Err(refusal);
    }
    let body = read(body, MAX_BODY_BYTES).await.map_err(|error| problem(error.status(), &error.to_string()))?;
    let Object::<Notification>(mut notification) = serde_json::from_slice(&body).map_err(|error| {
        warn!(%error, "refused a webhook request: the body is not an Alertmanager notification");
        problem(StatusCode::BAD_REQUEST, &format!("the body is not an Alertmanager notification: {error}"))
    })?;
    notification.forwarded = orders::is_forwarded(&parts);
    notification.taken_as.take_if(|_| !notification.forwarded);
    if parts.headers.contains_key(SHARD_HEADER) {
        notification.foreign = ForeignAlerts::Refuse;
    }
    let alerts = site.service.notify(notification).await.map_err(|failure| {
        error!(error = %failure, "a notification is not acknowledged; answering 503 so that Alertmanager retries");
        problem(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string())
    })?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "alerts": alerts }))).into_response())
}
