//! `defragd runs`

use std::{io::Write, path::PathBuf};

use serde_json::json;

use super::{
    Exit,
    args::{self, Output},
    table,
};
use crate::{
    adapters::journal::SqliteJournal,
    core::history::{Outcome, RunView},
    ports::journal::Journal,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory of the journal [default: /var/lib/defragd for root, else ~/.local/state/defragd]
    #[arg(long, env = "DEFRAGD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How many of the newest runs
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    let data_dir = args::data_dir(args.data_dir);
    let held = SqliteJournal::is_held(&data_dir);
    let journal = SqliteJournal::open_read_only(&data_dir)?;
    let mut runs = journal.runs(args.limit).await?;
    runs.reverse();
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{:#}", json!({ "runs": runs }))?,
        Output::Table if runs.is_empty() => writeln!(out, "No runs yet.")?,
        Output::Table => {
            let headings = ["RUN>", "CLUSTER", "TRIGGER", "ACCEPTED", "OUTCOME", "MEMBERS>", "RECLAIMED>", "WHY"];
            writeln!(out, "{}", table::table(&headings, runs.iter().map(|run| row(run, held)).collect()))?;
        }
    }
    Ok(Exit::Done)
}

/// `held` says whether any defragd works with this journal now.
fn row(run: &RunView, held: bool) -> Vec<String> {
    let outcome = match (&run.outcome, run.started_at) {
        (Some(outcome), _) => outcome.label(),
        (None, _) if !held => "open, but no defragd runs",
        (None, Some(_)) => "running",
        (None, None) => "waiting",
    };
    vec![
        run.id.to_string(),
        run.request.cluster.clone(),
        run.request.trigger.label().to_owned(),
        format!("{:.0}", run.accepted_at),
        outcome.to_owned(),
        run.members.len().to_string(),
        table::size(run.reclaimed()),
        run.outcome.as_ref().and_then(Outcome::reason).map_or_else(|| "-".to_owned(), ToString::to_string),
    ]
}
