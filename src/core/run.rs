//! One rolling defragmentation, as a state machine: events in, one action out.
//!
//! There is never more than one action under way, so a run cannot defragment two members at once. Every
//! member is chosen from facts observed just before, by [`Plan`], which puts the leader last. Whoever
//! drives it ([`crate::app::driver`]) performs the action and comes back with what happened.
//!
//! ```text
//! Choosing ──intent──▶ Intending ──written──▶ Defragmenting ──answered──▶ Recovering ──▶ Recording ─┐
//!    ▲                                             │ no answer                                       │
//!    │                                             ▼                                                 │
//!    │                                         Following ──ended──▶ Recording (failed) ──▶ Finish    │
//!    └───────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::{collections::BTreeSet, time::Duration};

use super::{
    cluster::{ClusterFacts, ClusterId, Fact, MemberId},
    history::{Intent, MemberEnd, MemberResult, Outcome, Sizes},
    plan::Plan,
    policy::{Mode, Policy},
    reason::Reason,
    safety,
};

/// How often a trouble that may pass is looked at before the run is refused or stopped for it.
const LOOKS_BEFORE_GIVING_UP: u32 = 3;
/// The time between two looks at something that changes by itself.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a member must look idle, after an answer to Defragment that never came, to count as done.
/// A request that was still on its way when the connection broke would have begun within it.
const IDLE_BEFORE_DONE: Duration = Duration::from_secs(3);
/// A member that hangs without saying whether it defragments is followed for so many deadlines.
const DEADLINES_TO_FOLLOW: u32 = 6;

/// What the driver must do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Wait, then observe everything: answer with [`Event::Observed`].
    Observe {
        /// How long to wait first.
        after: Duration,
    },
    /// Write the intent to the journal: answer with [`Event::Recorded`].
    RecordIntent(Intent),
    /// Send Defragment to this member alone: answer with [`Event::DefragReturned`].
    Defragment {
        /// The member.
        member: MemberId,
        /// How long to wait for the answer.
        deadline: Duration,
    },
    /// Write the result to the journal: answer with [`Event::Recorded`].
    RecordResult(MemberResult),
    /// The run is over. No further action follows.
    Finish(Outcome),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The observation, complete with linearizable reads and the members' own metrics.
    Observed(Fact<ClusterFacts>),
    /// The journal took the record, or did not.
    Recorded(Result<(), String>),
    /// Defragment was answered, or its answer can no longer come.
    DefragReturned(Result<(), DefragError>),
}

/// Why Defragment has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefragError {
    /// The server answered with an error: it is not defragmenting.
    #[error("{0}")]
    Answered(String),
    /// The server answered that its disk is full.
    #[error("{0}")]
    DiskFull(String),
    /// The connection broke: the server may be defragmenting.
    #[error("{0}")]
    Lost(String),
    /// No answer within the deadline: the server may be defragmenting.
    #[error("no answer within the deadline")]
    Deadline,
}

#[derive(Clone, Debug)]
enum Phase {
    Choosing,
    Intending(Intent),
    Defragmenting {
        intent: Intent,
        sent_at: Duration,
    },
    Following {
        intent: Intent,
        cause: Reason,
        /// When the member was last seen to be, or rightly suspected of, defragmenting.
        busy_at: Duration,
        idle_since: Option<Duration>,
    },
    Recovering {
        intent: Intent,
        took: Duration,
        since: Duration,
        healthy_since: Option<Duration>,
    },
    Recording {
        member: MemberId,
        then: Option<Outcome>,
    },
    Finished,
}

/// A run under way. Times are durations since any fixed moment, and never go back.
#[derive(Clone, Debug)]
pub struct Run {
    policy: Policy,
    phase: Phase,
    stop: Option<Reason>,
    identity: Option<(ClusterId, BTreeSet<MemberId>)>,
    done: BTreeSet<MemberId>,
    looks: u32,
    plan: Option<Plan>,
    waiting_for: Option<Reason>,
}

impl Run {
    /// A run of a cluster under its policy, and its first action.
    pub fn start(policy: Policy) -> (Self, Action) {
        let run = Self {
            policy,
            phase: Phase::Choosing,
            stop: None,
            identity: None,
            done: BTreeSet::new(),
            looks: 0,
            plan: None,
            waiting_for: None,
        };
        (run, Action::Observe { after: Duration::ZERO })
    }

    /// Asks for an early end: no further member is started. The one under way is followed to its end.
    pub fn stop(&mut self, reason: Reason) {
        self.stop.get_or_insert(reason);
    }

    /// The newest plan: what is to come, and who is left alone and why.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// What a wait is for, while there is one.
    pub fn waiting_for(&self) -> Option<&Reason> {
        self.waiting_for.as_ref()
    }

    /// The member whose defragmentation is, or may be, under way.
    pub fn defragmenting(&self) -> Option<MemberId> {
        match &self.phase {
            Phase::Defragmenting { intent, .. } | Phase::Following { intent, .. } => Some(intent.member_id),
            _ => None,
        }
    }

    /// Takes what happened, and gives the next action. `now` must not go back.
    pub fn next(&mut self, now: Duration, event: Event) -> Action {
        self.waiting_for = None;
        match (std::mem::replace(&mut self.phase, Phase::Finished), event) {
            (Phase::Choosing, Event::Observed(facts)) => self.choose(&facts),
            (Phase::Intending(intent), Event::Recorded(written)) => self.begin(now, intent, written),
            (Phase::Defragmenting { intent, sent_at }, Event::DefragReturned(answer)) => {
                self.answered(now, intent, sent_at, answer)
            }
            (Phase::Following { intent, cause, busy_at, idle_since }, Event::Observed(facts)) => {
                self.follow(now, intent, cause, (busy_at, idle_since), &facts)
            }
            (Phase::Recovering { intent, took, since, healthy_since }, Event::Observed(facts)) => {
                self.recover(now, intent, took, (since, healthy_since), &facts)
            }
            (Phase::Recording { member, then }, Event::Recorded(written)) => self.recorded(member, then, written),
            _ => self.finish(Outcome::Failed { reason: Reason::OutOfStep }),
        }
    }

    fn finish(&mut self, outcome: Outcome) -> Action {
        self.phase = Phase::Finished;
        Action::Finish(outcome)
    }

    fn choose(&mut self, facts: &Fact<ClusterFacts>) -> Action {
        if let Some(reason) = self.stop.clone() {
            return self.finish(Outcome::Stopped { reason });
        }
        let facts = match facts {
            Ok(facts) => facts,
            Err(unknown) => return self.look_again(Reason::ClusterUnreachable { detail: unknown.detail.clone() }),
        };
        if let Some(reason) = self.other_cluster(facts) {
            return self.give_up(reason);
        }
        let plan = Plan::new(facts, &self.policy, &self.done);
        let blocked = plan.blocked.clone();
        let next = plan.pending().next().map(|(step, need)| (step.clone(), need));
        let members: Vec<_> = plan.pending().map(|(step, _)| step.member.clone()).collect();
        self.plan = Some(plan);
        if let Some(reason) = blocked {
            return self.look_again(reason);
        }
        self.looks = 0;
        let Some((step, need)) = next else {
            let touched = !self.done.is_empty();
            return self.finish(if touched { Outcome::Succeeded } else { Outcome::NothingToDo });
        };
        if self.policy.mode == Mode::Observe {
            return self.finish(Outcome::Observed { members });
        }
        let Some(before) = sizes(facts, step.member_id) else {
            return self.give_up(Reason::OutOfStep);
        };
        let intent = Intent { member_id: step.member_id, member: step.member, is_leader: step.is_leader, need, before };
        self.phase = Phase::Intending(intent.clone());
        Action::RecordIntent(intent)
    }

    /// The first observation says which cluster this is; a later one must not say otherwise.
    fn other_cluster(&mut self, facts: &ClusterFacts) -> Option<Reason> {
        let roster: BTreeSet<_> = facts.members.iter().map(|member| member.member.id).collect();
        let (id, members) = self.identity.get_or_insert((facts.cluster_id, roster.clone()));
        if *id != facts.cluster_id {
            return Some(Reason::ClusterChanged { before: id.to_string(), after: facts.cluster_id.to_string() });
        }
        let change: Vec<_> = members
            .difference(&roster)
            .map(|gone| format!("{gone} left"))
            .chain(roster.difference(members).map(|new| format!("{new} joined")))
            .collect();
        (!change.is_empty()).then(|| Reason::MembershipChanged { detail: change.join(", ") })
    }

    fn look_again(&mut self, reason: Reason) -> Action {
        self.looks += 1;
        if !reason.may_pass() || self.looks >= LOOKS_BEFORE_GIVING_UP {
            return self.give_up(reason);
        }
        self.waiting_for = Some(reason);
        self.phase = Phase::Choosing;
        Action::Observe { after: LOOK_INTERVAL }
    }

    fn give_up(&mut self, reason: Reason) -> Action {
        let touched = !self.done.is_empty();
        self.finish(if touched { Outcome::Failed { reason } } else { Outcome::Refused { reason } })
    }

    fn begin(&mut self, now: Duration, intent: Intent, written: Result<(), String>) -> Action {
        if let Err(detail) = written {
            return self.give_up(Reason::JournalFailed { detail });
        }
        if let Some(reason) = self.stop.clone() {
            let end = MemberEnd::NotSent { reason: reason.clone() };
            return self.record(intent, end, Some(Outcome::Stopped { reason }));
        }
        let member = intent.member_id;
        self.phase = Phase::Defragmenting { intent, sent_at: now };
        Action::Defragment { member, deadline: self.policy.defrag_deadline }
    }

    fn record(&mut self, intent: Intent, end: MemberEnd, then: Option<Outcome>) -> Action {
        self.phase = Phase::Recording { member: intent.member_id, then };
        Action::RecordResult(MemberResult { intent, end })
    }

    fn fail(&mut self, intent: Intent, reason: Reason, after: Option<Sizes>) -> Action {
        let end = MemberEnd::Failed { reason: reason.clone(), after };
        self.record(intent, end, Some(Outcome::Failed { reason }))
    }

    fn answered(
        &mut self,
        now: Duration,
        intent: Intent,
        sent_at: Duration,
        answer: Result<(), DefragError>,
    ) -> Action {
        let member = intent.member.clone();
        let cause = match answer {
            Ok(()) => {
                let took = now.saturating_sub(sent_at);
                self.phase = Phase::Recovering { intent, took, since: now, healthy_since: None };
                return Action::Observe { after: Duration::ZERO };
            }
            Err(DefragError::Answered(detail)) => {
                return self.fail(intent, Reason::DefragFailed { member, detail }, None);
            }
            Err(DefragError::DiskFull(detail)) => return self.fail(intent, Reason::DiskFull { member, detail }, None),
            Err(DefragError::Lost(detail)) => Reason::ConnectionLost { member, detail },
            Err(DefragError::Deadline) => Reason::DeadlineExceeded { member, deadline: self.policy.defrag_deadline },
        };
        self.phase = Phase::Following { intent, cause, busy_at: now, idle_since: None };
        Action::Observe { after: LOOK_INTERVAL }
    }

    /// The answer is lost but the server may be at work: wait for its end, then end the run.
    fn follow(
        &mut self,
        now: Duration,
        intent: Intent,
        cause: Reason,
        (mut busy_at, mut idle_since): (Duration, Option<Duration>),
        facts: &Fact<ClusterFacts>,
    ) -> Action {
        let member = facts.as_ref().ok().and_then(|facts| facts.member(intent.member_id));
        let in_flight = member.and_then(super::cluster::MemberFacts::defrag_in_flight);
        let answers = member.is_some_and(|member| member.status.is_ok());
        match in_flight {
            Some(true) => (busy_at, idle_since) = (now, None),
            Some(false) if answers => idle_since = idle_since.or(Some(now)),
            _ => idle_since = None,
        }
        let after = || facts.as_ref().ok().and_then(|facts| sizes(facts, intent.member_id));
        if idle_since.is_some_and(|since| now.saturating_sub(since) >= IDLE_BEFORE_DONE) {
            let after = after();
            return self.fail(intent, cause, after);
        }
        // A member that is gone defragments no more, and comes back, if at all, with its old file. One that
        // hangs may well be at work, so it gets longer; in either case no other member is started.
        let hangs = member.is_some_and(
            |member| matches!(&member.status, Err(unknown) if unknown.kind == super::cluster::UnknownKind::TimedOut),
        );
        let patience = if hangs {
            self.policy.defrag_deadline.saturating_mul(DEADLINES_TO_FOLLOW)
        } else {
            self.policy.recovery_timeout
        };
        if idle_since.is_none() && now.saturating_sub(busy_at) >= patience {
            return self.fail(intent, cause, None);
        }
        self.waiting_for = Some(cause.clone());
        self.phase = Phase::Following { intent, cause, busy_at, idle_since };
        Action::Observe { after: LOOK_INTERVAL }
    }

    fn recover(
        &mut self,
        now: Duration,
        intent: Intent,
        took: Duration,
        (since, mut healthy_since): (Duration, Option<Duration>),
        facts: &Fact<ClusterFacts>,
    ) -> Action {
        let trouble = match facts {
            Ok(facts) => self.other_cluster(facts).or_else(|| safety::unhealthy(facts)),
            Err(unknown) => Some(Reason::ClusterUnreachable { detail: unknown.detail.clone() }),
        };
        let after = facts.as_ref().ok().and_then(|facts| sizes(facts, intent.member_id));
        match (trouble, after) {
            (Some(reason), after) if !reason.may_pass() => return self.fail(intent, reason, after),
            (None, Some(after)) => {
                let healthy_for = now.saturating_sub(*healthy_since.get_or_insert(now));
                // After a stop nobody is next, so nobody needs the pause.
                let pause = if self.stop.is_some() { Duration::ZERO } else { self.policy.pause_between_members };
                if healthy_for >= pause {
                    let then = self.stop.clone().map(|reason| Outcome::Stopped { reason });
                    return self.record(intent, MemberEnd::Defragmented { after, took }, then);
                }
                self.phase = Phase::Recovering { intent, took, since, healthy_since };
                return Action::Observe { after: LOOK_INTERVAL.min(pause.saturating_sub(healthy_for)) };
            }
            (trouble, after) => {
                healthy_since = None;
                let waited = now.saturating_sub(since);
                if waited >= self.policy.recovery_timeout {
                    let detail = trouble.map_or_else(|| "its sizes are not known".to_owned(), |t| t.to_string());
                    let reason = Reason::NotRecovered { member: intent.member.clone(), waited, detail };
                    return self.fail(intent, reason, after);
                }
                self.waiting_for = trouble;
            }
        }
        self.phase = Phase::Recovering { intent, took, since, healthy_since };
        Action::Observe { after: LOOK_INTERVAL }
    }

    fn recorded(&mut self, member: MemberId, then: Option<Outcome>, written: Result<(), String>) -> Action {
        self.done.insert(member);
        match (then, written) {
            (Some(outcome), _) => self.finish(outcome),
            (None, Err(detail)) => self.give_up(Reason::JournalFailed { detail }),
            (None, Ok(())) => {
                self.phase = Phase::Choosing;
                Action::Observe { after: Duration::ZERO }
            }
        }
    }
}

fn sizes(facts: &ClusterFacts, member: MemberId) -> Option<Sizes> {
    let status = facts.member(member)?.status.as_ref().ok()?;
    Some(Sizes { db_size: status.db_size, db_size_in_use: status.db_size_in_use })
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
