//! `defragd run`

use std::{
    convert::Infallible,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

use super::{
    Exit,
    args::{self, Connection, Output, PolicyArgs, UsageError},
    explain::write_advice,
    follow, history,
    lock::LockArgs,
    lock_run::RunLock,
    server::{Responsible, Server},
    shards::ShardArgs,
    table,
    terminal::Terminal,
};
use crate::{
    adapters::{clock::SystemClock, journal::SqliteJournal, outgoing::CallError},
    app::{
        claims::Claims,
        cluster::stop_channel,
        connect::connect,
        driver, gates, ledger,
        notify::{self, Notifications, NotifyProgress},
        run_lines::TextProgress,
        serve::RENEWAL_INTERVAL,
    },
    config::{ClusterSettings, LockSettings, ShardSettings},
    core::{
        history::{Entry, MemberEnd, MemberResult, Outcome, Request, RunView, Trigger},
        policy::Mode,
        reason::Reason,
        story,
        time::Time,
    },
    ports::{
        clock::Clock,
        etcd::Etcd,
        journal::{Journal, JournalError},
        notifier::NotifySettings,
        progress::Progress,
    },
    telemetry::counters::NotificationCounter,
};

/// Long enough for a backup to finish, but not for one that hangs.
const SNAPSHOT_PATIENCE: Duration = Duration::from_mins(10);
/// After the result is shown: as long as all attempts at a target that refuses both notifications.
const TO_NOTIFY: Duration = Duration::from_secs(15);

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
    let (notifications, problems) = notifications(&own.notify);
    for problem in problems {
        eprintln!("defragd: warning: {problem}; this run is not reported there");
    }
    let mut signals = Signals::new()?;
    let ended = Box::pin(in_this_process(args, &own, &data_dir, &notifications, &mut signals)).await;
    let ended = match ended {
        Ok(None) => return Ok(Exit::Failed),
        Ok(Some(exit)) => Ok(exit),
        Err(error) => Err(error),
    };
    tokio::select! {
        undelivered = notifications.finish(TO_NOTIFY) => for undelivered in undelivered {
            eprintln!("defragd: warning: {undelivered}");
        },
        () = signals.end() => eprintln!("defragd: warning: stopped by a signal; the last notifications may be missing"),
    }
    ended
}

/// From here on, signals no longer end the process by themselves.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            // A dropped terminal connection must not stop the observation in the middle of a member.
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Ctrl-C or SIGTERM. Cancel-safe, as its parts are.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// The same, or a dropped terminal connection.
    async fn end_or_hangup(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// What this process needs to run it itself.
struct Own {
    cluster: ClusterSettings,
    lock: LockSettings,
    notify: Vec<NotifySettings>,
    shards: ShardSettings,
}

/// The targets that can be used, and what is wrong with the others: a run must not fail because of them.
fn notifications(settings: &[NotifySettings]) -> (Notifications, Vec<anyhow::Error>) {
    let (mut usable, mut problems) = (Vec::new(), Vec::new());
    for target in notify::targets(settings) {
        match target {
            Ok(target) => usable.push(target),
            Err(problem) => problems.push(problem),
        }
    }
    (Notifications::start(usable, NotificationCounter::default(), None), problems)
}

/// Returns `None` if a signal asked to exit at once.
async fn in_this_process(
    args: Args,
    Own { cluster, lock, .. }: &Own,
    data_dir: &Path,
    notifications: &Notifications,
    signals: &mut Signals,
) -> anyhow::Result<Option<Exit>> {
    let etcd = connect(cluster)?;
    let gates = gates::of(cluster)?;
    let journal = match SqliteJournal::open(data_dir, Arc::new(SystemClock)) {
        Err(JournalError::InUse { .. }) => return refuse_journal(args.output, data_dir).map(Some),
        opened => opened?,
    };
    // This process now holds the journal alone, so an open manual run in it has lost its process.
    for view in journal.open_runs().await?.iter().filter(|view| view.request.trigger == Trigger::Manual) {
        let outcome = Outcome::Interrupted { reason: Reason::ProcessEnded };
        journal.append(view.id, Entry::Finished(outcome)).await?;
    }
    let request =
        Request { cluster: cluster.name.clone(), trigger: Trigger::Manual, alerts: Vec::new(), members: args.members };
    let mismatch = ledger::read(&journal, &cluster.name).await?.mismatch();
    if let Some(reason) = mismatch.filter(|_| cluster.policy.mode != Mode::Observe) {
        let (run, outcome) = (journal.accept(request.clone()).await?, Outcome::Refused { reason });
        journal.append(run, Entry::Finished(outcome.clone())).await?;
        NotifyProgress::begin(notifications, &SystemClock, (run, &request), None).finished(&outcome, Duration::ZERO);
        write_result(args.output, journal.run(run).await?.as_ref(), &outcome, None)?;
        let (name, dir) = (&cluster.name, data_dir.display());
        eprintln!("Replace the member that differs, then run `defragd resume --cluster {name} --data-dir {dir}`.");
        return Ok(Some(Exit::Refused));
    }
    let terminal = Terminal::start();
    let progress = TextProgress::new(|text| terminal.write(text));
    // Before the request is recorded: if the lock refuses it, there is no request.
    let taken = tokio::select! {
        taken = RunLock::take(lock, cluster, |reason| progress.waiting(reason)) => taken?,
        () = signals.end_or_hangup() => {
            progress.line("stopped by a signal while waiting for the lock: nothing was touched");
            terminal.flush();
            return Ok(None);
        }
    };
    let lock = match taken {
        Ok(lock) => lock,
        Err((reason, url)) => {
            terminal.flush();
            let name = &cluster.name;
            let advice = match url {
                Some(url) => format!("defragd run --server {} --cluster {name}", url.trim_end_matches('/')),
                None => reason.advice().to_owned(),
            };
            return refused(args.output, &sentence(&Outcome::Refused { reason }), &advice).map(Some);
        }
    };
    let run_id = journal.accept(request.clone()).await?;
    let reported = NotifyProgress::begin(notifications, &SystemClock, (run_id, &request), None);
    let observers = (&progress as &dyn Progress, &reported as &dyn Progress);
    progress.line(&format!("run {run_id} of cluster {}", cluster.name));

    let ((stop, stopped), claims) = (stop_channel(), Claims::default());
    let view = lock.view();
    let permit = view.permit(lock.acts_under());
    let drive = driver::Drive {
        run: run_id,
        policy: cluster.policy.clone(),
        gates: &gates,
        old_revision: None,
        outside_window: !cluster.policy.windows.open_at(SystemClock.now()),
        snapshot_patience: SNAPSHOT_PATIENCE,
        etcd: &etcd,
        journal: &journal,
        progress: &observers,
        claims: &claims,
        term: lock.term,
        permit: &permit,
    };
    let driven = async {
        tokio::select! {
            outcome = drive.to_its_end(stopped) => outcome,
            // Cancel-safe: files are only read.
            never = keep_credentials_fresh(&etcd) => match never {},
        }
    };
    tokio::pin!(driven);
    let (mut asked, mut lost) = (false, false);
    let outcome = loop {
        tokio::select! {
            // Not cancelled by the other arms: it is pinned outside the loop.
            outcome = &mut driven => break outcome,
            () = signals.end_or_hangup() => {}
            reason = view.lost(lock.acts_under()), if !lost => {
                progress.line(&format!("{reason}: starting no further member, waiting for the current one"));
                stop.send_if_modified(|stop| stop.is_none() && stop.replace(reason.clone()).is_none());
                lost = true;
                continue;
            }
        }
        if asked {
            progress.line("second signal: exiting now. etcd continues a defragmentation that has begun: check with `defragd status`.");
            terminal.flush();
            return Ok(None);
        }
        asked = true;
        progress.line("stopping: starting no further member, waiting for the current one (signal again to exit now)");
        stop.send_replace(Some(Reason::OperatorStop));
    };
    lock.release().await;
    terminal.flush();
    let view = journal.run(run_id).await?;
    write_result(args.output, view.as_ref(), &outcome, None)?;
    Ok(Some(exit_of(&outcome)))
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

/// Another process holds the journal.
fn refuse_journal(output: Output, data_dir: &Path) -> anyhow::Result<Exit> {
    let dir = data_dir.display();
    let (who, advice) = match SqliteJournal::url_of_holder(data_dir) {
        Some(url) => {
            let advice = format!(
                "defragd run --server {url} --cluster NAME. For a cluster that this server does not serve or only observes, \
                 pass another --data-dir."
            );
            (format!("the server at {url}"), advice)
        }
        None => (
            "another defragd".to_owned(),
            "wait until it ends. For another cluster, pass another --data-dir.".to_owned(),
        ),
    };
    refused(output, &format!("Refused, nothing was touched: {who} uses the journal in {dir}."), &advice)
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

/// A certificate may expire before a long run ends. Incompletely written files are read again next time.
async fn keep_credentials_fresh(etcd: &impl Etcd) -> Infallible {
    loop {
        sleep(RENEWAL_INTERVAL).await;
        let _ = etcd.renew().await;
    }
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
    write_advice(&mut out, outcome.reason())?;
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
    if view.members.is_empty() {
        return None;
    }
    let took = view.started_at.zip(view.finished_at).map_or_else(String::new, |(from, to)| {
        let seconds = to.duration_since(from).as_secs();
        format!(" in {seconds} s")
    });
    let (id, members, freed) = (view.id, story::count(view.defragmented(), "member"), table::size(view.reclaimed()));
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
