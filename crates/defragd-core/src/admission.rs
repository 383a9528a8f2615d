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
//!
//! A request stays open until it is satisfied. A run that was refused, failed or stopped early (shutdown, lost lock,
//! pause, closed window) leaves it open, and [`Ledger::next_attempt`] says when the next run starts. Each run has
//! exactly one outcome.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    backoff,
    cluster::{AlarmKind, ClusterFacts, MemberId},
    estimate::Speeds,
    history::{AlertKey, MemberEnd, MemberResult, Outcome, RunId, RunView, Trigger},
    note::{Attempt, EarlierWork, Mismatch, StandingRequest, SuccessionNote},
    order::{self, Order, OrderRecord},
    policy::{Mode, Policy},
    reason::Reason,
};

/// The period of `max_runs_per_day`.
pub(super) const DAY: Duration = Duration::from_hours(24);
/// The wait after a run that an open snapshot ended. Other clusters get the slot in the meantime.
const SNAPSHOT_RETRY_AFTER: Duration = Duration::from_mins(1);
/// Clocks are corrected by small steps all the time.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(1);
/// From this ratio of file size to quota on, `emergency: true` overrides the windows.
pub const EMERGENCY_QUOTA_USAGE: f64 = 0.9;

/// What the journal holds about one cluster, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Its runs; the newest ones are enough.
    pub runs: Vec<RunView>,
    pub orders: Vec<OrderRecord>,
    /// The state that other replicas left when they held the lock.
    pub inherited: Option<SuccessionNote>,
}

/// A request whose last run has ended without satisfying it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextAttempt {
    pub run: RunId,
    /// When the next run is created.
    pub at: Timestamp,
    /// An operator's run is continued as such.
    pub trigger: Trigger,
    pub alerts: Vec<AlertKey>,
    /// As in [`Request`](super::history::Request).
    pub members: Vec<String>,
    /// Who approved the last run. The approval covers the next run, unless the last one failed.
    pub approved_by: Option<String>,
}

impl Ledger {
    /// One of its runs.
    pub fn run(&self, id: RunId) -> Option<&RunView> {
        self.runs.iter().rev().find(|run| run.id == id)
    }

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

    /// The combined state of this journal and those of other holders, for the next holder and for the checks below.
    pub fn digest(&self) -> SuccessionNote {
        let mut own = SuccessionNote::of(self);
        let attempts = self.attempts_of_its_own().into_values();
        own.attempts = attempts.map(|(at, result)| Attempt { at, result }).collect();
        own.rejections = self.rejections_of_its_own().collect();
        self.with_inherited(own)
    }

    /// The same without attempts and rejections, which cost too much for every scrape.
    fn limits(&self) -> SuccessionNote {
        self.with_inherited(SuccessionNote::of(self))
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
    pub(super) fn failures_in_a_row(&self) -> (Vec<Timestamp>, Option<Timestamp>) {
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
    fn failures(&self) -> Vec<Timestamp> {
        match self.inherited {
            None => self.failures_in_a_row().0,
            Some(_) => self.limits().failures.into_iter().collect(),
        }
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

    /// The operator's action in force, also one that another lock holder recorded.
    pub(super) fn order_in_force(&self) -> Option<&OrderRecord> {
        let inherited = self.inherited.as_ref().and_then(|inherited| inherited.order.as_ref());
        match (order::in_force(&self.orders), inherited) {
            (Some(own), Some(other)) => Some(own.or_other(other)),
            (own, other) => own.or(other),
        }
    }

    /// The next run of an open request: due now or later.
    pub fn next_attempt(&self, now: Timestamp) -> Option<NextAttempt> {
        let chain = self.chain(None);
        let last = *chain.first()?;
        let ended = last.finished_at?;
        let alerts = alerts_of(&chain);
        // The approval does not cover another attempt at what failed.
        let agreed = last.approved.as_ref().filter(|_| !matches!(last.outcome, Some(Outcome::Failed { .. })));
        // Who requested some members has not approved the others.
        let agreed = agreed.filter(|_| last.request.members.is_empty() || last.is_broken_off());
        let approved_by = agreed.map(|approval| approval.by.clone());
        let next =
            |trigger, at, alerts| NextAttempt { run: last.id, at, trigger, alerts, members: Vec::new(), approved_by };
        if last.request.trigger == Trigger::Manual && last.is_broken_off() {
            let members = last.request.members.clone();
            return Some(NextAttempt { members, ..next(Trigger::Manual, resumes_at(last, ended, now), alerts) });
        }
        let tries: usize = chain
            .iter()
            .filter(|run| !run.is_broken_off())
            .map(|run| 1 + usize::try_from(run.repeats).unwrap_or(0))
            .sum();
        let at = match tries.checked_sub(1) {
            Some(tries) if !last.is_broken_off() && has_been(ended, now) => after(ended, backoff::retry_after(tries)),
            _ => resumes_at(last, ended, now),
        };
        (!alerts.is_empty() || self.earlier_work().uncompared).then(|| next(Trigger::Retry, at, alerts))
    }

    /// The ended attempts at the standing request before this run, newest first.
    fn chain(&self, before: Option<RunId>) -> Vec<&RunView> {
        let runs = self.runs.iter().rev().filter(|run| before.is_none_or(|before| run.id < before));
        runs.filter(|run| tells_of_request(run)).take_while(|run| leaves_standing(run)).collect()
    }

    /// Whether this run of an operator, or a new one, continues another one.
    pub fn continues(&self, run: Option<RunId>) -> bool {
        self.chain(run).first().is_some_and(|last| last.request.trigger == Trigger::Manual)
    }

    /// What was done under the standing request, also by the last lock holder.
    pub fn earlier_work(&self) -> EarlierWork {
        let open = self.runs.iter().rev().find(|run| run.outcome.is_none());
        let chain = self.chain(open.map(|run| run.id));
        let attempts = || open.into_iter().chain(chain.iter().copied());
        let inherited_after = self.inherited.as_ref().and_then(|inherited| inherited.inherited_after);
        // One that was open when the note was read has started again since.
        let is_later =
            |run: &RunView| inherited_after.is_none_or(|after| run.id > after || (run.id == after && run.starts > 1));
        let ended = |run: &&RunView| run.outcome.is_some() && is_later(run) && tells_of_request(run);
        let is_over = self.runs.iter().filter(ended).any(|run| !leaves_standing(run));
        let inherited = self.inherited.as_ref().and_then(|inherited| inherited.request.as_ref()).filter(|_| !is_over);
        let mut work = inherited.map_or_else(EarlierWork::default, |request| request.work.clone());
        match attempts().find_map(|run| Some((run, run.uncompared?))) {
            Some((run, uncompared)) if is_later(run) => work.uncompared = uncompared,
            Some((_, uncompared)) => work.uncompared |= uncompared,
            None => {}
        }
        // Those before such a run were for another request, or are measured again.
        let is_last = |run: &RunView| counts_for_the_day(run) || was_withdrawn(run);
        if attempts().any(is_last) {
            work.done.clear();
        }
        let done = |result: &&MemberResult| matches!(result.end, MemberEnd::Defragmented { .. });
        let results = attempts().take_while(|run| !is_last(run)).flat_map(|run| &run.members);
        work.done.extend(results.filter(done).map(|result| result.intent.member_id));
        work
    }

    /// The open request, for the next lock holder.
    pub fn standing_request(&self, now: Timestamp) -> Option<StandingRequest> {
        if let Some(run) = self.runs.iter().rev().find(|run| run.outcome.is_none() && run.cancelled.is_none()) {
            let mut work = self.earlier_work();
            // The next holder may never learn how far a run has come that is under way now.
            work.uncompared |= run.compares;
            return Some(StandingRequest {
                trigger: run.request.trigger,
                alerts: run.open_alerts().cloned().collect(),
                members: run.request.members.clone(),
                approved_by: run.approved.as_ref().map(|approval| approval.by.clone()),
                work,
            });
        }
        let NextAttempt { trigger, alerts, members, approved_by, .. } = self.next_attempt(now)?;
        Some(StandingRequest { trigger, alerts, members, approved_by, work: self.earlier_work() })
    }

    /// Of the alerts that another replica offers again, those that are still open: what was served or resolved since
    /// `run` was to serve them is done, and the next offer must not request it again. If no such run of these alerts is
    /// known, this is not the journal that contained it, and all of them count.
    pub fn left_of_offer(&self, mut alerts: Vec<AlertKey>, run: RunId, now: Timestamp) -> Vec<AlertKey> {
        if self.run(run).is_some_and(|taken| alerts.iter().any(|key| taken.request.alerts.contains(key))) {
            let standing = self.standing_request(now).map(|request| request.alerts).unwrap_or_default();
            alerts.retain(|key| standing.contains(key));
        }
        alerts
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

    /// The same from this journal alone, with the ends of the runs.
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

    /// The newest run that had ended when an operator last resumed.
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
        // A run of ours that another holder passed back is the same run.
        let inherited = self.inherited.iter().flat_map(|inherited| &inherited.touched).copied();
        self.touched_of_its_own().chain(inherited).collect::<BTreeSet<_>>().into_iter()
    }

    pub(super) fn touched_of_its_own(&self) -> impl Iterator<Item = Timestamp> {
        self.runs
            .iter()
            .filter(|run| run.outcome.is_none() && run.touched_a_member() || counts_for_the_day(run))
            .map(|run| run.finished_at.unwrap_or(run.accepted_at))
    }

    pub(super) fn served_of_its_own(&self) -> impl Iterator<Item = Timestamp> {
        self.runs.iter().filter(|run| starts_cooldown(run)).filter_map(|run| run.finished_at)
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

/// The unresolved alerts of the newest of these runs that has any. The runs are ordered newest first.
fn alerts_of(chain: &[&RunView]) -> Vec<AlertKey> {
    let mut resolved = Vec::new();
    for run in chain {
        let standing: Vec<_> = run.open_alerts().filter(|key| !resolved.contains(key)).cloned().collect();
        if !standing.is_empty() {
            return standing;
        }
        resolved.extend(&run.resolved);
    }
    Vec::new()
}

/// An operator saw how their own run ended. Unless it did the work, an alert's request stays open as before.
fn tells_of_request(run: &RunView) -> bool {
    let by_operator = run.request.trigger == Trigger::Manual && run.open_alerts().next().is_none();
    let did_all = is_satisfied(run) && run.request.members.is_empty();
    !by_operator || (run.is_broken_off() && run.approved.is_some()) || did_all
}

/// A run that was broken off costs nothing: the next one does the rest of its work.
fn counts_for_the_day(run: &RunView) -> bool {
    run.outcome.is_some() && run.touched_a_member() && !run.is_broken_off()
}

/// After a failure the rest of the work is still needed.
fn starts_cooldown(run: &RunView) -> bool {
    let has_failed = matches!(run.outcome, Some(Outcome::Failed { .. } | Outcome::Interrupted { .. }));
    counts_for_the_day(run) && !has_failed
}

/// Whether all its alerts were resolved after it: that ended their request.
fn was_withdrawn(run: &RunView) -> bool {
    let had_alerts = !run.request.alerts.is_empty() && run.request.trigger != Trigger::Manual;
    run.outcome.is_some() && had_alerts && run.open_alerts().next().is_none()
}

/// Whether a run left its request open. One of some members did not do what the alerts that joined it want.
fn leaves_standing(run: &RunView) -> bool {
    use Outcome::{Failed, Interrupted, Refused};
    let undone =
        matches!(run.outcome, Some(Refused { .. } | Failed { .. } | Interrupted { .. })) || run.is_broken_off();
    let in_part = !run.request.members.is_empty() && run.open_alerts().next().is_some();
    (undone || in_part) && run.cancelled.is_none()
}

/// When the next run of a request starts whose last run was stopped early.
fn resumes_at(last: &RunView, ended: Timestamp, now: Timestamp) -> Timestamp {
    match &last.outcome {
        Some(Outcome::Stopped { reason: Reason::SnapshotOpen { .. } }) if has_been(ended, now) => {
            after(ended, SNAPSHOT_RETRY_AFTER)
        }
        _ => now.min(ended),
    }
}

/// Whether a run found that nothing is left to do, or its mode allows nothing.
pub(super) fn is_satisfied(run: &RunView) -> bool {
    // After a mismatch the work of the run is done; the rest is the operator's.
    matches!(
        run.outcome,
        Some(Outcome::Succeeded | Outcome::Mismatched { .. } | Outcome::NothingToDo | Outcome::Observed { .. })
    )
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
#[path = "admission_tests.rs"]
mod tests;
