//! What the next holder of a cluster's lock must know of what was ordered and done under the last ones.
//!
//! It is a digest of a [`Ledger`] in times and facts, for the numbers of runs are a journal's own. The holder leaves it
//! beside the lock after every order and every run; whoever takes over puts it in its journal and counts it in. It
//! holds what was inherited, too, so that it goes on from holder to holder. Times are those of several machines: they
//! must agree to within minutes, as those of etcd's members should.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    admission::Ledger,
    cluster::MemberId,
    history::{AlertKey, MemberResult, RunId, Trigger},
    lock::Term,
    order::{self, Order, OrderRecord},
    reason::Reason,
    schedule,
};

/// Raised with every change that an older release would misunderstand.
const VERSION: u32 = 2;
/// Of a digest without a mismatch, which is all that version 2 added: releases from before it may read it.
const WITHOUT_MISMATCH: u32 = 1;
/// A day's runs and more than any breaker counts; the newest are kept.
const MAX_TIMES: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SuccessionNote {
    version: u32,
    pub holder: String,
    pub term: Term,
    /// Since when it has had a run under way, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderRecord>,
    /// The standing request, for the next lock holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<StandingRequest>,
    /// When a person last resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// When runs that touched a member ended.
    #[serde(default)]
    pub touched: BTreeSet<Timestamp>,
    /// When runs failed, since the last that succeeded and the last resume.
    #[serde(default)]
    pub failures: BTreeSet<Timestamp>,
    /// When a run last succeeded, or a person resumed: failures from before do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared_at: Option<Timestamp>,
    /// That the members were found to hold different data, since the last resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<Mismatch>,
    /// The last attempt on each member, with its end.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// All due times of the schedule up to this one are decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_until: Option<Timestamp>,
    /// The newest run that had started in the journal that it was put in. All that it tells of was over before the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited_after: Option<RunId>,
}

/// A request whose work is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingRequest {
    pub trigger: Trigger,
    pub alerts: Vec<AlertKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
}

/// That the members were found to hold different data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mismatch {
    pub at: Timestamp,
    /// Who had which hash.
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
    /// Of what one journal holds, without what it inherited.
    pub(super) fn of(ledger: &Ledger) -> Self {
        let order = order::in_force(&ledger.orders).cloned();
        let resumed = ledger.orders.iter().filter(|record| matches!(record.order, Order::Resume { .. }));
        let resumed_at = resumed.map(|record| record.at).max();
        let (failures, succeeded_at) = ledger.failures_in_a_row();
        let attempts = ledger.attempts_of_its_own().into_values();
        Self {
            version: VERSION,
            order,
            resumed_at,
            touched: ledger.touched_of_its_own().collect(),
            failures: failures.into_iter().collect(),
            cleared_at: succeeded_at.max(resumed_at),
            mismatch: ledger.mismatch_of_its_own(),
            attempts: attempts.map(|(at, result)| Attempt { at, result }).collect(),
            scheduled_until: ledger.runs.iter().filter_map(schedule::decides_until).max(),
            ..Self::default()
        }
    }

    /// Both, as if one journal had held it all.
    #[must_use]
    pub fn merged(self, other: &Self) -> Self {
        let order = match (&self.order, &other.order) {
            (Some(own), Some(other)) => Some(own.or_other(other).clone()),
            (own, other) => own.clone().or_else(|| other.clone()),
        };
        let cleared_at = self.cleared_at.max(other.cleared_at);
        let resumed_at = self.resumed_at.max(other.resumed_at);
        // What one cleared itself is not in it any more: by the order of its journal, whatever the clock says.
        let counts = |at: &Timestamp, cleared: Option<Timestamp>| cleared.is_none_or(|cleared| *at > cleared);
        let own = self.failures.iter().filter(|at| counts(at, other.cleared_at));
        let failures = own.chain(other.failures.iter().filter(|at| counts(at, self.cleared_at))).copied().collect();
        let own = self.mismatch.filter(|found| counts(&found.at, other.resumed_at));
        let others = other.mismatch.clone().filter(|found| counts(&found.at, self.resumed_at));
        let mismatch = own.into_iter().chain(others).max_by_key(|found| found.at);
        let mut last: BTreeMap<MemberId, Attempt> = BTreeMap::new();
        // Who resumes says that it may be tried again.
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
            failures,
            cleared_at,
            mismatch,
            attempts: last.into_values().collect(),
            holder: self.holder,
            term: self.term,
            run_since: self.run_since,
            scheduled_until: self.scheduled_until.max(other.scheduled_until),
            inherited_after: None,
        }
    }

    /// As this replica's clock has it: whatever it tells of is over, so that nothing in it may count as later than what
    /// is ordered or done here from now on. A resume would not end a pause from a clock that is ahead.
    #[must_use]
    pub fn not_after(mut self, now: Timestamp) -> Self {
        let clamp = |times: BTreeSet<Timestamp>| times.into_iter().map(|at| at.min(now)).collect();
        (self.touched, self.failures) = (clamp(self.touched), clamp(self.failures));
        for at in [&mut self.run_since, &mut self.resumed_at, &mut self.cleared_at, &mut self.scheduled_until]
            .into_iter()
            .flatten()
        {
            *at = now.min(*at);
        }
        for at in self
            .order
            .iter_mut()
            .map(|order| &mut order.at)
            .chain(self.mismatch.iter_mut().map(|one| &mut one.at))
            .chain(self.attempts.iter_mut().map(|one| &mut one.at))
        {
            *at = now.min(*at);
        }
        self
    }

    /// As it is left beside the lock.
    pub fn write(
        mut self,
        holder: &str,
        term: Term,
        run_since: Option<Timestamp>,
        request: Option<StandingRequest>,
    ) -> String {
        holder.clone_into(&mut self.holder);
        (self.term, self.run_since, self.request) = (term, run_since, request);
        self.version = if self.mismatch.is_some() { VERSION } else { WITHOUT_MISMATCH };
        for times in [&mut self.touched, &mut self.failures] {
            while times.len() > MAX_TIMES {
                times.pop_first();
            }
        }
        // It has nothing in it that JSON could not hold.
        serde_json::to_string(&self).unwrap_or_default()
    }

    /// Reads what was left. The error is for people.
    pub fn read(text: &str) -> Result<Self, String> {
        let digest: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if digest.version > VERSION {
            return Err(format!("it has version {}, and this defragd knows {VERSION}: upgrade it", digest.version));
        }
        Ok(digest)
    }
}

#[cfg(test)]
#[path = "note_tests.rs"]
mod tests;
