//! The members of a cluster.

use maud::{Markup, html};

use super::{
    bars::{File, file, sparkline},
    condition, words,
};
use crate::{
    core::{
        cluster::{Alarm, ClusterFacts, MemberFacts},
        estimate::Speeds,
        story,
    },
    ports::overview::ClusterView,
};

/// All known members of a cluster, by name.
pub(super) fn table(view: &ClusterView, caption: &str) -> Markup {
    let Some(facts) = view.observation.as_ref().and_then(|seen| seen.facts.as_deref()) else {
        // The cause is among the cluster's problems.
        return html! { p.dim { "The members are unknown: no endpoint has returned the member list yet." } };
    };
    let mut members: Vec<_> = facts.members.iter().collect();
    members.sort_by_cached_key(|member| member.member.label());
    html! {
        table.reflow.members role="table" {
            caption.visually-hidden { (caption) }
            thead role="rowgroup" {
                tr role="row" {
                    th.name scope="col" role="columnheader" { "Member" }
                    th.wide scope="col" role="columnheader" { "Database file" }
                    th.number scope="col" role="columnheader" { "Fragmented" }
                    th.chart scope="col" role="columnheader" { "Last days" }
                    th.time scope="col" role="columnheader" title="How long a defragmentation would make the member unavailable" { "Unavailable" }
                    th.state scope="col" role="columnheader" { "State" }
                }
            }
            tbody role="rowgroup" { @for member in members { (row(view, facts, member)) } }
        }
    }
}

fn row(view: &ClusterView, facts: &ClusterFacts, member: &MemberFacts) -> Markup {
    let size = File::of(member);
    html! {
        tr role="row" {
            th.foreign scope="row" role="rowheader" {
                (member.member.label())
                @if facts.leader() == Some(member.member.id) { " " span.chip { "leader" } }
                @if member.member.is_learner { " " span.chip { "learner" } }
                @if let Ok(status) = &member.status { span.detail { "etcd " (status.version) } }
            }
            td.wide role="cell" {
                @match (size, view.sizes.of(member.member.id).last()) {
                    (Some(size), _) => (file(size)),
                    (None, Some(last)) => span.dim { (words::size(last.size())) " when it last answered" },
                    (None, None) => span.dim { "size unknown" },
                }
            }
            td.number role="cell" data-label="Fragmented" {
                @if let Some(size) = size { (words::percent(size.fragmentation())) } @else { "–" }
            }
            td.chart role="cell" data-label="Last days" { (sparkline(view.sizes.of(member.member.id))) }
            td.time role="cell" data-label="Unavailable" {
                @if let (Some(size), Some(speeds)) = (size, &view.speeds) { (expected(speeds, member, size)) } @else { "–" }
            }
            td role="cell" data-label="State" { (condition(view, facts, member)) }
        }
    }
}

/// How long the member would be unavailable.
fn expected(speeds: &Speeds, member: &MemberFacts, file: File) -> Markup {
    let estimate = speeds.estimate(member.member.id, file.in_use);
    let by = if estimate.measured { "measured in the last defragmentations" } else { "estimated at 100 MB per second" };
    let range = format!("{:.1} to {:.1} s, {by}", estimate.least.as_secs_f64(), estimate.most.as_secs_f64());
    html! { span title=(range) { (words::unbroken(&story::about_seconds(estimate.expected))) } }
}

fn condition(view: &ClusterView, facts: &ClusterFacts, member: &MemberFacts) -> Markup {
    let id = member.member.id;
    let raised = |alarm: &&Alarm| alarm.member.is_none_or(|by| by == id);
    let alarms: Vec<_> = facts.alarms.iter().flatten().filter(raised).map(|alarm| alarm.kind.as_str()).collect();
    html! {
        @if condition::is_defragmenting(view, member) {
            span.badge.running { span aria-hidden="true" { "▶ " } "defragmenting" } " "
        } @else if member.status.is_err() {
            // The cause is among the cluster's problems.
            span.badge.attention { span aria-hidden="true" { "! " } "down" }
        } @else if alarms.is_empty() {
            span.badge.healthy { span aria-hidden="true" { "✓ " } "up" }
        }
        @for alarm in alarms { span.badge.attention { span aria-hidden="true" { "! " } (alarm) } " " }
    }
}
