//! What holds a request: all of it, in the order in which it counts; and the request as people see it.

use std::{collections::BTreeSet, iter::once_with};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    admission::lacks_approval,
    explain,
    history::{AlertKey, Approval, Outcome, Request, RunId, RunView, Trigger},
    ledger::{Ledger, after},
    policy::{Mode, Policy},
    reason::Reason,
    rejection::Rejection,
    story,
};

/// Why a request does not start a run now.
#[derive(Clone, Debug, PartialEq)]
pub enum Hold {
    Wait {
        reason: Reason,
        /// When to check again at the latest; `None` if only an event ends it.
        until: Option<Timestamp>,
    },
    /// The request ends with this outcome.
    End(Outcome),
}

impl Hold {
    fn wait(reason: Reason) -> Self {
        Self::Wait { until: reason.until(), reason }
    }

    fn reason(self) -> Option<Reason> {
        if let Self::Wait { reason, .. } = self { Some(reason) } else { None }
    }
}

impl Reason {
    /// When a hold ends by itself, if that is known.
    pub const fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Cooldown { until }
            | Self::DailyLimit { until, .. }
            | Self::AwaitingApproval { until }
            | Self::RetryPending { at: until } => Some(*until),
            Self::Paused { until, .. } | Self::BreakerOpen { until, .. } | Self::OutsideWindow { opens: until } => {
                *until
            }
            _ => None,
        }
    }
}

/// A hold as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HoldView {
    #[serde(serialize_with = "explain::serialize")]
    pub reason: Reason,
    /// Since when it holds, if known.
    pub since: Option<Timestamp>,
    /// When it ends by itself, if known.
    pub until: Option<Timestamp>,
}

impl HoldView {
    pub fn new(reason: Reason, since: Option<Timestamp>) -> Self {
        Self { until: reason.until(), since, reason }
    }
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestPhase {
    /// Its run is in progress.
    Running,
    /// Its run waits, or the next one does.
    Waiting,
    /// Its last run ended, nothing more is to be done now, and its alert still fires.
    Served,
}

/// The run that last served a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedBy {
    pub run: RunId,
    /// As the metrics' label.
    pub outcome: String,
    /// The outcome and its reason in words.
    pub ended: String,
    pub at: Option<Timestamp>,
}

/// What wants a cluster defragmented, and the one hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestView {
    pub phase: RequestPhase,
    /// The run that waits or is in progress.
    pub run: Option<RunId>,
    pub trigger: Trigger,
    /// Who started or approved it.
    pub by: Option<String>,
    /// The alerts that fire, as far as defragd was notified.
    pub alerts: Vec<AlertKey>,
    /// Since when the first of them fires; without alerts, when the run was requested.
    pub since: Option<Timestamp>,
    pub served_by: Option<ServedBy>,
    pub hold: Option<HoldView>,
}

/// The request that is open, with its run, as the worker knows it.
#[derive(Clone, Debug)]
pub struct OpenRun {
    pub id: RunId,
    pub request: Request,
    /// Whether it is in progress; it waits otherwise.
    pub is_active: bool,
    /// What it waits for, and since when.
    pub waits_for: Option<(Reason, Timestamp)>,
}

impl Ledger {
    /// Why the request does not start a run now: the first of [`Ledger::holds`].
    pub fn hold(&self, run: &RunView, policy: &Policy, emergency: bool, now: Timestamp) -> Option<Hold> {
        self.holds(run, policy, emergency, now).next()
    }

    /// Everything that holds the request now, the first cause first. `emergency` is whether
    /// [`super::admission::emergency`] was just observed. What would not hold it once it is approved is left out.
    pub fn holds<'a>(
        &'a self,
        run: &'a RunView,
        policy: &'a Policy,
        emergency: bool,
        now: Timestamp,
    ) -> impl Iterator<Item = Hold> + 'a {
        let withdrawn = run.withdrawn().filter(|_| run.started_at.is_none());
        let withdrawn = withdrawn.or_else(|| self.rejected(run, policy, now));
        let withdrawn = withdrawn.map(|reason| Hold::End(Outcome::Stopped { reason }));
        let lacks_approval = lacks_approval(run, policy);
        // A run that a crash interrupted continues: see [`Ledger::stop`]. A member that may be defragmenting is always
        // watched until it is done.
        let continues = run.started_at.is_some() && (!lacks_approval || run.open_intent.is_some());
        let approval = move || {
            let until = after(run.accepted_at, policy.approval_timeout);
            let waited = policy.approval_timeout;
            let expired = || Hold::End(Outcome::Stopped { reason: Reason::ApprovalExpired { waited } });
            lacks_approval
                .then(|| if now >= until { expired() } else { Hold::wait(Reason::AwaitingApproval { until }) })
        };
        // Limits for automation. An operator who starts or approves a run knows about the last one.
        let by_operator = run.request.trigger == Trigger::Manual || run.approved.is_some() || lacks_approval;
        let is_limited = !by_operator && !emergency;
        // A run in mode observe is useful at any time, and changes nothing.
        let any_time = policy.mode == Mode::Observe || emergency;
        let outside = move || Reason::OutsideWindow { opens: policy.windows.next_opening(now) };
        let causes = once_with(move || self.mismatch())
            .chain(once_with(move || self.breaker(policy, now)))
            .chain(once_with(move || self.paused(now)))
            .chain(once_with(move || is_limited.then(|| self.cooldown(policy, now)).flatten()))
            .chain(once_with(move || is_limited.then(|| self.back_off(now)).flatten()))
            .chain(once_with(move || is_limited.then(|| self.daily_limit(policy, now)).flatten()))
            .chain(once_with(move || (!any_time && !policy.windows.open_at(now)).then(outside)));
        let waits = once_with(approval).flatten().chain(causes.flatten().map(Hold::wait));
        withdrawn.into_iter().chain(waits.filter(move |_| !continues))
    }

    /// All waits of [`Ledger::holds`] for people, of this run or of one that would be requested now.
    pub fn hold_views(
        &self,
        run: Option<&RunView>,
        trigger: Trigger,
        policy: &Policy,
        emergency: bool,
        now: Timestamp,
    ) -> Vec<HoldView> {
        let request = Request::new("", trigger);
        let next = RunView::accepted(RunId(i64::MAX), now, request);
        let holds = self.holds(run.unwrap_or(&next), policy, emergency, now);
        holds.filter_map(Hold::reason).map(|reason| self.hold_view(reason)).collect()
    }

    fn hold_view(&self, reason: Reason) -> HoldView {
        let since = match &reason {
            Reason::BreakerOpen { since, .. } => Some(*since),
            Reason::Paused { .. } => self.order_in_force().map(|record| record.at),
            _ => None,
        };
        HoldView::new(reason, since)
    }

    /// The alerts that fire, as far as was received, each with the newest run that was to serve it. An alert whose
    /// request is over fires until it is reported as resolved. Goes through all runs.
    pub fn firing(&self) -> Vec<(AlertKey, RunId)> {
        let mut known = BTreeSet::new();
        let mut firing = Vec::new();
        // Journals of earlier versions lack the labels, and do not record that the alerts of an ended run are resolved.
        let describes = |run: &RunView| run.outcome.is_none() || run.request.alerts.iter().any(AlertKey::is_described);
        for run in self.runs.iter().rev() {
            let alerts = run.request.alerts.iter().filter(|key| key.due().is_none());
            // A later start of the same alert says that the earlier one is over.
            let new: Vec<_> = alerts.filter(|key| !known.contains(key.fingerprint.as_str())).collect();
            known.extend(new.iter().map(|key| key.fingerprint.as_str()));
            let open = new.into_iter().filter(|key| describes(run) && !run.resolved.contains(key));
            firing.extend(open.map(|key| (key.clone(), run.id)));
        }
        firing
    }

    /// The request that stands or whose alert still fires; `None` if nothing wants the cluster defragmented. `firing`
    /// is [`Ledger::firing`].
    pub fn request_view(
        &self,
        open: Option<&OpenRun>,
        firing: &[(AlertKey, RunId)],
        policy: &Policy,
        now: Timestamp,
    ) -> Option<RequestView> {
        if let Some(open) = open {
            return Some(self.open_request_view(open));
        }
        // A slow disk may have its record before its writer knows.
        if let Some(run) = self.runs.last().filter(|run| run.outcome.is_none()) {
            let (id, request, is_active) = (run.id, run.request.clone(), false);
            let held = self.hold(run, policy, false, now).and_then(Hold::reason);
            let waits_for = held.map(|reason| (reason, run.accepted_at));
            return Some(self.open_request_view(&OpenRun { id, request, is_active, waits_for }));
        }
        let next = self.next_attempt(now);
        let last = next.as_ref().map(|next| next.run).or_else(|| firing.first().map(|(_, run)| *run))?;
        let last = self.run(last)?;
        let outcome = last.outcome.as_ref()?;
        let ended = story::outcome(outcome);
        let served_by =
            ServedBy { run: last.id, outcome: outcome.label().to_owned(), ended: ended.clone(), at: last.finished_at };
        let trigger = next.as_ref().map_or(last.request.trigger, |next| next.trigger);
        let alerts: Vec<_> = match &next {
            Some(next) if !next.alerts.is_empty() => next.alerts.clone(),
            _ => firing.iter().map(|(key, _)| key.clone()).collect(),
        };
        // The approval that the next run will need is no hold yet.
        let request = Request::new("", trigger);
        let mut run = RunView::accepted(RunId(i64::MAX), now, request);
        if policy.mode == Mode::Approve {
            run.approved = Some(Approval { by: String::new(), at: now });
        }
        // Its notifications request nothing, whatever else holds.
        let asked = if next.is_none() { alerts.iter().map(AlertKey::bare).collect() } else { Vec::new() };
        let rejected = self.without_rejected(asked, policy, now).err();
        let rejected = rejected.map(|rejection| *rejection).map(|Rejection { at, reason, .. }| HoldView {
            since: Some(at),
            until: Some(after(at, policy.cooldown)),
            reason,
        });
        let served = || Reason::Served { run: last.id, outcome: ended };
        // Each scrape asks for the first hold, and only for that.
        let mut reasons = self.holds(&run, policy, false, now).filter_map(Hold::reason);
        let retry = next.as_ref().map(|next| next.at);
        let reason = match (reasons.next(), retry) {
            (Some(Reason::RetryPending { at }), Some(retry)) if at < retry => None,
            (reason, _) => reason,
        };
        let hold = rejected.or_else(|| reason.map(|reason| self.hold_view(reason))).unwrap_or_else(|| {
            let reason = retry.map_or_else(served, |at| Reason::RetryPending { at });
            HoldView::new(reason, last.finished_at)
        });
        Some(RequestView {
            phase: if next.is_some() { RequestPhase::Waiting } else { RequestPhase::Served },
            run: None,
            trigger,
            by: None,
            since: first_start(&alerts).or(Some(last.accepted_at)),
            alerts,
            served_by: Some(served_by),
            hold: Some(hold),
        })
    }

    fn open_request_view(&self, open: &OpenRun) -> RequestView {
        let view = self.run(open.id);
        let resolved = view.map(|view| view.resolved.as_slice()).unwrap_or_default();
        let alerts = open.request.alerts.iter().filter(|key| key.due().is_none() && !resolved.contains(key));
        let alerts: Vec<_> = alerts.cloned().collect();
        RequestView {
            phase: if open.is_active { RequestPhase::Running } else { RequestPhase::Waiting },
            run: Some(open.id),
            trigger: open.request.trigger,
            by: view.and_then(|view| Some(view.approved.as_ref()?.by.clone())),
            since: first_start(&alerts).or_else(|| Some(view?.accepted_at)),
            alerts,
            served_by: None,
            hold: open.waits_for.as_ref().map(|(reason, since)| HoldView::new(reason.clone(), Some(*since))),
        }
    }
}

/// The cluster's back-off and the request's are one hold: the later one.
pub(super) fn join_retry(holds: &mut Vec<HoldView>, at: Timestamp) {
    let is_retry = |hold: &HoldView| matches!(hold.reason, Reason::RetryPending { .. });
    if !holds.iter().any(|hold| is_retry(hold) && hold.until > Some(at)) {
        holds.retain(|hold| !is_retry(hold));
        holds.push(HoldView::new(Reason::RetryPending { at }, None));
    }
}

/// Since when the first of the alerts fires.
fn first_start(alerts: &[AlertKey]) -> Option<Timestamp> {
    alerts.iter().filter_map(|key| key.starts_at.parse().ok()).min()
}

impl RequestView {
    /// What wants it, like `EtcdFragmentationHigh firing since 2026-11-29 05:31 UTC`.
    pub fn cause(&self) -> String {
        let since = self.since.map_or(String::new(), |since| format!(" since {}", story::time(since)));
        let named = self.alerts.iter().find_map(AlertKey::name);
        match (self.alerts.len(), named) {
            (0, _) => self.cause_without_alerts(),
            (1, name) => format!("{} firing{since}", name.unwrap_or("alert")),
            (more, Some(name)) => format!("{name} and {} firing{since}", story::count(more - 1, "more alert")),
            (more, None) => format!("{} firing{since}", story::count(more, "alert")),
        }
    }

    fn cause_without_alerts(&self) -> String {
        let run = self.run.map_or_else(|| "the next run".to_owned(), |run| format!("run {run}"));
        let at = self.since.map_or(String::new(), |since| format!(" {}", story::time(since)));
        match (self.trigger, &self.by) {
            (Trigger::Manual, Some(by)) => format!("{run} requested by {by}{at}"),
            (trigger, _) => format!("{run} requested by {}{at}", story::requester(trigger)),
        }
    }

    /// The cause, what was done, and the hold, in sentences.
    pub fn words(&self) -> String {
        let mut sentences = vec![story::capital(&self.cause())];
        let is_served = |hold: &HoldView| matches!(hold.reason, Reason::Served { .. } | Reason::Rejected { .. });
        if let Some(ServedBy { run, ended, at, .. }) = self.served_by.as_ref()
            && !self.hold.as_ref().is_some_and(is_served)
        {
            let at = at.map_or(String::new(), |at| format!(" at {}", story::time(at)));
            sentences.push(format!("Run {run} ended{at}: {ended}"));
        }
        sentences.push(match (&self.hold, self.phase, self.run) {
            (Some(HoldView { reason: reason @ Reason::Rejected { .. }, until: Some(until), .. }), ..) => {
                let until = story::time(*until);
                format!(
                    "{}; no run is requested until {until}, unless the alert ends and fires anew",
                    story::capital(&reason.to_string())
                )
            }
            (Some(hold), RequestPhase::Served, _) if is_served(hold) => story::capital(&hold.reason.to_string()),
            (Some(hold), ..) => story::capital(&story::waiting(&hold.reason.to_string())),
            (None, RequestPhase::Running, Some(run)) => format!("Run {run} is in progress"),
            (None, _, Some(run)) => format!("Run {run} starts now"),
            (None, ..) => "The next run starts now".to_owned(),
        });
        sentences.join(". ") + "."
    }

    /// Whether its run waits for approval.
    pub fn awaits_approval(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| matches!(hold.reason, Reason::AwaitingApproval { .. }))
    }
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
