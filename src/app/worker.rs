//! Serves the requests of one cluster, one after the other: waits for what holds them, drives the run, and ends it
//! early when its time is over.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, SemaphorePermit},
    time::sleep,
};
use tracing::{error, info};

use super::{
    cluster::{Cluster, Rules, stop_channel},
    driver,
    live::LiveProgress,
    log,
    notify::NotifyProgress,
    schedule::RECHECK_INTERVAL,
    state_progress::StateProgress,
};
use crate::{
    core::{
        admission::emergency,
        cluster::{AlarmKind, ClusterFacts},
        history::{Outcome, Request, RunId, RunView},
        hold::{Hold, RequestPhase},
        ledger::Ledger,
        lock::Term,
        plan::{Plan, PlanHistory},
        policy::{Policy, VerifyPolicy},
        reason::Reason,
    },
    ports::{etcd::Etcd, journal::Journal, progress::Progress},
};

/// With nothing to do, every change wakes the worker.
const IDLE_INTERVAL: Duration = Duration::from_hours(1);
/// Most backups take less. Other clusters must not wait for the slot of a waiting run: the rest is left to the next
/// run.
const SNAPSHOT_PATIENCE: Duration = Duration::from_mins(1);
/// How soon to retry reading or writing a journal that failed.
const JOURNAL_INTERVAL: Duration = Duration::from_secs(5);

/// The worker's next action.
enum WorkerAction {
    /// Check again after this, or when something happens.
    Wait(Duration),
    /// Wait for another cluster's run to end, or for something to happen.
    WaitForSlot,
    Serve(Attempt),
}

/// A run that begins now, under the rules by which that was decided, whatever a reload changes until its end.
struct Attempt {
    run: RunId,
    request: Request,
    emergency: bool,
    term: Term,
    rules: Arc<Rules>,
}

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// Serves requests until a stop is requested. A run in progress then ends as its rules say; a waiting request stays
    /// in the journal for the next start.
    pub async fn work(&self, mut stop: driver::Stop) {
        let mut slot: Option<OwnedSemaphorePermit> = None;
        loop {
            if stop.borrow().is_some() {
                return;
            }
            let is_idle = self.requests.state.lock().waiting().is_none();
            // Other clusters must not wait for a cluster that waits itself.
            slot = slot.filter(|_| !is_idle);
            let turn = tokio::select! {
                biased;
                turn = self.shared.idle_turn(), if is_idle => turn,
                () = self.requests.wake.notified(), if is_idle => continue,
                // A closed channel means that the process is ending.
                changed = stop.changed(), if is_idle => if changed.is_err() { return } else { continue },
                else => None,
            };
            let next = Box::pin(self.next(slot.is_some(), turn)).await;
            let (time, wants_slot) = match next {
                WorkerAction::Serve(attempt) => {
                    Box::pin(self.serve(&attempt, stop.clone())).await;
                    slot = None;
                    continue;
                }
                WorkerAction::Wait(time) => {
                    // Other clusters must not wait for a cluster that waits itself.
                    slot = None;
                    (time, false)
                }
                WorkerAction::WaitForSlot => (RECHECK_INTERVAL, true),
            };
            tokio::select! {
                biased;
                // Cancel-safe: a permit that is not returned is released.
                permit = self.shared.slots.clone().acquire_owned(), if wants_slot => slot = permit.ok(),
                () = self.requests.wake.notified() => {}
                () = sleep(time) => {}
                // A closed channel means that the process is ending.
                changed = stop.changed() => if changed.is_err() { return },
            }
        }
    }

    /// `turn` is for the read.
    async fn next(&self, has_slot: bool, turn: Option<SemaphorePermit<'_>>) -> WorkerAction {
        // Before the journal is read: it contains what is already queued, and a request that arrives later wakes again.
        let waiting = self.requests.state.lock().waiting().map(|open| open.id);
        let ledger = match self.ledger().await {
            Ok(ledger) => ledger,
            Err(error) => {
                error!(cluster = self.name(), %error, "cannot read the journal; no run starts");
                return WorkerAction::Wait(JOURNAL_INTERVAL);
            }
        };
        drop(turn);
        match waiting.map(|run| (run, ledger.run(run))) {
            None => self.idle(&ledger).await,
            Some((_, Some(view))) if view.outcome.is_none() => self.consider(&ledger, view, has_slot).await,
            Some((run, _)) => {
                self.requests.state.lock().open.take_if(|open| open.id == run);
                WorkerAction::Wait(Duration::ZERO)
            }
        }
    }

    /// Nothing is queued: the next run of an open request may be due.
    async fn idle(&self, ledger: &Ledger) -> WorkerAction {
        let now = self.shared.clock.now();
        let Some(next) = ledger.next_attempt(now) else {
            self.log_served();
            return WorkerAction::Wait(IDLE_INTERVAL);
        };
        if next.at > now {
            return WorkerAction::Wait(self.until(Some(next.at)));
        }
        match self.try_again().await {
            Ok(()) if self.requests.state.lock().waiting().is_some() => WorkerAction::Wait(Duration::ZERO),
            Ok(()) => WorkerAction::Wait(RECHECK_INTERVAL),
            Err(error) => {
                error!(cluster = self.name(), %error, "cannot record the next run of the request");
                WorkerAction::Wait(JOURNAL_INTERVAL)
            }
        }
    }

    /// Logs once why nothing more happens for an alert that still fires although its request is over.
    fn log_served(&self) {
        let request = self.summary().request.filter(|request| request.phase == RequestPhase::Served);
        let Some((request, hold)) = request.and_then(|request| Some((request.clone(), request.hold?))) else { return };
        let code = hold.reason.label();
        let key = (request.served_by.as_ref().map(|served| served.run), code);
        let before = self.requests.state.lock().logged_hold.replace(key);
        if before != Some(key) {
            info!(cluster = self.name(), code, reason = request.words(), "the alert still fires");
        }
    }

    async fn consider(&self, ledger: &Ledger, view: &RunView, has_slot: bool) -> WorkerAction {
        // First: a replica that does not hold the lock knows neither of pauses nor of failed runs.
        let term = match self.succession.may_begin() {
            Ok(term) => term,
            Err(reason) => return WorkerAction::Wait(self.wait_for_holder(view, reason).await),
        };
        let rules = self.rules();
        let policy = &rules.policy;
        let now = self.shared.clock.now();
        let mut hold = ledger.hold(view, policy, false, now);
        let mut urgent = false;
        if let Some(Hold::Wait { reason, .. }) = &hold
            && let Reason::Cooldown { .. }
            | Reason::RetryPending { .. }
            | Reason::DailyLimit { .. }
            | Reason::OutsideWindow { .. } = reason
            && let Some(facts) = self.target.observe_status().await
        {
            if policy.emergency && emergency(&facts) {
                urgent = true;
                hold = ledger.hold(view, policy, true, self.shared.clock.now());
            } else if !matches!(reason, Reason::OutsideWindow { .. }) && is_satisfied(ledger, policy, &facts) {
                // The alert kept firing after the last run; a measurement shows that nothing is left to do.
                hold = Some(Hold::End(Outcome::NothingToDo));
            }
        }
        match hold {
            Some(Hold::Wait { reason, until }) => {
                self.waits_for(view.id, reason);
                return WorkerAction::Wait(self.until(until));
            }
            Some(Hold::End(outcome)) => {
                let _one_at_a_time = self.requests.admission.lock().await;
                return match self.end_waiting(view.id, outcome).await {
                    Ok(()) => WorkerAction::Wait(Duration::ZERO),
                    Err(error) => {
                        error!(cluster = self.name(), run = view.id.0, %error, "cannot record the end of the request");
                        WorkerAction::Wait(JOURNAL_INTERVAL)
                    }
                };
            }
            None => {}
        }
        if let Some(since) = ledger.waits_for_snapshot()
            && let Some(reason) = self.snapshot_in_the_way(ledger, view, policy, since).await
        {
            self.waits_for(view.id, reason);
            return WorkerAction::Wait(RECHECK_INTERVAL);
        }
        if !has_slot && self.shared.slots.available_permits() == 0 {
            self.waits_for(view.id, Reason::TooManyRuns { limit: self.shared.max_concurrent_runs });
        }
        if !has_slot {
            return WorkerAction::WaitForSlot;
        }
        let _one_at_a_time = self.requests.admission.lock().await;
        let still_the_rules = Arc::ptr_eq(&rules, &self.rules());
        let mut state = self.requests.state.lock();
        // A cancellation while waiting for the slot, or a reload while members were asked.
        let Some(open) = state.open.as_mut().filter(|open| open.id == view.id && still_the_rules) else {
            return WorkerAction::Wait(Duration::ZERO);
        };
        (open.is_active, open.waits_for) = (true, None);
        let (run, request) = (open.id, open.request.clone());
        state.emergency = false;
        WorkerAction::Serve(Attempt { run, request, emergency: urgent, term, rules })
    }

    /// Whether an open snapshot still blocks everything that the run could do. A cluster without space does not wait: a
    /// run may be able to disarm the alarm.
    async fn snapshot_in_the_way(
        &self,
        ledger: &Ledger,
        view: &RunView,
        policy: &Policy,
        since: Timestamp,
    ) -> Option<Reason> {
        let facts = self.target.observe().await?;
        let plan = Plan::new(&facts, policy, &PlanHistory::of_run(ledger, view));
        if plan.blocked.is_some() || facts.has_alarm(AlarmKind::NoSpace) {
            return None;
        }
        let mut reason = plan.pending().next()?.0.waits_for.clone()?;
        if let Reason::SnapshotOpen { waited, .. } = &mut reason {
            *waited = Duration::try_from(self.shared.clock.now().duration_since(since)).unwrap_or_default();
        }
        Some(reason)
    }

    pub(super) fn waits_for(&self, run: RunId, reason: Reason) {
        let now = self.shared.clock.now();
        let mut state = self.requests.state.lock();
        // It may have ended meanwhile.
        let Some(open) = state.open.as_mut().filter(|open| open.id == run) else { return };
        // Once for each cause: its times may move.
        let before = open.waits_for.as_ref().filter(|(before, _)| before.label() == reason.label());
        let since = before.map_or(now, |(_, since)| *since);
        if before.is_none() {
            info!(cluster = self.name(), run = run.0, code = reason.label(), %reason, "the request is waiting");
            self.shared.counters.waiting(self.name(), &reason);
        }
        open.waits_for = Some((reason, since));
        drop(state);
        self.shared.changes.announce();
    }

    async fn serve(&self, attempt: &Attempt, stop: driver::Stop) {
        let &Attempt { run, ref request, emergency, term, ref rules } = attempt;
        let log = log::LogProgress::new(self.name().to_owned(), run);
        let state = StateProgress { cluster: self, trigger: request.trigger };
        let so_far = self.requests.state.lock().ledger.run(run).cloned();
        let (shared, asked) = (&*self.shared, (run, request));
        let live = LiveProgress::begin(&self.current_run, &shared.changes, &*shared.clock, asked, so_far.as_ref());
        let reported = NotifyProgress::begin(&shared.notifications, &*shared.clock, asked, so_far.as_ref());
        let lines = self.run_lines.begin(run, Arc::clone(&shared.clock));
        let watchers: [&dyn Progress; 5] = [&log, &state, &lines, &live, &reported];
        let etcd = self.target.etcd();
        let (stop_run, stopped) = stop_channel();
        let held = self.succession.lock.view();
        let permit = held.permit(term);
        let drive = driver::Drive {
            run,
            policy: rules.policy.clone(),
            gates: &rules.gates,
            old_revision: self.target.old_revision(),
            outside_window: !rules.policy.windows.open_at(self.shared.clock.now()),
            snapshot_patience: SNAPSHOT_PATIENCE,
            etcd: &*etcd,
            journal: &self.shared.journal,
            progress: &watchers,
            claims: &self.shared.claims,
            term: self.succession.lock.is_needed().then_some(term),
            permit: &permit,
        };
        self.succession.mark_note_due();
        let mut process = stop.clone();
        let stops = async {
            let reason = tokio::select! {
                biased;
                reason = self.stop_reason(run, stop, &rules.policy, emergency) => reason,
                reason = held.lost(term) => reason,
            };
            stop_run.send_replace(Some(reason));
            // A run that stops for another reason must still learn that the process ends.
            stop_run.send_replace(Some(process_end(&mut process).await));
            pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            // First: a stop that comes before the run begins, or together with an answer, counts at once.
            never = stops => match never {},
            _ = drive.to_its_end(stopped) => {}
        }
        self.forget(run).await;
    }

    /// Forgets a run that has ended, after reading what follows: at no moment is a request that stands unknown.
    pub(super) async fn forget(&self, run: RunId) {
        // For display; decisions read it again.
        if let Err(error) = self.ledger().await {
            error!(cluster = self.name(), %error, "cannot read the journal after a run");
        }
        self.requests.state.lock().open.take_if(|open| open.id == run);
        self.succession.mark_note_due();
    }

    /// Returns when the run in progress must start no further member: the process ends, an operator pauses, or the
    /// window closes.
    async fn stop_reason(&self, run: RunId, mut stop: driver::Stop, policy: &Policy, mut urgent: bool) -> Reason {
        loop {
            if let Some(reason) = stop.borrow().clone() {
                return reason;
            }
            let now = self.shared.clock.now();
            {
                // The cached ledger is enough: every action refreshes it.
                let state = self.requests.state.lock();
                urgent |= policy.emergency && state.emergency;
                if let Some(reason) = state.ledger.stop(run, policy, urgent, now) {
                    return reason;
                }
            }
            let time = self.until(Ledger::next_stop(policy, now));
            tokio::select! {
                biased;
                () = self.requests.wake.notified() => {}
                () = sleep(time) => {}
                changed = stop.changed() => if changed.is_err() { return Reason::ShuttingDown },
            }
        }
    }

    /// Ends the waiting request, if the cluster is no longer configured; at the end of the process it stays in the
    /// journal.
    pub(super) async fn close(&self, mut stop: driver::Stop) {
        let mut reported = false;
        let leaves = |stop: &driver::Stop| stop.borrow().as_ref().is_some_and(|reason| !reason.ends_the_process());
        while leaves(&stop) {
            let one_at_a_time = self.requests.admission.lock().await;
            let waiting = self.requests.state.lock().waiting().map(|open| open.id);
            let Some(run) = waiting else { return };
            let ended = self.end_waiting(run, Outcome::Stopped { reason: Reason::Removed }).await;
            drop(one_at_a_time);
            let Err(error) = ended else { return };
            if !reported {
                error!(cluster = self.name(), %error, "cannot record the end of the request; retrying");
            }
            reported = true;
            tokio::select! {
                biased;
                () = sleep(JOURNAL_INTERVAL) => {}
                _ = process_end(&mut stop) => {}
            }
        }
    }
}

/// Whether these facts show that nothing is left to do, and nothing to compare.
fn is_satisfied(ledger: &Ledger, policy: &Policy, facts: &ClusterFacts) -> bool {
    let past = PlanHistory::of(ledger);
    let compares = past.work.uncompared && policy.verify == VerifyPolicy::Hash;
    !compares && !facts.has_alarm(AlarmKind::NoSpace) && Plan::new(facts, policy, &past).is_satisfied()
}

/// Returns when the process is to end; a closed channel means that, too.
pub(super) async fn process_end(stop: &mut driver::Stop) -> Reason {
    let ends = |reason: &Option<Reason>| reason.as_ref().is_some_and(Reason::ends_the_process);
    match stop.wait_for(ends).await.map(|reason| reason.clone()) {
        Ok(Some(reason)) => reason,
        _ => Reason::ShuttingDown,
    }
}
