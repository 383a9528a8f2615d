//! What a process keeps in memory of a cluster's requests: the one that is open, and what is shown of the journal.

use std::collections::BTreeMap;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::succession::LastOffer;
use crate::{
    core::{
        cluster::MemberId,
        estimate::Speeds,
        history::{AlertKey, MemberEnd, RunId},
        hold::{OpenRun, RequestView},
        ledger::Ledger,
        policy::Policy,
        reason::Reason,
    },
    telemetry::members::LastDefrag,
};

/// The requests; their records are in the journal.
#[derive(Default)]
pub(super) struct Requests {
    pub(super) state: Mutex<RequestState>,
    // Held from the decision about a request to its record, so that of two webhooks only one creates a request, and a
    // request is not cancelled while it begins.
    pub(super) admission: AsyncMutex<()>,
    /// Held while the journal is read.
    pub(super) reading: AsyncMutex<()>,
    /// Wakes the worker.
    pub(super) wake: Notify,
    /// Signals that the schedule may have changed.
    pub(super) schedule_changed: Notify,
}

#[derive(Default)]
pub(super) struct RequestState {
    /// The request that is open; a cluster has at most one.
    pub(super) open: Option<OpenRun>,
    /// The ledger as last read: to be displayed, never to decide by.
    pub(super) ledger: Ledger,
    /// The journal has not been read yet: what is derived from the ledger is unknown.
    pub(super) unread: bool,
    /// From its runs, as the next field: a scrape must not go through all of them.
    pub(super) speeds: Speeds,
    pub(super) mismatch: Option<Reason>,
    /// The alerts that fire, each with the run that was to serve it.
    pub(super) firing: Vec<(AlertKey, RunId)>,
    /// The last run and the code of the hold that were logged for an alert whose request is over.
    pub(super) logged_hold: Option<(Option<RunId>, &'static str)>,
    /// It was removed from the configuration: nothing new is accepted.
    pub(super) retired: bool,
    pub(super) last_offer: Option<LastOffer>,
    pub(super) defragmenting: Option<MemberId>,
    pub(super) last_defrags: BTreeMap<MemberId, LastDefrag>,
    /// Whether the active run last observed an emergency.
    pub(super) emergency: bool,
}

impl RequestState {
    /// Adds the last attempt at each member, of earlier processes; and to the open request, what has joined it.
    pub(super) fn remember(&mut self, ledger: &Ledger) {
        if let Some(open) = &mut self.open
            && let Some(view) = ledger.run(open.id)
        {
            open.request.clone_from(&view.request);
        }
        for (run, at) in ledger.runs.iter().rev().filter_map(|run| Some((run, run.finished_at?))) {
            for result in run.members.iter().filter(|result| !matches!(result.end, MemberEnd::NotSent { .. })) {
                // An attempt by this process is already there.
                let last = self.last_defrags.entry(result.intent.member_id);
                last.or_insert_with(|| LastDefrag { at, result: result.clone() });
            }
        }
    }

    /// The request that is open by the ledger: the worker may not have read yet that its run has ended.
    pub(super) fn open_in(&self, ledger: &Ledger) -> Option<OpenRun> {
        let is_open = |open: &&OpenRun| ledger.run(open.id).is_none_or(|view| view.outcome.is_none());
        self.open.as_ref().filter(is_open).cloned()
    }

    /// The request whose run waits.
    pub(super) fn waiting(&self) -> Option<&OpenRun> {
        self.open.as_ref().filter(|open| !open.is_active)
    }

    pub(super) fn active_run(&self) -> Option<RunId> {
        self.open.as_ref().filter(|open| open.is_active).map(|open| open.id)
    }

    /// What wants the cluster defragmented, and the one hold.
    pub(super) fn request_view(&self, policy: &Policy, now: Timestamp) -> Option<RequestView> {
        self.ledger.request_view(self.open.as_ref(), &self.firing, policy, now)
    }

    /// The code of the one hold.
    pub(super) fn hold(&self, policy: &Policy, now: Timestamp) -> Option<&'static str> {
        Some(self.request_view(policy, now)?.hold?.reason.label())
    }

    pub(super) fn waits(&self, run: RunId) -> bool {
        self.waiting().is_some_and(|open| open.id == run)
    }
}

#[cfg(test)]
#[path = "request_state_tests.rs"]
mod tests;
