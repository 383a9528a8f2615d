//! How a cluster is, in one word, and why nothing runs on it now.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{layout::Links, words};
use crate::{
    core::{
        admission::EMERGENCY_QUOTA_USAGE,
        cluster::{ClusterFacts, MemberFacts, Status},
        history::Outcome,
        policy::Mode,
    },
    ports::overview::ClusterView,
};

/// What comes first on the page. The order is that of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClusterCondition {
    NeedsAttention,
    Running,
    /// A request waits, perhaps for a person.
    Waiting,
    Paused,
    /// Nobody has looked yet.
    Unknown,
    Healthy,
}

impl ClusterCondition {
    /// In the order of the page.
    pub(super) const ALL: [Self; 6] =
        [Self::NeedsAttention, Self::Running, Self::Waiting, Self::Paused, Self::Unknown, Self::Healthy];

    /// As it stands in addresses and in the style.
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
            Self::NeedsAttention => "in trouble",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Unknown => "not looked at yet",
            Self::Healthy => "fine",
        }
    }

    /// Beside the word, so that it is seen at a glance without its colour.
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

pub(super) fn problems(view: &ClusterView) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(seen) = &view.observation {
        if !seen.up {
            problems.push("no endpoint answers with a member list".to_owned());
        }
        if let Some(facts) = seen.facts.as_deref().filter(|_| seen.up) {
            of_members(facts, view, &mut problems);
        }
    }
    if let Some(breaker) = &view.summary.breaker {
        problems.push(breaker.message.clone());
    }
    if let Some(mismatch) = &view.summary.hash_mismatch {
        problems.push(mismatch.message.clone());
    }
    if let Some(Outcome::Failed { reason } | Outcome::Interrupted { reason }) =
        view.last.as_ref().map(|last| &last.outcome)
        && let Some(last) = &view.last
    {
        problems.push(format!("the last run, {}, ended {}: {reason}", last.run, last.outcome.label()));
    }
    problems
}

fn of_members(facts: &ClusterFacts, view: &ClusterView, problems: &mut Vec<String>) {
    for member in &facts.members {
        let name = member.member.label();
        if let Err(unknown) = &member.status
            && !is_defragmenting(view, member)
        {
            problems.push(format!("member {name} does not answer: {unknown}"));
        }
        let usage = member.status.as_ref().ok().and_then(Status::quota_usage_ratio);
        if let Some(usage) = usage.filter(|usage| *usage >= EMERGENCY_QUOTA_USAGE) {
            problems.push(format!("the file of member {name} fills {} of its quota", words::percent(usage)));
        }
    }
    for alarm in facts.alarms.iter().flatten() {
        let by = alarm.member.map(|id| facts.member(id).map_or_else(|| id.to_string(), |by| by.member.label()));
        let by = by.map_or(String::new(), |by| format!(", raised by member {by}"));
        problems.push(format!("alarm {} is armed{by}", alarm.kind.as_str()));
    }
    let answered = facts.voters().any(|voter| voter.status.is_ok());
    // A member that is being defragmented is silent, and the others speak for it.
    if answered && facts.leader().is_none() {
        problems.push("the members do not agree on a leader".to_owned());
    }
}

/// Whether the member is being defragmented, by whomever.
pub(super) fn is_defragmenting(view: &ClusterView, member: &MemberFacts) -> bool {
    use crate::ports::overview::RunActivity;
    let ours = view.live.as_ref().is_some_and(
        |live| matches!(&live.activity, RunActivity::Defragmenting { intent } if intent.member_id == member.member.id),
    );
    ours || member.defrag_in_flight() == Some(true)
}

/// Why nothing runs now, the nearest cause first. Empty while something runs.
pub(super) fn why_idle(view: &ClusterView, now: Timestamp, links: &Links) -> Vec<Markup> {
    let summary = &view.summary;
    let mut why = Vec::new();
    if summary.active_run.is_some() {
        return why;
    }
    if let Some(lock) = summary.lock.as_ref().filter(|lock| !lock.held) {
        why.push(match &lock.holder {
            Some(holder) => {
                html! { "Replica " (holder) " holds the cluster's lock and acts on it; orders given here go to it." }
            }
            None => html! { "Which replica holds the cluster's lock is not known: nothing begins." },
        });
    }
    let waits = summary.waiting_for.as_ref();
    if let Some(run) = summary.queued_run {
        let what = waits.map_or("waits for its turn", |told| told.message.as_str());
        let is_asked = waits.is_some_and(|told| told.reason.label() == "awaiting_approval");
        why.push(html! {
            a href=(links.run(run)) { "Run " (run) } " is requested. " (sentence(what))
            @if is_asked { " " a href=(links.run(run)) { "Look at it and approve" } "." }
        });
    }
    let said = |message: &str| waits.is_some_and(|told| told.message == message);
    for told in [&summary.hash_mismatch, &summary.paused, &summary.breaker]
        .into_iter()
        .flatten()
        .filter(|told| !said(&told.message))
    {
        why.push(html! { (sentence(&told.message)) });
    }
    if !summary.window_open && waits.is_none_or(|told| told.reason.label() != "outside_window") {
        why.push(match summary.next_window {
            Some(opens) => {
                html! { "No maintenance window is open; the next one opens at " (words::from_now(opens, now)) "." }
            }
            None => html! { "No maintenance window is open, and none will be." },
        });
    }
    if let Some(until) = summary.cooldown_until {
        why.push(html! { "It was defragmented recently: alerts start no further run until " (words::from_now(until, now)) ", unless the quota is used up." });
    }
    if let Some(at) = summary.retry_at {
        why.push(html! { "The last run did not finish the work; the next one starts at " (words::from_now(at, now)) " if the request still stands." });
    }
    match summary.mode {
        Mode::Observe => {
            why.push(html! { "Mode observe: runs are thought through and written down, and nothing is sent to etcd." });
        }
        Mode::Approve if summary.queued_run.is_none() => {
            why.push(html! { "Mode approve: a run begins only after a person has agreed to it." });
        }
        _ => {}
    }
    if summary.queued_run.is_none() && summary.retry_at.is_none() {
        why.push(html! { "Nobody asks for a run: no alert for this cluster fires, as far as is known." });
    }
    why
}

/// When the schedule next requests a run.
pub(super) fn next_scheduled(view: &ClusterView, now: Timestamp) -> Markup {
    html! { @if let Some(next) = view.summary.next_scheduled { "Next scheduled: " (words::from_now(next, now)) "." } }
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}
