//! A cluster's state as a badge, what needs attention, what it waits for, and what comes next.

use jiff::Timestamp;
use maud::{Markup, html};
use strum::IntoEnumIterator;

use super::{layout::Links, live, words};
use crate::{
    core::{
        cluster::{AlarmKind, MemberFacts, Unknown},
        history::{Outcome, RunId},
        hold::{HoldView, RequestPhase, RequestView},
        policy::Mode,
        reason::Reason,
        safety,
        state::{ClusterActivity, ClusterCondition, alarm_advice},
        story,
    },
    ports::overview::ClusterView,
};

/// A state in a word. The mark is beside the word, so that colour is not the only difference.
#[derive(Clone, Copy)]
pub(super) struct Badge {
    /// As in URLs, and of conditions and activities as in the API.
    pub(super) label: &'static str,
    pub(super) words: &'static str,
    class: &'static str,
    mark: &'static str,
}

impl Badge {
    /// In place of what depends on the journal.
    pub(super) const JOURNAL_UNREAD: Self =
        Self { label: "journal_unread", words: "the journal is still being read", class: "unknown", mark: "?" };

    pub(super) fn show(self) -> Markup {
        html! { span class={ "badge " (self.class) } { span aria-hidden="true" { (self.mark) " " } (self.words) } }
    }

    /// All states that readers can ask for.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let active = ClusterActivity::iter().filter(|activity| *activity != ClusterActivity::Idle);
        ClusterCondition::iter().map(Self::from).chain([Self::JOURNAL_UNREAD]).chain(active.map(Self::from))
    }

    /// How the cluster is, and what is done with it.
    pub(super) fn of(view: &ClusterView) -> impl Iterator<Item = Self> {
        let state = &view.summary.state;
        let activity = Some(state.activity).filter(|activity| *activity != ClusterActivity::Idle);
        let unread = (!view.summary.journal_read).then_some(Self::JOURNAL_UNREAD);
        // An unread journal may still say that the last runs failed.
        let is_settled = |condition: &ClusterCondition| *condition > ClusterCondition::Fragmented;
        let condition = Some(state.condition).filter(|condition| unread.is_none() || !is_settled(condition));
        condition.map(Self::from).into_iter().chain(unread).chain(activity.map(Self::from))
    }
}

impl From<ClusterCondition> for Badge {
    fn from(condition: ClusterCondition) -> Self {
        let (class, mark) = match condition {
            ClusterCondition::NoSpace | ClusterCondition::Unreachable | ClusterCondition::NeedsAttention => {
                ("attention", "!")
            }
            ClusterCondition::NearQuota | ClusterCondition::Fragmented => ("fragmented", "◐"),
            ClusterCondition::NotObserved => ("unknown", "?"),
            ClusterCondition::Healthy => ("healthy", "✓"),
        };
        Self { label: condition.label(), words: condition.words(), class, mark }
    }
}

impl From<ClusterActivity> for Badge {
    fn from(activity: ClusterActivity) -> Self {
        let (class, mark) = match activity {
            ClusterActivity::Running => ("running", "▶"),
            ClusterActivity::WaitingForApproval => ("waiting", "☐"),
            ClusterActivity::Paused => ("paused", "‖"),
            ClusterActivity::Waiting => ("waiting", "…"),
            ClusterActivity::Idle => ("unknown", "○"),
        };
        Self { label: activity.label(), words: activity.words(), class, mark }
    }
}

pub(super) fn badges(view: &ClusterView) -> Markup {
    html! { @for badge in Badge::of(view) { (badge.show()) " " } }
}

/// Whether an operator must act for the cluster to be healthy.
pub(super) fn is_wrong(view: &ClusterView) -> bool {
    use ClusterCondition::{NeedsAttention, NoSpace, Unreachable};
    matches!(view.summary.state.condition, NoSpace | Unreachable | NeedsAttention)
}

/// The order of the page: what needs an operator first, then what is in progress, then by state.
pub(super) fn rank(view: &ClusterView) -> (u8, ClusterCondition, ClusterActivity) {
    let state = &view.summary.state;
    let group = match state.activity {
        _ if is_wrong(view) => 0,
        ClusterActivity::WaitingForApproval => 1,
        ClusterActivity::Running => 2,
        _ => 3,
    };
    (group, state.condition, state.activity)
}

pub(super) fn awaits_approval(view: &ClusterView) -> Option<RunId> {
    view.summary.request.as_ref().filter(|request| request.awaits_approval())?.run
}

/// Why the last run failed, if it did.
fn failure(view: &ClusterView) -> Option<&Reason> {
    match view.last.as_ref()? {
        Outcome::Failed { reason } | Outcome::Interrupted { reason } => Some(reason),
        _ => None,
    }
}

/// Why the last observation did not reach the member list.
pub(super) fn unreached(view: &ClusterView) -> Option<&Unknown> {
    view.observation.as_ref()?.error.as_ref()
}

/// Why a member counts as down.
fn down(view: &ClusterView) -> Option<Reason> {
    let facts = view.observation.as_ref().filter(|seen| seen.error.is_none())?.facts.as_deref()?;
    let down = facts.members.iter().find(|member| member.status.is_err() && !is_defragmenting(view, member))?;
    Some(safety::unknown_status(down.member.label(), down.status.as_ref().err()?))
}

/// What needs attention, and what to do about it.
pub(super) fn problems(view: &ClusterView) -> Markup {
    let problems = &view.summary.state.problems;
    let causes = [failure(view), view.summary.breaker.as_ref(), view.summary.hash_mismatch.as_ref()];
    let causes = down(view).into_iter().chain(causes.into_iter().flatten().cloned());
    html! {
        @if let Some(left_alone) = &view.summary.state.left_alone { p.dim { (words::capital(left_alone)) "." } }
        @if !problems.is_empty() {
            ul.problems.foreign aria-label="Needs attention" { @for problem in problems { li { (problem) } } }
            @if let Some(error) = unreached(view) { p.dim { (words::to_do(&safety::no_member_list(error), &view.summary.name)) } }
            @if view.summary.state.condition == ClusterCondition::NoSpace { p.dim { (words::advice(alarm_advice(AlarmKind::NoSpace), &view.summary.name)) } }
            // One is enough: they rarely differ, and the others follow once it is dealt with.
            @if let Some(cause) = causes.into_iter().next() { p.dim.foreign { (words::to_do(&cause, &view.summary.name)) } }
        }
    }
}

/// Whether the member is being defragmented, no matter which client started it.
pub(super) fn is_defragmenting(view: &ClusterView, member: &MemberFacts) -> bool {
    let current = view.live.as_ref().and_then(|live| live.current.as_ref());
    let ours = current.is_some_and(|current| !current.is_defragmented && current.intent.member_id == member.member.id);
    ours || member.defrag_in_flight() == Some(true)
}

/// What wants a run and the one hold; without a request, what would hold one. Nothing while a run is in progress.
pub(super) fn request_line(view: &ClusterView, now: Timestamp, links: &Links) -> Markup {
    let summary = &view.summary;
    if view.live.is_some() {
        return html! {};
    }
    html! {
        @if let Some(lock) = summary.lock.as_ref().filter(|lock| !lock.held) {
            p.foreign {
                @match &lock.holder {
                    Some(holder) => { "Replica " (holder) " holds the cluster's lock; actions here are forwarded to it." },
                    None => "It is unknown which replica holds the cluster's lock: no run starts.",
                }
            }
        }
        @match &summary.request {
            Some(request) => (requested(request, view, now, links)),
            None if !summary.journal_read => {},
            None => p.foreign {
                "No alert is requesting a run."
                @if let Some(paused) = &summary.paused { " " (words::capital(&paused.to_string())) "." (words::to_do(paused, &summary.name)) }
            },
        }
        @if let Some(next) = summary.next_scheduled {
            p { "The schedule requests the next run at " (words::from_now(next, now)) "." }
        }
        @if summary.mode == Mode::Observe {
            p.dim { "Mode observe: runs are planned and recorded; nothing is changed." }
        }
    }
}

/// The request in the words of the API, the log and the command line, without what is among the problems already, and
/// what an operator can do about its hold.
fn requested(request: &RequestView, view: &ClusterView, now: Timestamp, links: &Links) -> Markup {
    let facts = view.observation.as_ref().and_then(|seen| seen.facts.as_deref());
    let of_members = facts.iter().flat_map(|facts| &facts.members).filter_map(|member| member.status.as_ref().err());
    let unknown = of_members.chain(unreached(view)).map(ToString::to_string);
    let known = failure(view).map(ToString::to_string).into_iter().chain(unknown);
    let words = known.fold(request.words(), |words, known| words.replacen(&format!(": {known}"), "", 1));
    html! {
        p.request.foreign {
            (words)
            @if let Some(until) = request.hold.as_ref().and_then(|hold| hold.until).filter(|until| *until > now) {
                span.dim { " That is in " (words::span(words::between(now, until))) "." }
            }
            @match (request.run, &request.hold) {
                (Some(run), _) if request.awaits_approval() => { " " a href=(links.run(run)) { "Review and approve run " (run) } "." },
                (_, Some(hold)) if request.phase != RequestPhase::Served => (words::to_do(&hold.reason, &view.summary.name)),
                _ => {},
            }
        }
    }
}

/// A line for a list: the hold, or what a run does.
pub(super) fn brief(view: &ClusterView, now: Timestamp) -> Option<String> {
    if let Some(live) = &view.live {
        return Some(format!(
            "{}, for {}",
            words::activity(&live.activity),
            words::span(words::between(live.since, now))
        ));
    }
    let hold = view.summary.request.as_ref().and_then(|request| request.hold.as_ref());
    let reason = hold.map(|HoldView { reason, .. }| reason).or(view.summary.paused.as_ref());
    reason.map(Reason::to_string)
}

/// The next thing that happens in the whole fleet: what waits for an operator, else the next member of a run, else
/// what has the earliest time.
pub(super) fn next(views: &[ClusterView], now: Timestamp, links: &Links) -> Markup {
    let cluster =
        |view: &ClusterView| html! { a.foreign href=(links.cluster(&view.summary.name)) { (view.summary.name) } };
    let mut approvals = views.iter().filter_map(|view| Some((view, awaits_approval(view)?)));
    if let Some((view, run)) = approvals.next() {
        let more = approvals.count();
        return html! {
            b { a href=(links.run(run)) { "Review run " (run) } " of " (cluster(view)) }
            " waits for approval" @if more > 0 { ", and " (words::many(more, "more run")) }
        };
    }
    let mut pending = views.iter().filter_map(|view| view.live.as_ref().map(|live| (view, live)));
    if let Some((view, live, member)) = pending.find_map(|(view, live)| Some((view, live, live.pending.first()?))) {
        return html! {
            b.foreign { (member) } " of " (cluster(view)) " is defragmented next"
            @if live::is_waiting(live) { ", once the wait is over" }
        };
    }
    let held = views.iter().filter_map(|view| {
        let hold = view.summary.request.as_ref()?.hold.as_ref()?;
        Some((hold.until?, "the hold ends for ", view))
    });
    let scheduled = views.iter().filter_map(|view| Some((view.summary.next_scheduled?, "scheduled: ", view)));
    match held.chain(scheduled).filter(|(at, ..)| *at > now).min_by_key(|(at, ..)| *at) {
        Some((at, what, view)) => html! {
            b { "In " (words::span(words::between(now, at))) } ", at " (story::time(at)) ": " (what) (cluster(view))
        },
        None if views.iter().any(|view| !view.summary.journal_read) => html! { "Unknown until the journal is read" },
        None if views.iter().any(|view| view.summary.request.is_some()) => {
            html! { b { "Nothing" } " until the next notification of a firing alert" }
        }
        None => html! { b { "Nothing" } " until an alert requests a run" },
    }
}
