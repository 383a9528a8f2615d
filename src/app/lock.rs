//! Keeps one replica a candidate for the lock of one cluster, and says whether it may act.
//!
//! One task per cluster renews ([`Lock::round`], driven by `app::note`); all others use a [`LockView`], which
//! answers from memory and from the monotonic clock. The two are separate on purpose: even if the task hangs, or the
//! process was suspended, the view must not say yes for longer than the store promised.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    core::{
        cluster::{Fact, Unknown},
        lock::{Holder, LockAnswer, LockChange, LockState, SETTLING, Term},
        reason::Reason,
    },
    ports::{etcd::Permit, lock::LockStore},
};

/// The renewal interval is this part of the TTL, so that several may fail before the lock is lost …
const RENEWALS_PER_TTL: u32 = 12;
/// … but a store is not queried more often than this …
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// … and at least this often.
const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// A follower checks this often, so that it acquires the lock soon after an orderly release.
const FOLLOWER_INTERVAL: Duration = Duration::from_secs(3);
/// Time limit of one round of calls to the store, all its endpoints included.
const ROUND_LIMIT: Duration = Duration::from_secs(20);
/// Time limit of the last call of an ending process: if it fails, the next holder waits for the TTL, which is harmless.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

pub struct Lock {
    store: Option<Arc<dyn LockStore>>,
    me: String,
    settling: Duration,
    state: watch::Sender<LockState>,
    /// The term in which it was held at the last report.
    observed_term: Mutex<Option<Term>>,
    epoch: Instant,
}

/// What is known of a lock, for tasks that want to act. Cheap to copy.
#[derive(Clone, Debug)]
pub struct LockView {
    state: watch::Receiver<LockState>,
    epoch: Instant,
}

/// The result of one round of renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Whether the lock was acquired or lost.
    pub change: LockChange,
    /// The store's error, if it did not answer.
    pub renewal_error: Option<String>,
    pub next_after: Duration,
}

impl Lock {
    /// No lock: this process is the only one that acts.
    pub fn none() -> Self {
        Self::with(None, "", Duration::ZERO, LockState::always())
    }

    /// No lock, and nothing to act on: this process only observes.
    pub fn never() -> Self {
        let detail = "this process only exports metrics".to_owned();
        Self::with(None, "", Duration::ZERO, LockState::Unknown { detail })
    }

    /// The lock in this store, for the replica of this name.
    pub fn over(store: Arc<dyn LockStore>, me: &str) -> Self {
        Self::with(Some(store), me, SETTLING, LockState::unknown())
    }

    fn with(store: Option<Arc<dyn LockStore>>, me: &str, settling: Duration, state: LockState) -> Self {
        let (state, observed_term) = (watch::Sender::new(state), Mutex::default());
        Self { store, me: me.to_owned(), settling, state, observed_term, epoch: Instant::now() }
    }

    pub fn view(&self) -> LockView {
        LockView { state: self.state.subscribe(), epoch: self.epoch }
    }

    pub fn me(&self) -> &str {
        &self.me
    }

    /// Whether a lock is used.
    pub fn is_needed(&self) -> bool {
        self.store.is_some()
    }

    /// The store, if a lock is used.
    pub fn store(&self) -> Option<&Arc<dyn LockStore>> {
        self.store.as_ref()
    }

    pub async fn round(&self) -> Round {
        let Some(store) = &self.store else {
            return Round { change: LockChange::Same, renewal_error: None, next_after: MAX_INTERVAL };
        };
        // Measured before the request is sent: the store's promise counts from here.
        let sent_at = self.epoch.elapsed();
        let limited = timeout(ROUND_LIMIT, store.renew_candidacy()).await;
        let answer = limited.unwrap_or_else(|_| Err(Unknown::timed_out("the lock's store", ROUND_LIMIT)));
        self.heard(sent_at, &answer)
    }

    fn heard(&self, sent_at: Duration, answer: &Fact<LockAnswer>) -> Round {
        let now = self.epoch.elapsed();
        let after = self.state.borrow().heard(sent_at, now, self.settling, answer);
        // Compared with the last report, not with the actual state: a process suspended past the validity has a loss to
        // report.
        let before = std::mem::replace(&mut *self.observed_term.lock(), after.held(now));
        let change = LockState::change(before, after.held(now));
        let interval = match answer {
            Ok(LockAnswer::Held { ttl, .. }) => (*ttl / RENEWALS_PER_TTL).clamp(MIN_INTERVAL, MAX_INTERVAL),
            Ok(LockAnswer::Elsewhere { .. }) => FOLLOWER_INTERVAL,
            // A failed renewal is retried soon, because the validity is running out.
            Err(_) => MIN_INTERVAL * 2,
        };
        // A validity that ends before the next round is reported at once, not a round later.
        let next_after = after.held(now).and(after.next(now)).map_or(interval, |next| {
            let left = next.saturating_sub(now) + Duration::from_millis(1);
            interval.min(left.max(MIN_INTERVAL / 4))
        });
        self.state.send_if_modified(|state| {
            let differs = *state != after;
            *state = after;
            differs
        });
        Round { change, renewal_error: answer.as_ref().err().map(|unknown| unknown.detail.clone()), next_after }
    }

    /// Releases the lock. From here on nothing starts in this process.
    pub async fn release(&self) {
        let Some(store) = &self.store else { return };
        self.state.send_replace(LockState::Unknown { detail: "this replica has released it".to_owned() });
        if timeout(RELEASE_LIMIT, store.release()).await.is_err() {
            tracing::warn!("could not release the lock in time: the next holder waits until it expires");
        }
    }
}

impl LockView {
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The term, while this replica certainly holds the lock.
    pub fn held(&self) -> Option<Term> {
        self.state.borrow().held(self.now())
    }

    /// The term under which something may start now, or why nothing may.
    pub fn may_begin(&self) -> Result<Term, Reason> {
        self.state.borrow().may_begin(self.now())
    }

    /// The other replica that holds it, if known.
    pub fn holder(&self) -> Option<Holder> {
        match &*self.state.borrow() {
            LockState::Elsewhere { holder } => Some(holder.clone()),
            _ => None,
        }
    }

    /// How long until the state changes by itself.
    pub fn changes_in(&self) -> Option<Duration> {
        let now = self.now();
        Some(self.state.borrow().next(now)?.saturating_sub(now))
    }

    /// Permits RPCs of what began under this term, for as long as the term lasts.
    pub fn permit(&self, term: Term) -> TermPermit {
        TermPermit { view: self.clone(), term }
    }

    /// Resolves when what began under this term must send nothing more.
    pub async fn lost(&self, term: Term) -> Reason {
        let mut state = self.state.clone();
        loop {
            if let Some(reason) = state.borrow_and_update().lost(term, self.now()) {
                return reason;
            }
            // Never, if there is no lock; then the time is longer than any timer supports.
            let left = self.changes_in().unwrap_or(MAX_INTERVAL).min(Duration::from_hours(24));
            tokio::select! {
                biased;
                changed = state.changed() => if changed.is_err() {
                    // Nothing renews the lock any more: it expires by itself.
                    sleep(left).await;
                },
                () = sleep(left) => {}
            }
        }
    }
}

/// See [`LockView::permit`].
#[derive(Clone, Debug)]
pub struct TermPermit {
    view: LockView,
    term: Term,
}

impl Permit for TermPermit {
    fn refusal(&self) -> Option<Reason> {
        self.view.state.borrow().lost(self.term, self.view.now())
    }
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
