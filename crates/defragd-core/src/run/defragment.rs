//! From the answer to Defragment, or its absence, to a cluster that is healthy again.

use std::time::Duration;

use super::{Action, DEADLINES_TO_FOLLOW, DefragError, Done, IDLE_BEFORE_DONE, Phase, Run, Times, sizes};
use crate::{
    cluster::{ClusterFacts, Fact, UnknownKind},
    history::{Intent, MemberEnd, MemberResult, Outcome, Sizes},
    plan::{self, page_trouble},
    reason::Reason,
    safety,
};

/// Watches for the end of a defragmentation whose answer will not come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// When the member was last seen to be, or rightly suspected of, defragmenting.
    pub(super) busy_at: Duration,
    /// Whether its metrics page has shown it to defragment.
    pub(super) seen_busy: bool,
    pub(super) idle_since: Option<Duration>,
    /// Since when it has been unreachable.
    pub(super) gone_since: Option<Duration>,
}

impl Watch {
    pub(super) const fn begin(now: Duration) -> Self {
        Self { busy_at: now, seen_busy: false, idle_since: None, gone_since: None }
    }
}

/// The open snapshot that blocks a member's defragmentation.
pub(super) fn held_by_snapshot(intent: &Intent, facts: &Fact<ClusterFacts>) -> Option<Reason> {
    plan::sending(&intent.member, facts.as_ref().ok()?.member(intent.member_id)?.open_snapshots())
}

/// How long the defragmentation took whose answer is lost. Only if the member was seen to do it and to end, between two
/// observations that are close enough to tell, and its file became smaller: one that was restarted looks idle, too.
fn took(intent: &Intent, sent_at: Duration, watch: &Watch, after: Option<Sizes>) -> Option<Duration> {
    let ended = watch.idle_since.filter(|_| watch.seen_busy && !intent.non_blocking)?;
    let took = ended.saturating_sub(sent_at);
    let is_close = ended.saturating_sub(watch.busy_at) <= took / 2;
    (is_close && after?.db_size < intent.before.db_size).then_some(took)
}

/// The result of an observation of the member.
pub(super) enum DefragProgress {
    /// It has been idle for long enough: it is done. With its sizes.
    Idle(Option<Sizes>, Watch),
    /// It may still be defragmenting.
    Busy(Watch),
    /// It has been unreachable for too long to continue waiting.
    Gone,
    /// It has answered for long, but whether it is done is unknown.
    Unknown(Reason),
}

impl Run {
    pub(super) fn answered(
        &mut self,
        now: Duration,
        intent: Intent,
        (sent_at, unavailable): (Duration, Option<Duration>),
        answer: Result<(), DefragError>,
    ) -> Action {
        let member = intent.member.clone();
        let sent = match &answer {
            Err(DefragError::NotSent(_) | DefragError::Withheld(_) | DefragError::Denied(_)) => false,
            Ok(())
            | Err(DefragError::Answered(_) | DefragError::DiskFull(_) | DefragError::Lost(_) | DefragError::Deadline) => {
                true
            }
        };
        self.acted |= sent;
        let cause = match answer {
            Ok(()) => {
                let times = Times { took: now.saturating_sub(sent_at), unavailable };
                self.phase = Phase::Recovering { intent, times, since: now, healthy_since: None };
                return self.observe(Duration::ZERO);
            }
            Err(DefragError::Answered(detail)) => {
                return self.fail(intent, Reason::DefragFailed { member, detail }, None);
            }
            Err(DefragError::NotSent(unknown)) => {
                return self.untouched(intent, safety::unknown_status(member, &unknown));
            }
            Err(DefragError::Withheld(reason)) if reason.may_pass() => return self.choose_anew(intent, reason),
            Err(DefragError::Withheld(reason)) => {
                let then = Outcome::Stopped { reason: reason.clone() };
                return self.record(intent, MemberEnd::NotSent { reason }, Some(then));
            }
            Err(DefragError::Denied(detail)) => {
                return self.untouched(intent, Reason::Denied { member: Some(member), detail });
            }
            Err(DefragError::DiskFull(detail)) => return self.fail(intent, Reason::DiskFull { member, detail }, None),
            Err(DefragError::Lost(detail)) => Reason::ConnectionLost { member, detail },
            Err(DefragError::Deadline) => {
                Reason::DeadlineExceeded { member, deadline: self.brief.policy.defrag_deadline }
            }
        };
        // Reported once, even if what it waits for changes afterwards.
        self.waiting_for = Some(cause.clone());
        self.observe_in(Phase::Following { intent, sent_at, cause, watch: Watch::begin(now) })
    }

    /// The member did not begin: the run ends, but nothing happened to this member.
    fn untouched(&mut self, intent: Intent, reason: Reason) -> Action {
        let outcome = self.given_up(reason.clone());
        self.record(intent, MemberEnd::NotSent { reason }, Some(outcome))
    }

    /// The answer is lost but the server may be defragmenting: wait for its end, then end the run.
    pub(super) fn follow(
        &mut self,
        now: Duration,
        (intent, sent_at): (Intent, Duration),
        cause: Reason,
        watch: Watch,
        facts: &Fact<ClusterFacts>,
    ) -> Action {
        match self.watch(now, &intent, watch, facts) {
            DefragProgress::Idle(after, watch) => {
                let took = took(&intent, sent_at, &watch, after);
                let end = MemberEnd::Failed { reason: cause.clone(), after, took };
                self.record(intent, end, Some(Outcome::Failed { reason: cause }))
            }
            DefragProgress::Gone => self.fail(intent, cause, None),
            DefragProgress::Unknown(reason) => self.fail(intent, reason, None),
            DefragProgress::Busy(watch) => {
                self.waiting_for = Some(held_by_snapshot(&intent, facts).unwrap_or_else(|| cause.clone()));
                self.observe_in(Phase::Following { intent, sent_at, cause, watch })
            }
        }
    }

    /// Whether a member is done whose answer will not come.
    pub(super) fn watch(
        &self,
        now: Duration,
        intent: &Intent,
        mut watch: Watch,
        facts: &Fact<ClusterFacts>,
    ) -> DefragProgress {
        let member = facts.as_ref().ok().and_then(|facts| facts.member(intent.member_id));
        let answers = member.is_some_and(|member| member.status.is_ok());
        let in_flight = member.and_then(|member| member.in_flight(intent.non_blocking));
        match in_flight {
            Some(true) => watch = Watch { seen_busy: true, ..Watch::begin(now) },
            Some(false) if answers => watch.idle_since = watch.idle_since.or(Some(now)),
            _ => watch.idle_since = None,
        }
        if watch.idle_since.is_some_and(|since| now.saturating_sub(since) >= IDLE_BEFORE_DONE) {
            return DefragProgress::Idle(facts.as_ref().ok().and_then(|facts| sizes(facts, intent.member_id)), watch);
        }
        // A member that is down does not defragment any more, and returns, if at all, with its old file. One that hangs
        // may well be defragmenting, so it gets longer; in either case no other member is started. The time it has been
        // down counts from its last other sign: the connection to a member that hangs breaks at some time, too.
        let hangs = member
            .is_some_and(|member| matches!(&member.status, Err(unknown) if unknown.kind == UnknownKind::TimedOut));
        let unknown = member.filter(|_| answers && in_flight.is_none());
        let is_gone = !answers && !hangs && in_flight.is_none();
        watch.gone_since = if is_gone { watch.gone_since.or(Some(now)) } else { None };
        let followed = self.brief.policy.defrag_deadline.saturating_mul(DEADLINES_TO_FOLLOW);
        let for_too_long = now.saturating_sub(watch.busy_at) >= followed
            || watch.gone_since.is_some_and(|since| now.saturating_sub(since) >= self.brief.policy.recovery_timeout);
        if watch.idle_since.is_none() && for_too_long {
            return unknown.map_or(DefragProgress::Gone, |member| {
                DefragProgress::Unknown(Reason::DefragUnknown {
                    member: intent.member.clone(),
                    detail: page_trouble(member),
                })
            });
        }
        DefragProgress::Busy(watch)
    }

    /// How long the cluster must have been healthy after a member.
    pub(super) fn pause(&self) -> Duration {
        // After a stop there is no next member, so no pause is needed.
        if self.stop.is_some() { Duration::ZERO } else { self.brief.policy.pause_between_members }
    }

    pub(super) fn recover(
        &mut self,
        now: Duration,
        intent: Intent,
        times: Times,
        (since, mut healthy_since): (Duration, Option<Duration>),
        facts: &Fact<ClusterFacts>,
    ) -> Action {
        let after = facts.as_ref().ok().and_then(|facts| sizes(facts, intent.member_id));
        let trouble = self.blocking_reason(facts);
        match (trouble, after, facts) {
            (Some(reason), after, _) if !reason.may_pass() => return self.fail(intent, reason, after),
            (None, Some(after), Ok(facts)) => {
                let healthy_for = now.saturating_sub(*healthy_since.get_or_insert(now));
                let pause = self.pause();
                if healthy_for >= pause {
                    let then = self.stop.clone().map(|reason| Outcome::Stopped { reason });
                    let Times { took, unavailable } = times;
                    let result = MemberResult { intent, end: MemberEnd::Defragmented { after, took, unavailable } };
                    let done = Done { result: result.clone(), seen_at: now, facts: Box::new(facts.clone()) };
                    self.phase = Phase::Recording { done: Some(done), then };
                    return Action::RecordResult(result);
                }
                self.phase = Phase::Recovering { intent, times, since, healthy_since };
                return self.observe_in_pause(pause.saturating_sub(healthy_for));
            }
            (trouble, after, _) => {
                healthy_since = None;
                let waited = now.saturating_sub(since);
                if waited >= self.brief.policy.recovery_timeout {
                    let detail = trouble.map_or_else(|| "its sizes are unknown".to_owned(), |t| t.to_string());
                    let (member, waited) = (intent.member.clone(), self.brief.policy.recovery_timeout);
                    let reason = Reason::NotRecovered { member, waited, detail };
                    return self.fail(intent, reason, after);
                }
                self.waiting_for = trouble;
            }
        }
        let waited = now.saturating_sub(since);
        self.observe_soon(Phase::Recovering { intent, times, since, healthy_since }, waited)
    }
}
