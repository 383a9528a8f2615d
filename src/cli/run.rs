//! `defragd run`

use std::{io::Write, path::PathBuf};

use serde_json::json;

use super::{
    Exit,
    args::{self, Connection, Output, PolicyArgs, UsageError},
    explain::write_advice,
    follow, history,
    lock::LockArgs,
    server::{Responsible, Server},
    shards::ShardArgs,
    standalone::{self, Own},
    table,
};
use crate::{
    adapters::outgoing::CallError,
    core::{
        history::{MemberEnd, MemberResult, Outcome, RunView},
        policy::Mode,
        story,
        time::Time,
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Cluster to defragment, of the file or of the server
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Directory of the journal [default: /var/lib/defragd for root, else ~/.local/state/defragd]
    #[arg(long, env = "DEFRAGD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Output format of the result; progress goes to standard error
    #[arg(short, long, short_alias = 'w', alias = "write-out", value_enum, default_value_t)]
    output: Output,
    /// Only this member, by name or id; may be given several times
    #[arg(long = "member", value_name = "NAME")]
    members: Vec<String>,
    /// Run in this process even if a server is on this machine; refused while a server is responsible for the cluster
    #[arg(long)]
    standalone: bool,
    /// How long a request to a server may be held before this command returns with exit code 3; the request stands
    #[arg(long, default_value = "30s", value_name = "TIME")]
    wait: Time,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(mut args: Args) -> anyhow::Result<Exit> {
    let data_dir = args::data_dir(args.data_dir.clone());
    let asked_mode = args.policy.mode.clone();
    if args.connection.config.is_none() && args.policy.mode.is_none() {
        // `run` without a file means enforce; a file that says observe must be overridden explicitly.
        args.policy.mode = Some("enforce".to_owned());
    }
    let own = |args: &Args| {
        let settings = args.connection.settings_with(Some(&args.policy), &args.lock, &ShardArgs::default())?;
        let (lock, notify, shards) = (settings.lock.clone(), settings.notify.clone(), settings.shards.clone());
        let cluster = args::one_cluster(settings, args.cluster.as_deref())?;
        anyhow::Ok(Own { cluster, lock, notify, shards })
    };
    // `--server` replaces the connection.
    let given = if args.connection.is_given() && !args::is_typed(&["--server"]) { Some(own(&args)?) } else { None };
    let cluster = given.as_ref().map(|own| &own.cluster);
    let server = match &given {
        Some(own) => args.server.of_owner(&own.shards, &own.cluster.name),
        None => args.server.clone(),
    };
    // A cluster that flags describe has no name that a server would know.
    let name = match cluster {
        Some(cluster) => args.connection.config.is_some().then_some(cluster.name.as_str()),
        None => args.cluster.as_deref(),
    };
    let found = match server.responsible(cluster, name, &data_dir).await {
        Err(error) if matches!(error.downcast_ref(), Some(CallError::Unreachable { .. })) => {
            if !args.standalone {
                anyhow::bail!("{error}. To run in this process instead: --standalone");
            }
            eprintln!("defragd: {error}; this process runs it");
            None
        }
        found => found?,
    };
    let only_observes = cluster.is_some_and(|cluster| cluster.policy.mode == Mode::Observe);
    if let Some(found) = found {
        let acts_itself = asked_mode.as_deref().is_some_and(|mode| mode != "observe");
        match found.cluster.mode {
            // It changes nothing by itself, so a run by hand cannot collide with one of its own.
            Mode::Observe if args.standalone || acts_itself => {}
            _ if args.standalone => return refuse(args.output, &found),
            mode => {
                through_a_server_only(only_observes || asked_mode.as_deref() == Some("observe"), mode)?;
                return Box::pin(follow::run(found, &args.members, args.wait.into(), args.output)).await;
            }
        }
    }
    let own = match (given, &args.cluster) {
        (Some(given), _) => given,
        (None, Some(name)) if !args.connection.is_given() => {
            let what = format!(
                "no server was found that starts runs of cluster {name:?}: pass --server URL, or --config FILE or \
                 --endpoints to run it in this process"
            );
            return Err(UsageError(what).into());
        }
        (None, _) => own(&args)?,
    };
    if let (Some(owner), None, false) = (own.shards.owner_of(&own.cluster.name), &own.shards.url, args.standalone) {
        let what = format!(
            "cluster {:?} belongs to shard {owner} of {}, and shards.url is not configured: pass --server with the URL of \
             that shard, or --standalone to run it in this process while that shard is stopped",
            own.cluster.name, own.shards.total
        );
        return Err(UsageError(what).into());
    }
    standalone::run(own, args.members, &data_dir, args.output).await
}

/// Of a run, here or on a server.
pub(super) fn exit_of(outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::Succeeded | Outcome::NothingToDo => Exit::Done,
        Outcome::Refused { .. } | Outcome::Observed { .. } => Exit::Refused,
        Outcome::Failed { .. } | Outcome::Mismatched { .. } | Outcome::Stopped { .. } | Outcome::Interrupted { .. } => {
            Exit::Failed
        }
    }
}

/// The server's own policy decides, so flags that would change it are refused instead of ignored.
fn through_a_server_only(only_observes: bool, mode: Mode) -> Result<(), UsageError> {
    if only_observes && mode != Mode::Observe {
        let what = "the server would change the cluster, but the mode here is observe (the default of a file without \
                    `mode`): see `defragd plan`, or pass --mode enforce to request a run from the server";
        return Err(UsageError(what.to_owned()));
    }
    let typed = PolicyArgs::typed();
    typed.map_or(Ok(()), |flag| {
        let what =
            format!("{flag} has no effect on a server, which has its own policy: set the key in its configuration");
        Err(UsageError(what))
    })
}

/// A server is responsible for the cluster, and this process must not act on it.
fn refuse(output: Output, found: &Responsible) -> anyhow::Result<Exit> {
    let (url, name) = (found.server.url(), &found.cluster.name);
    let why = format!("Refused, nothing was touched: the server at {url} is responsible for this cluster, as {name}.");
    refused(output, &why, &format!("defragd run --server {url} --cluster {name}"))
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
        history::role(&result.intent).to_owned(),
        table::size(result.intent.before.db_size),
        result.after().map_or_else(dash, |after| table::size(after.db_size)),
        result.after().map_or_else(dash, |after| table::size(after.db_size_in_use)),
        table::size(result.reclaimed()),
        took,
        ended,
    ]
}

/// What a run that touched members did, like `Run 17: 3 members defragmented in 42 s, 93.1 MiB freed.`
fn totals(view: &RunView) -> Option<String> {
    let done = view.members.iter().filter(|member| matches!(member.end, MemberEnd::Defragmented { .. })).count();
    if view.members.is_empty() {
        return None;
    }
    let took = view.started_at.zip(view.finished_at).map_or_else(String::new, |(from, to)| {
        let seconds = to.duration_since(from).as_secs();
        format!(" in {seconds} s")
    });
    let (id, members, freed) = (view.id, story::count(done, "member"), table::size(view.reclaimed()));
    Some(format!("Run {id}: {members} defragmented{took}, {freed} freed."))
}

/// How a run ended, in one sentence.
pub(super) fn sentence(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded => "Succeeded.".to_owned(),
        Outcome::NothingToDo => "Nothing to do: no member needs it (`defragd plan` says why).".to_owned(),
        Outcome::Observed { members } => {
            format!("The mode is observe, so nothing was changed; it would have defragmented {}.", members.join(", "))
        }
        Outcome::Refused { reason } => format!("Refused, nothing was touched: {reason}."),
        Outcome::Failed { reason } => format!("Failed, no further member was started: {reason}."),
        Outcome::Mismatched { reason } => format!("The members were defragmented, but {reason}."),
        Outcome::Stopped { reason } => format!("Stopped, no further member was started: {reason}."),
        Outcome::Interrupted { reason } => format!("Interrupted: {reason}."),
    }
}
