//! An operator's decision about a run that waits for approval.

use std::sync::Arc;

use tracing::info;

use super::{cluster::Cluster, detached::to_its_end};
use crate::{
    core::{
        admission,
        history::{Entry, Outcome, RunId, RunView},
        ledger::Ledger,
        reason::Reason,
    },
    ports::{etcd::Etcd, journal::Journal, service::CommandError},
};

impl<E: Etcd, J: Journal> Cluster<E, J> {
    pub async fn approve(self: &Arc<Self>, run: RunId, by: String) -> Result<(), CommandError> {
        let cluster = Arc::clone(self);
        to_its_end(async move { cluster.approve_now(run, by).await }).await?
    }

    /// Ends a run that is waiting for approval: see [`Ledger::without_rejected`].
    pub async fn reject(self: &Arc<Self>, run: RunId, by: String, reason: String) -> Result<(), CommandError> {
        let cluster = Arc::clone(self);
        to_its_end(async move { cluster.reject_now(run, by, reason).await }).await?
    }

    /// The run, if it waits. The caller holds the admission.
    fn waiting_run<'a>(&self, ledger: &'a Ledger, run: RunId) -> Result<&'a RunView, CommandError> {
        let view = ledger.run(run).ok_or(CommandError::UnknownRun(run))?;
        match &view.outcome {
            Some(outcome) => Err(CommandError::NotWaiting { run, state: outcome.label() }),
            None if !self.requests.state.lock().waits(run) => Err(CommandError::NotWaiting { run, state: "running" }),
            None => Ok(view),
        }
    }

    async fn reject_now(&self, run: RunId, by: String, reason: String) -> Result<(), CommandError> {
        let _one_at_a_time = self.requests.admission.lock().await;
        let ledger = self.ledger().await?;
        let view = self.waiting_run(&ledger, run)?;
        if !admission::lacks_approval(view, &self.rules().policy) {
            return Err(CommandError::NotWaiting {
                run,
                state: "not subject to approval; `defragd cancel` withdraws it",
            });
        }
        let rejected = Reason::Rejected { by: by.clone(), reason: reason.clone(), at: None };
        self.end_waiting(run, Outcome::Stopped { reason: rejected }).await?;
        info!(cluster = self.name(), run = run.0, by, reason, "rejected");
        self.ledger().await?;
        Ok(())
    }

    async fn approve_now(&self, run: RunId, by: String) -> Result<(), CommandError> {
        let _one_at_a_time = self.requests.admission.lock().await;
        let ledger = self.ledger().await?;
        self.waiting_run(&ledger, run)?;
        self.shared.journal.append(run, Entry::approved(by.clone())).await?;
        info!(cluster = self.name(), run = run.0, by, "approved");
        self.requests.wake.notify_one();
        self.succession.mark_note_due();
        Ok(())
    }
}

#[cfg(test)]
#[path = "decisions_tests.rs"]
mod tests;
