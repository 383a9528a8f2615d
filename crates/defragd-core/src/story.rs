//! The journal's entries as sentences, for an operator who checks what was done and why.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

pub use super::words::{
    about_seconds, capital, count, exact_time, measured, size, snapshots, time, time_left, time_to_come,
};
use super::{
    gate::GateResult,
    history::{
        AlertKey, Cancellation, Entry, Intent, MemberEnd, MemberResult, Outcome, RunStep, RunView, Sizes, Trigger,
    },
    policy::Need,
    verify::{HashVerdict, Verification},
};

pub fn line(entry: &Entry) -> String {
    match entry {
        Entry::Accepted(request) if !request.members.is_empty() => {
            format!("accepted, only for {}", request.members.join(", "))
        }
        Entry::Accepted(request) if request.alerts.is_empty() => "accepted".to_owned(),
        Entry::Accepted(request) => match due(&request.alerts) {
            Some(due) => format!("accepted, for the schedule, due at {}", time(due)),
            None => format!("accepted, for {}{}", count(request.alerts.len(), "alert"), named(&request.alerts)),
        },
        Entry::Joined { alerts } => match due(alerts) {
            Some(due) => format!("joined by the schedule, due at {}", time(due)),
            None => format!("{}{} joined", count(alerts.len(), "more alert"), named(alerts)),
        },
        Entry::Resolved { alerts } => format!("{} resolved", count(alerts.len(), "alert")),
        Entry::Cancelled(Cancellation { by, reason }) if reason.is_empty() => format!("cancelled by {by}"),
        Entry::Cancelled(Cancellation { by, reason }) => format!("cancelled by {by}: {reason}"),
        Entry::Approved { by, requested: true, .. } => format!("requested by {by}, too"),
        Entry::Approved { by, requested: false, .. } => format!("approved by {by}"),
        Entry::Forwarded(to) => format!("forwarded to {}, which has it as run {}", to.holder.name, to.run),
        Entry::Started { mode, term: None, .. } => format!("started in mode {}", mode.label()),
        Entry::Started { mode, term: Some(term), .. } => format!("started in mode {}, under term {term}", mode.label()),
        Entry::Step(step) => about(step),
        Entry::Intent(intent) => intended(intent),
        Entry::Result(result) => ended(result),
        Entry::Gate(result) => gate(result),
        Entry::Verified(verification) => verified(verification),
        Entry::Finished(ended) => format!("ended: {}", outcome(ended)),
        Entry::Repeats { times, since } => repeats(*times, *since),
    }
}

/// Their names, as far as they are known.
fn named(alerts: &[AlertKey]) -> String {
    let names: BTreeSet<_> = alerts.iter().filter_map(AlertKey::name).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    if names.is_empty() { names } else { format!(" ({names})") }
}

/// An alert with its start, its text and its labels.
pub fn alert(key: &AlertKey) -> String {
    let since = key.starts_at.parse().map_or_else(|_| key.starts_at.clone(), time);
    let name = key.name().map_or_else(|| format!("alert {}", key.fingerprint), |name| format!("alert {name}"));
    let text = if key.summary.is_empty() { String::new() } else { format!(": {}", key.summary) };
    let labels = key.labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect::<Vec<_>>().join(", ");
    let labels = if labels.is_empty() { labels } else { format!(" {{{labels}}}") };
    format!("{name} firing since {since}{text}{labels}")
}

/// The last due time of a schedule among these.
fn due(alerts: &[AlertKey]) -> Option<Timestamp> {
    alerts.iter().filter_map(AlertKey::due).max()
}

/// The earlier runs that this one represents.
fn repeats(times: u32, since: Timestamp) -> String {
    format!("same result as {}, the first at {}", count(times, "earlier run"), time(since))
}

/// The same text as in [`line`], for a run that represents earlier ones.
pub fn repeats_of(run: &RunView) -> Option<String> {
    run.repeats_since.map(|since| repeats(run.repeats, since))
}

pub fn about(step: &RunStep) -> String {
    match step {
        RunStep::Compact { revision } => format!("compacting up to revision {revision}"),
        RunStep::MoveLeader { member, .. } => format!("transferring leadership to {member}"),
        RunStep::DisarmNoSpace { member, .. } => format!("disarming NOSPACE of {member}"),
    }
}

pub fn gate(result: &GateResult) -> String {
    let said = match result.label() {
        "warned" => "FAILED, continuing",
        "failed" => "FAILED",
        _ => "passed",
    };
    format!("gate {} {said} ({}): {}", result.gate, result.moment.in_words(), result.detail)
}

/// The result of the comparison of the members' data.
pub fn verified(verification: &Verification) -> String {
    let Verification { revision, hashes, verdict } = verification;
    let each: Vec<_> = hashes.iter().map(|one| format!("{} {:08x}", one.member, one.data.hash)).collect();
    match verdict {
        HashVerdict::Equal => {
            let hash = hashes.first().map(|one| one.data.hash).unwrap_or_default();
            format!("the data of all {} voters is the same at revision {revision} (hash {hash:08x})", hashes.len())
        }
        HashVerdict::Different => format!("the members' data differs at revision {revision}: {}", each.join(", ")),
        HashVerdict::Unknown { detail } => format!("warning: the members' data could not be compared: {detail}"),
    }
}

/// Why a member needs a defragmentation.
pub const fn why(need: Need) -> &'static str {
    match need {
        Need::NoSpace => "alarm NOSPACE is armed",
        Need::QuotaPressure => "the file size is near the quota",
        Need::Fragmented => "fragmented",
        Need::Rule => "the rule matches",
    }
}

/// Whether a member was the leader when it was chosen.
pub const fn role(intent: &Intent) -> &'static str {
    if intent.is_leader { "leader" } else { "follower" }
}

/// What requested a run.
pub const fn requester(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Alert => "an alert",
        Trigger::Manual => "an operator",
        Trigger::Retry => "a retry",
        Trigger::Schedule => "the schedule",
    }
}

/// How long a defragmentation took, like `in 5.0 s`, and for how much of that the member did not answer, if that was
/// measured separately.
pub fn duration(took: Duration, unavailable: Option<Duration>) -> String {
    let apart = unavailable.map_or(String::new(), |time| format!(", unavailable for {:.1} s", time.as_secs_f64()));
    format!("in {:.1} s{apart}", took.as_secs_f64())
}

fn intended(intent: &Intent) -> String {
    let why = match intent.need {
        Need::Fragmented => format!("{:.0} % fragmented", intent.before.fragmentation_ratio() * 100.0),
        need => why(need).to_owned(),
    };
    format!("{} ({}) next: {why}; {}", intent.member, role(intent), sizes(intent.before))
}

fn sizes(sizes: Sizes) -> String {
    format!("{}, of which {} in use", size(sizes.db_size), size(sizes.db_size_in_use))
}

fn ended(result: &MemberResult) -> String {
    let name = &result.intent.member;
    match &result.end {
        MemberEnd::Defragmented { after, took, unavailable } => {
            let duration = duration(*took, *unavailable);
            format!("{name} defragmented {duration}, the cluster is healthy: {}", sizes(*after))
        }
        MemberEnd::Failed { reason, .. } => format!("{name} failed: {reason}"),
        MemberEnd::Unconfirmed { after: Some(after) } => {
            format!("{name} is idle; defragd had restarted during its defragmentation: {}", sizes(*after))
        }
        MemberEnd::Unconfirmed { after: None } => format!("{name} was unreachable after defragd had restarted"),
        MemberEnd::NotSent { reason } => format!("{name} was not started: {reason}"),
    }
}

/// What a run in mode observe found.
pub fn would_have(members: &[String], outside_window: bool) -> String {
    let waits = if outside_window { ", but only in a maintenance window: none was open" } else { "" };
    format!("would have defragmented {}{waits}", members.join(", "))
}

/// Like `waiting: paused by anna`, for a reason that may begin with that word.
pub fn waiting(reason: &str) -> String {
    if reason.starts_with("waiting") { reason.to_owned() } else { format!("waiting: {reason}") }
}

/// An outcome with its reason, like `stopped: cancelled by anna`.
pub fn outcome(outcome: &Outcome) -> String {
    let label = outcome.label().replace('_', " ");
    match (outcome, outcome.reason()) {
        (Outcome::Observed { members, outside_window }, _) => {
            format!("{label}; {}", would_have(members, *outside_window))
        }
        (_, Some(reason)) => format!("{label}: {reason}"),
        (_, None) => label,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_member_is_as_fragmented_as_in_its_plan() {
        let end = MemberEnd::NotSent { reason: crate::reason::Reason::ShuttingDown };
        let intent = fixture::attempt(1, fixture::sizes(1_000, 176), end).intent;
        assert!(line(&Entry::Intent(intent)).contains("next: 82 % fragmented"), "824 of 1,000 MiB are free");
    }
}
