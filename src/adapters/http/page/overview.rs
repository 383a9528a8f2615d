//! `/`: the fleet.

use std::sync::Arc;

use axum::{
    extract::{Query, State as Extract},
    http::request::Parts,
    response::Response,
};
use jiff::Timestamp;
use maud::{Markup, html};
use url::form_urlencoded::Serializer;

use super::{
    condition::{self, ClusterCondition},
    layout::{Links, Page},
    live, members, runs,
    select::{self, Selection, Wanted, select},
    session::Visitor,
    words,
};
use crate::{
    adapters::http::site::Site,
    core::history::RunView,
    ports::{
        journal::JournalError,
        overview::{ClusterView, Live, Observation},
        service::Service,
    },
};

/// Number of last runs on the page; the API has the rest.
const RUNS: usize = 10;

pub(super) async fn page<S: Service>(
    Extract(site): Extract<Arc<Site<S>>>,
    Query(wanted): Query<Wanted>,
    parts: Parts,
) -> Response {
    let service = &site.service;
    // The shown clusters are selected, observed again, and selected once more: their order may have changed.
    let first = select(service.views(), &wanted);
    let names: Vec<_> = first.shown.iter().map(|(_, view)| view.summary.name.clone()).collect();
    service.refresh(&names).await;
    let (views, now) = (service.views(), service.now());
    let lives: Vec<_> = views.iter().filter_map(|view| view.live.clone()).collect();
    let selection = select(views, &wanted);
    let runs = service.runs(RUNS).await;
    let links = Links(&site.options.link_prefix);
    let main = html! {
        h1 { "etcd clusters" }
        (summary(&selection, &links))
        div #live data-live="" { (under_way(&lives, now, &links)) }
        section aria-labelledby="fleet-title" {
            h2 #fleet-title { "Clusters" }
            (filter(&wanted, &links))
            div #fleet data-live="" {
                (found(&selection))
                (shown(&selection, now, &links))
                (pager(&selection, &wanted, &links))
            }
        }
        section aria-labelledby="runs-title" {
            h2 #runs-title { "Last runs" }
            div #runs data-live="" { (last_runs(runs, now, &links)) }
        }
    };
    Page::live("Status", main).answer(&site, &Visitor::of(&site, &parts))
}

fn summary(selection: &Selection, links: &Links) -> Markup {
    let counts = ClusterCondition::ALL.into_iter().zip(selection.counts).filter(|(_, count)| *count > 0);
    html! {
        div #summary data-live="" {
            ul.counts aria-label="Clusters by state" {
                @for (state, count) in counts {
                    li { a href=(links.to(&format!("/?state={}", state.name()))) { b { (words::count(count)) } " " (state.badge()) } }
                }
            }
        }
    }
}

fn under_way(lives: &[Live], now: Timestamp, links: &Links) -> Markup {
    html! {
        @if !lives.is_empty() {
            section aria-labelledby="live-title" {
                h2 #live-title { "In progress" }
                @for one in lives { (live::card(one, now, links)) }
            }
        }
    }
}

fn filter(wanted: &Wanted, links: &Links) -> Markup {
    html! {
        form.filter method="get" action=(links.to("/")) role="search" aria-label="Clusters" {
            label { "Name " input type="search" name="q" value=(wanted.q) autocomplete="off" spellcheck="false"; }
            label { "State "
                select name="state" {
                    option value="" { "all" }
                    @for state in ClusterCondition::ALL {
                        option value=(state.name()) selected[state.name() == wanted.state] { (state.words()) }
                    }
                }
            }
            label { "Layout "
                select name="show" {
                    option value="" { "automatic" }
                    option value="members" selected[wanted.show == "members"] { "clusters with their members" }
                    option value="clusters" selected[wanted.show == "clusters"] { "one line per cluster" }
                }
            }
            button type="submit" { "Show" }
            @if !(wanted.q.is_empty() && wanted.state.is_empty() && wanted.show.is_empty()) { a href=(links.to("/")) { "Reset" } }
        }
    }
}

fn found(selection: &Selection) -> Markup {
    html! {
        div.found {
            p.dim {
                (words::count(selection.found)) " of " (words::many(selection.fleet, "cluster"))
                @if selection.pages > 1 { ", page " (selection.page) " of " (selection.pages) }
                ". Those that need attention first, then by fragmentation."
            }
            (members::key())
        }
    }
}

fn shown(selection: &Selection, now: Timestamp, links: &Links) -> Markup {
    html! {
        @if selection.shown.is_empty() { p { "No clusters match." } }
        @else if selection.with_members { @for (state, view) in &selection.shown { (card(*state, view, now, links)) } }
        @else { (rows(selection, now, links)) }
    }
}

fn card(state: ClusterCondition, view: &ClusterView, now: Timestamp, links: &Links) -> Markup {
    let name = &view.summary.name;
    html! {
        article.card aria-label={ "Cluster " (name) } {
            h3 { a href=(links.cluster(name)) { (name) } " " (state.badge()) " " span.chip { "mode " (view.summary.mode.label()) } }
            (problems(view))
            (members::table(view, &format!("Members of {name}")))
            (why(view, now, links))
            @if view.summary.next_scheduled.is_some() { p { (condition::next_scheduled(view, now)) } }
            (age(view.observation.as_ref()))
        }
    }
}

/// What needs attention.
pub(super) fn problems(view: &ClusterView) -> Markup {
    let problems = condition::problems(view);
    html! {
        @if !problems.is_empty() {
            ul.problems aria-label="Needs attention" { @for problem in problems { li { (problem) } } }
        }
        @if let Some((_, reason)) = condition::failure(view) { p.dim { (words::to_do(reason)) } }
    }
}

pub(super) fn why(view: &ClusterView, now: Timestamp, links: &Links) -> Markup {
    let reasons = condition::why_idle(view, now, links);
    html! {
        @if !reasons.is_empty() {
            h4 { "Why nothing runs now" }
            ul.plain { @for reason in reasons { li { (reason) } } }
        }
    }
}

/// How old the observation is.
pub(super) fn age(seen: Option<&Observation>) -> Markup {
    html! {
        p.dim.age {
            @match seen {
                Some(seen) => { "Observed " (words::span(seen.age)) " ago." },
                None => "Not observed yet.",
            }
        }
    }
}

fn rows(selection: &Selection, now: Timestamp, links: &Links) -> Markup {
    html! {
        table.reflow role="table" {
            caption.visually-hidden { "Clusters" }
            thead role="rowgroup" {
                tr role="row" {
                    @for head in ["Cluster", "State", "Members"] { th scope="col" role="columnheader" { (head) } }
                    th.wide scope="col" role="columnheader" { "Fullest member" }
                    @for head in ["Fragmented", "etcd", "Observed"] { th scope="col" role="columnheader" { (head) } }
                }
            }
            tbody role="rowgroup" { @for (state, view) in &selection.shown { (line(*state, view, now, links)) } }
        }
    }
}

fn line(state: ClusterCondition, view: &ClusterView, now: Timestamp, links: &Links) -> Markup {
    let facts = view.observation.as_ref().and_then(|seen| seen.facts.as_deref());
    let mut versions: Vec<_> = facts
        .iter()
        .flat_map(|facts| &facts.members)
        .filter_map(|m| m.status.as_ref().ok())
        .map(|s| &s.version)
        .collect();
    versions.sort_unstable();
    versions.dedup();
    let problems = condition::problems(view);
    html! {
        tr role="row" {
            th scope="row" role="rowheader" { a href=(links.cluster(&view.summary.name)) { (view.summary.name) } }
            td role="cell" data-label="State" {
                (state.badge()) " " span.chip { (view.summary.mode.label()) }
                @if let Some(first) = problems.first() {
                    span.detail { (first) @if problems.len() > 1 { " (and " (problems.len() - 1) " more)" } }
                } @else if let Some(live) = &view.live {
                    span.detail { (words::activity(&live.activity)) ", for " (words::span(words::between(live.since, now))) }
                } @else if let Some(reason) = view.summary.waiting_for.as_ref().or(view.summary.paused.as_ref()) {
                    span.detail { (reason) }
                }
            }
            td role="cell" data-label="Members" {
                @if let Some(facts) = facts {
                    (facts.members.iter().filter(|member| member.status.is_ok()).count())
                    " of " (facts.members.len()) " up"
                } @else { "–" }
            }
            td.wide role="cell" { @if let Some(file) = select::fullest(view) { (members::file(file)) } @else { span.dim { "unknown" } } }
            td role="cell" data-label="Fragmented" {
                @if select::fullest(view).is_some() { (words::percent(select::fragmentation(view))) } @else { "–" }
            }
            td role="cell" data-label="etcd" { @for (index, version) in versions.iter().enumerate() { @if index > 0 { ", " } (version) } }
            td role="cell" data-label="Observed" {
                @if let Some(seen) = &view.observation { (words::span(seen.age)) " ago" } @else { "not yet" }
            }
        }
    }
}

fn pager(selection: &Selection, wanted: &Wanted, links: &Links) -> Markup {
    let to = |page: usize| {
        let mut query = Serializer::new(String::new());
        let page = page.to_string();
        for (name, value) in [("q", &wanted.q), ("state", &wanted.state), ("show", &wanted.show), ("page", &page)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        links.to(&format!("/?{}", query.finish()))
    };
    html! {
        @if selection.pages > 1 {
            nav.pager aria-label="Pages" {
                @if selection.page > 1 { a href=(to(selection.page - 1)) rel="prev" { "Previous page" } }
                span { "Page " (selection.page) " of " (selection.pages) }
                @if selection.page < selection.pages { a href=(to(selection.page + 1)) rel="next" { "Next page" } }
            }
        }
    }
}

fn last_runs(runs: Result<Vec<RunView>, JournalError>, now: Timestamp, links: &Links) -> Markup {
    match runs {
        Ok(runs) => runs::table(&runs, "Last runs, newest first", true, now, links),
        Err(error) => html! { p.problem role="alert" { "The runs cannot be read: " (error) } },
    }
}
