//! `defragd run`

use std::path::PathBuf;

use super::{
    Exit,
    args::{self, Connection, Output, PolicyArgs, UsageError},
    follow,
    lock::LockArgs,
    run_result::refused,
    server::{Responsible, Server},
    shards::ShardArgs,
    standalone::{self, Own},
};
use crate::{
    adapters::outgoing::CallError,
    core::{policy::Mode, time::Time},
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
    // Elsewhere it may be meant for the server; then this process warns, if it is the one that runs.
    if args::is_typed(&["--compaction"]) && args.policy.compacts_by_age() {
        let what = "--compaction older-than=TIME works only with `defragd serve`: it must have watched the cluster for as \
                    long to know which revision is that old. Pass --compaction keep-revisions=NUMBER";
        return Err(UsageError(what.to_owned()).into());
    }
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
        (None, name) if !args.connection.is_given() => {
            let nothing = name.as_ref().map_or_else(
                || "there is no cluster to defragment, and no server was found".to_owned(),
                |name| format!("no server was found that starts runs of cluster {name:?}"),
            );
            let what =
                format!("{nothing}: pass --server URL, or --config FILE or --endpoints to run it in this process");
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
