//! The run in progress: the plan, how far it is, and how long it will take.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    bars::File,
    layout::{Links, columns},
    plan, words,
};
use crate::{
    core::{
        cluster::MemberFacts,
        history::{MemberEnd, MemberResult},
        reason::Reason,
        story,
        time::Time,
    },
    ports::overview::{ClusterView, CurrentMember, Live, RunActivity},
};

/// The latest gates are shown; the run's page has all of them.
const MAX_GATES: usize = 6;

/// Like `Run 7 on prod-eu`.
pub(super) fn title(live: &Live) -> Markup {
    html! { "Run " (live.run) " on " span.foreign { (live.cluster) } @if is_waiting(live) { " is waiting" } }
}

pub(super) fn is_waiting(live: &Live) -> bool {
    matches!(live.activity, RunActivity::Waiting { .. })
}

/// How far it is.
pub(super) fn progress(live: &Live) -> Markup {
    let (done, all) = (live.members.len(), all(live));
    html! {
        @if all > 0 {
            progress value=(done) max=(all) aria-label="Members done" {}
            " " (done) " of " (words::many(all, "member")) " done"
        }
    }
}

fn all(live: &Live) -> usize {
    live.members.len() + live.pending.len() + usize::from(live.current.is_some())
}

/// Everything about the run in progress.
pub(super) fn card(view: &ClusterView, live: &Live, now: Timestamp, links: &Links) -> Markup {
    let gates = &live.gates[live.gates.len().saturating_sub(MAX_GATES)..];
    let elapsed = words::between(live.since, now);
    html! {
        article.card.live aria-label={ "Run " (live.run) " of cluster " (live.cluster) } {
            h3 {
                a href=(links.run(live.run)) { "Run " (live.run) } " on "
                a.foreign href=(links.cluster(&live.cluster)) { (live.cluster) }
            }
            p.now {
                b data-say="" { "Now: " (words::activity(&live.activity)) }
                @if let Some(left) = words::time_left(&live.activity, elapsed) { ", " (words::unbroken(&left)) }
                @else if is_late(live, elapsed) { ", longer than expected" }
                ", since " (words::span(elapsed)) "."
                @if is_waiting(live) && live.current.as_ref().is_some_and(|current| current.is_defragmented) {
                    " The run fails unless the cluster is healthy again within " (Time::from(view.recovery_timeout)) " (recovery_timeout)."
                }
            }
            @if all(live) > 0 {
                p {
                    (progress(live))
                    @if let Some(left) = time_left(view, live, now) { ", about " (words::span(left)) " left" }
                    ". " span.dim { "Requested by " (story::requester(live.trigger)) ", started " (words::ago(live.began_at, now)) "." }
                }
            }
            (members(view, live))
            @if !live.steps.is_empty() { ul.plain { @for step in &live.steps { li.foreign { (story::about(step)) } } } }
            @if !gates.is_empty() {
                h4 { "Gates" }
                ul.plain { @for result in gates { li.foreign { (plan::gate(result)) } } }
            }
        }
    }
}

fn is_late(live: &Live, elapsed: Duration) -> bool {
    matches!(&live.activity, RunActivity::Defragmenting { intent } if intent.expected.is_some_and(|it| it < elapsed))
}

/// Until the last member is done, and the cluster has been healthy after it for the pause; `None` while the run waits
/// for something else, or a member takes longer than expected.
fn time_left(view: &ClusterView, live: &Live, now: Timestamp) -> Option<Duration> {
    let (elapsed, pause) = (words::between(live.since, now), view.pause_between_members);
    if is_waiting(live) || is_late(live, elapsed) {
        return None;
    }
    let current = match &live.current {
        Some(current) if current.is_defragmented => pause.saturating_sub(elapsed),
        Some(current) => current.intent.expected?.saturating_sub(elapsed) + pause,
        None => Duration::ZERO,
    };
    let pending = live.pending.iter().map(|name| Some(expected(view, member(view, name)?)? + pause));
    Some(current + pending.sum::<Option<Duration>>()?)
}

fn member<'a>(view: &'a ClusterView, name: &str) -> Option<&'a MemberFacts> {
    let facts = view.observation.as_ref()?.facts.as_deref()?;
    facts.members.iter().find(|member| member.member.label() == name)
}

fn expected(view: &ClusterView, member: &MemberFacts) -> Option<Duration> {
    Some(view.speeds.as_ref()?.estimate(member.member.id, File::of(member)?.in_use).expected)
}

fn members(view: &ClusterView, live: &Live) -> Markup {
    if all(live) == 0 {
        return html! {};
    }
    html! {
        table.reflow.run role="table" {
            caption.visually-hidden { "Members of run " (live.run) ", in order" }
            (heads())
            tbody role="rowgroup" {
                @for result in &live.members { (ended(result, None)) }
                @if let Some(CurrentMember { intent, is_defragmented }) = &live.current {
                    tr role="row" {
                        (name(&intent.member, intent.is_leader))
                        td role="cell" data-label="Before" { (words::size(intent.before.db_size)) }
                        td role="cell" data-label="After" { "–" }
                        td role="cell" data-label="Reclaimed" { "–" }
                        td role="cell" data-label="Result" {
                            span.badge.running { span aria-hidden="true" { "▶ " } @if *is_defragmented { "settling" } @else { "defragmenting" } }
                            @if *is_defragmented {
                                span.detail { "the cluster must be healthy before the next step" }
                            } @else if let Some(expected) = intent.expected {
                                span.detail { "unavailable for " (story::about_seconds(expected)) }
                            }
                        }
                    }
                }
                @for pending in &live.pending {
                    @let facts = member(view, pending);
                    tr role="row" {
                        (name(pending, false))
                        td role="cell" data-label="Before" {
                            @if let Some(file) = facts.and_then(File::of) { (words::size(file.size)) } @else { "–" }
                        }
                        td role="cell" data-label="After" { "–" }
                        td role="cell" data-label="Reclaimed" { "–" }
                        td role="cell" data-label="Result" {
                            span.badge.unknown { span aria-hidden="true" { "○ " } "planned" }
                            @if let Some(expected) = facts.and_then(|facts| expected(view, facts)) {
                                span.detail { "will be unavailable for " (story::about_seconds(expected)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn name(name: &str, is_leader: bool) -> Markup {
    html! { th.foreign scope="row" role="rowheader" { (name) @if is_leader { " " span.chip { "leader" } } } }
}

pub(super) fn heads() -> Markup {
    columns(&[("Member", "name"), ("Before", "size"), ("After", "size"), ("Reclaimed", "size"), ("Result", "rest")])
}

/// `known` is a reason that the page already has.
pub(super) fn ended(result: &MemberResult, known: Option<&Reason>) -> Markup {
    let is_good = matches!(result.end, MemberEnd::Defragmented { .. });
    let label = result.label().replace('_', " ");
    html! {
        tr role="row" {
            (name(&result.intent.member, result.intent.is_leader))
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
                    MemberEnd::Failed { reason, .. } | MemberEnd::NotSent { reason } if known != Some(reason) => span.detail.foreign { (reason) },
                    _ => {},
                }
            }
        }
    }
}
