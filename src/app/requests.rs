//! The requests of a cluster: runs by alerts and by operators, approvals, pauses. Each is in the journal before it is
//! acknowledged, and every decision is based on the journal, not on memory.

use std::{collections::BTreeMap, convert::Infallible, future::pending, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{cluster::Cluster, detached::to_its_end, ledger, log::LogProgress};
use crate::{
    core::{
        history::{AlertKey, Cancellation, Entry, Outcome, Request, RunId, Trigger},
        hold::OpenRun,
        ledger::Ledger,
        note::StandingRequest,
        order::Order,
        reason::Reason,
    },
    ports::{
        etcd::Etcd,
        journal::{Journal, JournalError},
        progress::Progress,
        service::{AlertDecision, Command, CommandError},
    },
};

/// A group with more alerts about one cluster adds no information.
const MAX_ALERTS: usize = 200;
const READ_AGAIN_AFTER: Duration = Duration::from_mins(1);

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// Reads the current state from the journal.
    pub(super) async fn ledger(&self) -> Result<Ledger, JournalError> {
        // One after the other: an older state must not overwrite a newer one.
        let _one_at_a_time = self.requests.reading.lock().await;
        let ledger = ledger::read(&self.shared.journal, self.name()).await?;
        let (speeds, mismatch, firing) = (ledger.speeds(), ledger.mismatch(), ledger.firing());
        {
            let mut state = self.requests.state.lock();
            state.remember(&ledger);
            state.unread = false;
            (state.ledger, state.speeds, state.mismatch, state.firing) = (ledger.clone(), speeds, mismatch, firing);
        }
        // It is read after every change.
        self.shared.changes.announce();
        Ok(ledger)
    }

    /// Reads the journal where no worker does, unless it has been read. Never ends.
    pub(super) async fn read_at_start(&self) -> Infallible {
        while self.requests.state.lock().unread {
            let turn = self.shared.idle_turn().await;
            if let Err(error) = self.ledger().await {
                warn!(cluster = self.name(), %error, "cannot read the cluster's journal; retrying");
                drop(turn);
                sleep(READ_AGAIN_AFTER).await;
            }
        }
        pending().await
    }

    /// Resumes a run of an earlier process. Should there be several, the first serves for all, and the others end.
    pub async fn requeue(&self, run: RunId, request: Request) -> Result<(), JournalError> {
        let trigger = request.trigger;
        if self.requests.state.lock().open.is_none() {
            self.queue(run, request);
            return Ok(());
        }
        self.end_run(run, trigger, Outcome::Stopped { reason: Reason::AlreadyRequested }).await
    }

    /// Leaves the request to the worker.
    fn queue(&self, run: RunId, request: Request) {
        self.requests.state.lock().open = Some(OpenRun { id: run, request, is_active: false, waits_for: None });
        self.requests.wake.notify_one();
    }

    /// Records the end of a run that was not driven by this process.
    pub(super) async fn end_run(&self, run: RunId, trigger: Trigger, outcome: Outcome) -> Result<(), JournalError> {
        self.shared.journal.append(run, Entry::Finished(outcome.clone())).await?;
        self.shared.counters.run_ended(self.name(), trigger, &outcome, None);
        LogProgress::new(self.name().to_owned(), run).finished(&outcome, Duration::ZERO);
        Ok(())
    }

    /// Decides about alerts that concern this cluster. When it returns accepted, the request is in the journal.
    pub async fn request(self: &Arc<Self>, alerts: Vec<AlertKey>) -> Result<AlertDecision, JournalError> {
        self.offered(alerts, None).await
    }

    /// The same; `taken_as` is for a request that another replica offers again: see [`Ledger::left_of_offer`].
    pub(super) async fn offered(
        self: &Arc<Self>,
        alerts: Vec<AlertKey>,
        taken_as: Option<RunId>,
    ) -> Result<AlertDecision, JournalError> {
        let cluster = Arc::clone(self);
        to_its_end(async move { cluster.decide(alerts, taken_as).await }).await?
    }

    /// Alerts no longer fire: a request without other alerts is cancelled, unless its run is in progress.
    pub async fn resolve(self: &Arc<Self>, alerts: Vec<AlertKey>) -> Result<Option<RunId>, JournalError> {
        let cluster = Arc::clone(self);
        to_its_end(async move { cluster.resolve_now(&alerts).await }).await?
    }

    /// Executes an operator's action.
    pub async fn command(self: &Arc<Self>, by: String, command: Command) -> Result<Option<RunId>, CommandError> {
        let cluster = Arc::clone(self);
        to_its_end(async move { cluster.command_now(by, command).await }).await?
    }

    /// From now on nothing new is accepted: the cluster is no longer configured.
    pub(super) fn retire(&self) {
        self.requests.state.lock().retired = true;
    }

    pub(super) fn is_retired(&self) -> bool {
        self.requests.state.lock().retired
    }

    async fn decide(&self, mut alerts: Vec<AlertKey>, taken_as: Option<RunId>) -> Result<AlertDecision, JournalError> {
        let _one_at_a_time = self.requests.admission.lock().await;
        alerts.truncate(MAX_ALERTS);
        let cluster = self.name().to_owned();
        if self.is_retired() {
            return Ok(AlertDecision::Ignored { cluster: Some(cluster), reason: Reason::Removed });
        }
        let (ledger, now) = (self.ledger().await?, self.shared.clock.now());
        alerts = match ledger.without_rejected(alerts, &self.rules().policy, now) {
            Ok(alerts) => alerts,
            Err(rejection) => {
                let (run, reason) = (rejection.run, rejection.reason_elsewhere());
                return Ok(AlertDecision::Duplicate { cluster, run, reason });
            }
        };
        let left = ledger.left_of_offer(&alerts, taken_as, now);
        if left.is_empty() && !alerts.is_empty() {
            let (run, reason) = ledger.answer_to_offer(&alerts, taken_as, self.succession.lock.me(), now);
            return Ok(AlertDecision::Duplicate { cluster, run: Some(run), reason });
        }
        self.place(&ledger, StandingRequest::of_alerts(left), now).await
    }

    /// Joins what is wanted to the open request, or accepts a new one for it. The caller holds the admission.
    pub(super) async fn place(
        &self,
        ledger: &Ledger,
        wanted: StandingRequest,
        now: Timestamp,
    ) -> Result<AlertDecision, JournalError> {
        let cluster = self.name().to_owned();
        if let Some((run, reason)) = self.join_open_request(ledger, &wanted).await? {
            return Ok(AlertDecision::Duplicate { cluster, run: Some(run), reason });
        }
        let wanted = match ledger.next_attempt(now) {
            Some(next) if next.covers(&wanted) => {
                let reason = Reason::RetryPending { at: next.at };
                return Ok(AlertDecision::Duplicate { cluster, run: Some(next.run), reason });
            }
            // A new alert requests the next run now; after a failure, the back-off holds it.
            Some(next) => next.joined_by(wanted),
            None => wanted,
        };
        let alerts = AlertKey::described_within(wanted.alerts.into_iter().take(MAX_ALERTS).collect(), &[]);
        let run = self.accept(wanted.trigger, alerts, wanted.members, wanted.approved_by).await?;
        Ok(AlertDecision::Accepted { cluster, run })
    }

    /// One run serves all that wants a cluster defragmented: what comes later joins the request that is open.
    async fn join_open_request(
        &self,
        ledger: &Ledger,
        wanted: &StandingRequest,
    ) -> Result<Option<(RunId, Reason)>, JournalError> {
        let Some(OpenRun { id: run, request, .. }) = self.requests.state.lock().open_in(ledger) else {
            return Ok(None);
        };
        // An alert that was resolved and fires again counts again.
        let stands = |key: &AlertKey| {
            let resolved = ledger.run(run).is_some_and(|view| view.resolved.contains(key));
            request.alerts.contains(key) && !resolved
        };
        let new: Vec<_> = wanted.alerts.iter().filter(|key| !stands(key)).cloned().collect();
        if new.is_empty() && wanted.approved_by.is_none() {
            return Ok(Some((run, Reason::DuplicateAlert)));
        }
        if !new.is_empty() && request.alerts.len() + new.len() <= MAX_ALERTS {
            let alerts = AlertKey::described_within(new, &request.alerts);
            self.shared.journal.append(run, Entry::Joined { alerts }).await?;
        }
        if let Some(by) = wanted.approved_by.clone() {
            let (requested, members) = (wanted.trigger == Trigger::Manual, wanted.members.clone());
            self.shared.journal.append(run, Entry::Approved { by, requested, members }).await?;
        }
        self.ledger().await?;
        // The new alert may be about an emergency.
        self.requests.wake.notify_one();
        Ok(Some((run, Reason::AlreadyRequested)))
    }

    /// Adopts the request that the last lock holder left: a new one, or as a part of the one here. `is_own`: that holder
    /// was this replica. The caller holds the admission.
    pub(super) async fn inherit_request(&self, mut left: StandingRequest, is_own: bool) -> Result<(), JournalError> {
        let (ledger, now) = (self.ledger().await?, self.shared.clock.now());
        if left.approved_by.is_none() {
            // The note may be older than a rejection here.
            let Ok(alerts) = ledger.without_rejected(left.alerts, &self.rules().policy, now) else { return Ok(()) };
            left.alerts = alerts;
        }
        let stands = self.standing_run(&ledger).is_some();
        // It may be older than the end of this replica's own run, too.
        let own = Ledger { inherited: None, ..ledger };
        let is_over = |key: &AlertKey| key.due().is_some_and(|due| own.is_decided(due, now));
        if stands {
            // Alerts are offered again by the replicas that have received them; a due time is known here alone.
            left.alerts.retain(|key| key.due().is_some() && !is_over(key));
            if is_own {
                // What operators wanted of this replica is in its journal, which may know that it is done.
                left = StandingRequest::of_alerts(left.alerts);
            }
        }
        let is_needed = if stands { left.approved_by.is_some() } else { left.alerts.is_empty() };
        if left.alerts.iter().all(is_over) && !is_needed || self.is_retired() {
            return Ok(());
        }
        if let AlertDecision::Accepted { run, .. } = self.place(&own, left, now).await? {
            info!(cluster = self.name(), run = run.0, "adopted the last lock holder's request");
        }
        Ok(())
    }

    /// The run of the open request: one that waits or is in progress, or the last one, if it is to be retried.
    fn standing_run(&self, ledger: &Ledger) -> Option<RunId> {
        let open = self.requests.state.lock().open_in(ledger).map(|open| open.id);
        open.or_else(|| ledger.next_attempt(self.shared.clock.now()).map(|next| next.run))
    }

    /// Records a request and leaves it to the worker. The caller holds the admission, and no request is open.
    async fn accept(
        &self,
        trigger: Trigger,
        alerts: Vec<AlertKey>,
        members: Vec<String>,
        approved_by: Option<String>,
    ) -> Result<RunId, JournalError> {
        let request = Request { cluster: self.name().to_owned(), trigger, alerts, members };
        let run = self.shared.journal.accept(request.clone()).await?;
        self.queue(run, request);
        if let Some(by) = approved_by
            && let Err(error) = self.shared.journal.append(run, Entry::approved(by)).await
        {
            // Without it, the run waits for approval again where it needs one.
            error!(cluster = self.name(), %error, run = run.0, "cannot record who approved the run");
        }
        Ok(run)
    }

    async fn resolve_now(&self, alerts: &[AlertKey]) -> Result<Option<RunId>, JournalError> {
        let _one_at_a_time = self.requests.admission.lock().await;
        let ledger = self.ledger().await?;
        let standing = self.standing_run(&ledger);
        self.resolve_over(&ledger, standing, alerts).await?;
        let Some(view) = standing.and_then(|run| ledger.run(run)) else { return Ok(None) };
        let open = view.open_alerts().map(AlertKey::bare);
        let (gone, left): (Vec<_>, Vec<_>) = open.partition(|key| alerts.contains(key));
        if gone.is_empty() {
            return Ok(None);
        }
        self.shared.journal.append(view.id, Entry::Resolved { alerts: gone.clone() }).await?;
        self.forward_resolved(view, &gone);
        let waits = self.requests.state.lock().waits(view.id) && view.started_at.is_none();
        // What was defragmented is compared all the same.
        let ends = left.is_empty() && view.request.trigger != Trigger::Manual && !ledger.earlier_work().uncompared;
        if waits && ends {
            self.end_waiting(view.id, Outcome::Stopped { reason: Reason::Resolved }).await?;
            return Ok(Some(view.id));
        }
        self.ledger().await?;
        self.requests.wake.notify_one();
        Ok(None)
    }

    /// Records the end of alerts whose request is over: until then they are shown as firing.
    async fn resolve_over(
        &self,
        ledger: &Ledger,
        standing: Option<RunId>,
        alerts: &[AlertKey],
    ) -> Result<(), JournalError> {
        let mut over: BTreeMap<RunId, Vec<AlertKey>> = BTreeMap::new();
        for (key, run) in ledger.firing() {
            if standing != Some(run) && alerts.contains(&key) {
                over.entry(run).or_default().push(key.bare());
            }
        }
        let changes = !over.is_empty();
        for (run, alerts) in over {
            self.shared.journal.append(run, Entry::Resolved { alerts }).await?;
        }
        if changes {
            self.ledger().await?;
        }
        Ok(())
    }

    /// Ends the waiting request, unless it has ended or begun meanwhile. The caller holds the admission.
    pub(super) async fn end_waiting(&self, run: RunId, outcome: Outcome) -> Result<(), JournalError> {
        let waiting = self.requests.state.lock().waiting().filter(|open| open.id == run).cloned();
        let Some(OpenRun { request, .. }) = waiting else { return Ok(()) };
        self.end_run(run, request.trigger, outcome).await?;
        self.forget(run).await;
        self.requests.wake.notify_one();
        Ok(())
    }

    /// Creates the next run of an open request when it is due.
    pub(super) async fn try_again(&self) -> Result<(), JournalError> {
        let _one_at_a_time = self.requests.admission.lock().await;
        let (ledger, now) = (self.ledger().await?, self.shared.clock.now());
        let open = self.requests.state.lock().open_in(&ledger).is_some();
        let due = ledger.next_attempt(now).filter(|next| !open && !self.is_retired() && next.at <= now);
        let Some(next) = due else { return Ok(()) };
        let run = self.accept(next.trigger, next.alerts, next.members, next.approved_by).await?;
        info!(cluster = self.name(), run = run.0, last_run = next.run.0, "the request is still open: next run");
        Ok(())
    }

    async fn command_now(&self, by: String, command: Command) -> Result<Option<RunId>, CommandError> {
        let _one_at_a_time = self.requests.admission.lock().await;
        let cluster = self.name();
        if self.is_retired() {
            return Err(CommandError::UnknownCluster(cluster.to_owned()));
        }
        match command {
            Command::Pause { reason, lasts } => {
                let until = lasts.and_then(|lasts| self.shared.clock.now().checked_add(lasts).ok());
                let order = Order::Pause { by: by.clone(), reason: reason.clone(), until };
                self.shared.journal.order(cluster, order).await?;
                info!(cluster, by, reason, until = until.map(|until| until.to_string()), "paused");
            }
            Command::Resume { reason } => {
                let last_ended = self.ledger().await?.last_ended();
                let order = Order::Resume { by: by.clone(), reason: reason.clone(), last_ended };
                self.shared.journal.order(cluster, order).await?;
                info!(cluster, by, reason, "resumed");
            }
            Command::Run { members } => return self.run_for(by, members).await.map(Some),
            Command::Cancel { reason } => {
                let run = self.standing_run(&self.ledger().await?);
                let run = run.ok_or_else(|| CommandError::NothingToCancel(cluster.to_owned()))?;
                let cancellation = Cancellation { by: by.clone(), reason: reason.clone() };
                self.shared.journal.append(run, Entry::Cancelled(cancellation)).await?;
                info!(cluster, run = run.0, by, reason, "cancelled the request");
            }
        }
        self.ledger().await?;
        self.requests.wake.notify_one();
        self.succession.mark_note_due();
        Ok(None)
    }

    async fn run_for(&self, by: String, members: Vec<String>) -> Result<RunId, CommandError> {
        let (ledger, now) = (self.ledger().await?, self.shared.clock.now());
        let open = self.requests.state.lock().open_in(&ledger);
        if open.as_ref().is_some_and(|open| open.is_active) {
            return Err(CommandError::Refused(Reason::AlreadyRequested));
        }
        if let Some(reason) = ledger.mismatch().or_else(|| ledger.breaker(&self.rules().policy, now)) {
            self.shared.counters.not_taken(self.name(), &reason);
            return Err(CommandError::Refused(reason));
        }
        if let Some(OpenRun { id: run, request, .. }) = open {
            if !members.is_empty() {
                return Err(CommandError::Refused(Reason::AnotherRunWaits { run }));
            }
            if request.trigger == Trigger::Manual {
                return Err(CommandError::Refused(Reason::AlreadyRequested));
            }
            // There is one request at a time: the waiting one becomes the operator's.
            self.shared.journal.append(run, Entry::Approved { by: by.clone(), requested: true, members }).await?;
            info!(cluster = self.name(), run = run.0, by, "an operator started the waiting run");
            self.succession.mark_note_due();
            self.ledger().await?;
            self.requests.wake.notify_one();
            return Ok(run);
        }
        // Requesting implies approving.
        let run = self.accept(Trigger::Manual, Vec::new(), members, Some(by.clone())).await?;
        info!(cluster = self.name(), run = run.0, by, "an operator requested a run");
        self.succession.mark_note_due();
        Ok(run)
    }
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
