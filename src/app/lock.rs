//! Keeps one replica's standing for the lock of one cluster, and tells whether it may act.
//!
//! One task per cluster renews ([`Lock::round`], driven by `app::handover`); everybody else asks a [`LockView`], which answers from memory and
//! from the monotonic clock. The two are apart on purpose: a task that hangs, or a process that was stopped, must not
//! be able to make the view say yes for longer than the store promised.

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

/// With this part of the TTL between two renewals, several may fail before the lock is lost …
const RENEWALS_PER_TTL: u32 = 12;
/// … but a store is not asked more often than this …
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// … and at least this often.
const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// A follower asks this often, so that it takes over soon after an orderly end.
const FOLLOWER_INTERVAL: Duration = Duration::from_secs(3);
/// One round of the store's calls, all its endpoints included. What it needs longer for is not worth waiting for.
const ROUND_LIMIT: Duration = Duration::from_secs(20);
/// The last act of a process that ends: the next holder waits for the TTL else, which is no harm.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

pub struct Lock {
    store: Option<Arc<dyn LockStore>>,
    me: String,
    settling: Duration,
    state: watch::Sender<LockState>,
    /// Under which term it was ours when that was last told.
    observed_term: Mutex<Option<Term>>,
    epoch: Instant,
}

/// What is known of a lock, for whoever wants to act. Cheap to copy.
#[derive(Clone, Debug)]
pub struct LockView {
    state: watch::Receiver<LockState>,
    epoch: Instant,
}

/// What one round of renewal brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    pub change: LockChange,
    /// What the store said instead of an answer.
    pub renewal_error: Option<String>,
    pub next_after: Duration,
}

impl Lock {
    /// No lock: this process is the only one that acts.
    pub fn none() -> Self {
        Self::with(None, "", Duration::ZERO, LockState::always())
    }

    /// No lock, and nothing to act on: this process only looks.
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

    /// Whether there is one to be held.
    pub fn is_needed(&self) -> bool {
        self.store.is_some()
    }

    /// The store, where there is one.
    pub fn store(&self) -> Option<&Arc<dyn LockStore>> {
        self.store.as_ref()
    }

    pub async fn round(&self) -> Round {
        let Some(store) = &self.store else {
            return Round { change: LockChange::Same, renewal_error: None, next_after: MAX_INTERVAL };
        };
        // Before the first byte is on its way: what the store promises counts from here.
        let sent_at = self.epoch.elapsed();
        let limited = timeout(ROUND_LIMIT, store.renew_candidacy()).await;
        let answer = limited.unwrap_or_else(|_| Err(Unknown::timed_out("the lock's store", ROUND_LIMIT)));
        self.heard(sent_at, &answer)
    }

    fn heard(&self, sent_at: Duration, answer: &Fact<LockAnswer>) -> Round {
        let now = self.epoch.elapsed();
        let after = self.state.borrow().heard(sent_at, now, self.settling, answer);
        // Against what was told, not against what was so: a process that was stopped past the validity has a loss to tell.
        let before = std::mem::replace(&mut *self.observed_term.lock(), after.held(now));
        let change = LockState::change(before, after.held(now));
        let interval = match answer {
            Ok(LockAnswer::Held { ttl, .. }) => (*ttl / RENEWALS_PER_TTL).clamp(MIN_INTERVAL, MAX_INTERVAL),
            Ok(LockAnswer::Elsewhere { .. }) => FOLLOWER_INTERVAL,
            // A renewal that failed is tried again soon, for the validity runs.
            Err(_) => MIN_INTERVAL * 2,
        };
        // A validity that ends before the next round is told at once, not a round later.
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

    /// Gives the lock up. From here on nothing begins in this process.
    pub async fn release(&self) {
        let Some(store) = &self.store else { return };
        self.state.send_replace(LockState::Unknown { detail: "this replica has given it up".to_owned() });
        if timeout(RELEASE_LIMIT, store.release()).await.is_err() {
            tracing::warn!("the lock could not be given up in time: the next holder waits for its end");
        }
    }
}

impl LockView {
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The term, while the lock is certainly ours.
    pub fn held(&self) -> Option<Term> {
        self.state.borrow().held(self.now())
    }

    /// The term under which something may begin now, or why nothing may.
    pub fn may_begin(&self) -> Result<Term, Reason> {
        self.state.borrow().may_begin(self.now())
    }

    /// Who else holds it, as far as is known.
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

    /// Lets out what began under this term, for as long as it lasts.
    pub fn permit(&self, term: Term) -> TermPermit {
        TermPermit { view: self.clone(), term }
    }

    /// Returns when what began under this term must send nothing more.
    pub async fn lost(&self, term: Term) -> Reason {
        let mut state = self.state.clone();
        loop {
            if let Some(reason) = state.borrow_and_update().lost(term, self.now()) {
                return reason;
            }
            // For good where there is no lock, and then for longer than any timer goes.
            let left = self.changes_in().unwrap_or(MAX_INTERVAL).min(Duration::from_hours(24));
            tokio::select! {
                biased;
                changed = state.changed() => if changed.is_err() {
                    // Nobody renews any more: what is known runs out by itself.
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
