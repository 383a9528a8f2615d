//! The run in progress: the current member and since when, what was done, and what is pending.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{layout::Links, words};
use crate::{
    core::{
        gate::GateResult,
        history::{MemberEnd, MemberResult},
        story,
    },
    ports::overview::{Live, RunActivity},
};

/// The latest gates are shown; the run's page has all of them.
const MAX_GATES: usize = 6;

/// Everything about one run in progress.
pub(super) fn card(live: &Live, now: Timestamp, links: &Links) -> Markup {
    let gates = &live.gates[live.gates.len().saturating_sub(MAX_GATES)..];
    html! {
        article.card.live aria-label={ "Run " (live.run) " of cluster " (live.cluster) } {
            h3 {
                a href=(links.run(live.run)) { "Run " (live.run) } " on "
                a href=(links.cluster(&live.cluster)) { (live.cluster) }
            }
            p.now {
                b data-say="" { (live.cluster) ": " (words::activity(&live.activity)) }
                " – for " (words::span(words::between(live.since, now))) ", since " (words::at(live.since))
                @if let Some(left) = words::time_left(&live.activity, words::between(live.since, now)) { ", " (left) }
            }
            p.dim { "Requested by " (story::requester(live.trigger)) ", running for " (words::span(words::between(live.began_at, now))) "." }
            (members(live))
            @if !live.steps.is_empty() { ul.plain { @for step in &live.steps { li { (story::about(step)) } } } }
            @if !gates.is_empty() {
                h4 { "Gates" }
                ul.plain { @for result in gates { li { (gate(result)) } } }
            }
        }
    }
}

fn members(live: &Live) -> Markup {
    let current = match &live.activity {
        RunActivity::Defragmenting { intent } => Some((intent, true)),
        RunActivity::Settling { intent } => Some((intent, false)),
        _ => None,
    };
    if live.members.is_empty() && current.is_none() && live.pending.is_empty() {
        return html! {};
    }
    html! {
        table.reflow role="table" {
            caption.visually-hidden { "Members of run " (live.run) ", in order" }
            (heads())
            tbody role="rowgroup" {
                @for result in &live.members { (ended(result)) }
                @if let Some((intent, is_out)) = current {
                    tr role="row" {
                        th scope="row" role="rowheader" { (intent.member) @if intent.is_leader { " " span.chip { "leader" } } }
                        td role="cell" data-label="Before" { (words::size(intent.before.db_size)) }
                        td role="cell" data-label="After" { "–" }
                        td role="cell" data-label="Reclaimed" { "–" }
                        td role="cell" data-label="Result" {
                            span.badge.running { span aria-hidden="true" { "▶ " } @if is_out { "defragmenting" } @else { "defragmented, settling" } }
                        }
                    }
                }
                @for name in &live.pending {
                    tr role="row" {
                        th scope="row" role="rowheader" { (name) }
                        td role="cell" data-label="Before" { "–" }
                        td role="cell" data-label="After" { "–" }
                        td role="cell" data-label="Reclaimed" { "–" }
                        td role="cell" data-label="Result" { span.badge.waiting { span aria-hidden="true" { "… " } "pending" } }
                    }
                }
            }
        }
    }
}

pub(super) fn heads() -> Markup {
    html! {
        thead role="rowgroup" {
            tr role="row" {
                @for head in ["Member", "Before", "After", "Reclaimed", "Result"] {
                    th scope="col" role="columnheader" { (head) }
                }
            }
        }
    }
}

pub(super) fn ended(result: &MemberResult) -> Markup {
    let is_good = matches!(result.end, MemberEnd::Defragmented { .. });
    let label = result.label().replace('_', " ");
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                (result.intent.member) @if result.intent.is_leader { " " span.chip { "leader" } }
            }
            td role="cell" data-label="Before" { (words::size(result.intent.before.db_size)) }
            td role="cell" data-label="After" {
                @if let Some(after) = result.after() { (words::size(after.db_size)) } @else { "–" }
            }
            td role="cell" data-label="Reclaimed" { (words::size(result.reclaimed())) }
            td role="cell" data-label="Result" {
                @if is_good { span.badge.healthy { span aria-hidden="true" { "✓ " } (label) } }
                @else { span.badge.attention { span aria-hidden="true" { "! " } (label) } }
                @match &result.end {
                    MemberEnd::Defragmented { took, unavailable, .. } => span.detail {
                        (story::duration(*took, *unavailable))
                        @if let Some(expected) = result.intent.expected { ", expected: " (story::about_seconds(expected)) }
                    },
                    MemberEnd::Failed { reason, .. } | MemberEnd::NotSent { reason } => span.detail { (reason) },
                    MemberEnd::Unconfirmed { .. } => {},
                }
            }
        }
    }
}

fn gate(result: &GateResult) -> Markup {
    html! {
        @if result.passed { span.badge.healthy { span aria-hidden="true" { "✓ " } "passed" } }
        @else { span.badge.attention { span aria-hidden="true" { "! " } (result.label()) } }
        " " b { (result.gate) } " " (result.moment.in_words()) ": " (result.detail)
    }
}
