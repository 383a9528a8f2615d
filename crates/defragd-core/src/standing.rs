//! The request that is open: what wants a run, what was done under it, and when the next run starts.
//!
//! A request stays open until it is satisfied. A run that was refused, failed or stopped early (shutdown, lost lock,
//! pause, closed window) leaves it open, and [`Ledger::next_attempt`] says when the next run starts. Each run has
//! exactly one outcome.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{
    backoff,
    cluster::MemberId,
    history::{AlertKey, MemberEnd, MemberResult, Outcome, Request, RunId, RunView, Trigger},
    ledger::{Ledger, after, counts_for_the_day, has_been},
    note::{EarlierWork, StandingRequest, SuccessionNote},
    reason::Reason,
};

/// The wait after a run that an open snapshot ended. Other clusters get the slot in the meantime.
const SNAPSHOT_RETRY_AFTER: Duration = Duration::from_mins(1);

/// A request whose last run has ended without satisfying it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextAttempt {
    pub run: RunId,
    /// When the next run is created.
    pub at: Timestamp,
    /// An operator's run is continued as such.
    pub trigger: Trigger,
    pub alerts: Vec<AlertKey>,
    /// As in [`Request`].
    pub members: Vec<String>,
    /// Who approved the last run. The approval covers the next run, unless the last one failed.
    pub approved_by: Option<String>,
}

impl NextAttempt {
    /// Whether the request has all that is wanted.
    pub fn covers(&self, wanted: &StandingRequest) -> bool {
        wanted.approved_by.is_none() && wanted.alerts.iter().all(|key| self.alerts.contains(key))
    }

    /// The same request, joined by another one. What an operator requested or approved stays so: see
    /// [`Request::join_operators`].
    #[must_use]
    pub fn joined_by(self, wanted: StandingRequest) -> StandingRequest {
        let is_operators = self.trigger == Trigger::Manual;
        // An approval for alerts that are resolved, of which only the comparison is left, is not one for later alerts.
        let approved_by = self.approved_by.filter(|_| is_operators || !self.alerts.is_empty());
        let Self { trigger, alerts, members, .. } = self;
        let mut request = Request { cluster: String::new(), trigger, alerts, members };
        request.join(wanted.alerts);
        if wanted.trigger == Trigger::Manual {
            request.join_operators(wanted.members, approved_by.is_some());
        } else if !is_operators {
            request.trigger = wanted.trigger;
        }
        let Request { trigger, alerts, members, .. } = request;
        StandingRequest { trigger, alerts, members, approved_by: approved_by.or(wanted.approved_by), work: wanted.work }
    }
}

impl Ledger {
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
        let is_later = |run: &RunView| self.inherited.as_ref().is_none_or(|inherited| inherited.is_before(run));
        let ended = |run: &&RunView| run.outcome.is_some() && is_later(run) && tells_of_request(run);
        let is_over = self.runs.iter().filter(ended).any(|run| !leaves_standing(run));
        let inherited = self.inherited.as_ref().and_then(|inherited| inherited.request.as_ref()).filter(|_| !is_over);
        let mut work = inherited.map_or_else(EarlierWork::default, |request| request.work.clone());
        match attempts().find_map(|run| Some((run, run.uncompared?))) {
            Some((run, uncompared)) if is_later(run) => work.uncompared = uncompared,
            Some((_, uncompared)) => work.uncompared |= uncompared,
            None => {}
        }
        work.done = self.done_before(open, &chain, inherited);
        work
    }

    /// The members that the attempts at the standing request, newest first, and the last lock holder have done under it.
    fn done_before(
        &self,
        open: Option<&RunView>,
        chain: &[&RunView],
        inherited: Option<&StandingRequest>,
    ) -> BTreeSet<MemberId> {
        let is_later = |run: &RunView| self.inherited.as_ref().is_none_or(|inherited| inherited.is_before(run));
        // Those before such a run were for another request, or are measured again.
        let is_last = |run: &RunView| counts_for_the_day(run) || was_withdrawn(run);
        // What another holder has left since says what still counts of these, unless such an end came after that.
        let is_replaced = |run: &RunView| {
            let ends_all = |note: &SuccessionNote| note.goes_on(run) && is_last(run);
            self.inherited.as_ref().is_some_and(|inherited| inherited.replaces(run) && !ends_all(inherited))
        };
        let is_operators = |run: &RunView| run.request.trigger == Trigger::Manual;
        let attempts: Vec<_> = open.into_iter().chain(chain.iter().copied()).collect();
        // An operator's request that was broken off is continued, and not made anew.
        let continues = |before: &&RunView| is_operators(before) && before.is_broken_off();
        let is_anew = |index: usize| is_operators(attempts[index]) && !attempts.get(index + 1).is_some_and(continues);
        // What alerts requested before does not count once an operator has requested a run.
        let (mut by_operator, mut anew_since) = (false, open.is_some() && is_anew(0));
        let mut done = BTreeSet::new();
        for (index, run) in attempts.iter().enumerate().take_while(|(_, run)| !is_replaced(run)) {
            if is_last(run) || by_operator && !is_operators(run) {
                return done;
            }
            by_operator |= is_operators(run);
            anew_since |= is_anew(index) && is_later(run);
            let defragmented = |result: &&MemberResult| matches!(result.end, MemberEnd::Defragmented { .. });
            done.extend(run.members.iter().filter(defragmented).map(|result| result.intent.member_id));
        }
        let counts = |request: &&StandingRequest| !anew_since || request.trigger == Trigger::Manual;
        done.extend(inherited.filter(counts).into_iter().flat_map(|request| &request.work.done));
        done
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

    /// Of the alerts that another replica offers, those that still request a run: all but a due time that is decided.
    /// If it offers them again, as run `taken_as` was to serve them, what was served or resolved since is done, too. If
    /// no such run of these alerts is known, this is not the journal that contained it.
    pub fn left_of_offer(&self, alerts: &[AlertKey], taken_as: Option<RunId>, now: Timestamp) -> Vec<AlertKey> {
        let taken = taken_as.and_then(|run| self.run(run));
        let is_known = taken.is_some_and(|taken| alerts.iter().any(|key| taken.request.alerts.contains(key)));
        let is_over = |key: &AlertKey| is_known || key.due().is_some_and(|due| self.is_decided(due, now));
        let standing = self.standing_request(now).map(|request| request.alerts).unwrap_or_default();
        alerts.iter().filter(|key| standing.contains(key) || !is_over(key)).cloned().collect()
    }

    /// If nothing is left of an offer: the run that stands for it, and why it requests no other. The first run that
    /// decides a due time does what the offer asks for: as long as its request stands, the offer is not over.
    pub fn answer_to_offer(
        &self,
        alerts: &[AlertKey],
        taken_as: Option<RunId>,
        me: &str,
        now: Timestamp,
    ) -> (RunId, Reason) {
        let first = |key: &AlertKey| self.deciding(key.due()?, now).next().map(|run| run.id);
        let deciding: Vec<_> = alerts.iter().filter_map(first).collect();
        let attempts = self.attempts_at_standing(now);
        let stands = attempts.iter().any(|run| deciding.contains(run));
        if let Some(run) = attempts.first().filter(|_| stands) {
            return (*run, Reason::AlreadyRequested);
        }
        let decided_by = || deciding.iter().copied().max().or_else(|| self.last_ended());
        let run = taken_as.or_else(decided_by).unwrap_or(RunId(0));
        (run, Reason::Forwarded { holder: me.to_owned(), run })
    }

    /// The attempts at the standing request, newest first: the one that waits or is in progress, and those before it.
    fn attempts_at_standing(&self, now: Timestamp) -> Vec<RunId> {
        let open = self.runs.iter().rev().find(|run| run.outcome.is_none() && run.cancelled.is_none());
        if open.is_none() && self.next_attempt(now).is_none() {
            return Vec::new();
        }
        let before = self.chain(open.map(|run| run.id));
        open.into_iter().chain(before).map(|run| run.id).collect()
    }
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
    let did_all = run.is_satisfied() && run.request.members.is_empty();
    !by_operator || (run.is_broken_off() && run.approved.is_some()) || did_all
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

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
