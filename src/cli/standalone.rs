//! `defragd run` in this process: takes the lock, drives the run, and shows its progress.

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    Exit,
    args::Output,
    lock_run::RunLock,
    run_result::{exit_of, refused, sentence, write_result},
    terminal::Terminal,
};
use crate::{
    adapters::{clock::SystemClock, journal::SqliteJournal},
    app::{
        claims::Claims,
        cluster::stop_channel,
        connect::connect,
        driver, gates, ledger,
        notify::{self, Notifications, NotifyProgress},
        run_lines::TextProgress,
        signals::Signals,
        supervise::RENEWAL_INTERVAL,
    },
    config::{ClusterSettings, LockSettings, ShardSettings},
    core::{
        explain::for_cluster,
        history::{Entry, Outcome, Request, Trigger},
        policy::{Compaction, Mode},
        reason::Reason,
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

/// What this process needs to run it itself.
pub(super) struct Own {
    pub(super) cluster: ClusterSettings,
    pub(super) lock: LockSettings,
    pub(super) notify: Vec<NotifySettings>,
    pub(super) shards: ShardSettings,
}

pub(super) async fn run(own: Own, members: Vec<String>, data_dir: &Path, output: Output) -> anyhow::Result<Exit> {
    let (notifications, problems) = notifications(&own.notify);
    for problem in problems {
        eprintln!("defragd: warning: {problem}; this run is not reported there");
    }
    if matches!(own.cluster.policy.compaction, Some(Compaction::OlderThan(_))) {
        eprintln!(
            "defragd: warning: nothing is compacted: compaction.older_than works only with `defragd serve`; pass \
             --compaction keep-revisions=NUMBER"
        );
    }
    let mut signals = Signals::new()?;
    let ended = Box::pin(in_this_process(&own, members, data_dir, output, &notifications, &mut signals)).await;
    let Some(ended) = ended.transpose() else { return Ok(Exit::Failed) };
    tokio::select! {
        undelivered = notifications.finish(TO_NOTIFY) => for undelivered in undelivered {
            eprintln!("defragd: warning: {undelivered}");
        },
        () = signals.end() => eprintln!("defragd: warning: stopped by a signal; the last notifications may be missing"),
    }
    ended
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
    Own { cluster, lock, .. }: &Own,
    members: Vec<String>,
    data_dir: &Path,
    output: Output,
    notifications: &Notifications,
    signals: &mut Signals,
) -> anyhow::Result<Option<Exit>> {
    let etcd = connect(cluster)?;
    let gates = gates::of(cluster)?;
    let journal = match SqliteJournal::open(data_dir, Arc::new(SystemClock)) {
        Err(JournalError::InUse { .. }) => return refuse_journal(output, data_dir).map(Some),
        opened => opened?,
    };
    // This process now holds the journal alone, so an open manual run in it has lost its process.
    for view in journal.open_runs().await?.iter().filter(|view| view.request.trigger == Trigger::Manual) {
        let outcome = Outcome::Interrupted { reason: Reason::ProcessEnded };
        journal.append(view.id, Entry::Finished(outcome)).await?;
    }
    let request = Request { cluster: cluster.name.clone(), trigger: Trigger::Manual, alerts: Vec::new(), members };
    let mismatch = ledger::read(&journal, &cluster.name).await?.mismatch();
    if let Some(reason) = mismatch.filter(|_| cluster.policy.mode != Mode::Observe) {
        let (run, outcome) = (journal.accept(request.clone()).await?, Outcome::Refused { reason });
        journal.append(run, Entry::Finished(outcome.clone())).await?;
        NotifyProgress::begin(notifications, &SystemClock, (run, &request), None).finished(&outcome, Duration::ZERO);
        write_result(output, journal.run(run).await?.as_ref(), &outcome, None)?;
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
                None => for_cluster(reason.advice(), name),
            };
            return refused(output, &sentence(&Outcome::Refused { reason }), &advice).map(Some);
        }
    };
    let run_id = journal.accept(request.clone()).await?;
    let reported = NotifyProgress::begin(notifications, &SystemClock, (run_id, &request), None);
    let observers: [&dyn Progress; 2] = [&progress, &reported];
    progress.line(&format!("run {run_id} of cluster {}", cluster.name));

    let (stop, stopped) = stop_channel();
    let claims = Claims::default();
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
    write_result(output, view.as_ref(), &outcome, None)?;
    Ok(Some(exit_of(&outcome)))
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

/// A certificate may expire before a long run ends. Incompletely written files are read again next time.
async fn keep_credentials_fresh(etcd: &impl Etcd) -> Infallible {
    loop {
        sleep(RENEWAL_INTERVAL).await;
        let _ = etcd.renew().await;
    }
}
