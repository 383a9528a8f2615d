//! The journal's entries as sentences, for an operator who checks what was done and why.

use super::table;
use crate::core::{
    gate::GateResult,
    history::{Entry, Intent, MemberEnd, MemberResult, Outcome, Sizes, Step},
    policy::Need,
};

/// What an entry says, in one line.
pub(super) fn line(entry: &Entry) -> String {
    match entry {
        Entry::Accepted(request) if request.alerts.is_empty() => "accepted".to_owned(),
        Entry::Accepted(request) => format!("accepted, for {} alert(s)", request.alerts.len()),
        Entry::Joined { alerts } => format!("{} more alert(s) joined", alerts.len()),
        Entry::Resolved { alerts } => format!("{} alert(s) no longer fire", alerts.len()),
        Entry::Approved { by } => format!("approved by {by}"),
        Entry::Started { mode } => format!("begins, in mode {}", mode.label()),
        Entry::Step(step) => about(step),
        Entry::Intent(intent) => intended(intent),
        Entry::Result(result) => ended(result),
        Entry::Gate(result) => gate(result),
        Entry::Finished(outcome) => finished(outcome),
    }
}

/// What a step does.
pub(super) fn about(step: &Step) -> String {
    match step {
        Step::Compact { revision } => format!("compacting up to revision {revision}"),
        Step::MoveLeader { member, .. } => format!("handing leadership to {member}"),
        Step::DisarmNoSpace { member, .. } => format!("disarming NOSPACE of {member}"),
    }
}

/// What a gate found.
pub(super) fn gate(result: &GateResult) -> String {
    let said = match result.label() {
        "warned" => "FAILED, going on",
        "failed" => "FAILED",
        _ => "passed",
    };
    format!("gate {} {said} ({}): {}", result.gate, result.moment.in_words(), result.detail)
}

/// What gates found, as a table.
pub(super) fn gate_table(results: &[GateResult]) -> String {
    let row = |result: &GateResult| {
        vec![
            result.gate.clone(),
            result.kind.label().to_owned(),
            result.label().to_owned(),
            format!("{:.1} s", result.took.as_secs_f64()),
            result.detail.clone(),
        ]
    };
    table::table(&["GATE", "KIND", "RESULT", "TOOK>", "WHAT IT SAW"], results.iter().map(row).collect())
}

/// Why a member deserves a defragmentation.
pub(super) const fn why(need: Need) -> &'static str {
    match need {
        Need::NoSpace => "alarm NOSPACE is armed",
        Need::QuotaPressure => "the file nears its quota",
        Need::Fragmented => "much of the file is free",
        Need::Rule => "the rule holds",
    }
}

/// Whether a member led when it was chosen.
pub(super) const fn role(intent: &Intent) -> &'static str {
    if intent.is_leader { "leader" } else { "follower" }
}

fn intended(intent: &Intent) -> String {
    format!("{} ({}) is next, for {}: {}", intent.member, role(intent), why(intent.need), sizes(intent.before))
}

fn sizes(sizes: Sizes) -> String {
    format!("{}, of which {} in use", table::size(sizes.db_size), table::size(sizes.db_size_in_use))
}

fn ended(result: &MemberResult) -> String {
    let name = &result.intent.member;
    match &result.end {
        MemberEnd::Defragmented { after, took } => {
            format!(
                "{name} is defragmented in {:.1} s, and the cluster is healthy: {}",
                took.as_secs_f64(),
                sizes(*after)
            )
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
