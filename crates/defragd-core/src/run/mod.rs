//! One rolling defragmentation, as a state machine: events in, one action out.
//!
//! There is never more than one action in progress, so a run cannot defragment two members at once. Every member is
//! chosen from facts observed just before, by [`Plan`], which puts the leader last. The driver (`app::driver`) performs
//! the action and returns what happened.
//!
//! ```text
//! (Resuming) ─▶ Choosing ──intent──▶ Intending ──written──▶ Defragmenting ──answered──▶ Recovering ─▶ Recording ─┐
//!               ▲  │  ▲                                          │ no answer                                    │
//!               │  │  └──────────────────────────────────────────┼──────────────────────────────────────────────┘
//!               │  │                                             ▼
//!               │  └─ compact, transfer, disarm ──┐           Following ──ended──▶ Recording (failed) ──▶ Finish
//!               └─ Settling, Transfer, Clearing ◀─┘
//! ```
//! Gates are checked before anything is sent, after each member, and at the end: `Gating`. If the policy requires it, the
//! members' data is compared when nothing is left to defragment: `Hashing`.

mod alarms;
mod choose;
mod compact;
mod defragment;
mod exchange;
mod gates;
mod leader;
mod pages;
mod resume;
mod step;
mod verify;

use std::{collections::BTreeSet, time::Duration};

use self::defragment::Watch;
pub use self::{
    exchange::{Action, Brief, DefragError, Event, NotRecorded, StepError},
    pages::Pages,
};
use super::{
    cluster::{AlarmKind, ClusterFacts, ClusterId, Fact, MemberFacts, MemberId},
    gate::Moment,
    history::{Intent, MemberEnd, MemberResult, Outcome, RunStep, Sizes},
    plan::{Plan, PlanHistory},
    policy::Mode,
    reason::Reason,
    safety,
    verify::{Comparison, Verification},
};

/// How often a temporary problem is observed before the run is refused or stopped for it.
const OBSERVATIONS_BEFORE_GIVING_UP: u32 = 3;
/// How often the last observation may show that a member is not the next one after all.
const CHANGES_OF_MIND_BEFORE_GIVING_UP: u32 = 5;
/// The time between two observations of something that changes by itself.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);
/// The time between the first observations of something that usually takes less than a second: waiting here delays the
/// next member waiting, too.
const FIRST_OBSERVE_INTERVAL: Duration = Duration::from_millis(25);
/// The time between two observations of an open snapshot: a backup takes seconds or minutes.
const SNAPSHOT_OBSERVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a member must be idle, if the answer to Defragment never came, to count as done. A request that was in
/// flight when the connection broke would have begun within this time.
const IDLE_BEFORE_DONE: Duration = Duration::from_secs(3);
/// A member that hangs without showing whether it defragments is watched for this many deadlines.
const DEADLINES_TO_FOLLOW: u32 = 6;

#[derive(Clone, Debug, Default)]
enum Phase {
    /// A Defragment of an earlier process may be in progress.
    Resuming {
        intent: Intent,
        watch: Watch,
    },
    #[default]
    Choosing,
    StepIntending(RunStep),
    /// As for a member: one more observation after the record.
    StepConfirming(RunStep),
    StepPerforming(RunStep),
    /// After a compaction, until the in-use sizes are stable.
    Settling(compact::Settling),
    /// After a leadership transfer, until the cluster is healthy under one leader.
    Transfer(leader::Transfer),
    /// After NOSPACE was disarmed, until it has stayed clear.
    Clearing(alarms::Clearing),
    Intending(Intent),
    /// The intent is recorded; one more observation, because recording may have been slow.
    Confirming(Intent),
    Defragmenting {
        intent: Intent,
        sent_at: Duration,
    },
    /// The answer is lost but the server may be defragmenting.
    Following {
        intent: Intent,
        sent_at: Duration,
        cause: Reason,
        watch: Watch,
    },
    Recovering {
        intent: Intent,
        times: Times,
        since: Duration,
        healthy_since: Option<Duration>,
    },
    Recording {
        done: Option<Done>,
        then: Option<Outcome>,
    },
    Gating(Moment),
    Hashing {
        revision: u64,
        voters: Vec<(MemberId, String)>,
    },
    /// The comparison of the hashes is being recorded.
    Verifying(Verification),
    Finished,
}

/// A defragmented member, and the observation that found its cluster healthy afterwards.
#[derive(Clone, Debug)]
struct Done {
    result: MemberResult,
    seen_at: Duration,
    facts: Box<ClusterFacts>,
}

/// How long a defragmentation took, and how long the member did not answer, if that was watched.
#[derive(Clone, Copy, Debug)]
struct Times {
    took: Duration,
    unavailable: Option<Duration>,
}

/// A run in progress. Times are durations since any fixed moment, and never decrease.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of the run that no other follows from")]
pub struct Run {
    brief: Brief,
    phase: Phase,
    stop: Option<Reason>,
    identity: Option<(ClusterId, BTreeSet<MemberId>)>,
    past: PlanHistory,
    /// Whether the gates allowed the run to start, or to continue after a crash.
    entered: bool,
    /// Whether anything was sent to the cluster that may have changed it.
    acted: bool,
    compacted: bool,
    transfers: u32,
    /// Why the last of them has no good answer.
    transfer_error: Option<StepError>,
    /// When the next one may be sent.
    transfer_due: Duration,
    disarmed: BTreeSet<Option<MemberId>>,
    /// Whether an earlier process disarmed NOSPACE and did not see it stay clear.
    unproven: bool,
    /// Whether NOSPACE was armed when the alarms were last read.
    no_space: bool,
    /// Since when everything that is left waits for the end of a snapshot.
    snapshot_since: Option<Duration>,
    /// Whether the members' data was compared since the last member, or that failed too often.
    verified: bool,
    comparison: Comparison,
    /// The outcome of a failed run, while it still disarms NOSPACE.
    ending: Option<Outcome>,
    observations: u32,
    changes_of_mind: u32,
    /// Whether it has interrupted too many processes to continue.
    exhausted: bool,
    forbidden: Option<Reason>,
    plan: Option<Plan>,
    /// Which pages the last observation included.
    pages: Pages,
    /// Whether a member was seen that may answer `Status` while it defragments.
    may_answer: bool,
    waiting_for: Option<Reason>,
    fell_back: Option<Reason>,
}

impl Run {
    pub fn start(mut brief: Brief) -> (Self, Action) {
        let past = std::mem::take(&mut brief.past);
        let may_answer = !past.non_blocking.is_empty();
        let run = Self { brief, past, may_answer, ..Self::default() };
        (run, Action::Observe { after: Duration::ZERO, pages: Pages::All })
    }

    /// Requests an early end: no further member is started. The current one is watched until it is done.
    pub fn stop(&mut self, reason: Reason) {
        self.stop.get_or_insert(reason);
    }

    /// Forbids the run to continue, for a reason that only the driver can know: nothing further is sent.
    pub fn forbid(&mut self, reason: Reason) {
        self.forbidden.get_or_insert(reason);
    }

    /// The newest plan: what is pending, and which members are skipped and why.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// What a wait is for, while there is one.
    pub fn waiting_for(&self) -> Option<&Reason> {
        self.waiting_for.as_ref()
    }

    /// While a defragmented member's cluster is watched: for how long it has been healthy, and how long it has to be.
    pub fn settling(&self, now: Duration) -> Option<(Duration, Duration)> {
        let Phase::Recovering { healthy_since: Some(since), .. } = &self.phase else { return None };
        Some((now.saturating_sub(*since), self.brief.policy.pause_between_members))
    }

    /// Why the last decision was not the policy's first choice; returned once.
    pub fn take_fallback(&mut self) -> Option<Reason> {
        self.fell_back.take()
    }

    /// Processes an event, and returns the next action. `now` must not decrease.
    pub fn next(&mut self, now: Duration, event: Event) -> Action {
        self.waiting_for = None;
        if let Event::Observed(Ok(facts)) = &event {
            self.past.record(facts);
            // Also while a member is watched: the run may end with it.
            if facts.alarms.is_ok() {
                self.no_space = facts.has_alarm(AlarmKind::NoSpace);
            }
            self.may_answer |= facts.members.iter().any(MemberFacts::may_answer);
        }
        match (std::mem::replace(&mut self.phase, Phase::Finished), event) {
            (Phase::Resuming { intent, watch }, Event::Observed(facts)) => {
                self.resume_watching(now, intent, watch, &facts)
            }
            (Phase::Choosing, Event::Observed(facts)) => self.choose(now, &facts),
            (Phase::StepIntending(step), Event::Recorded(written)) => self.step_intended(step, written),
            (Phase::StepConfirming(step), Event::Observed(facts)) => self.confirm_step(step, &facts),
            (Phase::StepPerforming(step), Event::Performed(answer)) => self.performed(now, step, answer),
            (Phase::StepPerforming(step), Event::Withheld(reason)) if reason.may_pass() => {
                self.choose_step_anew(&step, reason)
            }
            (Phase::StepPerforming(_), Event::Withheld(reason)) => self.finish(Outcome::Stopped { reason }),
            (Phase::Settling(settling), Event::Observed(facts)) => self.settle(now, settling, &facts),
            (Phase::Transfer(transfer), Event::Observed(facts)) => self.follow_transfer(now, transfer, &facts),
            (Phase::Clearing(clearing), Event::Observed(facts)) => self.clear(now, clearing, &facts),
            (Phase::Intending(intent), Event::Recorded(written)) => self.intended(intent, written),
            (Phase::Confirming(intent), Event::Observed(facts)) => self.confirm(now, intent, &facts),
            (Phase::Defragmenting { intent, sent_at }, Event::DefragReturned { answer, unavailable }) => {
                self.answered(now, intent, (sent_at, unavailable), answer)
            }
            (Phase::Following { intent, sent_at, cause, watch }, Event::Observed(facts)) => {
                self.follow(now, (intent, sent_at), cause, watch, &facts)
            }
            (Phase::Recovering { intent, times, since, healthy_since }, Event::Observed(facts)) => {
                self.recover(now, intent, times, (since, healthy_since), &facts)
            }
            (Phase::Recording { done, then }, Event::Recorded(written)) => self.recorded(now, done, then, written),
            (Phase::Gating(moment), Event::GatesChecked { results, written }) => {
                self.gates_checked(moment, &results, written)
            }
            (Phase::Hashing { revision, voters }, Event::Hashed(answers)) => self.hashed(revision, voters, answers),
            (Phase::Verifying(verification), Event::Recorded(written)) => self.verified(&verification, written),
            _ => self.finish(Outcome::Failed { reason: Reason::InternalError }),
        }
    }

    fn finish(&mut self, outcome: Outcome) -> Action {
        // If every file is small enough, the cluster can accept writes again although a member failed.
        let disarm = self.no_space && self.may_disarm();
        if self.ending.is_none() && disarm && matches!(outcome, Outcome::Failed { .. }) {
            self.ending = Some(outcome);
            return self.choose_next();
        }
        self.phase = Phase::Finished;
        Action::Finish(self.ending.take().unwrap_or(outcome))
    }

    /// Whether a failed run may still disarm NOSPACE.
    fn may_disarm(&self) -> bool {
        self.brief.policy.disarm_no_space && self.brief.policy.mode != Mode::Observe && self.stop.is_none()
    }

    /// Ends a failed run: disarms NOSPACE first if that is safe, and chooses no further member.
    fn end(&mut self, outcome: Outcome, facts: &Fact<ClusterFacts>) -> Action {
        match (self.blocking_reason(facts), facts) {
            (None, Ok(facts)) if facts.has_alarm(AlarmKind::NoSpace) => {
                if self.has_to_verify(true) {
                    self.verify(facts)
                } else {
                    self.disarm_next(facts)
                }
            }
            (Some(reason), _) => self.observe_again(reason),
            _ => self.finish(outcome),
        }
    }

    fn give_up(&mut self, reason: Reason) -> Action {
        self.finish(self.given_up(reason))
    }

    /// The outcome for this reason: refused if nothing was sent yet, else failed.
    fn given_up(&self, reason: Reason) -> Outcome {
        if self.acted { Outcome::Failed { reason } } else { Outcome::Refused { reason } }
    }

    fn observe_again(&mut self, reason: Reason) -> Action {
        self.observations += 1;
        if !reason.may_pass() || self.observations >= OBSERVATIONS_BEFORE_GIVING_UP {
            return self.give_up(reason);
        }
        self.waiting_for = Some(reason);
        self.phase = Phase::Choosing;
        self.observe(OBSERVE_INTERVAL)
    }

    fn observe_in(&mut self, phase: Phase) -> Action {
        self.phase = phase;
        self.observe(OBSERVE_INTERVAL)
    }

    /// Like [`Run::observe_in`], but often at first, then less and less often.
    fn observe_soon(&mut self, phase: Phase, waited: Duration) -> Action {
        self.phase = phase;
        self.observe((waited / 2).clamp(FIRST_OBSERVE_INTERVAL, OBSERVE_INTERVAL))
    }

    fn choose_next(&mut self) -> Action {
        self.phase = Phase::Choosing;
        self.observe(Duration::ZERO)
    }

    fn record(&mut self, intent: Intent, end: MemberEnd, then: Option<Outcome>) -> Action {
        // A member without a confirmed end is measured again before the next choice.
        self.phase = Phase::Recording { done: None, then };
        Action::RecordResult(MemberResult { intent, end })
    }

    fn fail(&mut self, intent: Intent, reason: Reason, after: Option<Sizes>) -> Action {
        let end = MemberEnd::Failed { reason: reason.clone(), after, took: None };
        self.record(intent, end, Some(Outcome::Failed { reason }))
    }

    /// Why the cluster does not count as the same healthy one; `None` if it does.
    fn blocking_reason(&mut self, facts: &Fact<ClusterFacts>) -> Option<Reason> {
        match known(facts) {
            Ok(facts) => self.other_cluster(facts).or_else(|| safety::unhealthy(facts)),
            Err(reason) => Some(reason),
        }
    }

    /// The first observation sets the cluster's identity; a later one must not differ.
    fn other_cluster(&mut self, facts: &ClusterFacts) -> Option<Reason> {
        let members_now: BTreeSet<_> = facts.members.iter().map(|member| member.member.id).collect();
        let (id, members) = self.identity.get_or_insert((facts.cluster_id, members_now.clone()));
        if *id != facts.cluster_id {
            return Some(Reason::ClusterChanged { before: id.to_string(), after: facts.cluster_id.to_string() });
        }
        let change: Vec<_> = members
            .difference(&members_now)
            .map(|gone| format!("{gone} left"))
            .chain(members_now.difference(members).map(|new| format!("{new} joined")))
            .collect();
        (!change.is_empty()).then(|| Reason::MembershipChanged { detail: change.join(", ") })
    }
}

/// The cluster's facts, or as a reason that there are none.
fn known(facts: &Fact<ClusterFacts>) -> Result<&ClusterFacts, Reason> {
    facts.as_ref().map_err(safety::no_member_list)
}

fn sizes(facts: &ClusterFacts, member: MemberId) -> Option<Sizes> {
    let status = facts.member(member)?.status.as_ref().ok()?;
    Some(Sizes { db_size: status.db_size, db_size_in_use: status.db_size_in_use })
}

#[cfg(test)]
mod tests;
