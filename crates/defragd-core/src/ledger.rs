//! What the journal holds about one cluster, and what follows from it: which runs counted, which failed, which of
//! the operators' actions is in force. [`super::standing`] derives from it which request is open, and
//! [`super::admission`] whether a run may begin.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    cluster::MemberId,
    estimate::Speeds,
    history::{MemberEnd, MemberResult, Outcome, RunId, RunView},
    note::{Attempt, Mismatch, SuccessionNote, VERSION},
    order::{self, Order, OrderRecord},
    reason::Reason,
    rejection::Rejection,
};

/// Clocks are corrected by small steps all the time.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(1);

/// What the journal holds about one cluster, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Its runs; the newest ones are enough.
    pub runs: Vec<RunView>,
    pub orders: Vec<OrderRecord>,
    /// The state that other replicas left when they held the lock.
    pub inherited: Option<SuccessionNote>,
}

impl Ledger {
    pub fn run(&self, id: RunId) -> Option<&RunView> {
        self.runs.iter().rev().find(|run| run.id == id)
    }

    pub fn last_ended(&self) -> Option<RunId> {
        self.runs.iter().filter(|run| run.finished_at.is_some()).map(|run| run.id).max()
    }

    /// The newest run that had ended when an operator last resumed.
    pub(super) fn resumed(&self) -> Option<RunId> {
        let resumed = self.orders.iter().filter_map(|record| match record.order {
            Order::Resume { last_ended, .. } => last_ended,
            Order::Pause { .. } => None,
        });
        resumed.max()
    }

    /// The combined state of this journal and those of other holders, for the next holder and for the checks below.
    pub fn digest(&self) -> SuccessionNote {
        let mut own = self.limits_of_its_own();
        let attempts = self.attempts_of_its_own().into_values();
        own.attempts = attempts.map(|(at, result)| Attempt { at, result }).collect();
        own.rejections = self.rejections_of_its_own().collect();
        self.with_inherited(own)
    }

    pub(super) fn rejections_of_its_own(&self) -> impl Iterator<Item = Rejection> {
        self.runs.iter().filter_map(Rejection::of)
    }

    /// The same without attempts and rejections, which cost too much for every scrape.
    pub(super) fn limits(&self) -> SuccessionNote {
        self.with_inherited(self.limits_of_its_own())
    }

    /// The limits from this journal alone, without what only the next holder needs.
    fn limits_of_its_own(&self) -> SuccessionNote {
        let order = order::in_force(&self.orders).cloned();
        let resumed = self.orders.iter().filter(|record| matches!(record.order, Order::Resume { .. }));
        let resumed_at = resumed.map(|record| record.at).max();
        let (failures, succeeded_at) = self.failures_in_a_row();
        SuccessionNote {
            version: VERSION,
            order,
            resumed_at,
            touched: self.touched_of_its_own().collect(),
            served_at: self.served_of_its_own().max(),
            failures: failures.into_iter().collect(),
            cleared_at: succeeded_at.max(resumed_at),
            mismatch: self.mismatch_of_its_own(),
            scheduled_until: self.runs.iter().flat_map(RunView::decides_until).max(),
            ..SuccessionNote::default()
        }
    }

    fn with_inherited(&self, own: SuccessionNote) -> SuccessionNote {
        let Some(inherited) = &self.inherited else { return own };
        // If the clock was set back since, the times alone would give another order.
        let later = self.runs.iter().filter(|run| inherited.inherited_after.is_some_and(|newest| run.id > newest));
        let first = later.flat_map(|run| [run.started_at, run.finished_at]).flatten().min();
        let before = first.and_then(|first| first.checked_sub(Duration::from_nanos(1)).ok());
        match before {
            Some(before) => own.merged(&inherited.clone().not_after(before)),
            None => own.merged(inherited),
        }
    }

    /// When the runs of this journal failed, since the last success and the last resume; and when that was.
    fn failures_in_a_row(&self) -> (Vec<Timestamp>, Option<Timestamp>) {
        let resumed = self.resumed();
        let (mut failures, mut succeeded) = (Vec::new(), None);
        for run in &self.runs {
            let Some(ended) = run.finished_at.filter(|_| resumed.is_none_or(|resumed| run.id > resumed)) else {
                continue;
            };
            match &run.outcome {
                Some(Outcome::Failed { .. }) => failures.push(ended),
                // How it would have ended is unknown, but it was in progress.
                Some(Outcome::Interrupted { .. }) if run.touched_a_member() => failures.push(ended),
                Some(Outcome::Succeeded) => {
                    failures.clear();
                    succeeded = Some(ended);
                }
                // These say nothing about whether a run would succeed.
                _ => {}
            }
        }
        (failures, succeeded)
    }

    /// The same, with those of other lock holders, oldest first.
    pub(super) fn failures(&self) -> Vec<Timestamp> {
        match self.inherited {
            None => self.failures_in_a_row().0,
            Some(_) => self.limits().failures.into_iter().collect(),
        }
    }

    pub(super) fn mismatch_of_its_own(&self) -> Option<Mismatch> {
        let resumed = self.resumed();
        let heard = |run: &&RunView| resumed.is_none_or(|resumed| run.id > resumed);
        self.runs.iter().rev().filter(heard).find_map(|run| match &run.outcome {
            Some(Outcome::Mismatched { reason }) => {
                Some(Mismatch { at: run.finished_at.unwrap_or(run.accepted_at), reason: reason.clone() })
            }
            _ => None,
        })
    }

    /// The operator's action in force, also one that another lock holder recorded.
    pub(super) fn order_in_force(&self) -> Option<&OrderRecord> {
        let inherited = self.inherited.as_ref().and_then(|inherited| inherited.order.as_ref());
        match (order::in_force(&self.orders), inherited) {
            (Some(own), Some(other)) => Some(own.or_other(other)),
            (own, other) => own.or(other),
        }
    }

    /// The last conclusive attempt on each member since an operator last resumed: resuming permits another attempt. An
    /// attempt that a crash left open is not conclusive.
    pub fn attempts(&self) -> BTreeMap<MemberId, MemberResult> {
        if self.inherited.is_some() {
            let attempts = self.digest().attempts.into_iter();
            return attempts.map(|attempt| (attempt.result.intent.member_id, attempt.result)).collect();
        }
        self.attempts_of_its_own().into_iter().map(|(member, (_, result))| (member, result)).collect()
    }

    /// The same from this journal alone, with the ends of the runs.
    fn attempts_of_its_own(&self) -> BTreeMap<MemberId, (Timestamp, MemberResult)> {
        let resumed = self.resumed();
        let heard = |run: &&RunView| resumed.is_none_or(|resumed| run.id > resumed);
        let tells =
            |result: &&MemberResult| matches!(result.end, MemberEnd::Defragmented { .. } | MemberEnd::Failed { .. });
        let results = self.runs.iter().filter(heard).flat_map(|run| {
            let at = run.finished_at.unwrap_or(run.accepted_at);
            run.members.iter().filter(tells).map(move |result| (at, result))
        });
        // Oldest first: the last of each member stays.
        results.map(|(at, result)| (result.intent.member_id, (at, result.clone()))).collect()
    }

    /// Since when a snapshot has blocked the run, if that is what ended the last one.
    pub fn waits_for_snapshot(&self) -> Option<Timestamp> {
        let ended = self.runs.iter().rev().find(|run| run.outcome.is_some())?;
        let for_snapshot = matches!(ended.outcome, Some(Outcome::Stopped { reason: Reason::SnapshotOpen { .. } }));
        ended.finished_at.filter(|_| for_snapshot)
    }

    /// How fast members were defragmented, from all known runs: a resume does not change the disks.
    pub fn speeds(&self) -> Speeds {
        let inherited = self.inherited.iter().flat_map(|digest| &digest.attempts).map(|attempt| &attempt.result);
        Speeds::of(inherited.chain(self.runs.iter().flat_map(|run| &run.members)))
    }

    pub(super) fn touched(&self) -> impl Iterator<Item = Timestamp> {
        // A run of ours that another holder passed back is the same run.
        let inherited = self.inherited.iter().flat_map(|inherited| &inherited.touched).copied();
        self.touched_of_its_own().chain(inherited).collect::<BTreeSet<_>>().into_iter()
    }

    fn touched_of_its_own(&self) -> impl Iterator<Item = Timestamp> {
        self.runs
            .iter()
            .filter(|run| run.outcome.is_none() && run.touched_a_member() || counts_for_the_day(run))
            .map(|run| run.finished_at.unwrap_or(run.accepted_at))
    }

    pub(super) fn served_of_its_own(&self) -> impl Iterator<Item = Timestamp> {
        self.runs.iter().filter(|run| starts_cooldown(run)).filter_map(|run| run.finished_at)
    }
}

/// A run that was broken off costs nothing: the next one does the rest of its work.
pub(super) fn counts_for_the_day(run: &RunView) -> bool {
    run.outcome.is_some() && run.touched_a_member() && !run.is_broken_off()
}

/// After a failure the rest of the work is still needed.
fn starts_cooldown(run: &RunView) -> bool {
    let has_failed = matches!(run.outcome, Some(Outcome::Failed { .. } | Outcome::Interrupted { .. }));
    counts_for_the_day(run) && !has_failed
}

/// Whether a recorded time is in the past. A time in the future was recorded before the clock was set back, and no
/// limit must last until that time comes again.
pub(super) fn has_been(time: Timestamp, now: Timestamp) -> bool {
    time <= after(now, CLOCK_TOLERANCE)
}

/// Times beyond the range of a timestamp are replaced by its maximum.
pub(super) fn after(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
pub(crate) mod tests;
