//! The connections between replicas: forwarded requests and commands, through a network
//! that may fail, as `adapters/outgoing/peers.rs` and the HTTP side do it.

use std::{
    future::{Future, pending},
    sync::{Arc, Mutex},
    time::Duration,
};

use defragd::{
    app::service::App,
    core::{alert::Notification, history::RunId, lock::Holder, reason::Reason, time::Time},
    ports::{
        peers::{OfferAnswer, PeerError, PeerOrder, Peers},
        service::{AlertDecision, Command, CommandError, CommandOutcome, Service},
    },
};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    journal::SimJournal,
    model::SimEtcd,
    sim::Sim,
    stopped::{Outside, Process},
};

/// As the adapter has it.
const DEADLINE: Duration = Duration::from_secs(5);

pub type Replica = App<SimEtcd, SimJournal>;

/// Where each replica is, while it lives.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<Vec<Option<Arc<Replica>>>>>);

impl Directory {
    pub fn of(replicas: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![None; replicas])))
    }

    pub fn set(&self, replica: usize, app: Option<Arc<Replica>>) {
        self.0.lock().unwrap()[replica] = app;
    }

    pub fn get(&self, replica: usize) -> Option<Arc<Replica>> {
        self.0.lock().unwrap()[replica].clone()
    }
}

/// One replica's way to the others.
pub struct SimPeers {
    pub sim: Arc<Sim>,
    pub directory: Directory,
}

/// The number in a replica's name.
pub fn number(name: &str) -> usize {
    name.rsplit('-').next().and_then(|number| number.parse().ok()).expect("every replica is named so")
}

impl SimPeers {
    /// One call, at the other replica. It continues there while this process is stopped, and waits while that one is.
    async fn call<T, F>(
        &self,
        to: &Holder,
        at_the_other: impl FnOnce(Arc<Replica>) -> F + Send + 'static,
    ) -> Result<T, PeerError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (target, name, directory) = (number(&to.name), to.name.clone(), self.directory.clone());
        let sim = self.sim.of_replica(target);
        let (there, back, cut, lost) = self.sim.world().peer_fate(self.sim.replica(), target);
        let unreachable = |detail: &str| PeerError::Unreachable { holder: name.clone(), detail: detail.to_owned() };
        let refused = unreachable("connection refused");
        let call = Outside::of(async move {
            sleep(there).await;
            if cut {
                pending::<()>().await;
            }
            let Some(app) = directory.get(target) else { return Err(refused) };
            let answer = Process::of(&sim, at_the_other(app)).await;
            sleep(back).await;
            if lost {
                pending::<()>().await;
            }
            Ok(answer)
        });
        timeout(DEADLINE, call.answer()).await.unwrap_or_else(|_| Err(unreachable("no answer")))
    }
}

impl Peers for SimPeers {
    fn notify<'a>(&'a self, to: &'a Holder, alerts: &'a Notification) -> BoxFuture<'a, Result<OfferAnswer, PeerError>> {
        let alerts = alerts.clone();
        Box::pin(async move {
            let answers = self.call(to, move |app| async move { app.notify(alerts).await }).await;
            self.sim.world().note(|| format!("forwards to {}: {answers:?}", to.name));
            let answers = answers?;
            let answers = answers.map_err(|error| refusal(to, 503, &error.to_string()))?;
            let Some(answer) = answers.into_iter().next() else {
                return Err(PeerError::Ignored("no alert was left".to_owned()));
            };
            match answer.decision {
                AlertDecision::Duplicate { reason: reason @ Reason::Rejected { .. }, .. } => {
                    Ok(OfferAnswer::Rejected(reason))
                }
                AlertDecision::Duplicate { run: Some(run), reason: Reason::Forwarded { .. }, .. } => {
                    Ok(OfferAnswer::Ended(run))
                }
                AlertDecision::Duplicate { run: None, reason, .. } => panic!("without a run: {reason}"),
                AlertDecision::Accepted { run, .. }
                | AlertDecision::Duplicate { run: Some(run), .. }
                | AlertDecision::Cancelled { run, .. } => Ok(OfferAnswer::Accepted(run)),
                AlertDecision::Ignored { reason, .. } if reason.label().starts_with("lock_") => {
                    Ok(OfferAnswer::NotTheHolder)
                }
                AlertDecision::Ignored { reason, .. } => Err(PeerError::Ignored(reason.to_string())),
                AlertDecision::Forwarded { cluster, .. } => panic!("{cluster} is no other shard's"),
            }
        })
    }

    fn order<'a>(&'a self, to: &'a Holder, order: &'a PeerOrder) -> BoxFuture<'a, Result<Value, PeerError>> {
        let order = order.clone();
        Box::pin(async move {
            let what = order.path.join("/");
            let carried = self.call(to, move |app| async move { carry_out(&app, &order).await }).await;
            self.sim.world().note(|| format!("passes {what} on to {}: {carried:?}", to.name));
            let carried = carried?;
            match carried {
                Ok(CommandOutcome::Done(run)) => Ok(json!({ "run": run })),
                Ok(CommandOutcome::Forwarded { answer, .. }) => Ok(answer),
                Err(error) => Err(refusal(to, status(&error), &error.to_string())),
            }
        })
    }
}

async fn carry_out(app: &Replica, order: &PeerOrder) -> Result<CommandOutcome, CommandError> {
    let text = |key: &str| order.body[key].as_str().unwrap_or_default().to_owned();
    let [_, what, verb] = &order.path;
    let command = match verb.as_str() {
        "approve" => return app.approve(RunId(what.parse().unwrap()), text("by"), true).await,
        "reject" => return app.reject(RunId(what.parse().unwrap()), text("by"), text("reason"), true).await,
        "pause" => {
            let lasts = order.body.get("for").map(|lasts| serde_json::from_value(lasts.clone()).unwrap());
            let lasts = lasts.map(|lasts: Time| lasts.into());
            Command::Pause { reason: text("reason"), lasts }
        }
        "resume" => Command::Resume { reason: text("reason") },
        "run" => Command::Run { members: Vec::new() },
        "cancel" => Command::Cancel { reason: text("reason") },
        other => panic!("no such order: {other}"),
    };
    app.command(what, text("by"), command, true).await
}

/// As the HTTP side has it.
fn status(error: &CommandError) -> u16 {
    match error {
        CommandError::UnknownCluster(_) | CommandError::UnknownRun(_) => 404,
        CommandError::OtherShard(_) => 421,
        CommandError::NotWaiting { .. } | CommandError::NothingToCancel(_) | CommandError::Refused(_) => 409,
        CommandError::Peer { status, .. } => *status,
        CommandError::NoHolder { .. } | CommandError::Journal(_) => 503,
    }
}

fn refusal(of: &Holder, status: u16, detail: &str) -> PeerError {
    PeerError::Refused { holder: of.name.clone(), status, detail: detail.to_owned() }
}
