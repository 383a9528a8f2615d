//! Whether and when a run may begin, and what ends one early.
//!
//! Everything is derived from the [`Ledger`], which the journal provides again after a restart: no state is stored
//! elsewhere. Whether a member needs a defragmentation, and whether it is safe, is decided later and elsewhere.
//!
//! | | a waiting request | a run in progress |
//! |---|---|---|
//! | cancelled | ends | starts no new member, and ends |
//! | mode approve | waits for approval, then expires | |
//! | members differ | waits for an operator; an operator's own request is refused | |
//! | breaker open | waits for an operator, or until the reset; an operator's own request is refused | |
//! | paused | waits | starts no new member |
//! | cooldown, back-off, daily limit | waits, unless an operator started it or there is an emergency | |
//! | no window is open | waits, unless there is an emergency | starts no new member |

use std::time::Duration;

use jiff::Timestamp;

use super::{
    backoff,
    cluster::{AlarmKind, ClusterFacts},
    history::{AlertKey, RunId, RunView, Trigger},
    ledger::{Ledger, after, has_been},
    order::Order,
    policy::{Mode, Policy},
    reason::Reason,
    rejection::Rejection,
};

/// The period of `max_runs_per_day`.
pub(super) const DAY: Duration = Duration::from_hours(24);
/// From this ratio of file size to quota on, `emergency: true` overrides the windows.
pub const EMERGENCY_QUOTA_USAGE: f64 = 0.9;

impl Ledger {
    /// Why a run in progress starts no further member. The member that is being defragmented is still watched until it
    /// is done.
    pub fn stop(&self, run: RunId, policy: &Policy, emergency: bool, now: Timestamp) -> Option<Reason> {
        let run = self.run(run);
        let withdrawn = run.and_then(RunView::withdrawn);
        let unapproved = run
            .filter(|run| lacks_approval(run, policy))
            .map(|run| Reason::AwaitingApproval { until: after(run.accepted_at, policy.approval_timeout) });
        withdrawn.or(unapproved).or_else(|| self.paused(now)).or_else(|| {
            let open = policy.mode == Mode::Observe || emergency || policy.windows.open_at(now);
            (!open).then_some(Reason::WindowClosed { closed: now })
        })
    }

    /// When the state of [`Ledger::stop`] may change by itself.
    pub fn next_stop(policy: &Policy, now: Timestamp) -> Option<Timestamp> {
        policy.windows.closes_at(now)
    }

    /// The last run that did the work of its request is too recent. One that failed is held by [`Ledger::back_off`].
    pub fn cooldown(&self, policy: &Policy, now: Timestamp) -> Option<Reason> {
        let inherited = self.inherited.as_ref().and_then(|inherited| inherited.served_at);
        let ended = self.served_of_its_own().chain(inherited).filter(|ended| has_been(*ended, now)).max()?;
        let until = after(ended, policy.cooldown);
        (until > now).then_some(Reason::Cooldown { until })
    }

    /// The last run failed too recently, whatever requests the next one: longer with each failure in a row.
    pub fn back_off(&self, now: Timestamp) -> Option<Reason> {
        let failures: Vec<_> = self.failures().into_iter().filter(|ended| has_been(*ended, now)).collect();
        let at = after(*failures.last()?, backoff::retry_after(failures.len() - 1));
        (at > now).then_some(Reason::RetryPending { at })
    }

    /// As many runs as the policy allows touched a member within 24 hours.
    pub fn daily_limit(&self, policy: &Policy, now: Timestamp) -> Option<Reason> {
        let limit = policy.max_runs_per_day;
        let within_a_day = |ended: &Timestamp| has_been(*ended, now) && after(*ended, DAY) > now;
        let mut recent: Vec<_> = self.touched().filter(within_a_day).collect();
        recent.sort_unstable();
        // After this one has left the 24 hours, the next run is within the limit.
        let blocking = recent.len().checked_sub(usize::try_from(limit).ok()?)?;
        Some(Reason::DailyLimit { limit, until: after(*recent.get(blocking)?, DAY) })
    }

    /// Too many runs have failed in a row since an operator last resumed.
    pub fn breaker(&self, policy: &Policy, now: Timestamp) -> Option<Reason> {
        let failures = self.failures();
        let since = failures.last().copied();
        let failures = u32::try_from(failures.len()).unwrap_or(u32::MAX);
        let since = since.filter(|_| failures >= policy.breaker_failures)?;
        // If the next attempt fails, too, the breaker opens again at once, because the count continues.
        let until = policy.breaker_reset_after.map(|time| if has_been(since, now) { after(since, time) } else { now });
        until.is_none_or(|until| until > now).then_some(Reason::BreakerOpen { failures, since, until })
    }

    /// A run found that the members hold different data, and the cluster has not been resumed since.
    pub fn mismatch(&self) -> Option<Reason> {
        match self.inherited {
            None => self.mismatch_of_its_own().map(|found| found.reason),
            Some(_) => self.limits().mismatch.map(|found| found.reason),
        }
    }

    /// An operator paused the cluster, and it has not been resumed since.
    pub fn paused(&self, now: Timestamp) -> Option<Reason> {
        let in_force = self.order_in_force()?;
        match &in_force.order {
            Order::Pause { by, reason, until } if until.is_none_or(|until| until > now) => {
                Some(Reason::Paused { by: by.clone(), reason: reason.clone(), until: *until })
            }
            _ => None,
        }
    }

    /// Of these alerts, those that request a run; if an operator rejected all of them, the last rejection.
    pub fn without_rejected(
        &self,
        alerts: Vec<AlertKey>,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Vec<AlertKey>, Box<Rejection>> {
        if alerts.is_empty() {
            return Ok(alerts);
        }
        let lasts = |rejection: &Rejection| has_been(rejection.at, now) && after(rejection.at, policy.cooldown) > now;
        let inherited = self.inherited.iter().flat_map(|inherited| &inherited.rejections).cloned();
        let rejections: Vec<_> = self.rejections_of_its_own().chain(inherited).filter(lasts).collect();
        let last =
            alerts.iter().filter_map(|key| newest(&rejections, key)).max_by_key(|rejection| rejection.at).cloned();
        let left: Vec<_> = alerts.into_iter().filter(|key| newest(&rejections, key).is_none()).collect();
        match last {
            Some(rejection) if left.is_empty() => Err(Box::new(rejection)),
            _ => Ok(left),
        }
    }

    /// Why a waiting run asks for nothing any more: all that it is for was rejected, here or by another lock holder.
    pub(super) fn rejected(&self, run: &RunView, policy: &Policy, now: Timestamp) -> Option<Reason> {
        let may_be = run.started_at.is_none() && run.approved.is_none() && run.request.trigger != Trigger::Manual;
        let alerts: Vec<_> = run.open_alerts().filter(|_| may_be).map(AlertKey::bare).collect();
        self.without_rejected(alerts, policy, now).err().map(|rejection| rejection.reason_elsewhere())
    }
}

/// Whether the cluster cannot wait for its window: it accepts no writes, or soon will not.
pub fn emergency(facts: &ClusterFacts) -> bool {
    let mut known = facts.members.iter().filter_map(|member| member.status.as_ref().ok());
    facts.has_alarm(AlarmKind::NoSpace)
        || known.any(|status| {
            status.quota_usage_ratio().is_some_and(|usage| usage >= EMERGENCY_QUOTA_USAGE)
                || status.reported_alarms().any(|alarm| alarm.kind == AlarmKind::NoSpace)
        })
}

/// Whether the run still needs an approval, including one that started in another mode.
pub fn lacks_approval(run: &RunView, policy: &Policy) -> bool {
    run.request.trigger != Trigger::Manual && policy.mode == Mode::Approve && run.approved.is_none()
}

/// The last rejection of this alert.
fn newest<'a>(rejections: &'a [Rejection], key: &AlertKey) -> Option<&'a Rejection> {
    rejections.iter().filter(|rejection| rejection.alerts.contains(key)).max_by_key(|rejection| rejection.at)
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
