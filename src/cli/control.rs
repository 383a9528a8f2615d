//! `defragd approve`, `defragd reject`, `defragd pause`, `defragd resume`, `defragd cancel`: actions on the running server.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    sync::Arc,
};

use anyhow::bail;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{
    Exit,
    args::{Output, UsageError, is_typed},
    plan,
    server::Server,
};
use crate::{
    adapters::{clock::SystemClock, journal::SqliteJournal},
    app::ledger,
    core::{history::AlertKey, order::Order, plan_view::PlanView, reason::Reason, story, time::Time},
    ports::{clock::Clock, journal::Journal},
};

#[derive(Debug, clap::Args)]
pub(super) struct ApproveArgs {
    /// The run's number, from `defragd runs` or the log
    run: i64,
    /// Approve without a question
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct RejectArgs {
    /// The run's number, from `defragd runs` or the log
    run: i64,
    /// Why, for the journal and the status page
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct PauseArgs {
    /// Name of the cluster
    #[arg(long, env = "DEFRAGD_CLUSTER_NAME", value_name = "NAME")]
    cluster: String,
    /// Why, for the journal and the status page
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How long, such as 2h; without it, until `defragd resume`
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<Time>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// Name of the cluster
    #[arg(long, env = "DEFRAGD_CLUSTER_NAME", value_name = "NAME")]
    cluster: String,
    /// What you found or fixed, for the journal
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
    /// Write to the journal in this directory instead of asking a server; fails while a server uses it
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(super) struct CancelArgs {
    /// Name of the cluster
    #[arg(long, env = "DEFRAGD_CLUSTER_NAME", value_name = "NAME")]
    cluster: String,
    /// Why, for the journal
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    server: Server,
}

/// What an operator reads of a run before approving it.
#[derive(Deserialize)]
struct RunToApprove {
    cluster: String,
    #[serde(default)]
    alerts: Vec<AlertKey>,
    resolved: Vec<AlertKey>,
    plan: Option<PlanView>,
    /// Why there is no plan.
    plan_error: Option<String>,
}

fn write_run(out: &mut impl Write, run: &RunToApprove, id: i64) -> std::io::Result<()> {
    writeln!(out, "Run {id} of cluster {} waits for approval.", run.cluster)?;
    for alert in run.alerts.iter().filter(|alert| alert.due().is_none() && !run.resolved.contains(alert)) {
        writeln!(out, "{}", story::capital(&story::alert(alert)))?;
    }
    for due in run.alerts.iter().filter_map(AlertKey::due) {
        writeln!(out, "Due by the schedule since {}", story::time(due))?;
    }
    match (&run.plan, &run.plan_error) {
        (Some(plan), _) => {
            // The approval is what this command is about to give.
            let mut plan = plan.clone();
            plan.holds.retain(|hold| !matches!(hold.reason, Reason::AwaitingApproval { .. }));
            plan::write_plan(out, Output::Table, &plan)
        }
        (None, Some(error)) => writeln!(out, "There is no plan: {error}"),
        (None, None) => Ok(()),
    }
}

pub(super) async fn approve(args: ApproveArgs) -> anyhow::Result<Exit> {
    let (by, number) = (args.server.name_of_operator(), args.run.to_string());
    let run: RunToApprove = serde_json::from_value(args.server.get(&["runs", &number]).await?)?;
    // Without a plan and an error it does not wait for approval, and the server says so.
    let waits = run.plan.is_some() || run.plan_error.is_some();
    if waits {
        write_run(&mut std::io::stdout(), &run, args.run)?;
    }
    if waits && !args.yes {
        if !std::io::stdin().is_terminal() {
            bail!("run {number} is not approved: there is no terminal to ask on; pass --yes to approve it");
        }
        write!(std::io::stdout(), "Approve as {by}? [y/N] ")?;
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            writeln!(std::io::stdout(), "Run {number} is not approved; it still waits.")?;
            return Ok(Exit::Refused);
        }
    }
    args.server.post(["runs", &args.run.to_string(), "approve"], json!({})).await?;
    writeln!(std::io::stdout(), "Run {} is approved; it starts as soon as nothing else holds it.", args.run)?;
    Ok(Exit::Done)
}

pub(super) async fn reject(args: RejectArgs) -> anyhow::Result<Exit> {
    args.server.post(["runs", &args.run.to_string(), "reject"], json!({ "reason": args.reason })).await?;
    writeln!(
        std::io::stdout(),
        "Run {} is rejected. Its alerts request no run until they resolve and fire again, or until the cooldown has \
        passed.",
        args.run
    )?;
    Ok(Exit::Done)
}

pub(super) async fn pause(args: PauseArgs) -> anyhow::Result<Exit> {
    let mut body = json!({ "reason": args.reason });
    if let Some(lasts) = args.lasts {
        body["for"] = json!(lasts);
    }
    let answer = args.server.post(["clusters", &args.cluster, "pause"], body).await?;
    let until = answer["cluster"]["paused"]["until"].as_str().and_then(|until| until.parse::<Timestamp>().ok());
    let until = until.map_or_else(
        || "until `defragd resume`".to_owned(),
        |until| format!("until {}", story::time_to_come(until, SystemClock.now())),
    );
    writeln!(std::io::stdout(), "Cluster {} is paused {until}: no defragmentation starts.", args.cluster)?;
    Ok(Exit::Done)
}

pub(super) async fn resume(args: ResumeArgs) -> anyhow::Result<Exit> {
    if let Some(dir) = &args.data_dir {
        if is_typed(&["--server"]) {
            let what = "--data-dir and --server cannot be used together: --data-dir writes to the journal itself";
            return Err(UsageError(what.to_owned()).into());
        }
        let journal = SqliteJournal::open(dir, Arc::new(SystemClock))?;
        let last_ended = ledger::read(&journal, &args.cluster).await?.last_ended();
        let order = Order::Resume { by: args.server.name_of_operator(), reason: args.reason, last_ended };
        journal.order(&args.cluster, order).await?;
    } else {
        args.server.post(["clusters", &args.cluster, "resume"], json!({ "reason": args.reason })).await?;
    }
    writeln!(std::io::stdout(), "Cluster {} is resumed: the pause is over and the breaker is closed.", args.cluster)?;
    Ok(Exit::Done)
}

pub(super) async fn cancel(args: CancelArgs) -> anyhow::Result<Exit> {
    args.server.post(["clusters", &args.cluster, "cancel"], json!({ "reason": args.reason })).await?;
    writeln!(
        std::io::stdout(),
        "The request of cluster {} is cancelled: no further member is started. An alert that is still firing requests a \
        new run with its next notification; use `defragd pause` to prevent that.",
        args.cluster
    )?;
    Ok(Exit::Done)
}
