//! A cluster's state in a word, and why nothing runs on it now.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{layout::Links, words};
use crate::{
    core::{
        admission::EMERGENCY_QUOTA_USAGE,
        cluster::{ClusterFacts, MemberFacts, Status},
        history::Outcome,
        policy::Mode,
        reason::Reason,
    },
    ports::overview::{ClusterView, LastRun},
};

/// The state, in the order of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClusterCondition {
    NeedsAttention,
    Running,
    /// A request waits, perhaps for approval.
    Waiting,
    Paused,
    /// It has not been observed yet.
    Unknown,
    Healthy,
}

impl ClusterCondition {
    /// In the order of the page.
    pub(super) const ALL: [Self; 6] =
        [Self::NeedsAttention, Self::Running, Self::Waiting, Self::Paused, Self::Unknown, Self::Healthy];

    /// As used in URLs and CSS classes.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NeedsAttention => "attention",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::NeedsAttention => "needs attention",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Unknown => "not observed yet",
            Self::Healthy => "healthy",
        }
    }

    /// Shown beside the word, so that colour is not the only difference.
    const fn mark(self) -> &'static str {
        match self {
            Self::NeedsAttention => "!",
            Self::Running => "▶",
            Self::Waiting => "…",
            Self::Paused => "‖",
            Self::Unknown => "?",
            Self::Healthy => "✓",
        }
    }

    pub(super) fn badge(self) -> Markup {
        html! { span class={ "badge " (self.name()) } { span aria-hidden="true" { (self.mark()) " " } (self.words()) } }
    }
}

pub(super) fn of(view: &ClusterView) -> ClusterCondition {
    let summary = &view.summary;
    if !problems(view).is_empty() {
        ClusterCondition::NeedsAttention
    } else if summary.active_run.is_some() {
        ClusterCondition::Running
    } else if summary.queued_run.is_some() {
        ClusterCondition::Waiting
    } else if summary.paused.is_some() {
        ClusterCondition::Paused
    } else if view.observation.is_none() {
        ClusterCondition::Unknown
    } else {
        ClusterCondition::Healthy
    }
}

/// What needs attention.
pub(super) fn problems(view: &ClusterView) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(seen) = &view.observation {
        if !seen.up {
            problems.push("no endpoint returns the member list".to_owned());
        }
        if let Some(facts) = seen.facts.as_deref().filter(|_| seen.up) {
            of_members(facts, view, &mut problems);
        }
    }
    if let Some(breaker) = &view.summary.breaker {
        problems.push(breaker.to_string());
    }
    if let Some(mismatch) = &view.summary.hash_mismatch {
        problems.push(mismatch.to_string());
    }
    if let Some((last, reason)) = failure(view) {
        problems.push(format!("the last run, {}, ended {}: {reason}", last.run, last.outcome.label()));
    }
    problems
}

/// The last run, if it failed, and why.
pub(super) fn failure(view: &ClusterView) -> Option<(&LastRun, &Reason)> {
    let last = view.last.as_ref()?;
    match &last.outcome {
        Outcome::Failed { reason } | Outcome::Interrupted { reason } => Some((last, reason)),
        _ => None,
    }
}

fn of_members(facts: &ClusterFacts, view: &ClusterView, problems: &mut Vec<String>) {
    for member in &facts.members {
        let name = member.member.label();
        if let Err(unknown) = &member.status
            && !is_defragmenting(view, member)
        {
            problems.push(format!("member {name} is down: {unknown}"));
        }
        let usage = member.status.as_ref().ok().and_then(Status::quota_usage_ratio);
        if let Some(usage) = usage.filter(|usage| *usage >= EMERGENCY_QUOTA_USAGE) {
            problems.push(format!("the file of member {name} uses {} of its quota", words::percent(usage)));
        }
    }
    for alarm in facts.alarms.iter().flatten() {
        let by = alarm.member.map(|id| facts.member(id).map_or_else(|| id.to_string(), |by| by.member.label()));
        let by = by.map_or(String::new(), |by| format!(", raised by member {by}"));
        problems.push(format!("alarm {} is armed{by}", alarm.kind.as_str()));
    }
    let answered = facts.voters().any(|voter| voter.status.is_ok());
    // A member that is being defragmented does not answer, but the others do.
    if answered && facts.leader().is_none() {
        problems.push("the members do not agree on a leader".to_owned());
    }
}

/// Whether the member is being defragmented, no matter which client started it.
pub(super) fn is_defragmenting(view: &ClusterView, member: &MemberFacts) -> bool {
    use crate::ports::overview::RunActivity;
    let ours = view.live.as_ref().is_some_and(
        |live| matches!(&live.activity, RunActivity::Defragmenting { intent } if intent.member_id == member.member.id),
    );
    ours || member.defrag_in_flight() == Some(true)
}

/// Why nothing runs now, the most immediate cause first. Empty while something runs.
pub(super) fn why_idle(view: &ClusterView, now: Timestamp, links: &Links) -> Vec<Markup> {
    let summary = &view.summary;
    let mut why = Vec::new();
    if summary.active_run.is_some() {
        return why;
    }
    if let Some(lock) = summary.lock.as_ref().filter(|lock| !lock.held) {
        why.push(match &lock.holder {
            Some(holder) => {
                html! { "Replica " (holder) " holds the cluster's lock; actions here are forwarded to it." }
            }
            None => html! { "It is unknown which replica holds the cluster's lock: no run starts." },
        });
    }
    let waits = summary.waiting_for.as_ref();
    if let Some(run) = summary.queued_run {
        let what = waits.map_or_else(|| "waiting for its turn".to_owned(), Reason::to_string);
        let is_asked = waits.is_some_and(|reason| reason.label() == "awaiting_approval");
        why.push(html! {
            a href=(links.run(run)) { "Run " (run) } " is requested. " (sentence(&what))
            @if let Some(reason) = waits.filter(|_| !is_asked) { (words::to_do(reason)) }
            @if is_asked { " " a href=(links.run(run)) { "Review and approve it" } "." }
        });
    }
    let others = [&summary.hash_mismatch, &summary.paused, &summary.breaker].into_iter().flatten();
    for reason in others.filter(|reason| waits.is_none_or(|waits| waits.to_string() != reason.to_string())) {
        why.push(html! { (sentence(&reason.to_string())) (words::to_do(reason)) });
    }
    if !summary.window_open && waits.is_none_or(|reason| reason.label() != "outside_window") {
        why.push(match summary.next_window {
            Some(opens) => {
                html! { "No maintenance window is open; the next one opens at " (words::from_now(opens, now)) "." }
            }
            None => html! { "No maintenance window is open, and none is scheduled." },
        });
    }
    if let Some(until) = summary.cooldown_until {
        why.push(html! { "The cluster was defragmented recently: alerts start no further run until " (words::from_now(until, now)) ", unless the quota is nearly used up." });
    }
    if let Some(at) = summary.retry_at {
        why.push(html! { "The last run did not finish; the next one starts at " (words::from_now(at, now)) " if it is still requested." });
    }
    match summary.mode {
        Mode::Observe => {
            why.push(html! { "Mode observe: runs are planned and recorded; nothing is changed." });
        }
        Mode::Approve if summary.queued_run.is_none() => {
            why.push(html! { "Mode approve: a run starts only after an operator has approved it." });
        }
        _ => {}
    }
    if summary.queued_run.is_none() && summary.retry_at.is_none() {
        why.push(html! { "No alert is requesting a run." });
    }
    why
}

/// The next thing that happens in the whole fleet: what waits for an operator, else what has the earliest time.
pub(super) fn next(views: &[ClusterView], now: Timestamp, links: &Links) -> Markup {
    let link =
        |view: &ClusterView| html! { a.foreign href=(links.cluster(&view.summary.name)) { (view.summary.name) } };
    if let Some((view, run)) = views.iter().find_map(|view| Some((view, super::cluster::waits_for_approval(view)?))) {
        return html! { a href=(links.run(run)) { "Run " (run) } " of " (link(view)) " waits for your approval" };
    }
    let retries = views.iter().filter_map(|view| Some((view.summary.retry_at?, "the next attempt on ", view)));
    let scheduled =
        views.iter().filter_map(|view| Some((view.summary.next_scheduled?, "the schedule requests a run of ", view)));
    match retries.chain(scheduled).min_by_key(|(at, ..)| *at) {
        Some((at, what, view)) => html! { "At " (words::from_now(at, now)) ": " (what) (link(view)) },
        None => html! { b { "Nothing" } " until an alert requests a run" },
    }
}

/// When the schedule next requests a run.
pub(super) fn next_scheduled(view: &ClusterView, now: Timestamp) -> Markup {
    html! { @if let Some(next) = view.summary.next_scheduled { "The schedule requests the next run at " (words::from_now(next, now)) "." } }
}

/// The text with a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}
