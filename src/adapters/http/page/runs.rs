//! A list of runs.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{layout::Links, words};
use crate::core::{
    history::{Outcome, RunView},
    story,
};

/// How it ended, with a mark.
pub(super) fn outcome(outcome: &Outcome) -> Markup {
    let (class, mark) = match outcome {
        Outcome::Succeeded => ("healthy", "✓"),
        Outcome::NothingToDo | Outcome::Observed { .. } => ("unknown", "○"),
        Outcome::Refused { .. } | Outcome::Stopped { .. } => ("paused", "‖"),
        Outcome::Failed { .. } | Outcome::Mismatched { .. } | Outcome::Interrupted { .. } => ("attention", "!"),
    };
    html! {
        span class={ "badge " (class) } { span aria-hidden="true" { (mark) " " } (outcome.label().replace('_', " ")) }
    }
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
                    @for head in ["When", "Outcome", "Reclaimed", "Took"] { th scope="col" role="columnheader" { (head) } }
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
            td role="cell" data-label="When" { (words::ago(run.accepted_at, now)) ", by " (run.request.trigger.label()) }
            td role="cell" data-label="Outcome" {
                @match (&run.outcome, run.started_at) {
                    (Some(ended), _) => (outcome(ended)),
                    (None, Some(_)) => span.badge.running { span aria-hidden="true" { "▶ " } "under way" },
                    (None, None) => span.badge.waiting { span aria-hidden="true" { "… " } "waiting" },
                }
            }
            td role="cell" data-label="Reclaimed" { @if run.touched_a_member() { (words::size(run.reclaimed())) } @else { "–" } }
            td role="cell" data-label="Took" {
                @if let (Some(from), Some(to)) = (run.started_at, run.finished_at) { (words::span(words::between(from, to))) }
                @else { "–" }
            }
            td.wide role="cell" data-label="Why" { (why(run)) }
        }
    }
}

fn why(run: &RunView) -> Markup {
    html! {
        @match &run.outcome {
            Some(Outcome::Observed { members }) => { "would have defragmented " (members.join(", ")) },
            Some(ended) => @if let Some(reason) = ended.reason() { (reason) } @else { "–" },
            None => "–",
        }
        @if let Some(repeats) = story::repeats_of(run) { "; " (repeats) }
    }
}
