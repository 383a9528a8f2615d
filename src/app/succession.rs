//! Which of several replicas acts on a cluster: the lock, how far its handover is, and the way to the other replicas.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::lock::Lock;
use crate::{
    core::{lock::Term, reason::Reason},
    ports::{peers::Peers, service::LockSummary},
};

pub(super) struct Succession {
    pub(super) lock: Lock,
    pub(super) peers: Option<Arc<dyn Peers>>,
    /// How far the last holders' note is counted in.
    pub(super) inherited: Mutex<Inherited>,
    /// What is known here is not left yet.
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

impl Succession {
    /// Of a cluster that this process acts on under this lock.
    pub(super) fn new(lock: Lock) -> Self {
        Self { lock, peers: None, inherited: Mutex::default(), note_due: AtomicBool::default(), wake: Notify::new() }
    }

    /// Something happened that the next holder must know: an order, the start or the end of a run.
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

    /// Whether the last holders' note is counted in under this term.
    pub(super) fn has_inherited(&self, term: Term) -> bool {
        matches!(*self.inherited.lock(), Inherited::Under(under) if under == term)
    }

    /// The term under which something may begin now, or why nothing may: the lock is not ours, or it is not known yet
    /// what its last holders did under it.
    pub(super) fn may_begin(&self) -> Result<Term, Reason> {
        let term = self.lock.view().may_begin()?;
        if !self.lock.is_needed() {
            return Ok(term);
        }
        let detail = match &*self.inherited.lock() {
            Inherited::Under(under) if *under == term => return Ok(term),
            Inherited::Failed(detail) => format!("what its last holder left cannot be read: {detail}"),
            _ => "what its last holder left is not read yet".to_owned(),
        };
        Err(Reason::LockUnknown { detail })
    }

    /// Why this replica is not the one that acts.
    pub(super) fn why_passive(&self) -> Reason {
        let detail = || "the lock is just changing hands".to_owned();
        self.lock.view().may_begin().err().unwrap_or_else(|| Reason::LockUnknown { detail: detail() })
    }

    /// For the API and the status page; nothing where there is no lock.
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
