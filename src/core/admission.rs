//! Whether and when a run may begin, and what ends one early.
//!
//! Everything is derived from the [`Ledger`], which the journal can give again after a restart: nothing is
//! remembered elsewhere. Whether a member needs it, and whether it is safe, is decided later and elsewhere.
//!
//! | | a new request is | a request that waits | a run under way |
//! |---|---|---|---|
//! | breaker open | not taken | is refused | |
//! | cooldown, daily limit | not taken, unless a person asks | | |
//! | paused | taken | goes on waiting | starts no new member |
//! | no window is open | taken | goes on waiting | starts no new member |
//! | mode approve | taken | waits for a person, then is given up | |
//!
//! A run that was refused has ended. While one of its alerts stands, a new request is made for it, after 1,
//! 5 and 15 minutes and then every hour, so that each request keeps exactly one outcome.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    cluster::{AlarmKind, ClusterFacts, MemberId},
    handover::Digest,
    history::{AlertKey, MemberEnd, MemberResult, Outcome, RunId, RunView, Trigger},
    order::{self, Order, OrderRecord},
    policy::{Mode, Policy},
    reason::Reason,
};

/// What `max_runs_per_day` counts over.
const DAY: Duration = Duration::from_hours(24);
/// The waits after the first, second, … refusal in a row. The last one repeats.
const RETRY_AFTER: [Duration; 4] =
    [Duration::from_mins(1), Duration::from_mins(5), Duration::from_mins(15), Duration::from_hours(1)];
/// An alert whose run has just ended may still be on its way from a second Alertmanager.
const DUPLICATES_FOR: Duration = Duration::from_mins(5);
/// An alert that is not heard of for so long no longer stands: three times Alertmanager's default
/// `repeat_interval`, for receivers that are not told of resolved alerts.
const ALERT_STANDS_FOR: Duration = Duration::from_hours(12);
/// Clocks are corrected by small steps all the time.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(1);
/// From this file size / quota on, `emergency: true` overrides the windows.
pub const EMERGENCY_QUOTA_USAGE: f64 = 0.9;

/// What the journal holds about one cluster, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Its runs; the newest ones are enough.
    pub runs: Vec<RunView>,
    /// What people ordered.
    pub orders: Vec<OrderRecord>,
    /// What other replicas left when they held the lock.
    pub inherited: Option<Digest>,
}

/// Why a request does not begin now.
#[derive(Clone, Debug, PartialEq)]
pub enum Hold {
    /// It waits.
    Wait {
        /// For what.
        reason: Reason,
        /// When to look again at the latest; `None` where only an event ends it.
        until: Option<Timestamp>,
    },
    /// It ends with this outcome.
    End(Outcome),
}

/// A refused run that is to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Which one.
    pub run: RunId,
    /// When.
    pub at: Timestamp,
    /// For which alerts.
    pub alerts: Vec<AlertKey>,
    /// Who agreed to the refused run: that holds for its retry, too.
    pub approved_by: Option<String>,
}

impl Ledger {
    /// One of its runs.
    pub fn run(&self, id: RunId) -> Option<&RunView> {
        self.runs.iter().rev().find(|run| run.id == id)
    }

    /// Why a new request is not taken.
    pub fn refusal(&self, trigger: Trigger, policy: &Policy, now: Timestamp) -> Option<Reason> {
        self.breaker(policy, now).or_else(|| {
            // These two hold back automation; a person who asks knows of the last run.
            (trigger != Trigger::Manual)
                .then(|| self.cooldown(policy, now).or_else(|| self.daily_limit(policy, now)))?
        })
    }

    /// Why the request does not begin now. `emergency` is whether [`emergency`] was just observed.
    pub fn hold(&self, run: &RunView, policy: &Policy, emergency: bool, now: Timestamp) -> Option<Hold> {
        // After a crash it goes on as what it is, a run under way: see [`Ledger::stop`].
        if run.started_at.is_some() {
            return None;
        }
        if run.request.trigger != Trigger::Manual && policy.mode == Mode::Approve && run.approved.is_none() {
            let until = after(run.accepted_at, policy.approval_timeout);
            if now >= until {
                let reason = Reason::ApprovalExpired { waited: policy.approval_timeout };
                return Some(Hold::End(Outcome::Stopped { reason }));
            }
            return Some(Hold::Wait { reason: Reason::AwaitingApproval { until }, until: Some(until) });
        }
        if let Some(reason) = self.breaker(policy, now) {
            return Some(Hold::End(Outcome::Refused { reason }));
        }
        if let Some(reason) = self.paused(now) {
            let until = if let Reason::Paused { until, .. } = &reason { *until } else { None };
            return Some(Hold::Wait { reason, until });
        }
        // What observe would do is worth knowing at once, and touches nothing.
        if policy.mode == Mode::Observe || emergency || policy.windows.open_at(now) {
            return None;
        }
        let opens = policy.windows.next_opening(now);
        Some(Hold::Wait { reason: Reason::OutsideWindow { opens }, until: opens })
    }

    /// Why a run under way starts no new member. The one in flight is followed to its end all the same.
    pub fn stop(&self, policy: &Policy, emergency: bool, now: Timestamp) -> Option<Reason> {
        self.paused(now).or_else(|| {
            let open = policy.mode == Mode::Observe || emergency || policy.windows.open_at(now);
            (!open).then_some(Reason::WindowClosed { closed: now })
        })
    }

    /// When the state of [`Ledger::stop`] may change by itself.
    pub fn next_stop(policy: &Policy, now: Timestamp) -> Option<Timestamp> {
        policy.windows.closes_at(now)
    }

    /// The last run that touched a member is too recent.
    pub fn cooldown(&self, policy: &Policy, now: Timestamp) -> Option<Reason> {
        let ended = self.touched().filter(|ended| has_been(*ended, now)).max()?;
        let until = after(ended, policy.cooldown);
        (until > now).then_some(Reason::Cooldown { until })
    }

    /// As many runs as the policy allows touched a member within 24 hours.
    pub fn daily_limit(&self, policy: &Policy, now: Timestamp) -> Option<Reason> {
        let limit = policy.max_runs_per_day;
        let within_a_day = |ended: &Timestamp| has_been(*ended, now) && after(*ended, DAY) > now;
        let mut recent: Vec<_> = self.touched().filter(within_a_day).collect();
        recent.sort_unstable();
        // The one whose day must be over for the next run to be within the limit.
        let blocking = recent.len().checked_sub(usize::try_from(limit).ok()?)?;
        Some(Reason::DailyLimit { limit, until: after(*recent.get(blocking)?, DAY) })
    }

    /// What this journal and those of other holders tell together, for the next holder and for what follows here.
    pub fn digest(&self) -> Digest {
        let own = Digest::of(self);
        match &self.inherited {
            Some(inherited) => own.merged(inherited),
            None => own,
        }
    }

    /// When the runs of this journal failed, since the last that succeeded and the last resume; and when that was.
    pub(super) fn failures_in_a_row(&self) -> (Vec<Timestamp>, Option<Timestamp>) {
        let resumed = self.resumed();
        let (mut failures, mut succeeded) = (Vec::new(), None);
        for run in &self.runs {
            let Some(ended) = run.finished_at.filter(|_| resumed.is_none_or(|resumed| run.id > resumed)) else {
                continue;
            };
            match &run.outcome {
                Some(Outcome::Failed { .. }) => failures.push(ended),
                // Nobody knows how it would have ended, but it was under way.
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

    /// Too many runs failed in a row since a person last resumed.
    pub fn breaker(&self, policy: &Policy, now: Timestamp) -> Option<Reason> {
        let failures = match self.inherited {
            None => self.failures_in_a_row().0,
            Some(_) => self.digest().failures.into_iter().collect(),
        };
        let since = failures.last().copied();
        let failures = u32::try_from(failures.len()).unwrap_or(u32::MAX);
        let since = since.filter(|_| failures >= policy.breaker_failures)?;
        // The try after it that fails opens the breaker again at once, for the count goes on.
        let until = policy.breaker_reset_after.map(|time| if has_been(since, now) { after(since, time) } else { now });
        until.is_none_or(|until| until > now).then_some(Reason::BreakerOpen { failures, since, until })
    }

    /// A person paused the cluster, and nobody resumed.
    pub fn paused(&self, now: Timestamp) -> Option<Reason> {
        let inherited = self.inherited.as_ref().and_then(|inherited| inherited.order.as_ref());
        let in_force = match (order::in_force(&self.orders), inherited) {
            (Some(own), Some(other)) => own.or_other(other),
            (own, other) => own.or(other)?,
        };
        match &in_force.order {
            Order::Pause { by, reason, until } if until.is_none_or(|until| until > now) => {
                Some(Reason::Paused { by: by.clone(), reason: reason.clone(), until: *until })
            }
            _ => None,
        }
    }

    /// The retry that is due, now or later.
    pub fn retry(&self, now: Timestamp) -> Option<Retry> {
        // A person's run that did nothing leaves the matter where it was.
        let tells = |run: &&RunView| run.request.trigger != Trigger::Manual || run.touched_a_member();
        let chain: Vec<_> = self
            .runs
            .iter()
            .rev()
            .filter(tells)
            .take_while(|run| {
                (matches!(run.outcome, Some(Outcome::Refused { .. })) || is_left_to_others(run))
                    && run.request.trigger != Trigger::Manual
            })
            .collect();
        let last = chain.first()?;
        let alerts: Vec<_> = last.standing_alerts().cloned().collect();
        let approved_by = last.approved.as_ref().map(|approval| approval.by.clone());
        let heard = chain.iter().find(|run| run.request.trigger == Trigger::Alert).or(chain.last())?.accepted_at;
        let wait = RETRY_AFTER[(chain.len() - 1).min(RETRY_AFTER.len() - 1)];
        let ended = last.finished_at?;
        let at = after(if has_been(ended, now) { ended } else { now }, wait);
        (!alerts.is_empty() && at < after(heard, ALERT_STANDS_FOR)).then_some(Retry {
            run: last.id,
            at,
            alerts,
            approved_by,
        })
    }

    /// The newest of the runs that ended just now, if they served all of these alerts. One that was stopped served
    /// none, nor does any run serve an alert that was resolved during it and fires again.
    pub fn just_served(&self, alerts: &[AlertKey], now: Timestamp) -> Option<RunId> {
        let recent = |run: &&RunView| {
            !matches!(run.outcome, Some(Outcome::Stopped { .. }))
                && run.finished_at.is_some_and(|ended| has_been(ended, now) && after(ended, DUPLICATES_FOR) > now)
        };
        let recent: Vec<_> = self.runs.iter().rev().filter(recent).collect();
        let serves =
            |key: &AlertKey| recent.iter().find(|run| run.standing_alerts().any(|own| own == key)).map(|run| run.id);
        let served: Option<Vec<_>> = alerts.iter().map(serves).collect();
        // Without an alert there is nothing that could have been served.
        served?.into_iter().max()
    }

    /// The last attempt on each member that says anything, since a person last resumed: who resumes says that it may
    /// be tried again. One that a crash left open says nothing.
    pub fn attempts(&self) -> BTreeMap<MemberId, MemberResult> {
        if self.inherited.is_some() {
            let attempts = self.digest().attempts.into_iter();
            return attempts.map(|attempt| (attempt.result.intent.member_id, attempt.result)).collect();
        }
        self.attempts_of_its_own().into_iter().map(|(member, (_, result))| (member, result)).collect()
    }

    /// The same of this journal alone, with the ends of their runs.
    pub(super) fn attempts_of_its_own(&self) -> BTreeMap<MemberId, (Timestamp, MemberResult)> {
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

    /// The newest run that had ended when a person last resumed.
    fn resumed(&self) -> Option<RunId> {
        let resumed = self.orders.iter().filter_map(|record| match record.order {
            Order::Resume { last_ended, .. } => last_ended,
            Order::Pause { .. } => None,
        });
        resumed.max()
    }

    /// The newest run that has ended.
    pub fn last_ended(&self) -> Option<RunId> {
        self.runs.iter().filter(|run| run.finished_at.is_some()).map(|run| run.id).max()
    }

    fn touched(&self) -> impl Iterator<Item = Timestamp> {
        // A run of ours that came back to us from another holder is the same run.
        let inherited = self.inherited.iter().flat_map(|inherited| &inherited.touched).copied();
        self.touched_of_its_own().chain(inherited).collect::<BTreeSet<_>>().into_iter()
    }

    pub(super) fn touched_of_its_own(&self) -> impl Iterator<Item = Timestamp> {
        // A run that lost its lock is gone on with, by whoever holds it then.
        self.runs
            .iter()
            .filter(|run| run.touched_a_member() && !is_left_to_others(run))
            .map(|run| run.finished_at.unwrap_or(run.accepted_at))
    }
}

/// Whether the cluster cannot wait for its window: it takes no writes, or soon will not.
pub fn emergency(facts: &ClusterFacts) -> bool {
    let mut known = facts.members.iter().filter_map(|member| member.status.as_ref().ok());
    facts.has_alarm(AlarmKind::NoSpace)
        || known.any(|status| {
            status.quota_usage_ratio().is_some_and(|usage| usage >= EMERGENCY_QUOTA_USAGE)
                || status.told_alarms().any(|alarm| alarm.kind == AlarmKind::NoSpace)
        })
}

/// Whether a run ended in the middle for the lock alone.
fn is_left_to_others(run: &RunView) -> bool {
    matches!(run.outcome, Some(Outcome::Stopped { reason: Reason::LockLost { .. } }))
}

/// Whether a recorded time can be believed. One that lies ahead was written before the clock was set back, and no limit
/// must last until it comes again.
fn has_been(time: Timestamp, now: Timestamp) -> bool {
    time <= after(now, CLOCK_TOLERANCE)
}

/// Times beyond what a timestamp can hold are as far away as can be.
fn after(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
