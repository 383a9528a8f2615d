//! What the next holder of a cluster's lock must know of actions and runs under the previous ones.
//!
//! It is a digest of a [`Ledger`](super::ledger::Ledger) in times and facts, because run numbers are specific to a journal. The holder stores
//! it beside the lock after every action and every run; a new holder records it in its journal and merges it. It
//! includes what was inherited, so that it is passed on from holder to holder. Its times come from several machines:
//! their clocks must agree to within minutes, as those of etcd's members should.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    cluster::MemberId,
    history::{AlertKey, MemberResult, RunId, RunView, Trigger},
    lock::Term,
    order::OrderRecord,
    reason::Reason,
    rejection::Rejection,
};

/// Why a note cannot be read.
#[derive(Debug, Error)]
pub enum NoteError {
    #[error(transparent)]
    NotUnderstood(#[from] serde_json::Error),
    #[error("it has version {version}, and this defragd knows {VERSION}: upgrade it")]
    Newer { version: u32 },
}

/// Raised with every change that an older release would misunderstand. A note has the lowest version whose readers
/// understand it: see [`SuccessionNote::lowest_version`].
pub(super) const VERSION: u32 = 3;
/// More than a day's runs and than any breaker counts; the newest are kept.
const MAX_TIMES: usize = 100;

/// Alerts of rejections, some 100 bytes each; the newest rejections are kept.
const MAX_REJECTED: usize = 200;
/// From this size on the labels of alerts are left out: all annotations of a Lease have room for 256 KiB.
const MAX_BYTES: usize = 64 << 10;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SuccessionNote {
    pub(super) version: u32,
    pub holder: String,
    pub term: Term,
    /// Since when it has had a run in progress, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderRecord>,
    /// The open request, for the next lock holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<StandingRequest>,
    /// When an operator last resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// When runs that touched a member ended.
    #[serde(default)]
    pub touched: BTreeSet<Timestamp>,
    /// When the last run ended that starts a cooldown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_at: Option<Timestamp>,
    /// When runs failed, since the last success and the last resume.
    #[serde(default)]
    pub failures: BTreeSet<Timestamp>,
    /// When a run last succeeded, or an operator resumed: earlier failures do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared_at: Option<Timestamp>,
    /// What operators rejected, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejections: Vec<Rejection>,
    /// The mismatch of the members' data, if found since the last resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<Mismatch>,
    /// The last attempt on each member, with its end.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// All due times of the schedule up to this one are decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_until: Option<Timestamp>,
    /// The newest run that had started in the journal that recorded it, or had ended when another holder's was
    /// recorded. Everything in it happened before the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited_after: Option<RunId>,
    /// The run that was under way in the journal that recorded it, under an earlier term, and does not end with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited_during: Option<RunId>,
    /// This replica left it itself, and no other has held the lock since that run began: its journal has all that is in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_own: bool,
}

/// A request whose work is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingRequest {
    pub trigger: Trigger,
    pub alerts: Vec<AlertKey>,
    /// As in [`Request`](super::history::Request).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// What was done under it.
    #[serde(flatten)]
    pub work: EarlierWork,
}

impl StandingRequest {
    /// What alerts or due times want that no operator has approved.
    pub fn of_alerts(alerts: Vec<AlertKey>) -> Self {
        let is_due = alerts.iter().all(|key| key.due().is_some());
        let trigger = if is_due { Trigger::Schedule } else { Trigger::Alert };
        Self { trigger, alerts, members: Vec::new(), approved_by: None, work: EarlierWork::default() }
    }
}

/// What the earlier attempts at a request have done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierWork {
    /// The members that were defragmented under it, since the last failure: then all are measured again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub done: BTreeSet<MemberId>,
    /// A member was defragmented, and the members' data is to be compared yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncompared: bool,
}

/// A mismatch of the members' data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mismatch {
    pub at: Timestamp,
    /// Which members had which hash.
    pub reason: Reason,
}

/// The last attempt on a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When its run ended.
    pub at: Timestamp,
    #[serde(flatten)]
    pub result: MemberResult,
}

impl SuccessionNote {
    /// Both combined, as if one journal had recorded it all.
    #[must_use]
    pub fn merged(self, other: &Self) -> Self {
        let order = match (&self.order, &other.order) {
            (Some(own), Some(other)) => Some(own.or_other(other).clone()),
            (own, other) => own.clone().or_else(|| other.clone()),
        };
        let cleared_at = self.cleared_at.max(other.cleared_at);
        let resumed_at = self.resumed_at.max(other.resumed_at);
        // What a journal cleared itself is no longer in its digest: by the order of its entries, whatever the clock
        // says.
        let counts = |at: &Timestamp, cleared: Option<Timestamp>| cleared.is_none_or(|cleared| *at > cleared);
        let own = self.failures.iter().filter(|at| counts(at, other.cleared_at));
        let failures = own.chain(other.failures.iter().filter(|at| counts(at, self.cleared_at))).copied().collect();
        let own = self.mismatch.filter(|found| counts(&found.at, other.resumed_at));
        let others = other.mismatch.clone().filter(|found| counts(&found.at, self.resumed_at));
        let mismatch = own.into_iter().chain(others).max_by_key(|found| found.at);
        let mut last: BTreeMap<MemberId, Attempt> = BTreeMap::new();
        // Resuming permits another attempt.
        let own = self.attempts.iter().filter(|attempt| counts(&attempt.at, other.resumed_at));
        for attempt in own.chain(other.attempts.iter().filter(|attempt| counts(&attempt.at, self.resumed_at))) {
            let known = last.get(&attempt.result.intent.member_id);
            if known.is_none_or(|known| known.at < attempt.at) {
                last.insert(attempt.result.intent.member_id, attempt.clone());
            }
        }
        Self {
            version: VERSION,
            order,
            request: self.request,
            resumed_at,
            touched: self.touched.union(&other.touched).copied().collect(),
            served_at: self.served_at.max(other.served_at),
            failures,
            cleared_at,
            rejections: Rejection::merged(self.rejections, &other.rejections),
            mismatch,
            attempts: last.into_values().collect(),
            holder: self.holder,
            term: self.term,
            run_since: self.run_since,
            scheduled_until: self.scheduled_until.max(other.scheduled_until),
            inherited_after: None,
            inherited_during: None,
            is_own: false,
        }
    }

    /// Whether this journal knows more of its run than the note: it was last started under a later term, or under the
    /// note's own, or this replica lost the lock and won it again in the middle of it. Then it left the note itself, and
    /// the run may have ended since.
    pub(super) fn is_before(&self, run: &RunView) -> bool {
        let is_later =
            run.term.map_or_else(|| self.inherited_after.is_none_or(|after| run.id > after), |term| term >= self.term);
        is_later || self.is_own && self.goes_on(run)
    }

    /// Whether another holder left it after a run of this journal. Its own may be older than the run's end.
    pub(super) fn replaces(&self, run: &RunView) -> bool {
        run.term.is_some_and(|term| term < self.term) && !(self.is_own && self.goes_on(run))
    }

    /// Whether this run ended, if it did, after the note was left.
    pub(super) fn goes_on(&self, run: &RunView) -> bool {
        self.inherited_during == Some(run.id)
    }

    /// Limits the times to this replica's clock: everything in the digest has happened, so nothing in it may count as
    /// later than what happens here from now on. Otherwise a resume would not end a pause from a clock that is ahead.
    #[must_use]
    pub fn not_after(mut self, now: Timestamp) -> Self {
        let clamp = |times: BTreeSet<Timestamp>| times.into_iter().map(|at| at.min(now)).collect();
        (self.touched, self.failures) = (clamp(self.touched), clamp(self.failures));
        let times = [
            &mut self.run_since,
            &mut self.served_at,
            &mut self.resumed_at,
            &mut self.cleared_at,
            &mut self.scheduled_until,
        ];
        for at in times.into_iter().flatten() {
            *at = now.min(*at);
        }
        for at in self
            .order
            .iter_mut()
            .map(|order| &mut order.at)
            .chain(self.rejections.iter_mut().map(|one| &mut one.at))
            .chain(self.mismatch.iter_mut().map(|one| &mut one.at))
            .chain(self.attempts.iter_mut().map(|one| &mut one.at))
        {
            *at = now.min(*at);
        }
        self
    }

    /// The text that is stored beside the lock.
    pub fn write(
        mut self,
        holder: &str,
        term: Term,
        run_since: Option<Timestamp>,
        request: Option<StandingRequest>,
    ) -> String {
        holder.clone_into(&mut self.holder);
        (self.term, self.run_since, self.request) = (term, run_since, request);
        self.version = self.lowest_version();
        for times in [&mut self.touched, &mut self.failures] {
            while times.len() > MAX_TIMES {
                times.pop_first();
            }
        }
        let mut alerts = 0;
        let kept = self.rejections.iter().rev().take_while(|rejection| {
            alerts += rejection.alerts.len();
            alerts <= MAX_REJECTED
        });
        let older = self.rejections.len() - kept.count();
        self.rejections.drain(..older);
        // It contains nothing that JSON cannot represent.
        let text = |note: &Self| serde_json::to_string(note).unwrap_or_default();
        let full = text(&self);
        let Some(request) = self.request.as_mut().filter(|_| full.len() > MAX_BYTES) else { return full };
        for alert in &mut request.alerts {
            *alert = alert.bare();
        }
        text(&self)
    }

    /// From which version on readers understand it.
    fn lowest_version(&self) -> u32 {
        let of_mismatch = if self.mismatch.is_some() { 2 } else { 1 };
        let of_trigger = match self.request.as_ref().map(|request| request.trigger) {
            Some(Trigger::Schedule) => 2,
            None | Some(Trigger::Alert | Trigger::Manual | Trigger::Retry) => 1,
        };
        // An earlier release would defragment all members.
        let is_in_part = self.request.as_ref().is_some_and(|request| !request.members.is_empty());
        of_mismatch.max(of_trigger).max(if is_in_part { 3 } else { 1 })
    }

    pub fn read(text: &str) -> Result<Self, NoteError> {
        /// The rest of a newer note may be unreadable.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(text)?;
        if version > VERSION {
            return Err(NoteError::Newer { version });
        }
        Ok(serde_json::from_str(text)?)
    }
}

#[cfg(test)]
#[path = "note_tests.rs"]
mod tests;
