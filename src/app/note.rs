//! What one holder of a cluster's lock passes to the next: it is read and merged before anything starts under a new
//! term, and written after every action and every run.
//!
//! If the note cannot be read, this replica starts nothing. If it cannot be written, nothing is delayed: it is retried
//! with each renewal.

use std::{sync::atomic::Ordering, time::Duration};

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::{cluster::Cluster, lock::Round, succession::Inherited};
use crate::{
    core::{
        cluster::{Fact, Unknown},
        history::{RunId, RunView},
        ledger::Ledger,
        lock::{LockChange, Term},
        note::SuccessionNote,
    },
    ports::{etcd::Etcd, journal::Journal, lock::LockStore},
};

/// The renewals must not wait longer.
const NOTE_LIMIT: Duration = Duration::from_secs(5);

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// Stays a candidate for the cluster's lock, renews it, and keeps the note up to date. Never ends; to be dropped
    /// when the process ends, before [`Cluster::release_lock`].
    pub async fn keep_lock(&self) {
        let Some(store) = self.succession.lock.store().cloned() else { return std::future::pending().await };
        loop {
            let round = self.succession.lock.round().await;
            self.record_lock_change(&round);
            let next = Instant::now() + round.next_after;
            loop {
                let settled = match self.succession.lock.view().held() {
                    Some(term) => {
                        self.inherit(store.as_ref(), term).await && self.write_note_if_due(store.as_ref(), term).await
                    }
                    None => false,
                };
                tokio::select! {
                    biased;
                    () = sleep_until(next) => break,
                    // Failures are retried after the next renewal.
                    () = self.succession.wake.notified(), if settled => {}
                }
            }
        }
    }

    fn record_lock_change(&self, round: &Round) {
        let cluster = self.name();
        match (round.change, &round.renewal_error) {
            (LockChange::Gained(term), _) => info!(cluster, term = term.0, "acquired the cluster's lock"),
            (LockChange::Lost(term), trouble) => {
                let detail = trouble.as_deref().unwrap_or("another replica holds it");
                warn!(cluster, term = term.0, detail, "lost the cluster's lock: starting no further member");
            }
            (LockChange::Same, Some(trouble)) => warn!(cluster, detail = trouble, "cannot renew the cluster's lock"),
            (LockChange::Same, None) => {}
        }
        self.shared.counters.lock(cluster, round.change != LockChange::Same, round.renewal_error.is_some());
        // Tasks that wait for the lock, or act under it, check again.
        self.requests.wake.notify_one();
    }

    /// Releases the lock: from here on nothing starts, and another replica may act.
    pub async fn release_lock(&self) {
        let lock = &self.succession.lock;
        if let Some(term) = self.held_term().filter(|_| lock.is_needed()) {
            info!(cluster = self.name(), term = term.0, "releasing the lock");
            // Without the last holders' note merged in, a new note would lose it.
            if let (true, Some(store)) = (self.succession.has_inherited(term), lock.store()) {
                self.write_note_if_due(store.as_ref(), term).await;
            }
        }
        lock.release().await;
    }

    /// Reads and merges what the last holders left, once for each term.
    async fn inherit(&self, store: &dyn LockStore, term: Term) -> bool {
        if self.succession.has_inherited(term) {
            return true;
        }
        let state = match self.try_to_inherit(store, term).await {
            Ok(()) => Inherited::Under(term),
            Err(detail) => {
                warn!(
                    cluster = self.name(),
                    term = term.0,
                    detail,
                    "cannot read what the last lock holder left; no run starts, retrying"
                );
                self.shared.counters.lock(self.name(), false, true);
                Inherited::Failed(detail)
            }
        };
        let done = matches!(state, Inherited::Under(_));
        *self.succession.inherited.lock() = state;
        if done {
            // The note must name the current holder.
            self.succession.mark_note_due();
            self.requests.wake.notify_one();
        }
        done
    }

    async fn try_to_inherit(&self, store: &dyn LockStore, term: Term) -> Result<(), String> {
        let read = timeout(NOTE_LIMIT, store.read_note()).await;
        let note: Fact<_> = read.unwrap_or_else(|_| Err(Unknown::timed_out("the last holder's note", NOTE_LIMIT)));
        let Some(note) = note.map_err(|unknown| unknown.detail)? else { return Ok(()) };
        let digest = SuccessionNote::read(&note).map_err(|error| format!("it cannot be parsed: {error}"))?;
        let run_since = digest.run_since;
        let mut digest = digest.not_after(self.shared.clock.now());
        let ledger = self.ledger().await.map_err(|error| error.to_string())?;
        // A run may have ended since this replica left a note itself.
        let is_own = digest.holder == self.succession.lock.me();
        let is_older = |run: &&RunView| run.started_at.is_some() || (run.outcome.is_some() && !is_own);
        digest.inherited_after = Some(ledger.runs.iter().rev().find(is_older).map_or(RunId(0), |run| run.id));
        // This process may follow one to its end that it began before it lost the lock; and its own note may be from
        // before that end.
        let was_under_way = |run: &RunView| run.outcome.is_none() || (is_own && run.started_at == run_since);
        let under_way = ledger.runs.iter().rev().find(|run| run.started_at.is_some() && was_under_way(run));
        digest.inherited_during = under_way.map(|run| run.id);
        // Then this journal knows what became of the request, too.
        let ended_here = is_own && under_way.is_some_and(|run| run.outcome.is_some());
        let is_others = |last: &SuccessionNote| last.inherited_during == digest.inherited_during && !last.is_own;
        digest.is_own = is_own && !ledger.inherited.as_ref().is_some_and(is_others);
        info!(
            cluster = self.name(),
            term = term.0,
            last_holder = digest.holder,
            last_term = digest.term.0,
            run_since = digest.run_since.map(|since| since.to_string()),
            "read what the last lock holder left"
        );
        let request = digest.request.clone().filter(|_| !ended_here);
        {
            // An offer in between would find its due time decided, and no request that it is part of.
            let _one_at_a_time = self.requests.admission.lock().await;
            self.shared.journal.inherit(self.name(), digest).await.map_err(|error| error.to_string())?;
            if let Some(request) = request {
                self.inherit_request(request, is_own).await.map_err(|error| error.to_string())?;
            }
        }
        self.ledger().await.map(drop).map_err(|error| error.to_string())
    }

    /// Writes what is known here, if it is new.
    async fn write_note_if_due(&self, store: &dyn LockStore, term: Term) -> bool {
        if !self.succession.note_due.swap(false, Ordering::SeqCst) {
            return true;
        }
        let Err(detail) = self.try_write_note(store, term).await else { return true };
        warn!(cluster = self.name(), term = term.0, detail, "could not save state for the next lock holder; retrying");
        self.shared.counters.lock(self.name(), false, true);
        self.succession.note_due.store(true, Ordering::SeqCst);
        false
    }

    async fn try_write_note(&self, store: &dyn LockStore, term: Term) -> Result<(), String> {
        let ledger = self.ledger().await.map_err(|error| error.to_string())?;
        let (run_since, now) = (self.run_since(&ledger), self.shared.clock.now());
        let request = ledger.standing_request(now);
        let mut digest = ledger.digest();
        // A run that a clock far ahead recorded decides nothing that is still to come.
        digest.scheduled_until = digest.scheduled_until.min(Some(now));
        let note = digest.write(self.succession.lock.me(), term, run_since, request);
        let left = timeout(NOTE_LIMIT, store.write_note(term, &note)).await;
        left.unwrap_or_else(|_| Err(Unknown::timed_out("leaving the note", NOTE_LIMIT)))
            .map_err(|unknown| unknown.detail)
    }

    fn run_since(&self, ledger: &Ledger) -> Option<Timestamp> {
        ledger.run(self.active_run()?)?.started_at
    }
}
