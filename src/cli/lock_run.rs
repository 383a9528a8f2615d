//! `defragd run` under a lock: it is a candidate like any replica, and does nothing while another holds the lock.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    app::{
        lock::{Lock, LockView},
        locks,
    },
    config::{ClusterSettings, LockSettings},
    core::{lock::Term, reason::Reason},
};

/// A healthy store says at once who holds the lock; an unhealthy one may be in an election.
const PATIENCE: Duration = Duration::from_secs(15);
/// The time between two checks of the lock.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The lock for the duration of one run.
pub(super) struct RunLock {
    lock: Arc<Lock>,
    keeper: Option<tokio::task::JoinHandle<()>>,
    /// The term it was acquired under; `None` where there is no lock.
    pub(super) term: Option<Term>,
}

impl RunLock {
    /// Acquires the lock and waits until no request of its last holder can be in flight, or returns why not, with the
    /// URL of the replica that holds it, if that is known.
    pub(super) async fn take(
        settings: &LockSettings,
        cluster: &ClusterSettings,
        tell: impl Fn(&Reason),
    ) -> anyhow::Result<Result<Self, (Reason, Option<String>)>> {
        let Some(store) = locks::store(settings, cluster)? else {
            return Ok(Ok(Self { lock: Arc::new(Lock::none()), keeper: None, term: None }));
        };
        let lock = Arc::new(Lock::over(store, &locks::holder(settings).name));
        let keeping = Arc::clone(&lock);
        let keeper = tokio::spawn(async move {
            loop {
                let round = keeping.round().await;
                sleep(round.next_after).await;
            }
        });
        let mut taken = Self { lock, keeper: Some(keeper), term: None };
        let view = taken.view();
        let begun = Instant::now();
        loop {
            match view.may_begin() {
                Ok(term) => {
                    taken.term = Some(term);
                    return Ok(Ok(taken));
                }
                Err(reason @ Reason::LockSettling { .. }) => tell(&reason),
                Err(Reason::LockUnknown { .. }) if begun.elapsed() < PATIENCE => {}
                Err(reason) => {
                    let url = view.holder().and_then(|holder| holder.url);
                    taken.release().await;
                    return Ok(Err((reason, url)));
                }
            }
            sleep(RECHECK_INTERVAL).await;
        }
    }

    pub(super) fn view(&self) -> LockView {
        self.lock.view()
    }

    /// The term to act under; 0 where there is no lock.
    pub(super) fn acts_under(&self) -> Term {
        self.term.unwrap_or_default()
    }

    pub(super) async fn release(self) {
        if let Some(keeper) = self.keeper {
            keeper.abort();
            // No renewal may happen after the release.
            let _ = keeper.await;
        }
        self.lock.release().await;
    }
}
