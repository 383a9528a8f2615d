//! How a replica handles requests and actions for a cluster whose lock another replica holds: it offers its open
//! request to the holder repeatedly, and forwards actions at once.
//!
//! A request is in this replica's journal before it is acknowledged, and stays open there until the holder reports that
//! it is done. If the lock moves or the holder loses its journal, the request is offered again, or served here:
//! everything is measured again, so that a request that is served twice does nothing the second time.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    cluster::Cluster,
    succession::{LastOffer, PendingOffer},
};
use crate::{
    core::{
        alert::{Alert, AlertStatus, Notification},
        history::{AlertKey, Entry, ForwardedRequest, Outcome, RunId, RunView, Trigger},
        lock::Holder,
        reason::Reason,
        time::Time,
    },
    ports::{
        etcd::Etcd,
        journal::{Journal, JournalError},
        peers::{OfferAnswer, PeerError, PeerOrder, Peers},
        service::{Command, CommandError, CommandOutcome},
    },
};

/// How often a request that the holder already has is offered to it again.
const OFFER_INTERVAL: Duration = Duration::from_secs(15);
/// How soon to retry a failed offer; the wait doubles with each failure, up to the longest. A wrong token stays wrong
/// until an operator fixes it.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How often the lock is checked while no holder is known.
const RECHECK_INTERVAL: Duration = Duration::from_mins(1);

enum OfferOutcome {
    /// The request is open at the holder, too.
    Accepted(ForwardedRequest),
    /// The receiver does not hold the lock either; the next check of the lock shows which replica does.
    NotTheHolder,
    /// The request is done.
    Ended(Outcome),
}

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// The same, with access to the other replicas.
    #[must_use]
    pub fn with_peers(mut self, peers: Arc<dyn Peers>) -> Self {
        self.succession.peers = Some(peers);
        self
    }

    /// Leaves a waiting request to the lock holder. `reason` is why it does not begin here. Returns when to check again.
    pub(super) async fn wait_for_holder(&self, view: &RunView, reason: Reason) -> Duration {
        if self.requests.state.lock().waiting().is_some_and(|open| open.waits_for.is_none()) {
            self.waits_for(view.id, reason.clone());
        }
        let (again, trouble) = self.forward_request(view).await;
        self.waits_for(view.id, trouble.unwrap_or(reason));
        // As soon as the lock is acquired or lost.
        again.min(self.succession.lock.view().changes_in().unwrap_or(RECHECK_INTERVAL))
    }

    /// Offers a waiting request to the lock holder, unless the next offer is not due yet. Returns when to check again,
    /// and the reason if the holder did not accept it.
    async fn forward_request(&self, view: &RunView) -> (Duration, Option<Reason>) {
        let (Some(holder), Some(peers)) = (self.succession.lock.view().holder(), &self.succession.peers) else {
            return (RECHECK_INTERVAL, None);
        };
        let what = PendingOffer {
            to: holder.clone(),
            run: view.id,
            alerts: view.open_alerts().cloned().collect(),
            approved: view.approved.is_some(),
        };
        let mut failures = 0;
        if let Some(last) = self.requests.state.lock().last_offer.as_ref().filter(|last| last.what == what) {
            failures = last.failures;
            let left = last.again_at.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return (left, last.trouble.clone());
            }
        }
        let recorded = match self.offer(peers.as_ref(), &what, view).await {
            Ok(offered) => self.record_offer(view, offered).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let (again, failures, trouble) = match recorded {
            Ok(again) => (again, 0, None),
            Err(detail) => {
                let again = TRY_AGAIN_AFTER.saturating_mul(1 << failures.min(8)).min(LONGEST_WAIT);
                (again, failures + 1, Some(Reason::NotForwarded { holder: holder.name, detail }))
            }
        };
        let again_at = Instant::now() + again;
        self.requests.state.lock().last_offer = Some(LastOffer { what, again_at, failures, trouble: trouble.clone() });
        (again, trouble)
    }

    async fn offer(&self, peers: &dyn Peers, what: &PendingOffer, view: &RunView) -> Result<OfferOutcome, PeerError> {
        // No replica is to do what an operator has cancelled.
        if let Some(reason) = view.withdrawn() {
            return Ok(OfferOutcome::Ended(Outcome::Stopped { reason }));
        }
        let holder = &what.to;
        let taken = view.forwarded_to.as_ref().filter(|forwarded| forwarded.holder == *holder);
        let is_known = |key: &AlertKey| taken.is_some_and(|taken| taken.alerts.contains(key));
        let new: Vec<_> = what.alerts.iter().filter(|key| !is_known(key)).cloned().collect();
        let over = |run| {
            let reason = Reason::Forwarded { holder: holder.name.clone(), run };
            OfferOutcome::Ended(Outcome::Stopped { reason })
        };
        let (run, alerts) = match taken {
            None if view.request.trigger == Trigger::Manual => {
                let by = view.approved.as_ref().map_or("unknown user", |approval| approval.by.as_str());
                match peers
                    .order(holder, &self.order("run", json!({ "by": by, "members": view.request.members })))
                    .await
                {
                    // It does not know the alerts that joined here.
                    Ok(answer) => (RunId(answer["run"].as_i64().unwrap_or_default()), Vec::new()),
                    // An action is not repeated.
                    Err(PeerError::Refused { status: 409, detail, .. }) => {
                        let reason = Reason::NotForwarded { holder: holder.name.clone(), detail };
                        return Ok(OfferOutcome::Ended(Outcome::Refused { reason }));
                    }
                    Err(error) => return Err(error),
                }
            }
            // What it still has to compare is in the note that the holder has read.
            None if what.alerts.is_empty() => {
                return Ok(OfferOutcome::Ended(Outcome::Stopped { reason: Reason::Resolved }));
            }
            Some(taken) if what.alerts.is_empty() => return Ok(over(taken.run)),
            _ => {
                let taken_as = taken.filter(|_| new.is_empty()).map(|taken| taken.run);
                let alerts = if taken_as.is_none() { new } else { what.alerts.clone() };
                let offer = Notification { taken_as, ..self.forwarded(alerts, AlertStatus::Firing) };
                match peers.notify(holder, &offer).await? {
                    OfferAnswer::Accepted(run) => (run, what.alerts.clone()),
                    OfferAnswer::Ended(run) => return Ok(over(run)),
                    OfferAnswer::Rejected(reason) => {
                        return Ok(OfferOutcome::Ended(Outcome::Stopped { reason }));
                    }
                    OfferAnswer::NotTheHolder => return Ok(OfferOutcome::NotTheHolder),
                }
            }
        };
        if let (Some(approval), true) =
            (&view.approved, view.request.trigger != Trigger::Manual && taken.is_none_or(|taken| taken.run != run))
        {
            self.offer_approval(peers, holder, run, &approval.by).await?;
        }
        Ok(OfferOutcome::Accepted(ForwardedRequest { holder: holder.clone(), run, alerts }))
    }

    /// Records the result of an offer, unless the request was cancelled while the holder answered.
    async fn record_offer(&self, view: &RunView, offered: OfferOutcome) -> Result<Duration, JournalError> {
        let _one_at_a_time = self.requests.admission.lock().await;
        match self.requests.state.lock().waiting().filter(|open| open.id == view.id) {
            // An alert that joined meanwhile was not offered.
            Some(open) if open.request.alerts != view.request.alerts => return Ok(TRY_AGAIN_AFTER),
            Some(_) => {}
            None => return Ok(Duration::ZERO),
        }
        match offered {
            OfferOutcome::Accepted(forwarded) => {
                if view.forwarded_to.as_ref() != Some(&forwarded) {
                    self.shared.journal.append(view.id, Entry::Forwarded(forwarded.clone())).await?;
                    let (cluster, run, holder) = (self.name(), view.id.0, forwarded.holder.name);
                    info!(
                        cluster,
                        run,
                        holder,
                        holders_run = forwarded.run.0,
                        "forwarded the request to the lock holder"
                    );
                }
                Ok(OFFER_INTERVAL)
            }
            OfferOutcome::NotTheHolder => Ok(TRY_AGAIN_AFTER),
            OfferOutcome::Ended(outcome) => self.end_waiting(view.id, outcome).await.map(|()| Duration::ZERO),
        }
    }

    async fn offer_approval(&self, peers: &dyn Peers, to: &Holder, run: RunId, by: &str) -> Result<(), PeerError> {
        let path = ["runs".to_owned(), run.to_string(), "approve".to_owned()];
        match peers.order(to, &PeerOrder { path, body: json!({ "by": by }) }).await {
            // It has begun or ended already.
            Ok(_) | Err(PeerError::Refused { status: 409 | 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Alerts in the form that the other replica accepts: our labels would select the same cluster there.
    fn forwarded(&self, alerts: Vec<AlertKey>, status: AlertStatus) -> Notification {
        let alerts = alerts.into_iter().map(|key| Alert::of(key, status).about(self.name()));
        Notification { alerts: alerts.collect(), forwarded: true, ..Notification::default() }
    }

    /// Informs the holder that alerts of a request it already has no longer fire. Best effort: it measures anyway.
    pub(super) fn forward_resolved(&self, view: &RunView, alerts: &[AlertKey]) {
        let (Some(forwarded), Some(peers)) = (view.forwarded_to.clone(), self.succession.peers.clone()) else { return };
        let notification = self.forwarded(alerts.to_vec(), AlertStatus::Resolved);
        let cluster = self.name().to_owned();
        tokio::spawn(async move {
            if let Err(error) = peers.notify(&forwarded.holder, &notification).await {
                warn!(cluster, %error, "cannot inform the lock holder of resolved alerts");
            }
        });
    }

    fn order(&self, what: &str, body: Value) -> PeerOrder {
        PeerOrder { path: ["clusters".to_owned(), self.name().to_owned(), what.to_owned()], body }
    }

    /// Forwards an action to the holder, if that is another replica; `None` if it is to be executed here.
    pub(super) async fn forward_order(
        &self,
        by: &str,
        command: &Command,
        forwarded: bool,
    ) -> Option<Result<CommandOutcome, CommandError>> {
        let (what, mut body) = match command {
            Command::Pause { reason, lasts } => {
                let mut body = json!({ "reason": reason });
                if let Some(lasts) = lasts {
                    body["for"] = json!(Time::from(*lasts));
                }
                ("pause", body)
            }
            Command::Resume { reason } => ("resume", json!({ "reason": reason })),
            Command::Run { members } => ("run", json!({ "members": members })),
            Command::Cancel { reason } => ("cancel", json!({ "reason": reason })),
        };
        body["by"] = json!(by);
        self.forward_to_holder(self.order(what, body), forwarded).await
    }

    /// The same for the approval or rejection of one of our runs, once it is forwarded. Before that, it is recorded
    /// here, and an approval is forwarded with the run.
    pub(super) async fn forward_decision(
        &self,
        view: &RunView,
        decision: &str,
        body: Value,
        forwarded: bool,
    ) -> Option<Result<CommandOutcome, CommandError>> {
        let known = view.forwarded_to.as_ref()?;
        let path = ["runs".to_owned(), known.run.to_string(), decision.to_owned()];
        self.forward_to_holder(PeerOrder { path, body }, forwarded).await
    }

    async fn forward_to_holder(
        &self,
        order: PeerOrder,
        forwarded: bool,
    ) -> Option<Result<CommandOutcome, CommandError>> {
        let view = self.succession.lock.view();
        if !self.succession.lock.is_needed() || view.held().is_some() {
            return None;
        }
        let known = view.holder();
        if forwarded {
            let holder = known.map_or_else(|| "another replica".to_owned(), |holder| holder.name);
            return Some(Err(CommandError::Refused(Reason::LockHeldElsewhere { holder })));
        }
        let (Some(holder), Some(peers)) = (known, &self.succession.peers) else {
            let detail = match view.may_begin() {
                Err(reason) => reason.to_string(),
                Ok(_) => "the lock is changing its holder".to_owned(),
            };
            return Some(Err(CommandError::NoHolder { detail }));
        };
        Some(match peers.order(&holder, &order).await {
            Ok(answer) => {
                info!(
                    cluster = self.name(),
                    holder = holder.name,
                    action = order.path.join("/"),
                    "forwarded an action to the lock holder"
                );
                Ok(CommandOutcome::Forwarded { holder: holder.name, answer })
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
