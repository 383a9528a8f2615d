//! Compaction before the first member, and the wait until every member has freed its pages.

use std::{collections::BTreeMap, time::Duration};

use super::{Action, Phase, Run, StepError};
use crate::{
    cluster::{ClusterFacts, Fact, MemberId},
    history::Outcome,
    policy::Compaction,
    reason::Reason,
};

/// The in-use sizes must be stable for this long. Members free their pages in batches, tenths of seconds apart, and
/// account for them at their next commit.
const REST: Duration = Duration::from_secs(5);
/// A smaller change comes from clients, not from the compaction.
const SAME_WITHIN_BYTES: u64 = 1 << 20;

/// The wait for stable in-use sizes.
#[derive(Clone, Debug)]
pub(super) struct Settling {
    since: Duration,
    resting_since: Duration,
    in_use: BTreeMap<MemberId, u64>,
}

impl Settling {
    /// The wait begins now.
    pub(super) fn since(now: Duration) -> Self {
        Self { since: now, resting_since: now, in_use: BTreeMap::new() }
    }
}

impl Run {
    /// The revision up to which this run still has to compact, if any.
    pub(super) fn revision_to_compact(&self, facts: &ClusterFacts) -> Option<u64> {
        let compaction = self.brief.policy.compaction.filter(|_| !self.compacted && self.past.done.is_empty())?;
        let revision = match compaction {
            Compaction::KeepRevisions(keep) => facts.oldest_revision()?.checked_sub(keep),
            Compaction::OlderThan(_) => self.brief.old_revision,
        };
        revision.filter(|revision| *revision > 0)
    }

    pub(super) fn compacted_to(&mut self, now: Duration, revision: u64, answer: Result<(), StepError>) -> Action {
        match answer {
            Err(error) => self.give_up(Reason::CompactionFailed { revision, detail: error.to_string() }),
            Ok(()) => self.observe_in(Phase::Settling(Settling::since(now))),
        }
    }

    pub(super) fn settle(&mut self, now: Duration, mut settling: Settling, facts: &Fact<ClusterFacts>) -> Action {
        if let Some(reason) = self.stop.clone() {
            return self.finish(Outcome::Stopped { reason });
        }
        let trouble = self.blocking_reason(facts);
        if let Some(reason) = trouble {
            if !reason.may_pass() || now.saturating_sub(settling.since) >= self.brief.policy.recovery_timeout {
                return self.give_up(reason);
            }
            self.waiting_for = Some(reason);
            settling.resting_since = now;
            return self.observe_in(Phase::Settling(settling));
        }
        let in_use: BTreeMap<_, _> = facts.iter().flat_map(|facts| &facts.members).filter_map(in_use).collect();
        let rests = |(id, now): (&MemberId, &u64)| {
            settling.in_use.get(id).is_some_and(|before| before.abs_diff(*now) < SAME_WITHIN_BYTES)
        };
        if !in_use.iter().all(rests) {
            settling.resting_since = now;
        }
        settling.in_use = in_use;
        // A cluster whose sizes never become stable grows all the time: it is measured again anyway.
        let rested = now.saturating_sub(settling.resting_since) >= REST;
        if rested || now.saturating_sub(settling.since) >= self.brief.policy.recovery_timeout {
            return self.choose_next();
        }
        self.observe_in(Phase::Settling(settling))
    }
}

fn in_use(facts: &crate::cluster::MemberFacts) -> Option<(MemberId, u64)> {
    Some((facts.member.id, facts.status.as_ref().ok()?.db_size_in_use.0))
}
