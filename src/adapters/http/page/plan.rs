//! What an operator must know before approving a run: the alerts, the plan, the gates, and what happens to the leader.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{layout::columns, words};
use crate::core::{
    gate::GateResult,
    history::AlertKey,
    plan::Decision,
    plan_view::{PlanStep, PlanView},
    reason::Reason,
    story,
};

/// Labels that the page shows elsewhere.
const SHOWN: [&str; 3] = ["alertname", "severity", "etcd_cluster"];

/// The alerts of a run, with their texts and since when they fire.
pub(super) fn alerts(alerts: &[AlertKey], now: Timestamp) -> Markup {
    let described: Vec<_> = alerts.iter().filter(|alert| alert.is_described()).collect();
    html! {
        @if !described.is_empty() {
            ul.alerts.foreign aria-label="Alerts" {
                @for alert in &described {
                    li {
                        b { (alert.name().unwrap_or("Alert")) }
                        @if let Some(severity) = alert.labels.get("severity") { " " span.chip { (severity) } }
                        @if let Ok(since) = alert.starts_at.parse::<Timestamp>() {
                            ", firing since " (story::time(since)) " (for " (words::span(words::between(since, now))) ")"
                        }
                        @if !alert.summary.is_empty() { span.detail { (alert.summary) } }
                        span.detail {
                            @for (name, value) in alert.labels.iter().filter(|(name, _)| !SHOWN.contains(&name.as_str())) {
                                code { (name) "=" (value) } " "
                            }
                        }
                    }
                }
            }
            @if described.len() < alerts.len() { p.dim { "And " (words::many(alerts.len() - described.len(), "more alert")) "." } }
        }
    }
}

pub(super) fn plan(plan: &PlanView, now: Timestamp) -> Markup {
    let totals = &plan.totals;
    // The approval itself is what the page asks for.
    let holds = plan.holds.iter().filter(|hold| !matches!(hold.reason, Reason::AwaitingApproval { .. }));
    let holds: Vec<_> = holds.collect();
    html! {
        @if totals.members == 0 { p.totals { b { "Nothing to do" } ": no member needs it now." } }
        @else { p.totals {
            b { (words::many(totals.members, "member")) } " to defragment: frees up to "
            b { (words::size(totals.reclaimable)) } ", each unavailable in turn, together "
            b { (words::unbroken(&story::about_seconds(totals.unavailable))) } ". The run takes "
            (words::unbroken(&story::about_seconds(totals.run))) " with the checks between members."
        } }
        table.reflow.plan role="table" {
            caption.visually-hidden { "The plan, in order" }
            (columns(&[("Member", "name"), ("File", "size"), ("In use", "size"), ("Unavailable", "size"), ("What happens", "rest")]))
            tbody role="rowgroup" { @for (index, step) in plan.steps.iter().enumerate() { (row(index, step)) } }
        }
        p.foreign { (plan.leader) }
        @if !plan.gates.is_empty() {
            h3 { "Gates now" }
            ul.plain.foreign { @for result in &plan.gates { li { (gate(result)) } } }
        }
        @if !holds.is_empty() {
            h3 { "After the approval, the run still waits for" }
            ul.plain.foreign { @for hold in holds { li { (words::capital(&hold.reason.to_string())) "." (words::to_do(&hold.reason, &plan.cluster)) } } }
        }
        @if !plan.warnings.is_empty() {
            h3 { "Know before you decide" }
            ul.plain.foreign { @for warning in &plan.warnings { li { (words::capital(warning)) "." } } }
        }
        p.dim { "Measured " (words::ago(plan.at, now)) ". Everything is measured and checked again before each member." }
    }
}

fn row(index: usize, step: &PlanStep) -> Markup {
    let planned = &step.planned;
    html! {
        tr role="row" {
            th.foreign scope="row" role="rowheader" {
                @if matches!(planned.decision, Decision::Defragment { .. }) { (index + 1) ". " }
                (planned.member)
                @if planned.is_leader { " " span.chip { "leader" } }
                @if step.is_learner { " " span.chip { "learner" } }
            }
            td role="cell" data-label="File" { @if let Some(sizes) = step.sizes { (words::size(sizes.db_size)) } @else { "–" } }
            td role="cell" data-label="In use" { @if let Some(sizes) = step.sizes { (words::size(sizes.db_size_in_use)) } @else { "–" } }
            td role="cell" data-label="Unavailable" {
                @if let Some(expected) = planned.expected { (words::unbroken(&story::about_seconds(expected.expected))) } @else { "–" }
            }
            td.foreign role="cell" data-label="What happens" {
                @match &planned.decision {
                    Decision::Defragment { need } => {
                        @if planned.transfer_first { "leadership is transferred, then " }
                        "defragment: " (story::why(*need))
                    },
                    Decision::Skip { reason } => { "left out: " (reason) },
                }
                @if let Some(waits) = &planned.waits_for { span.detail { (waits) } }
            }
        }
    }
}

/// The result of a check outside etcd.
pub(super) fn gate(result: &GateResult) -> Markup {
    html! {
        @if result.passed { span.badge.healthy { span aria-hidden="true" { "✓ " } "passed" } }
        @else { span.badge.attention { span aria-hidden="true" { "! " } (result.label()) } }
        " " b { (result.gate) } " " (result.moment.in_words()) ": " (result.detail)
    }
}
