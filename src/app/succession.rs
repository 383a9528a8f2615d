//! Which of several replicas acts on a cluster: the lock, the state of its succession, and the access to the other
//! replicas.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::lock::Lock;
use crate::{
    core::{
        history::{AlertKey, RunId},
        lock::{Holder, Term},
        reason::Reason,
    },
    ports::{peers::Peers, service::LockSummary},
};

pub(super) struct Succession {
    pub(super) lock: Lock,
    pub(super) peers: Option<Arc<dyn Peers>>,
    /// How far the last holders' note is merged.
    pub(super) inherited: Mutex<Inherited>,
    /// The state here has not been written for the next holder yet.
    pub(super) note_due: AtomicBool,
    pub(super) wake: Notify,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Inherited {
    #[default]
    Nothing,
    Under(Term),
    Failed(String),
}

/// The content of an offer, and its receiver.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PendingOffer {
    pub(super) to: Holder,
    pub(super) run: RunId,
    pub(super) alerts: Vec<AlertKey>,
    pub(super) approved: bool,
}

/// The last offer of the waiting request.
pub(super) struct LastOffer {
    pub(super) what: PendingOffer,
    /// When it is offered again, if nothing changes.
    pub(super) again_at: Instant,
    /// How often in a row the offer failed.
    pub(super) failures: u32,
    pub(super) trouble: Option<Reason>,
}

impl Succession {
    /// For a cluster that this process acts on under this lock.
    pub(super) fn new(lock: Lock) -> Self {
        Self { lock, peers: None, inherited: Mutex::default(), note_due: AtomicBool::default(), wake: Notify::new() }
    }

    /// Something happened that the next holder must know: an operator's action, the start or the end of a run.
    pub(super) fn mark_note_due(&self) {
        if self.lock.is_needed() {
            self.note_due.store(true, Ordering::SeqCst);
            self.wake.notify_one();
        }
    }

    /// The term of the lock, while this replica certainly holds it.
    pub(super) fn held_term(&self) -> Option<Term> {
        self.lock.view().held()
    }

    /// Whether the last holders' note is merged under this term.
    pub(super) fn has_inherited(&self, term: Term) -> bool {
        matches!(*self.inherited.lock(), Inherited::Under(under) if under == term)
    }

    /// The term under which something may start now, or why nothing may: this replica does not hold the lock, or does
    /// not know yet what its last holders did.
    pub(super) fn may_begin(&self) -> Result<Term, Reason> {
        let term = self.lock.view().may_begin()?;
        if !self.lock.is_needed() {
            return Ok(term);
        }
        let detail = match &*self.inherited.lock() {
            Inherited::Under(under) if *under == term => return Ok(term),
            Inherited::Failed(detail) => format!("cannot read what its last holder left: {detail}"),
            _ => "what its last holder left has not been read yet".to_owned(),
        };
        Err(Reason::LockUnknown { detail })
    }

    /// Why another replica acts instead of this one.
    pub(super) fn why_passive(&self) -> Reason {
        let detail = || "the lock is changing its holder".to_owned();
        self.lock.view().may_begin().err().unwrap_or_else(|| Reason::LockUnknown { detail: detail() })
    }

    /// For the API and the status page; `None` without a lock.
    pub(super) fn summary(&self) -> Option<LockSummary> {
        let view = self.lock.view();
        self.lock.is_needed().then(|| {
            let (term, other) = (view.held(), view.holder());
            LockSummary {
                held: term.is_some(),
                term,
                holder: other.as_ref().map(|holder| holder.name.clone()),
                url: other.and_then(|holder| holder.url),
            }
        })
    }
}
