//! `/clusters/{name}`: one cluster in full, and the actions for it.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State as Extract},
    http::{StatusCode, request::Parts},
    response::Response,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    actions::{self, Forms, Typed},
    bars,
    layout::{Links, Page},
    live, members, overview, refusal, runs,
    session::Visitor,
    timeline::timeline,
};
use crate::{
    adapters::http::site::Site,
    core::story,
    ports::{overview::ClusterView, service::Service},
};

const RUNS: usize = 20;

/// Which action has just succeeded. Only known values are shown: a link must not be able to put text on the page.
#[derive(Deserialize)]
pub(super) struct Done {
    #[serde(default)]
    pub(super) done: String,
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
        let (status, what) = match site.service.elsewhere(name) {
            Some(elsewhere) => {
                (StatusCode::MISDIRECTED_REQUEST, format!("{}.", story::capital(&elsewhere.to_string())))
            }
            None => (StatusCode::NOT_FOUND, format!("There is no cluster {name:?} in the configuration.")),
        };
        return refusal::answer(site, visitor, status, "Cluster not found", &what);
    };
    let (now, links) = (site.service.now(), Links(&site.options.link_prefix));
    let runs = site.service.runs_of(name, RUNS).await;
    let form = visitor.form(site);
    let main = html! {
        p.crumbs { a href=(links.to("/")) { "All clusters" } }
        (actions::done_notice(done))
        div #head data-live="" {
            (overview::head(&view, &html! { h1.foreign { (name) } }, now, &links))
        }
        div #live data-live="" {
            @if let Some(one) = &view.live { h2 { "In progress" } (live::card(&view, one, now, &links)) }
        }
        section aria-labelledby="members-title" {
            h2 #members-title { "Members" }
            div #members data-live="" {
                div.found { (overview::age(view.observation.as_ref())) (bars::key()) }
                (members::table(&view, &format!("Members of {name}")))
            }
        }
        section aria-labelledby="actions-title" {
            h2 #actions-title { "Actions" }
            // Only until there are forms: nothing must change while they are filled in.
            div #actions data-live[!view.summary.journal_read] { (forms(&view, visitor, form.as_ref(), typed, &links)) }
        }
        section aria-labelledby="runs-title" {
            h2 #runs-title { "Runs" }
            div #runs data-live="" {
                @match &runs {
                    Ok(runs) => {
                        (timeline(runs, now))
                        (runs::table(runs, &format!("Runs of {name}, newest first"), false, now, &links))
                    },
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

fn forms(
    view: &ClusterView,
    visitor: &Visitor,
    form: Option<&super::session::FormToken>,
    typed: &Typed,
    links: &Links,
) -> Markup {
    html! {
        @match form {
            Some(form) => (Forms { form, visitor, typed, links }.of_cluster(view)),
            None => (actions::sign_in(visitor.access, links)),
        }
    }
}
