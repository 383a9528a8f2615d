//! `defragd run` through a server: posts the request, then follows the run until it ends.

use std::{io::Write, time::Duration};

use anyhow::Context;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Exit,
    args::Output,
    run_result::{exit_of, refused, write_result},
    server::{Responsible, Server},
};
use crate::{
    adapters::outgoing::CallError,
    app::signals::Signals,
    core::{
        explain::for_cluster,
        history::{Outcome, Record, RunId, RunView},
        reason::Reason,
        story,
    },
    ports::overview::ProgressLine,
};

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long the server may be out of reach: a restart takes seconds.
const OUT_OF_REACH: Duration = Duration::from_mins(1);

/// What is read of a run.
#[derive(Deserialize)]
struct Followed {
    accepted_at: Timestamp,
    started_at: Option<Timestamp>,
    waiting_for: Option<Waiting>,
    progress: Vec<ProgressLine>,
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Waiting {
    message: String,
    advice: String,
}

enum FollowEnd {
    Ended(Outcome),
    /// It has not started within the given time.
    Held(Waiting),
    /// The operator stopped following, or the server is out of reach.
    Left(String),
}

/// Requests a run and follows it. `wait` is how long it may be held before it starts.
pub(super) async fn run(
    responsible: Responsible,
    members: &[String],
    wait: Duration,
    output: Output,
) -> anyhow::Result<Exit> {
    let Responsible { server, cluster } = responsible;
    let name = &cluster.name;
    eprintln!("defragd: the server at {} runs it (cluster {name}, mode {})", server.url(), cluster.mode.label());
    // Before it asks: an interrupt leaves the run to the server, and says how to stop it.
    let mut signals = Signals::new()?;
    let (server, run) = match server.post(["clusters", name, "run"], json!({ "members": members })).await {
        Ok(answer) => {
            let run = answer["run"].as_i64().context("the server did not say which run it is")?;
            // Another replica may have it, under a number of its own.
            let holder = answer["holder"].as_str().is_some();
            let url = cluster.lock.as_ref().and_then(|lock| lock.url.clone()).filter(|_| holder);
            (url.map_or_else(|| server.clone(), |url| server.at(&url)), RunId(run))
        }
        Err(CallError::Refused { status: 409, detail, reason, .. }) => {
            let now = server.served().await?.clusters.into_iter().find(|now| now.name == *name);
            let open = now.and_then(|now| now.active_run.or(now.queued_run));
            let requested_before = reason.as_deref() == Some(Reason::AlreadyRequested.label()) && members.is_empty();
            let Some(run) = open.filter(|_| requested_before) else {
                let explain =
                    || reason.map_or_else(|| "defragd plan".to_owned(), |reason| format!("defragd explain {reason}"));
                // The server's text of a reason ends with the advice, if there is one.
                let (why, advice) = match detail.split_once(". What to do: ") {
                    Some((why, advice)) => (why, for_cluster(advice, name)),
                    None => (detail.as_str(), explain()),
                };
                return refused(output, &format!("Refused, nothing was touched: {why}"), &advice);
            };
            eprintln!("defragd: run {run} was requested before; following it");
            (server, run)
        }
        Err(error) => return Err(error.into()),
    };
    let cancel = format!("defragd cancel --cluster {name} --server {}", server.url());
    let (end, answer) = Follower { server: &server, run, printed: 0, last_hold: String::new() }
        .follow(wait, &mut signals, &cancel)
        .await?;
    let view = Followed::deserialize(&answer).ok().and_then(|run| RunView::fold(run.records).pop());
    match end {
        FollowEnd::Ended(outcome) => {
            write_result(output, view.as_ref(), &outcome, Some(&server))?;
            Ok(exit_of(&outcome))
        }
        FollowEnd::Held(waiting) => {
            let mut out = std::io::stdout().lock();
            if output == Output::Json {
                writeln!(out, "{:#}", json!({ "run": view, "waiting_for": answer["waiting_for"] }))?;
            } else {
                writeln!(out, "Run {run} is requested and has not started: {}.", waiting.message)?;
                writeln!(out, "What to do: {}", for_cluster(&waiting.advice, name))?;
                writeln!(out, "It starts by itself when nothing holds it. To withdraw it: {cancel}")?;
            }
            Ok(Exit::Refused)
        }
        FollowEnd::Left(why) => {
            eprintln!("{why}");
            Ok(Exit::Failed)
        }
    }
}

struct Follower<'a> {
    server: &'a Server,
    run: RunId,
    /// How many lines of the run's progress are printed.
    printed: usize,
    /// The hold that was printed last.
    last_hold: String,
}

impl Follower<'_> {
    async fn follow(
        &mut self,
        wait: Duration,
        signals: &mut Signals,
        cancel: &str,
    ) -> anyhow::Result<(FollowEnd, Value)> {
        let run = self.run;
        let begun = Instant::now();
        let (mut reached, mut last) = (Instant::now(), Value::Null);
        loop {
            match self.server.get(&["runs", &run.to_string()]).await {
                Ok(answer) => {
                    reached = Instant::now();
                    let now = Followed::deserialize(&answer).context("the server's answer about the run")?;
                    self.print(&now);
                    last = answer;
                    if let Some(outcome) = outcome(&now.records) {
                        return Ok((FollowEnd::Ended(outcome), last));
                    }
                    if let Some(waiting) =
                        now.waiting_for.filter(|_| now.started_at.is_none() && begun.elapsed() >= wait)
                    {
                        return Ok((FollowEnd::Held(waiting), last));
                    }
                }
                Err(error) if reached.elapsed() > OUT_OF_REACH => {
                    let why = format!(
                        "Stopped following: {error}. The server continues run {run} when it is back; to stop the run: {cancel}"
                    );
                    return Ok((FollowEnd::Left(why), last));
                }
                Err(error) => self.hold(&format!("the server does not answer, trying again: {error}")),
            }
            tokio::select! {
                () = sleep(POLL_INTERVAL) => {}
                () = signals.end_or_hangup() => break,
            }
        }
        let why = format!("Stopped following; run {run} continues on the server. To stop it: {cancel}");
        Ok((FollowEnd::Left(why), last))
    }

    fn print(&mut self, now: &Followed) {
        // A server that has restarted begins anew.
        if now.progress.len() < self.printed {
            self.printed = 0;
        }
        for line in &now.progress[self.printed..] {
            let seconds = line.at.duration_since(now.accepted_at).as_secs_f64().max(0.0);
            eprintln!("[{seconds:6.1} s] {}", line.text);
        }
        self.printed = now.progress.len();
        if let Some(waiting) = now.waiting_for.as_ref().filter(|_| now.started_at.is_none()) {
            self.hold(&story::waiting(&waiting.message));
        }
    }

    /// Once for each text.
    fn hold(&mut self, text: &str) {
        if self.last_hold != text {
            eprintln!("[ run {} ] {text}", self.run);
            text.clone_into(&mut self.last_hold);
        }
    }
}

fn outcome(records: &[Record]) -> Option<Outcome> {
    RunView::fold(records.iter().cloned()).pop()?.outcome
}
