//! A lock's store in memory, in virtual time: candidates are queued with their leases, as in etcd.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::{
    core::{
        cluster::{Fact, Unknown, UnknownKind},
        lock::{Holder, LockAnswer, Term},
    },
    ports::lock::LockStore,
};

/// As `lock.ttl` has it by default.
pub(crate) const TTL: Duration = Duration::from_secs(60);
/// A store that is cut off is noticed after this.
const CUT_AFTER: Duration = Duration::from_secs(4);

#[derive(Default)]
struct FakeLockState {
    row: Vec<(Term, Holder, Instant)>,
    revision: u64,
    note: Option<String>,
    cut: BTreeSet<String>,
    full: bool,
}

/// The state that all replicas share.
#[derive(Clone, Default)]
pub(crate) struct FakeLocks(Arc<Mutex<FakeLockState>>);

/// One replica's access to it.
pub(crate) struct FakeLock {
    all: FakeLocks,
    me: Holder,
}

impl FakeLocks {
    pub(crate) fn replica(&self, name: &str) -> Arc<FakeLock> {
        let url = Some(format!("http://{name}"));
        Arc::new(FakeLock { all: self.clone(), me: Holder { name: name.to_owned(), url } })
    }

    /// The replica's calls get no answer.
    pub(crate) fn cut(&self, name: &str) {
        self.0.lock().cut.insert(name.to_owned());
    }

    pub(crate) fn reconnect(&self, name: &str) {
        self.0.lock().cut.remove(name);
    }

    /// NOSPACE: nothing new can be written.
    pub(crate) fn fill(&self, full: bool) {
        self.0.lock().full = full;
    }

    pub(crate) fn write_note(&self, note: &str) {
        self.0.lock().note = Some(note.to_owned());
    }

    pub(crate) fn note(&self) -> Option<String> {
        self.0.lock().note.clone()
    }
}

impl FakeLock {
    async fn reach(&self) -> Fact<()> {
        sleep(Duration::from_millis(5)).await;
        let cut = self.all.0.lock().cut.contains(&self.me.name);
        if cut {
            sleep(CUT_AFTER).await;
            return Err(Unknown::new(UnknownKind::TimedOut, "the store does not answer"));
        }
        Ok(())
    }
}

fn full() -> Unknown {
    Unknown::new(UnknownKind::Other, "etcdserver: mvcc: database space exceeded")
}

impl LockStore for FakeLock {
    fn renew_candidacy(&self) -> BoxFuture<'_, Fact<LockAnswer>> {
        Box::pin(async {
            self.reach().await?;
            let mut state = self.all.0.lock();
            let now = Instant::now();
            state.row.retain(|(_, _, ends)| *ends > now);
            if let Some((_, _, ends)) = state.row.iter_mut().find(|(_, who, _)| *who == self.me) {
                *ends = now + TTL;
            } else if state.full {
                return Err(full());
            } else {
                state.revision += 1;
                let term = Term(state.revision);
                state.row.push((term, self.me.clone(), now + TTL));
            }
            let (term, holder, _) = state.row[0].clone();
            Ok(if holder == self.me { LockAnswer::Held { term, ttl: TTL } } else { LockAnswer::Elsewhere { holder } })
        })
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.reach().await.is_ok() {
                self.all.0.lock().row.retain(|(_, who, _)| *who != self.me);
            }
        })
    }

    fn write_note<'a>(&'a self, term: Term, note: &'a str) -> BoxFuture<'a, Fact<()>> {
        Box::pin(async move {
            self.reach().await?;
            let mut state = self.all.0.lock();
            if state.full {
                return Err(full());
            }
            if state.row.first().is_none_or(|(held, _, _)| *held != term) {
                return Err(Unknown::new(UnknownKind::Other, "the lock is another's"));
            }
            state.note = Some(note.to_owned());
            Ok(())
        })
    }

    fn read_note(&self) -> BoxFuture<'_, Fact<Option<String>>> {
        Box::pin(async {
            self.reach().await?;
            Ok(self.all.note())
        })
    }
}
