//! Who would be defragmented, in which order, and for everybody else why not.
//!
//! `defragd plan` shows this; the run asks for it anew before every member and takes the first row only.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    backoff,
    cluster::{AlarmKind, ClusterFacts, MemberFacts, MemberId},
    history::MemberResult,
    policy::{LeaderPolicy, Need, Policy},
    reason::Reason,
    safety,
};

/// What happened before, as far as a plan has to know.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// The members that this run has dealt with.
    pub done: BTreeSet<MemberId>,
    /// The last attempt on each member in earlier runs, for automation to learn from.
    pub attempts: BTreeMap<MemberId, MemberResult>,
}

/// What is to happen with one member.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Its turn comes.
    Defragment {
        /// Why it deserves it.
        need: Need,
    },
    /// It is left alone.
    Skip {
        /// Why.
        reason: Reason,
    },
}

/// One member of the plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The member.
    pub member_id: MemberId,
    /// Its name.
    pub member: String,
    /// Whether it leads now.
    pub is_leader: bool,
    /// What is to happen with it.
    #[serde(flatten)]
    pub decision: Decision,
}

/// The whole picture for one cluster at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Why nothing at all may start now, whatever the steps say.
    pub blocked: Option<Reason>,
    /// First those to defragment, in order and with the leader last, then those left alone.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Plans from what was observed, and from what happened before.
    pub fn new(facts: &ClusterFacts, policy: &Policy, past: &Past) -> Self {
        let leader = facts.leader();
        let mut steps: Vec<Step> = facts
            .members
            .iter()
            .map(|member| {
                let is_leader = leader == Some(member.member.id);
                let mut decision = decide(facts, member, policy, past);
                if is_leader && policy.leader == LeaderPolicy::Skip && matches!(decision, Decision::Defragment { .. }) {
                    decision = Decision::Skip { reason: Reason::LeaderSkipped };
                }
                Step { member_id: member.member.id, member: member.member.label(), is_leader, decision }
            })
            .collect();
        // By name among equals: an order that a person can foretell.
        steps.sort_by(|a, b| Self::rank(a).cmp(&Self::rank(b)));
        Self { blocked: safety::cluster_danger(facts, policy), steps }
    }

    fn rank(step: &Step) -> (bool, bool, &str, MemberId) {
        (matches!(step.decision, Decision::Skip { .. }), step.is_leader, &step.member, step.member_id)
    }

    /// The members to defragment, in order.
    pub fn pending(&self) -> impl Iterator<Item = (&Step, Need)> {
        self.steps.iter().filter_map(|step| match step.decision {
            Decision::Defragment { need } => Some((step, need)),
            Decision::Skip { .. } => None,
        })
    }
}

fn decide(facts: &ClusterFacts, member: &MemberFacts, policy: &Policy, past: &Past) -> Decision {
    let last = past.attempts.get(&member.member.id);
    let wanted = if past.done.contains(&member.member.id) {
        Err(Reason::AlreadyDone)
    } else if member.member.is_learner {
        Err(Reason::Learner)
    } else {
        match &member.status {
            Ok(status) => policy.need(status, facts.has_alarm(AlarmKind::NoSpace)).and_then(|need| {
                last.and_then(|last| backoff::held_back(last, status, policy, need)).map_or(Ok(need), Err)
            }),
            Err(unknown) => {
                Err(Reason::MemberUnreachable { member: member.member.label(), detail: unknown.detail.clone() })
            }
        }
    };
    match wanted {
        Ok(need) => Decision::Defragment { need },
        Err(reason) => Decision::Skip { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture;

    fn order(plan: &Plan) -> Vec<&str> {
        plan.pending().map(|(step, _)| step.member.as_str()).collect()
    }

    #[test]
    fn followers_come_first_by_name_and_the_leader_last() {
        let plan = Plan::new(&fixture::cluster(3), &Policy::default(), &Past::default());
        assert_eq!(order(&plan), ["etcd-2", "etcd-3", "etcd-1"]);
        assert_eq!(plan.blocked, None);
    }

    #[test]
    fn a_learner_is_never_chosen() {
        let mut facts = fixture::cluster(4);
        facts.members[3].member.is_learner = true;
        let plan = Plan::new(&facts, &Policy::default(), &Past::default());
        assert_eq!(order(&plan), ["etcd-2", "etcd-3", "etcd-1"]);
        assert_eq!(plan.steps[3].decision, Decision::Skip { reason: Reason::Learner });
    }

    #[test]
    fn members_that_were_dealt_with_are_not_chosen_again() {
        let past = Past { done: BTreeSet::from([MemberId(2), MemberId(1)]), ..Past::default() };
        let plan = Plan::new(&fixture::cluster(3), &Policy::default(), &past);
        assert_eq!(order(&plan), ["etcd-3"]);
    }
}
