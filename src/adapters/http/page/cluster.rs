//! `/clusters/{name}`: one cluster in full, and the actions for it.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State as Extract},
    http::{StatusCode, request::Parts},
    response::Response,
};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    condition,
    layout::{Links, Page},
    live, members, overview, refusal, runs,
    session::{FormToken, Visitor, VisitorAccess},
};
use crate::{
    adapters::http::site::Site,
    core::history::RunId,
    ports::{overview::ClusterView, service::Service},
};

const RUNS: usize = 20;

/// Which action has just succeeded. Only known values are shown: a link must not be able to put text on the page.
#[derive(Deserialize)]
pub(super) struct Done {
    #[serde(default)]
    pub(super) done: String,
}

/// The values of a form that is shown again because of a problem.
pub(super) struct Typed {
    pub(super) by: String,
    pub(super) reason: String,
    pub(super) lasts: String,
    pub(super) problem: Option<String>,
}

impl Default for Typed {
    fn default() -> Self {
        // A forgotten pause should end by itself.
        Self { by: String::new(), reason: String::new(), lasts: "4h".to_owned(), problem: None }
    }
}

pub(super) async fn page<S: Service>(
    Extract(site): Extract<Arc<Site<S>>>,
    Path(name): Path<String>,
    Query(done): Query<Done>,
    parts: Parts,
) -> Response {
    let visitor = Visitor::of(&site, &parts);
    show(&site, &visitor, &name, StatusCode::OK, &Typed::default(), &done.done).await
}

/// The page, also after an action that was refused.
pub(super) async fn show<S: Service>(
    site: &Site<S>,
    visitor: &Visitor,
    name: &str,
    status: StatusCode,
    typed: &Typed,
    done: &str,
) -> Response {
    site.service.refresh(&[name.to_owned()]).await;
    let Some(view) = site.service.view(name) else {
        let what = format!("There is no cluster {name:?} in the configuration.");
        return refusal::answer(site, visitor, StatusCode::NOT_FOUND, "Cluster not found", &what);
    };
    let (now, links) = (site.service.now(), Links(&site.options.link_prefix));
    let runs = site.service.runs_of(name, RUNS).await;
    let form = visitor.form(site);
    let main = html! {
        p.crumbs { a href=(links.to("/")) { "All clusters" } }
        div #head data-live="" {
            h1 { (name) " " (condition::of(&view).badge()) }
            p { "Mode " b { (view.summary.mode.label()) } ". " (condition::next_scheduled(&view, now)) }
            (overview::problems(&view))
        }
        (done_notice(done))
        div #live data-live="" {
            @if let Some(one) = &view.live { h2 { "In progress" } (live::card(one, now, &links)) }
        }
        section aria-labelledby="members-title" {
            h2 #members-title { "Members" }
            div #members data-live="" {
                div.found { (overview::age(view.observation.as_ref())) (members::key()) }
                (members::table(&view, &format!("Members of {name}")))
            }
        }
        div #why data-live="" { (why(&view, now, &links)) }
        section aria-labelledby="orders-title" { h2 #orders-title { "Actions" } (orders(&view, visitor, form.as_ref(), typed, &links)) }
        section aria-labelledby="runs-title" {
            h2 #runs-title { "Runs" }
            div #runs data-live="" {
                @match &runs {
                    Ok(runs) => (runs::table(runs, &format!("Runs of {name}, newest first"), false, now, &links)),
                    Err(error) => p.problem role="alert" { "The runs cannot be read: " (error) },
                }
            }
        }
    };
    let mut page = Page::live(name, main);
    // The answer to a form has no URL that the script could fetch again.
    (page.status, page.form, page.follows) = (status, form, status == StatusCode::OK);
    page.answer(site, visitor)
}

fn why(view: &ClusterView, now: Timestamp, links: &Links) -> Markup {
    let reasons = condition::why_idle(view, now, links);
    html! {
        @if !reasons.is_empty() {
            section aria-labelledby="why-title" {
                h2 #why-title { "Why nothing runs now" }
                ul.plain { @for reason in reasons { li { (reason) } } }
            }
        }
    }
}

/// The confirmation of an action. Only fixed texts.
pub(super) fn done_notice(done: &str) -> Markup {
    let words = match done {
        "paused" => "The cluster is paused.",
        "resumed" => "The cluster is resumed.",
        "approved" => "The run is approved.",
        _ => return html! {},
    };
    html! { p.done role="status" { (words) } }
}

fn orders(view: &ClusterView, visitor: &Visitor, form: Option<&FormToken>, typed: &Typed, links: &Links) -> Markup {
    let Some(form) = form else { return no_orders(visitor.access, links) };
    let name = &view.summary.name;
    html! {
        @if let Some(problem) = &typed.problem { p.problem #problem role="alert" { (problem) } }
        @if let Some(run) = waits_for_approval(view) { (approve(run, form, typed, links)) }
        @if view.summary.paused.is_some() || view.summary.breaker.is_some() || view.summary.hash_mismatch.is_some() {
            form.order method="post" action=(links.to(&format!("{}/resume", links_path(name)))) {
                h3 { "Resume" }
                p.dim { "Ends a pause, closes the breaker, and allows automatic runs again after a failure that needs an operator." }
                (hidden(form)) (by(typed, "resume"))
                label for="resume-reason" { "Reason (optional)" }
                input #resume-reason name="reason" maxlength="500" value=(typed.reason);
                button type="submit" { "Resume " (name) }
            }
        }
        @if view.summary.paused.is_none() { (pause(name, form, typed, links)) }
    }
}

fn pause(name: &str, form: &FormToken, typed: &Typed, links: &Links) -> Markup {
    let times = [("1h", "1 hour"), ("4h", "4 hours"), ("24h", "1 day"), ("168h", "1 week"), ("", "until resumed")];
    html! {
        form.order method="post" action=(links.to(&format!("{}/pause", links_path(name)))) {
            h3 { "Pause" }
            p.dim { "No run starts, and a run in progress starts no further member. A member that is being defragmented is finished." }
            (hidden(form)) (by(typed, "pause"))
            label for="pause-reason" { "Reason" }
            input #pause-reason name="reason" required maxlength="500" value=(typed.reason);
            label for="pause-for" { "Duration" }
            select #pause-for name="for" {
                @for (value, words) in times { option value=(value) selected[value == typed.lasts] { (words) } }
            }
            button type="submit" { "Pause " (name) }
        }
    }
}

/// The form for a run that is waiting for approval.
pub(super) fn approve(run: RunId, form: &FormToken, typed: &Typed, links: &Links) -> Markup {
    html! {
        form.order method="post" action=(links.to(&format!("/runs/{run}/approve"))) {
            h3 { "Approve run " (run) }
            p.dim { "The run starts as soon as nothing else holds it. Everything is measured and checked again before each member." }
            (hidden(form)) (by(typed, "approve"))
            button type="submit" { "Approve run " (run) }
        }
    }
}

/// The run that is waiting for approval.
pub(super) fn waits_for_approval(view: &ClusterView) -> Option<RunId> {
    let waits = view.summary.waiting_for.as_ref().is_some_and(|reason| reason.label() == "awaiting_approval");
    view.summary.queued_run.filter(|_| waits)
}

pub(super) fn no_orders(access: VisitorAccess, links: &Links) -> Markup {
    html! {
        @match access {
            VisitorAccess::Closed => p { "This defragd only exports metrics: there are no actions." },
            VisitorAccess::Stranger => p { a href=(links.to("/login")) { "Sign in" } " with the admin token to approve, pause and resume." },
            _ => p { "Actions require a password or a client certificate." },
        }
    }
}

fn links_path(name: &str) -> String {
    format!("/clusters/{}", super::words::segment(name))
}

fn hidden(form: &FormToken) -> Markup {
    html! { input type="hidden" name="form" value=(form.token); }
}

fn by(typed: &Typed, order: &str) -> Markup {
    let id = format!("{order}-by");
    html! {
        label for=(id) { "Your name, for the journal" }
        input id=(id) name="by" required maxlength="100" autocomplete="name" value=(typed.by);
    }
}
