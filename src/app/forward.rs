//! What a replica does with requests and orders for a cluster whose lock is another's: requests are durably handed
//! over and followed to their end, orders are passed on at once.
//!
//! A request is in this replica's journal before anybody was told that it is accepted, and stays open there until the
//! holder says how it ended. If the lock moves meanwhile it is handed over anew, or served here: everything is measured
//! again, so that a request that is served twice does nothing the second time.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tracing::{info, warn};

use super::cluster::{Cluster, lock};
use crate::{
    core::{
        alert::{Alert, AlertStatus, FORWARDED_CLUSTER, Labels, Notification},
        history::{AlertKey, Entry, HandedOver, Outcome, RunId, RunView, Trigger},
        lock::Holder,
        reason::Reason,
        time::Time,
    },
    ports::{
        etcd::Etcd,
        journal::{Journal, JournalError},
        peers::{PeerError, PeerOrder, PeerRun, Peers, Verdict},
        service::{Carried, Command, CommandError},
    },
};

/// How often the holder is asked for the end of a run: runs take minutes.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How soon to try again after a failed forward; the wait doubles with each failure, up to the longest. A wrong token
/// stays wrong until an operator fixes it.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How often the lock itself is looked at while there is nobody to hand to.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);

/// How a request fares at the holder.
enum Fares {
    /// It has it.
    Open,
    /// It does not hold the lock either: the next look at the lock tells.
    Nowhere,
    /// It has ended there.
    Ended(Outcome),
}

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// The same, knowing the other replicas.
    #[must_use]
    pub fn with_peers(mut self, peers: Arc<dyn Peers>) -> Self {
        self.peers = Some(peers);
        self
    }

    /// Takes a waiting request one step further at the lock holder. Returns when to look again, and the reason if the
    /// holder did not accept it.
    pub(super) async fn hand_over(&self, view: &RunView) -> (Duration, Option<Reason>) {
        let (Some(holder), Some(peers)) = (self.lock.view().holder(), &self.peers) else {
            return (LOOK_INTERVAL, None);
        };
        let failure = match self.ask_holder(peers.as_ref(), &holder, view).await {
            Ok(Ok(fares)) => {
                lock(&self.desk).failed_forwards = 0;
                match fares {
                    Fares::Open => return (ASK_EVERY, None),
                    Fares::Nowhere => return (TRY_AGAIN_AFTER, None),
                    Fares::Ended(outcome) => match self.end_handed_over(view, outcome).await {
                        Ok(()) => return (Duration::ZERO, None),
                        Err(error) => error.to_string(),
                    },
                }
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let refused = {
            let mut desk = lock(&self.desk);
            desk.failed_forwards = desk.failed_forwards.saturating_add(1);
            desk.failed_forwards
        };
        let again = TRY_AGAIN_AFTER.saturating_mul(1 << (refused - 1).min(8)).min(LONGEST_WAIT);
        (again, Some(Reason::NotForwarded { holder: holder.name, detail: failure }))
    }

    async fn end_handed_over(&self, view: &RunView, outcome: Outcome) -> Result<(), JournalError> {
        let _one_at_a_time = self.admission.lock().await;
        // Cancelled while the other side answered.
        if lock(&self.desk).queued.as_ref().is_none_or(|(run, _)| *run != view.id) {
            return Ok(());
        }
        self.end_unbegun(view, outcome).await
    }

    /// The outer error is the other replica's, the inner one our journal's.
    async fn ask_holder(
        &self,
        peers: &dyn Peers,
        holder: &Holder,
        view: &RunView,
    ) -> Result<Result<Fares, JournalError>, PeerError> {
        if let Some(handed) = view.handed_over.as_ref().filter(|handed| handed.holder == *holder) {
            match peers.run(holder, handed.run).await? {
                Some(run) if !is_ours(&run, view) => {}
                Some(PeerRun { outcome: None, .. }) => return Ok(Ok(Fares::Open)),
                Some(PeerRun { outcome: Some(outcome), .. }) if !outcome.is_broken_off() => {
                    return Ok(Ok(Fares::Ended(elsewhere(holder, handed.run, &outcome))));
                }
                // Broken off, or not known: it is handed over anew.
                _ => {}
            }
        }
        let run = if view.request.trigger == Trigger::Manual {
            let by = view.approved.as_ref().map_or("somebody", |approval| approval.by.as_str());
            let order = self.order("run", json!({ "by": by }));
            match peers.order(holder, &order).await {
                Ok(answer) => RunId(answer["run"].as_i64().unwrap_or_default()),
                // What it says no to has ended; everything else is tried again.
                Err(PeerError::Refused { status: 409, detail, .. }) => {
                    return Ok(Ok(Fares::Ended(ignored(holder, "refused", detail))));
                }
                Err(error) => return Err(error),
            }
        } else {
            let alerts: Vec<_> = view.standing_alerts().cloned().collect();
            match peers.notify(holder, &self.forwarded(alerts, AlertStatus::Firing)).await? {
                Verdict::Taken(run) => run,
                Verdict::NotTheHolder => return Ok(Ok(Fares::Nowhere)),
                Verdict::Ignored { detail } => return Ok(Ok(Fares::Ended(ignored(holder, "ignored", detail)))),
            }
        };
        let handed = HandedOver { holder: holder.clone(), run };
        if view.handed_over.as_ref() != Some(&handed) {
            let _one_at_a_time = self.admission.lock().await;
            // Cancelled while the other side answered.
            if lock(&self.desk).queued.as_ref().is_none_or(|(run, _)| *run != view.id) {
                return Ok(Ok(Fares::Open));
            }
            if let Err(error) = self.shared.journal.append(view.id, Entry::HandedOver(handed)).await {
                return Ok(Err(error));
            }
            info!(
                cluster = self.name(),
                run = view.id.0,
                holder = holder.name,
                holders_run = run.0,
                "the request is handed over"
            );
        }
        if let (Some(approval), true) = (&view.approved, view.request.trigger != Trigger::Manual) {
            self.pass_approval(peers, holder, run, &approval.by).await?;
        }
        Ok(Ok(Fares::Open))
    }

    async fn pass_approval(&self, peers: &dyn Peers, to: &Holder, run: RunId, by: &str) -> Result<(), PeerError> {
        let path = ["runs".to_owned(), run.to_string(), "approve".to_owned()];
        match peers.order(to, &PeerOrder { path, body: json!({ "by": by }) }).await {
            // It has begun or ended already.
            Ok(_) | Err(PeerError::Refused { status: 409 | 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Alerts as the other replica takes them: our labels would select there what they select there.
    fn forwarded(&self, alerts: Vec<AlertKey>, status: AlertStatus) -> Notification {
        let labels = Labels::from([(FORWARDED_CLUSTER.to_owned(), self.name().to_owned())]);
        let alert =
            |AlertKey { fingerprint, starts_at }| Alert { status, labels: labels.clone(), starts_at, fingerprint };
        Notification { alerts: alerts.into_iter().map(alert).collect(), truncated_alerts: 0, forwarded: true }
    }

    /// Tells the holder that alerts of a request that it has no longer fire. As good as it goes: it measures anyway.
    pub(super) fn pass_resolved(&self, view: &RunView, alerts: &[AlertKey]) {
        let (Some(handed), Some(peers)) = (view.handed_over.clone(), self.peers.clone()) else { return };
        let notification = self.forwarded(alerts.to_vec(), AlertStatus::Resolved);
        let cluster = self.name().to_owned();
        tokio::spawn(async move {
            if let Err(error) = peers.notify(&handed.holder, &notification).await {
                warn!(cluster, %error, "the holder is not told that alerts are resolved");
            }
        });
    }

    fn order(&self, what: &str, body: Value) -> PeerOrder {
        PeerOrder { path: ["clusters".to_owned(), self.name().to_owned(), what.to_owned()], body }
    }

    /// Passes an order to the holder, if that is another replica; `None` if it is to be carried out here.
    pub(super) async fn pass_order(
        &self,
        by: &str,
        command: &Command,
        forwarded: bool,
    ) -> Option<Result<Carried, CommandError>> {
        let (what, mut body) = match command {
            Command::Pause { reason, lasts } => {
                let mut body = json!({ "reason": reason });
                if let Some(lasts) = lasts {
                    body["for"] = json!(Time::from(*lasts));
                }
                ("pause", body)
            }
            Command::Resume { reason } => ("resume", json!({ "reason": reason })),
            Command::Run => ("run", json!({})),
        };
        body["by"] = json!(by);
        self.pass(self.order(what, body), forwarded).await
    }

    /// The same for an approval of one of our runs, once it is handed over. Before, it is taken here and goes with it.
    pub(super) async fn pass_approve(
        &self,
        view: &RunView,
        by: &str,
        forwarded: bool,
    ) -> Option<Result<Carried, CommandError>> {
        let handed = view.handed_over.as_ref()?;
        let path = ["runs".to_owned(), handed.run.to_string(), "approve".to_owned()];
        self.pass(PeerOrder { path, body: json!({ "by": by }) }, forwarded).await
    }

    async fn pass(&self, order: PeerOrder, forwarded: bool) -> Option<Result<Carried, CommandError>> {
        let view = self.lock.view();
        if !self.lock.is_needed() || view.held().is_some() {
            return None;
        }
        let known = view.holder();
        if forwarded {
            let holder = known.map_or_else(|| "another replica".to_owned(), |holder| holder.name);
            return Some(Err(CommandError::Refused(Reason::LockHeldElsewhere { holder })));
        }
        let (Some(holder), Some(peers)) = (known, &self.peers) else {
            let detail = match view.may_begin() {
                Err(reason) => reason.to_string(),
                Ok(_) => "the lock is just changing hands".to_owned(),
            };
            return Some(Err(CommandError::NoHolder { detail }));
        };
        Some(match peers.order(&holder, &order).await {
            Ok(answer) => {
                info!(cluster = self.name(), holder = holder.name, order = order.path.join("/"), "order passed on");
                Ok(Carried::Elsewhere { holder: holder.name, answer })
            }
            Err(PeerError::Refused { status, detail, .. })
                if (400..500).contains(&status) && status != 401 && status != 403 =>
            {
                Err(CommandError::Peer { holder: holder.name, status, detail })
            }
            Err(error) => Err(CommandError::NoHolder { detail: error.to_string() }),
        })
    }
}

/// The numbers of runs are a journal's own: one that was lost gives them anew. A run by hand has no alerts there, even
/// if some joined it here: to take it for another's would ask for it again and again.
fn is_ours(run: &PeerRun, view: &RunView) -> bool {
    run.request.cluster == view.request.cluster
        && (view.request.alerts.is_empty()
            || (view.request.trigger == Trigger::Manual && run.request.trigger == Trigger::Manual)
            || run.request.alerts.iter().any(|key| view.request.alerts.contains(key)))
}

fn elsewhere(holder: &Holder, run: RunId, outcome: &Outcome) -> Outcome {
    let detail = match outcome {
        // It was handed on.
        Outcome::Elsewhere { detail, .. } => detail.clone(),
        outcome => outcome.reason().map(ToString::to_string),
    };
    let ended = match outcome {
        Outcome::Elsewhere { ended, .. } => ended.clone(),
        outcome => outcome.label().to_owned(),
    };
    Outcome::Elsewhere { holder: holder.name.clone(), holders_run: Some(run), ended, detail }
}

fn ignored(holder: &Holder, ended: &str, detail: String) -> Outcome {
    Outcome::Elsewhere { holder: holder.name.clone(), holders_run: None, ended: ended.to_owned(), detail: Some(detail) }
}
