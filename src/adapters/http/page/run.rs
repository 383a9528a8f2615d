//! `/runs/{id}`: one run, step by step, from the journal.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State as Extract},
    http::{StatusCode, request::Parts},
    response::Response,
};
use maud::{Markup, html};

use super::{
    actions::{self, Forms, Typed},
    cluster::Done,
    condition,
    layout::{Links, Page},
    live, plan, refusal, runs,
    session::{FormToken, Visitor},
    words,
};
use crate::{
    adapters::http::site::Site,
    core::{
        history::{AlertKey, Entry, Outcome, Record, RunId, RunView},
        reason::Reason,
        story,
    },
    ports::service::Service,
};

pub(super) async fn page<S: Service>(
    Extract(site): Extract<Arc<Site<S>>>,
    Path(id): Path<String>,
    Query(done): Query<Done>,
    parts: Parts,
) -> Response {
    let visitor = Visitor::of(&site, &parts);
    // A mistyped address gets the same answer.
    let run = RunId(id.parse().unwrap_or(0));
    show(&site, &visitor, run, StatusCode::OK, &Typed::default(), &done.done).await
}

/// The page, also after an action that was refused.
pub(super) async fn show<S: Service>(
    site: &Site<S>,
    visitor: &Visitor,
    id: RunId,
    status: StatusCode,
    typed: &Typed,
    done: &str,
) -> Response {
    let records = match site.service.records(id).await {
        Ok(records) => records,
        Err(error) => {
            let what = format!("The journal cannot be read: {error}");
            return refusal::answer(site, visitor, StatusCode::INTERNAL_SERVER_ERROR, "The run cannot be shown", &what);
        }
    };
    let Some(run) = RunView::fold(records.clone()).pop() else {
        return refusal::answer(
            site,
            visitor,
            StatusCode::NOT_FOUND,
            "Run not found",
            "There is no run with this number.",
        );
    };
    let view = site.service.view(&run.request.cluster);
    let form = visitor.form(site);
    let waits = view.as_ref().and_then(condition::awaits_approval) == Some(id);
    let plan = if waits { Some(site.service.plan(&run.request.cluster, false).await) } else { None };
    let (now, links) = (site.service.now(), Links(&site.options.link_prefix));
    let one = view.as_ref().and_then(|view| view.live.as_ref()).filter(|one| one.run == id);
    let title = format!("Run {id}");
    let main = html! {
        p.crumbs {
            a href=(links.to("/")) { "All clusters" } " / "
            a href=(links.cluster(&run.request.cluster)) { (run.request.cluster) }
        }
        h1 { "Run " (id) " of " (run.request.cluster) }
        (actions::done_notice(done))
        div #live data-live="" { @match (&view, one) { (Some(view), Some(one)) => (live::card(view, one, now, &links)), _ => (facts(&run)) } }
        // Always there: they become empty when another operator has decided.
        div #plan data-live="" {
            @if let Some(plan) = &plan {
                h2 { "Alerts" }
                @if run.request.alerts.iter().any(AlertKey::is_described) { (plan::alerts(&run.request.alerts, now)) }
                @else { p { "The run was requested by " (story::requester(run.request.trigger)) " at " (words::at(run.accepted_at)) "." } }
                h2 { "What the run will do" }
                @match plan {
                    Ok(plan) => (plan::plan(plan, now)),
                    Err(error) => p.problem role="alert" { "There is no plan now: " (error) },
                }
            }
        }
        div #decide data-live="" { @if waits { (decide(id, form.as_ref(), visitor, typed, &links)) } }
        section aria-labelledby="steps-title" {
            h2 #steps-title { "Step by step" }
            div #steps data-live="" { (steps(&records, run.outcome.as_ref().and_then(Outcome::reason))) }
        }
    };
    let mut page = Page::live(&title, main);
    (page.status, page.form, page.follows) = (status, form.filter(|_| waits), status == StatusCode::OK);
    page.answer(site, visitor)
}

fn facts(run: &RunView) -> Markup {
    html! {
        dl.facts {
            dt { "Outcome" }
            dd {
                (runs::badge(run))
                @if let Some(reason) = run.outcome.as_ref().and_then(Outcome::reason) { " " (reason) "." (words::to_do(reason, &run.request.cluster)) }
            }
            dt { "Requested by" } dd { (story::requester(run.request.trigger)) ", " (words::at(run.accepted_at)) }
            @if let Some(approval) = &run.approved { dt { "Approved by" } dd { (approval.by) ", " (words::at(approval.at)) } }
            @if let (Some(from), Some(to)) = (run.started_at, run.finished_at) {
                dt { "Took" } dd { (words::span(words::between(from, to))) }
            }
            @if run.touched_a_member() { dt { "Reclaimed" } dd { (words::size(run.reclaimed())) } }
        }
        @if run.outcome.is_some() || run.started_at.is_some() { (plan::alerts(&run.request.alerts, run.accepted_at)) }
        @if !run.members.is_empty() {
            table.reflow.run role="table" {
                caption.visually-hidden { "Members of run " (run.id) ", in order" }
                (live::heads())
                tbody role="rowgroup" { @for result in &run.members { (live::ended(result, run.outcome.as_ref().and_then(Outcome::reason))) } }
            }
        }
    }
}

fn decide(id: RunId, form: Option<&FormToken>, visitor: &Visitor, typed: &Typed, links: &Links) -> Markup {
    html! {
        section aria-labelledby="actions-title" {
            h2 #actions-title { "Your decision" }
            @match form {
                Some(form) => (Forms { form, visitor, typed, links }.of_run(id)),
                None => (actions::sign_in(visitor.access, links)),
            }
        }
    }
}

/// `cause` is why the run ended; the page has it above.
fn steps(records: &[Record], cause: Option<&Reason>) -> Markup {
    let known = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    html! {
        ol.steps {
            @for record in records {
                li class=[is_bad(&record.entry).then_some("bad")] {
                    (words::at(record.at)) " "
                    @if is_bad(&record.entry) { span.badge.attention { span aria-hidden="true" { "! " } "failed" } " " }
                    span.foreign { (story::line(&record.entry).trim_end_matches(&known)) }
                }
            }
        }
    }
}

fn is_bad(entry: &Entry) -> bool {
    use crate::core::{history::MemberEnd, verify::HashVerdict};
    match entry {
        Entry::Gate(result) => !result.passed,
        Entry::Result(result) => matches!(result.end, MemberEnd::Failed { .. }),
        Entry::Verified(verification) => verification.verdict != HashVerdict::Equal,
        Entry::Finished(outcome) => {
            matches!(outcome, Outcome::Failed { .. } | Outcome::Mismatched { .. } | Outcome::Interrupted { .. })
        }
        _ => false,
    }
}
