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
    bars,
    condition::{self, Badge},
    layout::{Links, Page, columns},
    live, members, runs,
    select::{self, SMALL_FLEET, Selection, Wanted, select},
    session::Visitor,
    words,
};
use crate::{
    adapters::http::site::Site,
    core::{history::RunView, state::ClusterCondition, story},
    ports::{
        journal::JournalError,
        overview::{ClusterView, Observation},
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
    let before = service.views();
    let names: Vec<_> = select(&before, &wanted).shown.iter().map(|view| view.summary.name.clone()).collect();
    drop(before);
    service.refresh(&names).await;
    let links = Links(&site.options.link_prefix);
    let (views, now, own) = (service.views(), service.now(), own_problems(&**service, &links).await);
    let selection = select(&views, &wanted);
    let runs = service.runs(RUNS).await;
    let main = html! {
        h1 { "etcd clusters" }
        (strip(&selection, &views, own.as_ref(), now, &links))
        div #live data-live="" { (under_way(&views, now, &links)) }
        section aria-labelledby="fleet-title" {
            h2 #fleet-title { "Clusters" }
            @if selection.fleet > SMALL_FLEET { (filter(&wanted, &links)) }
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

/// Is anything wrong, what is it doing, what will it do next?
/// What is wrong with defragd itself.
async fn own_problems(service: &impl Service, links: &Links<'_>) -> Option<Markup> {
    let (journal, rejected_at) = (service.journal_problem().await, service.reload_rejected_at());
    let is_one = journal.is_some() || rejected_at.is_some();
    is_one.then(|| {
        html! {
            @if let Some(problem) = journal { p.problem { (words::with_commands(&problem)) } }
            @if let Some(at) = rejected_at {
                p.problem {
                    "The configuration was rejected at " (story::time(at)) ", and the previous one stays in effect: "
                    a href=(links.to("/configuration")) { "what to do" } "."
                }
            }
        }
    })
}

fn strip(selection: &Selection, views: &[ClusterView], own: Option<&Markup>, now: Timestamp, links: &Links) -> Markup {
    let lives: Vec<_> = views.iter().filter_map(|view| view.live.as_ref()).collect();
    html! {
        div #summary data-live="" {
            dl.strip {
                div {
                    dt { "Is anything wrong?" }
                    dd {
                        @if let Some(own) = own {
                            b.bad { "Yes: defragd itself needs attention" }
                            (own)
                            @if views.iter().any(condition::is_wrong) { (verdict(views)) }
                        } @else { (verdict(views)) }
                        @if selection.fleet > 1 {
                            ul.counts aria-label="Clusters by state" {
                                @for (state, count) in &selection.counts {
                                    li { a href=(links.to(&format!("/?state={}", state.label))) { (words::count(*count)) " " (state.show()) } }
                                }
                            }
                        }
                    }
                }
                div {
                    dt { "What is it doing?" }
                    dd {
                        @match lives.as_slice() {
                            [] => b { "Nothing" },
                            [one] => { b { (live::title(one)) } p { (live::progress(one)) } },
                            many => b { (words::many(many.len(), "run")) " in progress" },
                        }
                    }
                }
                div { dt { "What is next?" } dd { (condition::next(views, now, links)) } }
            }
        }
    }
}

fn verdict(views: &[ClusterView]) -> Markup {
    let in_state =
        |wanted: ClusterCondition| views.iter().filter(|view| view.summary.state.condition == wanted).count();
    let wrong: Vec<_> = views.iter().filter(|view| condition::is_wrong(view)).collect();
    let near = in_state(ClusterCondition::NearQuota);
    let (fragmented, unknown) = (in_state(ClusterCondition::Fragmented), in_state(ClusterCondition::NotObserved));
    let unread = views.iter().filter(|view| !view.summary.journal_read).count();
    html! {
        @match wrong.as_slice() {
            [one] => b.bad { "Yes: " span.foreign { (one.summary.name) } " " (as_verb(one)) },
            [] if near > 0 => b.warn { "Soon: " (words::many(near, "cluster")) " near the quota" },
            [] if unread > 0 => b { (words::capital(Badge::JOURNAL_UNREAD.words)) },
            [] if fragmented > 0 => b.warn { "No, but " (words::many(fragmented, "cluster")) @if fragmented == 1 { " is" } @else { " are" } " fragmented" },
            [] if unknown > 0 => b { (words::many(unknown, "cluster")) " not observed yet" },
            [] => b.good { "No" },
            many => b.bad { "Yes: " (words::many(many.len(), "cluster")) " need attention" },
        }
    }
}

fn as_verb(view: &ClusterView) -> &'static str {
    match view.summary.state.condition {
        ClusterCondition::Unreachable if condition::unreached(view).is_some_and(|error| error.kind.is_denial()) => {
            "rejects the credentials"
        }
        ClusterCondition::NoSpace => "has no space and accepts no writes",
        ClusterCondition::Unreachable => "is unreachable",
        _ => "needs attention",
    }
}

fn under_way(views: &[ClusterView], now: Timestamp, links: &Links) -> Markup {
    let lives: Vec<_> = views.iter().filter_map(|view| Some((view, view.live.as_ref()?))).collect();
    html! {
        @if !lives.is_empty() {
            section aria-labelledby="live-title" {
                h2 #live-title { "In progress" }
                @for (view, one) in lives { (live::card(view, one, now, links)) }
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
                    @for state in Badge::all() {
                        option value=(state.label) selected[state.label == wanted.state] { (state.words) }
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
                @if selection.fleet > SMALL_FLEET {
                    (words::count(selection.found)) " of " (words::many(selection.fleet, "cluster"))
                    @if selection.pages > 1 { ", page " (selection.page) " of " (selection.pages) }
                    ". "
                }
                @if selection.fleet > 1 { "Those that need attention first, then by fragmentation." }
            }
            (bars::key())
        }
    }
}

fn shown(selection: &Selection, now: Timestamp, links: &Links) -> Markup {
    html! {
        @if selection.shown.is_empty() { p { "No clusters match." } }
        @else if selection.with_members { @for view in &selection.shown { (card(view, now, links)) } }
        @else { (rows(selection, now, links)) }
    }
}

fn card(view: &ClusterView, now: Timestamp, links: &Links) -> Markup {
    let name = &view.summary.name;
    let title = html! { h3 { a.foreign href=(links.cluster(name)) { (name) } } };
    html! {
        article.card aria-label={ "Cluster " (name) } {
            (head(view, &title, now, links))
            (members::table(view, &format!("Members of {name}")))
            (age(view.observation.as_ref()))
        }
    }
}

/// What a reader must know first: the state, what is wrong, what comes next, and one large number.
pub(super) fn head(view: &ClusterView, title: &Markup, now: Timestamp, links: &Links) -> Markup {
    html! {
        div.head {
            div.text {
                div.title { (title) " " (condition::badges(view)) span.chip { "mode " (view.summary.mode.label()) } }
                (condition::problems(view))
                (condition::request_line(view, now, links))
            }
            @if let Some((member, file)) = select::worst(view) {
                p.big { b { (words::percent(file.fragmentation())) } span.foreign { "fragmented: " span.whole { (member.member.label()) } } }
            }
        }
    }
}

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
        table.reflow.fleet role="table" {
            caption.visually-hidden { "Clusters" }
            (columns(&[("Cluster", "name"), ("State", "rest"), ("Fullest member", "wide"), ("Fragmented", "number"), ("Last days", "chart")]))
            tbody role="rowgroup" { @for view in &selection.shown { (line(view, now, links)) } }
        }
    }
}

fn line(view: &ClusterView, now: Timestamp, links: &Links) -> Markup {
    let problems = &view.summary.state.problems;
    let fullest = select::fullest(view);
    html! {
        tr role="row" {
            th.foreign scope="row" role="rowheader" {
                a href=(links.cluster(&view.summary.name)) { (view.summary.name) }
                @if let Some(facts) = view.observation.as_ref().and_then(|seen| seen.facts.as_deref()) {
                    span.detail {
                        (facts.members.iter().filter(|member| member.status.is_ok()).count()) " of "
                        (words::many(facts.members.len(), "member")) " up"
                    }
                }
            }
            td.foreign role="cell" data-label="State" {
                (condition::badges(view)) span.chip { (view.summary.mode.label()) }
                @if let Some(first) = problems.first() {
                    span.detail { (first) @if problems.len() > 1 { " (and " (problems.len() - 1) " more)" } }
                } @else if let Some(brief) = condition::brief(view, now) {
                    span.detail { (brief) }
                }
            }
            td.wide role="cell" { @if let Some((_, file)) = fullest { (bars::file(file)) } @else { span.dim { "size unknown" } } }
            td.number role="cell" data-label="Fragmented" {
                @if let Some((_, file)) = select::worst(view) { (words::percent(file.fragmentation())) } @else { "–" }
            }
            td.chart role="cell" data-label="Last days" {
                @if let Some((member, _)) = fullest { (bars::sparkline(view.sizes.of(member.member.id))) } @else { "–" }
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
