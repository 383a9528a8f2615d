//! Disarming NOSPACE when every member is well below its quota, and checking that it stays clear.

use std::time::Duration;

use super::{Action, Phase, Run, StepError};
use crate::{
    cluster::{AlarmKind, ClusterFacts, Fact, MemberId},
    history::{Outcome, RunStep},
    plan::Plan,
    policy::QUOTA_MARGIN,
    reason::Reason,
};

/// How long the alarm must stay clear. A member that is over its quota arms it again at its next write, and a cluster
/// that could not write for some time receives writes at once.
const CLEAR_FOR: Duration = Duration::from_secs(5);
/// How soon to try again to record a disarming.
const JOURNAL_INTERVAL: Duration = Duration::from_secs(5);

/// The wait for the alarm to stay clear.
#[derive(Clone, Debug)]
pub(super) struct Clearing {
    since: Duration,
    clear_since: Option<Duration>,
}

impl Run {
    /// Disarms the next alarm, or returns why it must stay armed. CORRUPT is not armed: the plan would be blocked.
    pub(super) fn disarm_next(&mut self, facts: &ClusterFacts) -> Action {
        if let Some(reason) = near_quota(facts) {
            return self.observe_again(reason);
        }
        self.observations = 0;
        let alarms = facts.alarms.as_ref().map(Vec::as_slice).unwrap_or_default();
        let armed = alarms.iter().filter(|alarm| alarm.kind == AlarmKind::NoSpace).map(|alarm| alarm.member);
        let Some(member_id) = armed.into_iter().find(|member| !self.disarmed.contains(member)) else {
            return self.give_up(Reason::NoSpaceAgain);
        };
        self.disarmed.insert(member_id);
        let name = member_id.and_then(|id| facts.member(id)).map(|facts| facts.member.label());
        let member = name.or_else(|| member_id.map(|id| id.to_string())).unwrap_or_default();
        self.intend_step(RunStep::DisarmNoSpace { member_id, member })
    }

    /// The journal did not take the step. The run waits for it, as its end cannot be recorded before either, and is
    /// failed: nothing but NOSPACE is left to it.
    pub(super) fn disarm_later(&mut self, member_id: Option<MemberId>, reason: Reason) -> Action {
        self.disarmed.remove(&member_id);
        self.ending.get_or_insert_with(|| Outcome::Failed { reason: reason.clone() });
        self.waiting_for = Some(reason);
        self.phase = Phase::Choosing;
        self.observe(JOURNAL_INTERVAL)
    }

    pub(super) fn disarmed(&mut self, now: Duration, member: String, answer: Result<(), StepError>) -> Action {
        match answer {
            Err(error) => {
                let member = Some(member).filter(|member| !member.is_empty());
                self.give_up(Reason::DisarmFailed { member, detail: error.to_string() })
            }
            Ok(()) => self.watch_alarms(now),
        }
    }

    /// A disarmed alarm counts as disarmed once it has stayed clear.
    pub(super) fn watch_alarms(&mut self, now: Duration) -> Action {
        self.unproven = false;
        self.observe_in(Phase::Clearing(Clearing { since: now, clear_since: None }))
    }

    fn has_pending(&self, facts: &Fact<ClusterFacts>) -> bool {
        let plan = facts.as_ref().map(|facts| Plan::new(facts, &self.brief.policy, &self.past));
        plan.is_ok_and(|plan| plan.pending().next().is_some())
    }

    pub(super) fn clear(&mut self, now: Duration, mut clearing: Clearing, facts: &Fact<ClusterFacts>) -> Action {
        let trouble = self.blocking_reason(facts);
        let waited = now.saturating_sub(clearing.since);
        if let Some(reason) = trouble {
            if !reason.may_pass() || waited >= self.brief.policy.recovery_timeout {
                return self.give_up(reason);
            }
            self.waiting_for = Some(reason);
            clearing.clear_since = None;
            return self.observe_in(Phase::Clearing(clearing));
        }
        let armed: Vec<_> = facts
            .iter()
            .flat_map(|facts| facts.alarms.iter().flatten())
            .filter(|alarm| alarm.kind == AlarmKind::NoSpace)
            .collect();
        // Another member's alarm is next; this one's disarming may not have reached all members yet.
        if armed.iter().any(|alarm| !self.disarmed.contains(&alarm.member)) {
            return self.choose_next();
        }
        if armed.is_empty() {
            if now.saturating_sub(*clearing.clear_since.get_or_insert(now)) >= CLEAR_FOR {
                return match self.stop.clone() {
                    Some(reason) => self.finish(Outcome::Stopped { reason }),
                    // A member still waits for the end of a snapshot.
                    None if self.ending.is_none() && self.has_pending(facts) => self.choose(now, facts),
                    None => self.succeed(),
                };
            }
        } else if clearing.clear_since.is_some() || waited >= CLEAR_FOR {
            return self.give_up(Reason::NoSpaceAgain);
        }
        self.observe_in(Phase::Clearing(clearing))
    }
}

/// Why NOSPACE must stay armed. Learners have files and quotas, too.
pub(super) fn near_quota(facts: &ClusterFacts) -> Option<Reason> {
    facts.members.iter().find_map(|facts| {
        let member = facts.member.label();
        match &facts.status {
            Err(unknown) => Some(Reason::MemberUnreachable { member, detail: unknown.detail.clone() }),
            Ok(status) => match status.quota_usage_ratio() {
                None => Some(Reason::QuotaUnknown { member }),
                Some(usage) if usage >= QUOTA_MARGIN => {
                    Some(Reason::StillNearQuota { member, usage, limit: QUOTA_MARGIN })
                }
                Some(_) => None,
            },
        }
    })
}
