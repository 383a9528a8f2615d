//! `defragd runs`, `defragd runs show`

use std::{io::Write, path::PathBuf};

use anyhow::bail;
use serde_json::json;

use super::{
    Exit,
    args::{self, Output},
    explain::write_advice,
    table,
};
use crate::{
    adapters::journal::SqliteJournal,
    core::{
        history::{Outcome, Record, RunId, RunView},
        story,
    },
    ports::journal::Journal,
};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Directory of the journal [default: /var/lib/defragd for root, else ~/.local/state/defragd]
    #[arg(long, env = "DEFRAGD_DATA_DIR", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// How many runs to show, newest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..), value_name = "NUMBER")]
    limit: u32,
    /// Output format
    #[arg(short, long, short_alias = 'w', alias = "write-out", value_enum, default_value_t, global = true)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show everything recorded about one run, step by step
    #[command(after_help = super::help::RUNS_SHOW)]
    Show {
        /// Its number
        run: i64,
    },
}

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    let data_dir = args::data_dir(args.data_dir);
    let held = SqliteJournal::is_held(&data_dir);
    let journal = SqliteJournal::open_read_only(&data_dir)?;
    if let Some(Command::Show { run }) = args.command {
        return show(&journal, RunId(run), args.output).await;
    }
    let mut runs = journal.runs(usize::try_from(args.limit)?).await?;
    runs.reverse();
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{:#}", json!({ "runs": runs }))?,
        Output::Table | Output::Wide if runs.is_empty() => {
            writeln!(out, "No runs yet in the journal of {}.", data_dir.display())?;
        }
        Output::Table | Output::Wide => {
            let headings = ["RUN>", "CLUSTER", "?TRIGGER", "ACCEPTED", "OUTCOME", "?MEMBERS>", "RECLAIMED>", "WHY"];
            writeln!(out, "{}", table::table(args.output, &headings, runs.iter().map(|run| row(run, held)).collect()))?;
        }
    }
    Ok(Exit::Done)
}

async fn show(journal: &SqliteJournal, id: RunId, output: Output) -> anyhow::Result<Exit> {
    let records = journal.records(id).await?;
    let Some(view) = RunView::fold(records.clone()).pop() else {
        bail!("there is no run {id} in this journal; `defragd runs` lists them");
    };
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{:#}", json!({ "run": view, "records": records }))?,
        Output::Table | Output::Wide => {
            writeln!(
                out,
                "run {id} of cluster {}, requested by {}",
                view.request.cluster,
                story::requester(view.request.trigger)
            )?;
            for alert in view.request.alerts.iter().filter(|alert| alert.due().is_none()) {
                writeln!(out, "{}", story::alert(alert))?;
            }
            for record in &records {
                writeln!(out, "{}", line(record))?;
            }
            let reason = view.outcome.as_ref().and_then(Outcome::reason);
            write_advice(&mut out, reason, &view.request.cluster)?;
            if view.outcome.is_none() {
                writeln!(out, "The run has no outcome yet.")?;
            }
        }
    }
    Ok(Exit::Done)
}

fn line(record: &Record) -> String {
    format!("{}  {}", story::exact_time(record.at), story::line(&record.entry))
}

/// `held` is true if a running defragd holds this journal.
fn row(run: &RunView, held: bool) -> Vec<String> {
    let outcome = match (&run.outcome, run.started_at) {
        (Some(outcome), _) => outcome.label(),
        (None, _) if !held => "unfinished (no defragd is running)",
        (None, Some(_)) => "running",
        (None, None) => "waiting",
    };
    vec![
        run.id.to_string(),
        run.request.cluster.clone(),
        run.request.trigger.label().to_owned(),
        story::exact_time(run.accepted_at),
        outcome.to_owned(),
        run.defragmented().to_string(),
        story::size(run.reclaimed()),
        why_of(run, held),
    ]
}

/// What it is doing, as far as the journal shows.
fn now(run: &RunView) -> String {
    match (&run.open_intent, run.members.last(), run.steps.last()) {
        (Some(intent), ..) => format!("defragmenting {}, or waiting for a healthy cluster after it", intent.member),
        (None, Some(last), _) => format!("checking what is next after {}", last.intent.member),
        (None, None, Some(step)) => story::about(step),
        (None, None, None) => "checking what is first".to_owned(),
    }
}

fn why_of(run: &RunView, held: bool) -> String {
    let is_running = held && run.outcome.is_none() && run.started_at.is_some();
    let reason = run.outcome.as_ref().and_then(Outcome::reason).map(ToString::to_string);
    let reason = reason.or_else(|| is_running.then(|| now(run)));
    let why: Vec<_> = reason.into_iter().chain(story::repeats_of(run)).collect();
    if why.is_empty() { "-".to_owned() } else { why.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        fixture,
        history::{Entry, MemberEnd, Request, Trigger},
        policy::Mode,
    };

    #[test]
    fn times_are_in_seconds() {
        let entry = Entry::Started { mode: Mode::Enforce, term: None, compares: false };
        let record = Record { run: RunId(1), at: "2026-11-29T05:41:07.987Z".parse().expect("a time"), entry };
        assert!(line(&record).starts_with("2026-11-29 05:41:07 UTC  "), "{}", line(&record));
    }

    #[test]
    fn a_run_in_progress_shows_the_member_that_it_is_at() {
        let request = Request::new("a", Trigger::Alert);
        let result = fixture::attempt(3, fixture::sizes(251, 47), MemberEnd::Unconfirmed { after: None });
        let intent = Entry::Intent(result.intent.clone());
        let entries = [
            Entry::Accepted(request),
            Entry::Started { mode: Mode::Enforce, term: None, compares: false },
            intent,
            Entry::Result(result),
        ];
        let why = |entries: &[Entry], held| {
            let at = jiff::Timestamp::UNIX_EPOCH;
            let records = entries.iter().map(|entry| Record { run: RunId(1), at, entry: entry.clone() });
            row(&RunView::fold(records)[0], held).pop()
        };
        for (known, now) in [
            (1, "-"),
            (2, "checking what is first"),
            (3, "defragmenting etcd-3, or waiting for a healthy cluster after it"),
            (4, "checking what is next after etcd-3"),
        ] {
            assert_eq!(why(&entries[..known], true).as_deref(), Some(now));
            assert_eq!(why(&entries[..known], false).as_deref(), Some("-"), "no defragd is running");
        }
    }
}
