//! A list of runs.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{layout::Links, words};
use crate::core::{
    history::{Outcome, RunView},
    story,
};

/// As a class of the style sheet, and its mark.
fn class_and_mark(run: &RunView) -> (&'static str, &'static str) {
    match (&run.outcome, run.started_at) {
        (Some(Outcome::Succeeded), _) => ("healthy", "✓"),
        (Some(Outcome::NothingToDo | Outcome::Observed { .. }), _) => ("unknown", "○"),
        (Some(Outcome::Refused { .. } | Outcome::Stopped { .. }), _) => ("paused", "‖"),
        (Some(Outcome::Failed { .. } | Outcome::Mismatched { .. } | Outcome::Interrupted { .. }), _) => {
            ("attention", "!")
        }
        (None, Some(_)) => ("running", "▶"),
        (None, None) => ("waiting", "…"),
    }
}

pub(super) fn class(run: &RunView) -> &'static str {
    class_and_mark(run).0
}

/// Like `succeeded`, `running`.
pub(super) fn state(run: &RunView) -> String {
    match (&run.outcome, run.started_at) {
        (Some(ended), _) => ended.label().replace('_', " "),
        (None, Some(_)) => "running".to_owned(),
        (None, None) => "waiting".to_owned(),
    }
}

pub(super) fn badge(run: &RunView) -> Markup {
    let (class, mark) = class_and_mark(run);
    html! { span class={ "badge " (class) } { span aria-hidden="true" { (mark) " " } (state(run)) } }
}

/// Newest first.
pub(super) fn table(runs: &[RunView], caption: &str, with_cluster: bool, now: Timestamp, links: &Links) -> Markup {
    if runs.is_empty() {
        return html! { p.dim { "No runs yet." } };
    }
    html! {
        table.reflow role="table" {
            caption.visually-hidden { (caption) }
            thead role="rowgroup" {
                tr role="row" {
                    th scope="col" role="columnheader" { "Run" }
                    @if with_cluster { th scope="col" role="columnheader" { "Cluster" } }
                    @for head in ["When", "Outcome", "Reclaimed", "Took"] { th.size scope="col" role="columnheader" { (head) } }
                    th.wide scope="col" role="columnheader" { "Why" }
                }
            }
            tbody role="rowgroup" { @for run in runs { (row(run, with_cluster, now, links)) } }
        }
    }
}

fn row(run: &RunView, with_cluster: bool, now: Timestamp, links: &Links) -> Markup {
    html! {
        tr role="row" {
            th scope="row" role="rowheader" { a href=(links.run(run.id)) { "Run " (run.id) } }
            @if with_cluster {
                td role="cell" data-label="Cluster" { a href=(links.cluster(&run.request.cluster)) { (run.request.cluster) } }
            }
            td role="cell" data-label="When" { (words::ago(run.accepted_at, now)) ", by " (story::requester(run.request.trigger)) }
            td role="cell" data-label="Outcome" { (badge(run)) }
            td role="cell" data-label="Reclaimed" { @if run.touched_a_member() { (words::size(run.reclaimed())) } @else { "–" } }
            td role="cell" data-label="Took" {
                @if let (Some(from), Some(to)) = (run.started_at, run.finished_at) { (words::span(words::between(from, to))) }
                @else { "–" }
            }
            td.wide.foreign role="cell" data-label="Why" { (why(run)) }
        }
    }
}

fn why(run: &RunView) -> Markup {
    html! {
        @match &run.outcome {
            Some(Outcome::Observed { members, outside_window }) => (story::would_have(members, *outside_window)),
            // The run's page has the full text, which may be long.
            Some(ended) => @if let Some(reason) = ended.reason() { span title=(reason) { (reason.label().replace('_', " ")) } } @else { "–" },
            None => "–",
        }
        @if let Some(repeats) = story::repeats_of(run) { "; " (repeats) }
    }
}
