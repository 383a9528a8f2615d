//! The journal's entries as sentences, for an operator who checks what was done and why.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;

use super::{
    gate::GateResult,
    history::{AlertKey, Cancellation, Entry, Intent, MemberEnd, MemberResult, Outcome, RunStep, RunView, Sizes},
    policy::Need,
    verify::{HashVerdict, Verification},
};

/// What an entry says, in one line.
pub fn line(entry: &Entry) -> String {
    match entry {
        Entry::Accepted(request) if request.alerts.is_empty() => "accepted".to_owned(),
        Entry::Accepted(request) => match due(&request.alerts) {
            Some(due) => format!("accepted, for the schedule, due at {due:.0}"),
            None => format!("accepted, for {} alert(s)", request.alerts.len()),
        },
        Entry::Joined { alerts } => match due(alerts) {
            Some(due) => format!("joined by the schedule, due at {due:.0}"),
            None => format!("{} more alert(s) joined", alerts.len()),
        },
        Entry::Resolved { alerts } => format!("{} alert(s) no longer fire", alerts.len()),
        Entry::Cancelled(Cancellation { by, reason }) if reason.is_empty() => format!("cancelled by {by}"),
        Entry::Cancelled(Cancellation { by, reason }) => format!("cancelled by {by}: {reason}"),
        Entry::Approved { by } => format!("approved by {by}"),
        Entry::Forwarded(to) => format!("is handed over to {}, which has it as run {}", to.holder.name, to.run),
        Entry::Started { mode, term: None } => format!("begins, in mode {}", mode.label()),
        Entry::Started { mode, term: Some(term) } => format!("begins, in mode {}, under term {term}", mode.label()),
        Entry::Step(step) => about(step),
        Entry::Intent(intent) => intended(intent),
        Entry::Result(result) => ended(result),
        Entry::Gate(result) => gate(result),
        Entry::Verified(verification) => verified(verification),
        Entry::Finished(outcome) => finished(outcome),
        Entry::Repeats { times, since } => repeats(*times, *since),
    }
}

/// The last due time of a schedule among these.
fn due(alerts: &[AlertKey]) -> Option<Timestamp> {
    alerts.iter().filter_map(AlertKey::due).max()
}

/// The earlier runs that this one stands for.
fn repeats(times: u32, since: Timestamp) -> String {
    format!("same result as {times} earlier {}, the first at {since:.0}", if times == 1 { "run" } else { "runs" })
}

/// As [`line`] says it, for a run that stands for earlier ones.
pub fn repeats_of(run: &RunView) -> Option<String> {
    run.repeats_since.map(|since| repeats(run.repeats, since))
}

pub fn about(step: &RunStep) -> String {
    match step {
        RunStep::Compact { revision } => format!("compacting up to revision {revision}"),
        RunStep::MoveLeader { member, .. } => format!("handing leadership to {member}"),
        RunStep::DisarmNoSpace { member, .. } => format!("disarming NOSPACE of {member}"),
    }
}

pub fn gate(result: &GateResult) -> String {
    let said = match result.label() {
        "warned" => "FAILED, going on",
        "failed" => "FAILED",
        _ => "passed",
    };
    format!("gate {} {said} ({}): {}", result.gate, result.moment.in_words(), result.detail)
}

/// What the comparison of the members' data found.
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

pub const fn why(need: Need) -> &'static str {
    match need {
        Need::NoSpace => "alarm NOSPACE is armed",
        Need::QuotaPressure => "the file nears its quota",
        Need::Fragmented => "much of the file is free",
        Need::Rule => "the rule holds",
    }
}

/// Whether a member led when it was chosen.
pub const fn role(intent: &Intent) -> &'static str {
    if intent.is_leader { "leader" } else { "follower" }
}

/// A size for people, like `1.5 GiB`.
pub fn size(size: ByteSize) -> String {
    size.display().iec().to_string()
}

/// How long a defragmentation took, like `in 5.0 s`; and how much of that the member did not answer, where that is known
/// apart.
pub fn duration(took: Duration, unavailable: Option<Duration>) -> String {
    let apart = unavailable.map_or(String::new(), |time| format!(", unavailable for {:.1} s", time.as_secs_f64()));
    format!("in {:.1} s{apart}", took.as_secs_f64())
}

/// Like `1 snapshot`, `2 snapshots`.
pub fn snapshots(count: u64) -> String {
    format!("{count} {}", if count == 1 { "snapshot" } else { "snapshots" })
}

/// An expected time, like `about 12 s`.
pub fn about_seconds(expected: Duration) -> String {
    match expected.as_secs_f64().round() {
        seconds if seconds < 1.0 => "less than 1 s".to_owned(),
        seconds => format!("about {seconds} s"),
    }
}

/// How much of the expected time is left, like `about 12 s left`; `None` once it is over.
pub fn time_left(expected: Duration, elapsed: Duration) -> Option<String> {
    let left = expected.checked_sub(elapsed)?;
    Some(format!("{} left", about_seconds(left)))
}

fn intended(intent: &Intent) -> String {
    format!("{} ({}) is next, for {}: {}", intent.member, role(intent), why(intent.need), sizes(intent.before))
}

fn sizes(sizes: Sizes) -> String {
    format!("{}, of which {} in use", size(sizes.db_size), size(sizes.db_size_in_use))
}

fn ended(result: &MemberResult) -> String {
    let name = &result.intent.member;
    match &result.end {
        MemberEnd::Defragmented { after, took, unavailable } => {
            let duration = duration(*took, *unavailable);
            format!("{name} is defragmented {duration}, and the cluster is healthy: {}", sizes(*after))
        }
        MemberEnd::Failed { reason, .. } => format!("{name} failed: {reason}"),
        MemberEnd::Unconfirmed { after: Some(after) } => {
            format!("{name} is idle after a restart of defragd in the middle of it: {}", sizes(*after))
        }
        MemberEnd::Unconfirmed { after: None } => format!("{name} stayed out of reach after a restart of defragd"),
        MemberEnd::NotSent { reason } => format!("{name} was not started: {reason}"),
    }
}

fn finished(outcome: &Outcome) -> String {
    let label = outcome.label().replace('_', " ");
    match (outcome, outcome.reason()) {
        (Outcome::Observed { members }, _) => format!("ends: {label}; would have been next: {}", members.join(", ")),
        (_, Some(reason)) => format!("ends: {label}: {reason}"),
        (_, None) => format!("ends: {label}"),
    }
}
