//! What `defragd run` says at the end, and its exit code, whether the run was in this process or on a server.

use std::io::Write;

use serde_json::json;

use super::{Exit, args::Output, explain::write_advice, server::Server, table};
use crate::core::{
    history::{MemberEnd, MemberResult, Outcome, RunView},
    story,
};

pub(super) fn exit_of(outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::Succeeded | Outcome::NothingToDo => Exit::Done,
        Outcome::Refused { .. } | Outcome::Observed { .. } => Exit::Refused,
        Outcome::Failed { .. } | Outcome::Mismatched { .. } | Outcome::Stopped { .. } | Outcome::Interrupted { .. } => {
            Exit::Failed
        }
    }
}

/// There is no run.
pub(super) fn refused(output: Output, why: &str, advice: &str) -> anyhow::Result<Exit> {
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{:#}", json!({ "run": null, "error": why, "advice": advice }))?,
        Output::Table | Output::Wide => writeln!(out, "{why}\nWhat to do: {advice}")?,
    }
    Ok(Exit::Refused)
}

/// `server` is the one that drove the run, if it was a server.
pub(super) fn write_result(
    output: Output,
    view: Option<&RunView>,
    outcome: &Outcome,
    server: Option<&Server>,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        writeln!(out, "{:#}", json!({ "run": view }))?;
        return Ok(());
    }
    let members = view.map(|view| view.members.as_slice()).unwrap_or_default();
    if !members.is_empty() {
        let headings = ["MEMBER", "+ID", "ROLE", "BEFORE>", "AFTER>", "?IN USE>", "RECLAIMED>", "TOOK>", "RESULT"];
        writeln!(out, "{}", table::table(output, &headings, members.iter().map(row).collect()))?;
    }
    writeln!(out, "{}", sentence(outcome))?;
    if let Some(totals) = view.and_then(totals) {
        writeln!(out, "{totals}")?;
    }
    match (outcome, server) {
        (Outcome::Observed { .. }, None) => writeln!(out, "What to do: pass --mode enforce.")?,
        (Outcome::Observed { .. }, Some(_)) => writeln!(
            out,
            "What to do: set `mode: enforce` in the server's configuration and reload it, or run it in a process of its own: defragd run --mode enforce --data-dir DIR, with the server's --config."
        )?,
        _ => {}
    }
    write_advice(&mut out, outcome.reason(), view.map_or("NAME", |view| &view.request.cluster))?;
    Ok(())
}

fn row(result: &MemberResult) -> Vec<String> {
    let dash = || "-".to_owned();
    let (took, ended) = match &result.end {
        MemberEnd::Defragmented { took, .. } => (format!("{:.1} s", took.as_secs_f64()), result.label().to_owned()),
        MemberEnd::Unconfirmed { .. } => (dash(), "unconfirmed: defragd exited before the member answered".to_owned()),
        MemberEnd::Failed { reason, .. } | MemberEnd::NotSent { reason } => (dash(), reason.to_string()),
    };
    vec![
        result.intent.member.clone(),
        result.intent.member_id.to_string(),
        story::role(&result.intent).to_owned(),
        story::size(result.intent.before.db_size),
        result.after().map_or_else(dash, |after| story::size(after.db_size)),
        result.after().map_or_else(dash, |after| story::size(after.db_size_in_use)),
        story::size(result.reclaimed()),
        took,
        ended,
    ]
}

/// What a run that touched members did, like `Run 17: 3 members defragmented in 42 s, 93.1 MiB freed.`
fn totals(view: &RunView) -> Option<String> {
    if view.members.is_empty() {
        return None;
    }
    let took = view.started_at.zip(view.finished_at).map_or_else(String::new, |(from, to)| {
        let seconds = to.duration_since(from).as_secs();
        format!(" in {seconds} s")
    });
    let (id, members, freed) = (view.id, story::count(view.defragmented(), "member"), story::size(view.reclaimed()));
    Some(format!("Run {id}: {members} defragmented{took}, {freed} freed."))
}

/// How a run ended, in one sentence.
pub(super) fn sentence(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded => "Succeeded.".to_owned(),
        Outcome::NothingToDo => "Nothing to do: no member needs it (`defragd plan` says why).".to_owned(),
        Outcome::Observed { members, outside_window } => {
            let would_have = story::would_have(members, *outside_window);
            format!("The mode is observe, so nothing was changed; it {would_have}.")
        }
        Outcome::Refused { reason } => format!("Refused, nothing was touched: {reason}."),
        Outcome::Failed { reason } => format!("Failed: {reason}."),
        Outcome::Mismatched { reason } => format!("The members were defragmented, but {reason}."),
        Outcome::Stopped { reason } => format!("Stopped: {reason}."),
        Outcome::Interrupted { reason } => format!("Interrupted: {reason}."),
    }
}
