//! `GET /api/v1/runs/{id}`: everything about one run, for clients that follow it.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    extract::Path,
    site::{Site, problem},
};
use crate::{
    core::{
        explain,
        history::{Record, RunId, RunView},
        plan_view::PlanView,
        reason::Reason,
    },
    ports::{journal::JournalError, overview::ProgressLine, service::Service},
};

#[derive(Serialize)]
struct RunDetails {
    #[serde(flatten)]
    run: RunView,
    /// Why it does not start yet.
    #[serde(serialize_with = "explain::serialize_option")]
    waiting_for: Option<Reason>,
    /// What an operator needs who is to approve it.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanView>,
    /// Why there is no plan of a run that waits for approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan_error: Option<String>,
    /// Its progress as text, for as long as the server remembers it.
    progress: Vec<ProgressLine>,
    /// What the journal has of it.
    records: Vec<Record>,
}

pub(super) async fn show<S: Service>(State(site): State<Arc<Site<S>>>, Path(id): Path<i64>) -> Response {
    match details(&*site.service, RunId(id)).await {
        Ok(Some(run)) => Json(run).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, &format!("there is no run {id}")),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn details<S: Service>(service: &S, id: RunId) -> Result<Option<RunDetails>, JournalError> {
    let records = service.records(id).await?;
    let Some(run) = RunView::fold(records.clone()).pop() else { return Ok(None) };
    let summary = service.view(&run.request.cluster).map(|view| view.summary);
    let approvable = summary.as_ref().and_then(|summary| summary.request.as_ref());
    let approvable = approvable.is_some_and(|request| request.run == Some(id) && request.awaits_approval());
    let waiting_for = summary.filter(|summary| summary.queued_run == Some(id)).and_then(|summary| summary.waiting_for);
    let (mut plan, mut plan_error) = (None, None);
    if approvable {
        match service.plan(&run.request.cluster, false).await {
            Ok(made) => plan = Some(made),
            Err(error) => plan_error = Some(error.to_string()),
        }
    }
    // After the records, so that a run that has ended is seen with its last line.
    let progress = service.progress(id);
    Ok(Some(RunDetails { run, waiting_for, plan, plan_error, progress, records }))
}
