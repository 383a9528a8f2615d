//! `defragd run`

use std::{
    convert::Infallible,
    io::Write,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use super::{
    Exit,
    args::{self, Connection, Output, PolicyArgs},
    explain::write_advice,
    history,
    lock::LockArgs,
    lock_run::RunLock,
    table,
};
use crate::{
    adapters::journal::SqliteJournal,
    app::{
        claims::Claims,
        cluster::stop_channel,
        driver, gates, ledger,
        serve::{RENEWAL_INTERVAL, connect},
    },
    core::{
        cluster::Member,
        gate::GateResult,
        history::{Entry, Intent, MemberEnd, MemberResult, Outcome, Request, RunStep, RunView, Trigger},
        plan::{Decision, Plan},
        policy::Mode,
        reason::Reason,
        story,
        verify::Verification,
    },
    ports::{clock::SystemClock, etcd::Etcd, journal::Journal, progress::Progress},
};

/// Long enough for a backup to finish, but not for one that hangs.
const SNAPSHOT_PATIENCE: Duration = Duration::from_mins(10);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Cluster of the file to defragment
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Directory of the journal [default: /var/lib/defragd for root, else ~/.local/state/defragd]
    #[arg(long, env = "DEFRAGD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Output format of the result; progress goes to standard error
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(mut args: Args) -> anyhow::Result<Exit> {
    if args.connection.config.is_none() && args.policy.mode.is_none() {
        // `run` without a file means enforce; a file that says observe must be overridden explicitly.
        args.policy.mode = Some("enforce".to_owned());
    }
    let settings = args.connection.settings_with(Some(&args.policy), &args.lock)?;
    let lock_settings = settings.lock.clone();
    let cluster = args::one_cluster(settings, args.cluster.as_deref())?;
    let etcd = connect(&cluster)?;
    let gates = gates::of(&cluster)?;
    let data_dir = args::data_dir(args.data_dir);
    let journal = SqliteJournal::open(&data_dir, Arc::new(SystemClock))?;
    // This process now holds the journal alone, so an open manual run in it has lost its process.
    for view in journal.open_runs().await?.iter().filter(|view| view.request.trigger == Trigger::Manual) {
        let outcome = Outcome::Interrupted { reason: Reason::ProcessEnded };
        journal.append(view.id, Entry::Finished(outcome)).await?;
    }
    let request = Request { cluster: cluster.name.clone(), trigger: Trigger::Manual, alerts: Vec::new() };
    let mismatch = ledger::read(&journal, &cluster.name).await?.mismatch();
    if let Some(reason) = mismatch.filter(|_| cluster.policy.mode != Mode::Observe) {
        let (run, outcome) = (journal.accept(request).await?, Outcome::Refused { reason });
        journal.append(run, Entry::Finished(outcome.clone())).await?;
        write_result(args.output, journal.run(run).await?.as_ref(), &outcome)?;
        let (name, dir) = (&cluster.name, data_dir.display());
        eprintln!("Replace the member that differs, then run `defragd resume --cluster {name} --data-dir {dir}`.");
        return Ok(Exit::Refused);
    }
    let progress = Terminal::start();
    // Before the request is recorded: if the lock refuses it, there is no request.
    let lock = match RunLock::take(&lock_settings, &cluster, |reason| progress.waiting(reason)).await? {
        Ok(lock) => lock,
        Err(reason) => {
            progress.flush();
            write_result(Output::Table, None, &Outcome::Refused { reason })?;
            return Ok(Exit::Refused);
        }
    };
    let run_id = journal.accept(request).await?;

    let (stop, stopped) = stop_channel();
    let claims = Claims::default();
    let view = lock.view();
    let permit = view.permit(lock.acts_under());
    let drive = driver::Drive {
        run: run_id,
        policy: cluster.policy.clone(),
        gates: &gates,
        old_revision: None,
        snapshot_patience: SNAPSHOT_PATIENCE,
        etcd: &etcd,
        journal: &journal,
        progress: &progress,
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
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // A dropped terminal connection must not stop the observation in the middle of a member.
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut asked, mut lost) = (false, false);
    let outcome = loop {
        tokio::select! {
            // Not cancelled by the other arms: it is pinned outside the loop.
            outcome = &mut driven => break outcome,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            reason = view.lost(lock.acts_under()), if !lost => {
                progress.line(&format!("{reason}: starting no further member, waiting for the current one"));
                stop.send_if_modified(|stop| stop.is_none() && stop.replace(reason.clone()).is_none());
                lost = true;
                continue;
            }
        }
        if asked {
            progress.line("second signal: exiting now. etcd continues a defragmentation that has begun: check with `defragd status`.");
            return Ok(Exit::Failed);
        }
        asked = true;
        progress.line("stopping: starting no further member, waiting for the current one (signal again to exit now)");
        stop.send_replace(Some(Reason::OperatorStop));
    };
    lock.release().await;
    progress.flush();
    let view = journal.run(run_id).await?;
    write_result(args.output, view.as_ref(), &outcome)?;
    Ok(match outcome {
        Outcome::Succeeded | Outcome::NothingToDo => Exit::Done,
        Outcome::Refused { .. } | Outcome::Observed { .. } => Exit::Refused,
        Outcome::Failed { .. } | Outcome::Mismatched { .. } | Outcome::Stopped { .. } | Outcome::Interrupted { .. } => {
            Exit::Failed
        }
    })
}

/// A certificate may expire before a long run ends. Incompletely written files are read again next time.
async fn keep_credentials_fresh(etcd: &impl Etcd) -> Infallible {
    loop {
        sleep(RENEWAL_INTERVAL).await;
        let _ = etcd.renew().await;
    }
}

fn write_result(output: Output, view: Option<&RunView>, outcome: &Outcome) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        writeln!(out, "{:#}", json!({ "run": view }))?;
        return Ok(());
    }
    let members = view.map(|view| view.members.as_slice()).unwrap_or_default();
    if !members.is_empty() {
        let headings = ["MEMBER", "ID", "ROLE", "BEFORE>", "AFTER>", "IN USE>", "RECLAIMED>", "TOOK>", "RESULT"];
        writeln!(out, "{}", table::table(&headings, members.iter().map(row).collect()))?;
    }
    writeln!(out, "{}", sentence(outcome))?;
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

/// How a run ended, in one sentence.
pub(super) fn sentence(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded => "Succeeded.".to_owned(),
        Outcome::NothingToDo => "Nothing to do: no member needs it (`defragd plan` says why).".to_owned(),
        Outcome::Observed { members } => format!(
            "The mode is observe, so nothing was changed; it would have defragmented {}. Pass --mode enforce to do it.",
            members.join(", ")
        ),
        Outcome::Refused { reason } => format!("Refused, nothing was touched: {reason}."),
        Outcome::Failed { reason } => format!("Failed, no further member was started: {reason}."),
        Outcome::Mismatched { reason } => format!("The members were defragmented, but {reason}."),
        Outcome::Stopped { reason } => format!("Stopped, no further member was started: {reason}."),
        Outcome::Interrupted { reason } => format!("Interrupted: {reason}."),
    }
}

/// Shows progress on a terminal, with the time since the start.
///
/// The lines go through a thread of their own: a terminal that is paused, or a pipe without a reader, must
/// neither delay a run nor end it.
struct Terminal {
    begun: Instant,
    last: Mutex<String>,
    lines: SyncSender<Line>,
}

enum Line {
    Text(String),
    /// Answer once everything before it is written.
    Flush(SyncSender<()>),
}

/// More lines than a run has; lines beyond that are dropped instead of waiting.
const LINES_IN_HAND: usize = 1_000;

impl Terminal {
    fn start() -> Self {
        let (lines, to_write) = sync_channel(LINES_IN_HAND);
        std::thread::spawn(move || {
            for line in to_write {
                // If nobody reads any more, the journal still has everything.
                let _ = match line {
                    Line::Text(text) => writeln!(std::io::stderr(), "{text}").ok(),
                    Line::Flush(answer) => answer.try_send(()).ok(),
                };
            }
        });
        Self { begun: Instant::now(), last: Mutex::default(), lines }
    }

    /// Waits briefly for queued lines, so that the result comes after them.
    fn flush(&self) {
        let (answer, written) = sync_channel(1);
        if self.lines.try_send(Line::Flush(answer)).is_ok() {
            let _ = written.recv_timeout(Duration::from_millis(500));
        }
    }

    fn line(&self, text: &str) {
        let mut last = self.last.lock();
        if *last != text {
            let _ = self.lines.try_send(Line::Text(format!("[{:6.1} s] {text}", self.begun.elapsed().as_secs_f64())));
            text.clone_into(&mut last);
        }
    }
}

impl Progress for Terminal {
    fn planned(&self, plan: &Plan) {
        let order: Vec<_> = plan.pending().map(|(step, _)| step.member.as_str()).collect();
        for step in &plan.steps {
            if let Decision::Skip { reason } = &step.decision {
                self.line(&format!("{} is skipped: {reason}", step.member));
            }
        }
        for warning in &plan.warnings {
            self.line(&format!("warning: {warning}"));
        }
        if !order.is_empty() {
            self.line(&format!("order: {}", order.join(", ")));
        }
    }

    fn step(&self, step: &RunStep) {
        self.line(&history::about(step));
    }

    fn defragmenting(&self, intent: &Intent) {
        self.line(&format!(
            "defragmenting {} ({}): {}, of which {} in use{}",
            intent.member,
            history::role(intent),
            table::size(intent.before.db_size),
            table::size(intent.before.db_size_in_use),
            intent.expected.map_or(String::new(), |expected| format!("; expected {}", story::about_seconds(expected)))
        ));
    }

    fn still_defragmenting(&self, intent: &Intent, elapsed: Duration) {
        let left = intent.expected.and_then(|expected| story::time_left(expected, elapsed));
        let left = left.map_or(String::new(), |left| format!(", {left}"));
        self.line(&format!("still defragmenting {}, {} s so far{left}", intent.member, elapsed.as_secs()));
    }

    fn gate(&self, result: &GateResult) {
        self.line(&history::gate(result));
    }

    fn hashing(&self, member: &Member) {
        self.line(&format!("comparing the members' data: waiting for the hash of {}", member.label()));
    }

    fn verified(&self, verification: &Verification) {
        self.line(&history::verified(verification));
    }

    fn waiting(&self, reason: &Reason) {
        self.line(&format!("waiting: {reason}"));
    }

    fn fell_back(&self, reason: &Reason) {
        self.line(&format!("leadership is not transferred, the leader is defragmented as it is: {reason}"));
    }

    fn member_ended(&self, result: &MemberResult) {
        let name = &result.intent.member;
        match &result.end {
            MemberEnd::Defragmented { after, took, unavailable } => self.line(&format!(
                "{name} defragmented: {} -> {} {}, the cluster is healthy",
                table::size(result.intent.before.db_size),
                table::size(after.db_size),
                story::duration(*took, *unavailable)
            )),
            MemberEnd::Failed { reason, .. } => self.line(&format!("{name} failed: {reason}")),
            MemberEnd::Unconfirmed { .. } => {
                self.line(&format!("{name} is idle; an earlier process was defragmenting it"));
            }
            MemberEnd::NotSent { reason } => self.line(&format!("{name} was not started: {reason}")),
        }
    }
}
