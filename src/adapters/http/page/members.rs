//! The members of a cluster, with bars that show the composition of their files.

use bytesize::ByteSize;
use maud::{Markup, html};

use super::{condition, words};
use crate::{
    core::{
        cluster::{Alarm, ClusterFacts, MemberFacts},
        story,
    },
    ports::overview::ClusterView,
};

#[derive(Clone, Copy)]
pub(super) struct File {
    size: ByteSize,
    in_use: ByteSize,
    quota: Option<ByteSize>,
}

impl File {
    /// From `Status`, or from the metrics page while `Status` hangs.
    pub(super) fn of(member: &MemberFacts) -> Option<Self> {
        if let Ok(status) = &member.status {
            return Some(Self { size: status.db_size, in_use: status.db_size_in_use, quota: status.quota });
        }
        let gauges = member.gauges.as_ref()?.as_ref().ok()?;
        Some(Self { size: gauges.db_size?, in_use: gauges.db_size_in_use?, quota: gauges.quota })
    }

    fn reclaimable(self) -> ByteSize {
        ByteSize(self.size.0.saturating_sub(self.in_use.0))
    }

    /// Of the file.
    pub(super) fn fragmentation(self) -> f64 {
        share(self.reclaimable(), self.size)
    }

    /// Of the quota.
    pub(super) fn usage(self) -> Option<f64> {
        self.quota.filter(|quota| quota.0 > 0).map(|quota| share(self.size, quota))
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of databases stay below 2^52 bytes")]
fn share(part: ByteSize, whole: ByteSize) -> f64 {
    if whole.0 == 0 { 0.0 } else { (part.0 as f64 / whole.0 as f64).min(1.0) }
}

/// The legend of the bars.
pub(super) fn key() -> Markup {
    html! {
        ul.key aria-label="What the bars show" {
            li { (swatch("used", None)) "in use" }
            li { (swatch("gap", Some("url(#hatch)"))) "reclaimable" }
            li { (swatch("free", None)) "free to quota" }
        }
    }
}

fn swatch(class: &str, fill: Option<&str>) -> Markup {
    html! { svg.swatch aria-hidden="true" focusable="false" { rect class=(class) fill=[fill] width="100%" height="100%" {} } }
}

/// In use, reclaimable, free to quota. The text beside it has the same figures.
pub(super) fn bar(file: File) -> Markup {
    let whole = file.quota.filter(|quota| quota.0 > 0).unwrap_or(file.size);
    let used = share(file.in_use, whole) * 100.0;
    let gap = (share(file.reclaimable(), whole) * 100.0).min(100.0 - used);
    html! {
        svg.bar aria-hidden="true" focusable="false" {
            rect.free width="100%" height="100%" {}
            rect.used width=(format!("{used:.2}%")) height="100%" {}
            rect.gap fill="url(#hatch)" x=(format!("{used:.2}%")) width=(format!("{gap:.2}%")) height="100%" {}
        }
    }
}

/// The file alone: in use, and reclaimable.
pub(super) fn fragmented(file: File) -> Markup {
    let whole = File { quota: None, ..file };
    html! { (words::percent(file.fragmentation())) (bar(whole)) }
}

/// The bar and its figures.
pub(super) fn file(file: File) -> Markup {
    html! {
        (bar(file))
        div.figures {
            span { b { (words::size(file.in_use)) } " in use" }
            span { b { (words::size(file.reclaimable())) } " reclaimable" }
            @if let (Some(quota), Some(usage)) = (file.quota, file.usage()) {
                span { "file fills " b { (words::percent(usage)) } " of " (words::size(quota)) }
            } @else {
                span { "quota unknown" }
            }
        }
    }
}

/// All known members of a cluster.
pub(super) fn table(view: &ClusterView, caption: &str) -> Markup {
    let Some(facts) = view.observation.as_ref().and_then(|seen| seen.facts.as_deref()) else {
        return html! { p.dim { "The members are unknown: no endpoint has returned the member list yet." } };
    };
    html! {
        table.reflow.members role="table" {
            caption.visually-hidden { (caption) }
            thead role="rowgroup" {
                tr role="row" {
                    th scope="col" role="columnheader" { "Member" }
                    th.wide scope="col" role="columnheader" { "Database file" }
                    th scope="col" role="columnheader" { "Size" }
                    th scope="col" role="columnheader" { "Fragmented" }
                    th scope="col" role="columnheader" title="How long a defragmentation would make the member unavailable" { "Expected" }
                    th scope="col" role="columnheader" { "etcd" }
                    th scope="col" role="columnheader" { "State" }
                }
            }
            tbody role="rowgroup" {
                @for member in &facts.members { (row(view, facts, member)) }
            }
        }
    }
}

fn row(view: &ClusterView, facts: &ClusterFacts, member: &MemberFacts) -> Markup {
    let size = File::of(member);
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                (member.member.label())
                @if facts.leader() == Some(member.member.id) { " " span.chip { "leader" } }
                @if member.member.is_learner { " " span.chip { "learner" } }
            }
            td.wide role="cell" { @if let Some(size) = size { (file(size)) } @else { span.dim { "unknown" } } }
            td role="cell" data-label="Size" { @if let Some(size) = size { (words::size(size.size)) } @else { "–" } }
            td role="cell" data-label="Fragmented" {
                @if let Some(size) = size { (fragmented(size)) } @else { "–" }
            }
            td role="cell" data-label="Expected" {
                @if let Some(size) = size { (expected(view, member, size)) } @else { "–" }
            }
            td role="cell" data-label="etcd" { @if let Ok(status) = &member.status { (status.version) } @else { "–" } }
            td role="cell" data-label="State" { (condition(view, facts, member)) }
        }
    }
}

/// How long the member would be unavailable.
fn expected(view: &ClusterView, member: &MemberFacts, file: File) -> Markup {
    let estimate = view.speeds.estimate(member.member.id, file.in_use);
    let by = if estimate.measured { "measured in the last defragmentations" } else { "estimated at 100 MB per second" };
    let range = format!("{:.1} to {:.1} s, {by}", estimate.least.as_secs_f64(), estimate.most.as_secs_f64());
    html! { span title=(range) { (story::about_seconds(estimate.expected)) } }
}

fn condition(view: &ClusterView, facts: &ClusterFacts, member: &MemberFacts) -> Markup {
    let id = member.member.id;
    let raised = |alarm: &&Alarm| alarm.member.is_none_or(|by| by == id);
    let alarms: Vec<_> = facts.alarms.iter().flatten().filter(raised).map(|alarm| alarm.kind.as_str()).collect();
    html! {
        @if condition::is_defragmenting(view, member) {
            span.badge.running { span aria-hidden="true" { "▶ " } "defragmenting" } " "
        } @else if let Err(unknown) = &member.status {
            span.badge.attention { span aria-hidden="true" { "! " } "down" }
            span.detail { (unknown) }
        } @else if alarms.is_empty() {
            span.badge.healthy { span aria-hidden="true" { "✓ " } "up" }
        }
        @for alarm in alarms { span.badge.attention { span aria-hidden="true" { "! " } "alarm " (alarm) } " " }
    }
}
