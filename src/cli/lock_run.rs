//! `defragd run` under a lock: it stands like any replica, and does nothing while another holds it.

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

/// A store that is well says who holds the lock at once; one that is not may have an election.
const PATIENCE: Duration = Duration::from_secs(15);
/// The time between two looks.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The lock for the time of one run.
pub(super) struct RunLock {
    lock: Arc<Lock>,
    keeper: Option<tokio::task::JoinHandle<()>>,
    /// Under which it was won; `None` where there is no lock.
    pub(super) term: Option<Term>,
}

impl RunLock {
    /// Wins the lock and waits until nothing of its last holder can be on its way, or gives why not.
    pub(super) async fn take(
        settings: &LockSettings,
        cluster: &ClusterSettings,
        tell: impl Fn(&Reason),
    ) -> anyhow::Result<Result<Self, Reason>> {
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
                    taken.release().await;
                    return Ok(Err(reason));
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
            // A renewal under way must not come after the end.
            let _ = keeper.await;
        }
        self.lock.release().await;
    }
}
