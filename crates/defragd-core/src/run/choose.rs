//! What is next: a member, a step that must come before it, or the end.

use std::time::Duration;

use super::{
    Action, CHANGES_OF_MIND_BEFORE_GIVING_UP, Done, NotRecorded, OBSERVE_INTERVAL, Pages, Phase, Run,
    SNAPSHOT_OBSERVE_INTERVAL, alarms, known, sizes,
};
use crate::{
    admission::emergency,
    cluster::{ClusterFacts, Fact, MemberFacts},
    gate::Moment,
    history::{Intent, MemberEnd, Outcome},
    plan::{Plan, PlannedMember},
    policy::{Mode, Need},
    reason::Reason,
    verify::Comparison,
};

impl Run {
    pub(super) fn choose(&mut self, now: Duration, facts: &Fact<ClusterFacts>) -> Action {
        if let Some(reason) = self.stop.clone() {
            return self.finish(Outcome::Stopped { reason });
        }
        if let Some(reason) = self.forbidden.clone() {
            return self.give_up(reason);
        }
        if let Some(outcome) = self.ending.clone() {
            return self.end(outcome, facts);
        }
        let facts = match known(facts) {
            Ok(facts) => facts,
            Err(reason) => return self.observe_again(reason),
        };
        if let Some(reason) = self.other_cluster(facts) {
            return self.give_up(reason);
        }
        let plan = Plan::new(facts, &self.brief.policy, &self.past);
        let blocked = plan.blocked.clone();
        let acts = !self.brief.only_compares;
        let next = plan.pending().next().filter(|_| acts).map(|(step, need)| (step.clone(), need));
        let members: Vec<_> = plan.pending().filter(|_| acts).map(|(step, _)| step.member.clone()).collect();
        self.plan = Some(plan);
        if let Some(reason) = blocked {
            return self.observe_again(reason);
        }
        let disarm = acts && self.brief.policy.disarm_no_space && self.no_space;
        // A disarming has more conditions, which may need several observations, too.
        if next.is_some() || !disarm {
            self.observations = 0;
        }
        let has_pages = match &next {
            // Another one is next than was expected, or its snapshot was open when its page was last read.
            Some((step, _)) => self.pages.include(step.member_id) && !(disarm && step.waits_for.is_some()),
            // The hashes need voters that are idle, and NOSPACE is disarmed by all quotas.
            None => !(disarm || self.has_to_verify(disarm)),
        };
        if !has_pages && self.pages != Pages::All {
            return self.choose_next();
        }
        if next.as_ref().is_none_or(|(step, _)| step.waits_for.is_none()) {
            self.snapshot_since = None;
        }
        let compact_to = self.revision_to_compact(facts).filter(|_| acts);
        let has_work = compact_to.is_some() || next.is_some() || disarm;
        if has_work && !self.entered {
            let moment = self.moment_of_entry();
            if self.has_gates(moment) {
                return self.check_gates(moment);
            }
            self.entered = true;
        }
        if self.brief.policy.mode == Mode::Observe {
            let outside_window = self.brief.outside_window && !(self.brief.policy.emergency && emergency(facts));
            return self.only_observed(members, outside_window);
        }
        if let Some(revision) = compact_to {
            self.compacted = true;
            return self.intend_step(crate::history::RunStep::Compact { revision });
        }
        // A member that waits for a snapshot need not block the cluster's writes, if no file is near its quota any
        // more.
        let waits = next.as_ref().is_some_and(|(step, _)| step.waits_for.is_some());
        let next = next.filter(|_| !(waits && disarm && alarms::near_quota(facts).is_none()));
        match next {
            Some((PlannedMember { waits_for: Some(reason), .. }, _)) => self.wait_for_snapshot(now, reason),
            Some((step, need)) if step.transfer_first => self.begin_transfer(now, facts, step, need),
            Some((step, need)) => self.intend(facts, step, need),
            None if self.has_to_verify(disarm) => self.verify(facts),
            None if disarm => self.disarm_next(facts),
            None if self.unproven => self.watch_alarms(now),
            None if self.acted => self.succeed(),
            None => self.finish(Outcome::NothingToDo),
        }
    }

    /// All others are done.
    fn wait_for_snapshot(&mut self, now: Duration, mut reason: Reason) -> Action {
        let since = *self.snapshot_since.get_or_insert(now);
        if let Reason::SnapshotOpen { waited, .. } = &mut reason {
            *waited = now.saturating_sub(since);
        }
        if now.saturating_sub(since) >= self.brief.snapshot_patience {
            return self.finish(Outcome::Stopped { reason });
        }
        self.waiting_for = Some(reason);
        self.phase = Phase::Choosing;
        self.observe(SNAPSHOT_OBSERVE_INTERVAL)
    }

    fn only_observed(&mut self, members: Vec<String>, outside_window: bool) -> Action {
        let outcome = match (self.acted, members.is_empty()) {
            // The mode was changed while the run was in progress in an earlier process.
            (true, _) => Outcome::Stopped { reason: Reason::ObserveMode },
            (false, true) => Outcome::NothingToDo,
            (false, false) => Outcome::Observed { members, outside_window },
        };
        self.finish(outcome)
    }

    pub(super) fn intend(&mut self, facts: &ClusterFacts, step: PlannedMember, need: Need) -> Action {
        let Some(before) = sizes(facts, step.member_id) else {
            return self.give_up(Reason::InternalError);
        };
        let non_blocking = facts.member(step.member_id).is_some_and(MemberFacts::may_answer);
        let PlannedMember { member_id, member, is_leader, expected, .. } = step;
        let expected = expected.map(|estimate| estimate.expected);
        let intent = Intent { member_id, member, is_leader, need, before, expected, non_blocking };
        self.phase = Phase::Intending(intent.clone());
        Action::RecordIntent(intent)
    }

    pub(super) fn intended(&mut self, intent: Intent, written: Result<(), NotRecorded>) -> Action {
        if let Err(NotRecorded(detail)) = written {
            return self.give_up(Reason::JournalFailed { detail });
        }
        self.phase = Phase::Confirming(intent);
        self.observe(Duration::ZERO)
    }

    /// The last observation: recording the intent may have taken any time, and much can change in it.
    pub(super) fn confirm(&mut self, now: Duration, intent: Intent, facts: &Fact<ClusterFacts>) -> Action {
        if let Some(reason) = self.stop.clone() {
            let end = MemberEnd::NotSent { reason: reason.clone() };
            return self.record(intent, end, Some(Outcome::Stopped { reason }));
        }
        let against = match known(facts) {
            Ok(facts) => self.other_cluster(facts).or_else(|| self.no_longer_next(&intent, facts)),
            Err(reason) => Some(reason),
        };
        if let Some(reason) = against {
            return self.choose_anew(intent, reason);
        }
        let member = intent.member_id;
        self.phase = Phase::Defragmenting { intent, sent_at: now };
        Action::Defragment { member, deadline: self.brief.policy.defrag_deadline }
    }

    /// Nothing was sent to the member: what is next is decided anew, but not for ever.
    pub(super) fn choose_anew(&mut self, intent: Intent, reason: Reason) -> Action {
        self.changes_of_mind += 1;
        let too_often = self.changes_of_mind >= CHANGES_OF_MIND_BEFORE_GIVING_UP;
        let then = too_often.then(|| self.given_up(reason.clone()));
        self.record(intent, MemberEnd::NotSent { reason }, then)
    }

    fn no_longer_next(&self, intent: &Intent, facts: &ClusterFacts) -> Option<Reason> {
        let plan = Plan::new(facts, &self.brief.policy, &self.past);
        let next = plan.pending().next();
        let same = |step: &PlannedMember| step.member_id == intent.member_id && step.is_leader == intent.is_leader;
        if let Some((step, _)) = next.filter(|(step, _)| same(step)) {
            return plan.blocked.clone().or_else(|| step.waits_for.clone());
        }
        Some(plan.blocked.unwrap_or(Reason::NoLongerNext { member: intent.member.clone() }))
    }

    pub(super) fn recorded(
        &mut self,
        now: Duration,
        done: Option<Done>,
        then: Option<Outcome>,
        written: Result<(), NotRecorded>,
    ) -> Action {
        if let Some(done) = &done {
            self.past.done.insert(done.result.intent.member_id);
            (self.verified, self.comparison) = (false, Comparison::default());
            self.past.speeds.record(&done.result);
        }
        match (then, written, done) {
            (Some(outcome), _, _) => self.finish(outcome),
            (None, Err(NotRecorded(detail)), _) => self.give_up(Reason::JournalFailed { detail }),
            (None, Ok(()), Some(_)) if self.has_gates(Moment::Between) => self.check_gates(Moment::Between),
            // One observation is enough here: the choice is confirmed by another one anyway.
            (None, Ok(()), Some(Done { seen_at, facts, .. })) if now.saturating_sub(seen_at) <= OBSERVE_INTERVAL => {
                self.choose(now, &Ok(*facts))
            }
            (None, Ok(()), _) => self.choose_next(),
        }
    }
}
