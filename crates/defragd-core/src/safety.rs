//! What forbids a defragmentation: every check that a careful operator would make, on observed facts.
//!
//! An unknown fact counts as unsafe. Whether a defragmentation is wanted is decided elsewhere.

use super::{
    cluster::{AlarmKind, ClusterFacts, Fact, MemberFacts, Status, Unknown, UnknownKind},
    policy::Policy,
    reason::Reason,
    version::{self, Version},
};

/// How many raft entries a member may be behind the most advanced one and still count as caught up.
///
/// Members are queried an instant apart, and a busy cluster writes thousands of entries a second, so a small number
/// would see lag where there is none. etcd itself keeps 5,000 entries for slow followers before it must send a whole
/// snapshot, which must never coincide with a defragmentation (#20271).
pub const MAX_RAFT_LAG_ENTRIES: u64 = 1_000;

impl Reason {
    /// Whether the trouble may pass within seconds, so that observing again is worth it: one lost answer or an election
    /// must not refuse a run. Nothing is started while the trouble stands.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::ClusterUnreachable { .. }
                | Self::MemberUnreachable { .. }
                | Self::ReadFailed { .. }
                | Self::NoLeader { .. }
                | Self::LeaderDisagreement { .. }
                | Self::AlarmsUnknown { .. }
                | Self::DefragInFlight { .. }
                | Self::DefragUnknown { .. }
                | Self::RaftLag { .. }
                // The quota of 3.4 and 3.5 is on their metrics pages only, and one of them may come too late.
                | Self::QuotaUnknown { .. }
                | Self::StaleObservation { .. }
                // Something else is next.
                | Self::NoLongerNext { .. }
        )
    }
}

/// Why no member of this cluster may be defragmented now, whichever it is.
pub fn cluster_danger(facts: &ClusterFacts, policy: &Policy) -> Option<Reason> {
    quorum_slack(facts, policy)
        .or_else(|| unhealthy(facts))
        .or_else(|| dangerous_version(facts))
        .or_else(|| upgrade_in_progress(facts))
}

/// Why this cluster does not count as healthy: a voter is unknown, cannot serve reads, lags behind or disagrees, an
/// alarm needs an operator, or a defragmentation is in progress.
pub fn unhealthy(facts: &ClusterFacts) -> Option<Reason> {
    in_flight(facts)
        // A read through a healthy member also fails while the others elect a new leader: the member that is down is
        // the more helpful reason.
        .or_else(|| facts.voters().find_map(unresponsive))
        .or_else(|| facts.voters().find_map(unread))
        .or_else(|| leadership(facts))
        .or_else(|| alarms(facts))
        .or_else(|| lag(facts))
}

fn quorum_slack(facts: &ClusterFacts, policy: &Policy) -> Option<Reason> {
    let voters = facts.voters().count();
    // A quorum is more than half of the voters, and the one that is defragmented does not answer.
    let quorum = voters / 2 + 1;
    (voters.saturating_sub(1) < quorum && !policy.allow_without_quorum_slack)
        .then_some(Reason::NoQuorumSlack { voters })
}

// Checked first: a member that is being defragmented also hangs on Status, and "is being defragmented" is the more
// helpful reason. Learners count, too, although etcd refuses to defragment them: the flag is known.
fn in_flight(facts: &ClusterFacts) -> Option<Reason> {
    let busy = facts.members.iter().find(|member| member.defrag_in_flight() == Some(true))?;
    Some(Reason::DefragInFlight { member: busy.member.label() })
}

/// Why nothing can be done with a cluster whose member list is not known.
pub fn no_member_list(unknown: &Unknown) -> Reason {
    let detail = unknown.detail.clone();
    match unknown.kind {
        kind if kind.is_denial() => Reason::Denied { member: None, detail },
        _ => Reason::ClusterUnreachable { detail },
    }
}

/// Why a member whose `Status` is unknown must be skipped.
pub fn unknown_status(member: String, unknown: &Unknown) -> Reason {
    let detail = unknown.detail.clone();
    match unknown.kind {
        kind if kind.is_denial() => Reason::Denied { member: Some(member), detail },
        UnknownKind::WrongMember => Reason::WrongMember { member, detail },
        _ => Reason::MemberUnreachable { member, detail },
    }
}

fn unresponsive(facts: &MemberFacts) -> Option<Reason> {
    let member = facts.member.label();
    facts.status.as_ref().err().map(|unknown| unknown_status(member, unknown))
}

fn unread(facts: &MemberFacts) -> Option<Reason> {
    let member = facts.member.label();
    match &facts.linearizable_read {
        Some(Ok(())) => None,
        Some(Err(unknown)) if unknown.kind.is_denial() => {
            Some(Reason::Denied { member: Some(member), detail: unknown.detail.clone() })
        }
        Some(Err(unknown)) => Some(Reason::ReadFailed { member, detail: unknown.detail.clone() }),
        None => Some(Reason::ReadFailed { member, detail: "it was not tried".to_owned() }),
    }
}

fn leadership(facts: &ClusterFacts) -> Option<Reason> {
    let named = || facts.voters().filter_map(|facts| Some((facts, known(&facts.status)?)));
    if let Some((lost, _)) = named().find(|(_, status)| status.leader.is_none()) {
        return Some(Reason::NoLeader { member: lost.member.label() });
    }
    let mut views: Vec<_> = named().map(|(_, status)| (status.leader, status.raft_term)).collect();
    views.sort_unstable();
    views.dedup();
    if views.len() == 1 && facts.leader().is_some_and(|leader| facts.voters().any(|voter| voter.member.id == leader)) {
        return None;
    }
    let detail = named()
        .filter_map(|(facts, status)| {
            Some(format!("{} says {} in term {}", facts.member.label(), status.leader?, status.raft_term))
        })
        .collect::<Vec<_>>()
        .join(", ");
    Some(Reason::LeaderDisagreement { detail })
}

fn alarms(facts: &ClusterFacts) -> Option<Reason> {
    match &facts.alarms {
        Err(unknown) => Some(Reason::AlarmsUnknown { detail: unknown.detail.clone() }),
        Ok(_) => facts.has_alarm(AlarmKind::Corrupt).then_some(Reason::CorruptAlarm),
    }
}

fn lag(facts: &ClusterFacts) -> Option<Reason> {
    let applied = |facts: &MemberFacts| known(&facts.status).map(|status| status.raft_applied_index);
    let most = facts.voters().filter_map(applied).max()?;
    facts.voters().find_map(|voter| {
        let behind = most.saturating_sub(applied(voter)?);
        (behind > MAX_RAFT_LAG_ENTRIES).then(|| Reason::RaftLag {
            member: voter.member.label(),
            behind,
            limit: MAX_RAFT_LAG_ENTRIES,
        })
    })
}

fn dangerous_version(facts: &ClusterFacts) -> Option<Reason> {
    facts.voters().find_map(|voter| {
        let version = &known(&voter.status)?.version;
        version::refusal(version).map(|defect| Reason::DangerousVersion {
            member: voter.member.label(),
            version: version.clone(),
            defect: defect.to_owned(),
        })
    })
}

/// Learners count, too: they are upgraded with the others, and a downgrade waits for them. A cluster without space
/// cannot wait for the end of an upgrade.
fn upgrade_in_progress(facts: &ClusterFacts) -> Option<Reason> {
    if facts.has_alarm(AlarmKind::NoSpace) {
        return None;
    }
    let members = || facts.members.iter().filter_map(|facts| Some((facts, known(&facts.status)?)));
    if let Some((member, to)) = members().find_map(|(facts, status)| Some((facts, status.downgrade_to.as_deref()?))) {
        let member = member.member.label();
        let detail =
            format!("{member} reports a downgrade to {to}; finish it, or cancel it with `etcdctl downgrade cancel`");
        return Some(Reason::UpgradeInProgress { detail });
    }
    let mut minors: Vec<_> = members().map(|(_, status)| Version::parse(&status.version).map(Version::minor)).collect();
    minors.sort_unstable();
    minors.dedup();
    if minors.len() < 2 {
        return None;
    }
    let versions: Vec<_> =
        members().map(|(facts, status)| format!("{} runs {}", facts.member.label(), status.version)).collect();
    let detail = format!("{}; bring all members to one minor version first", versions.join(", "));
    Some(Reason::UpgradeInProgress { detail })
}

fn known(status: &Fact<Status>) -> Option<&Status> {
    status.as_ref().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{Alarm, Gauges, MemberId},
        fixture,
    };

    fn label(facts: &ClusterFacts) -> Option<&'static str> {
        cluster_danger(facts, &Policy::default()).map(|reason| reason.label())
    }

    #[test]
    fn a_healthy_cluster_of_three_is_safe() {
        assert_eq!(label(&fixture::cluster(3)), None);
        assert_eq!(label(&fixture::cluster(5)), None);
    }

    #[test]
    fn each_single_trouble_has_its_own_reason() {
        type Break = fn(&mut ClusterFacts);
        let table: &[(&str, Break)] = &[
            ("member_unreachable", |c| c.members[1].status = Err(Unknown::new(UnknownKind::Unreachable, "refused"))),
            ("member_unreachable", |c| c.members[1].status = Err(Unknown::new(UnknownKind::TimedOut, "hangs"))),
            ("denied", |c| c.members[1].status = Err(Unknown::new(UnknownKind::Denied, "auth: permission denied"))),
            ("wrong_member", |c| c.members[1].status = Err(Unknown::new(UnknownKind::WrongMember, "2 answered"))),
            ("read_failed", |c| {
                c.members[2].linearizable_read = Some(Err(Unknown::new(UnknownKind::TimedOut, "hangs")));
            }),
            ("read_failed", |c| c.members[2].linearizable_read = None),
            ("no_leader", |c| fixture::status_mut(c, 2).leader = None),
            ("leader_disagreement", |c| fixture::status_mut(c, 2).leader = Some(MemberId(2))),
            ("leader_disagreement", |c| fixture::status_mut(c, 2).raft_term += 1),
            ("leader_disagreement", |c| {
                for index in 0..3 {
                    fixture::status_mut(c, index).leader = Some(MemberId(99));
                }
            }),
            ("alarms_unknown", |c| c.alarms = Err(Unknown::new(UnknownKind::TimedOut, "hangs"))),
            ("corrupt_alarm", |c| c.alarms = Ok(vec![Alarm { kind: AlarmKind::Corrupt, member: None }])),
            ("defrag_in_flight", |c| {
                c.members[1].status = Err(Unknown::new(UnknownKind::TimedOut, "hangs"));
                c.members[1].gauges = Some(Ok(Gauges { defrag_in_flight: Some(true), ..Gauges::default() }));
            }),
            ("raft_lag", |c| fixture::status_mut(c, 1).raft_applied_index -= MAX_RAFT_LAG_ENTRIES + 1),
            ("dangerous_version", |c| fixture::status_mut(c, 1).version = "3.5.4".to_owned()),
            ("upgrade_in_progress", |c| fixture::status_mut(c, 1).version = "3.6.14".to_owned()),
            ("upgrade_in_progress", |c| {
                c.members[2].member.is_learner = true;
                c.members.push(fixture::cluster(4).members[3].clone());
                fixture::status_mut(c, 2).version = "3.6.14".to_owned();
            }),
            ("upgrade_in_progress", |c| fixture::status_mut(c, 2).downgrade_to = Some("3.4.0".to_owned())),
            ("no_quorum_slack", |c| c.members.truncate(2)),
            ("no_quorum_slack", |c| c.members.truncate(1)),
            ("no_quorum_slack", |c| c.members[2].member.is_learner = true),
        ];
        for (expected, break_it) in table {
            let mut facts = fixture::cluster(3);
            break_it(&mut facts);
            assert_eq!(label(&facts), Some(*expected));
        }
    }

    #[test]
    fn a_member_that_is_gone_is_named_rather_than_a_read_that_fails_because_of_it() {
        let mut facts = fixture::cluster(3);
        facts.members[0].linearizable_read = Some(Err(Unknown::new(UnknownKind::Unreachable, "leader changed")));
        facts.members[2].status = Err(Unknown::new(UnknownKind::TimedOut, "hangs"));
        let gone = facts.members[2].member.label();
        let reason = cluster_danger(&facts, &Policy::default());
        assert!(matches!(reason, Some(Reason::MemberUnreachable { member, .. }) if member == gone));
    }

    #[test]
    fn nospace_does_not_forbid_a_defragmentation() {
        let mut facts = fixture::cluster(3);
        facts.alarms = Ok(vec![Alarm { kind: AlarmKind::NoSpace, member: Some(MemberId(1)) }]);
        assert_eq!(label(&facts), None);
    }

    #[test]
    fn patch_releases_may_differ_and_without_space_so_may_minor_ones() {
        let mut facts = fixture::cluster(3);
        fixture::status_mut(&mut facts, 1).version = "3.5.31".to_owned();
        assert_eq!(label(&facts), None);
        fixture::status_mut(&mut facts, 1).version = "3.6.14".to_owned();
        fixture::status_mut(&mut facts, 1).downgrade_to = Some("3.5.0".to_owned());
        assert_eq!(label(&facts), Some("upgrade_in_progress"));
        facts.alarms = Ok(vec![Alarm { kind: AlarmKind::NoSpace, member: Some(MemberId(1)) }]);
        assert_eq!(label(&facts), None);
    }

    #[test]
    fn a_single_member_is_allowed_only_when_the_policy_says_so() {
        let mut facts = fixture::cluster(3);
        facts.members.truncate(1);
        let policy = Policy { allow_without_quorum_slack: true, ..Policy::default() };
        assert_eq!(cluster_danger(&facts, &policy), None);
    }

    #[test]
    fn a_learner_that_is_down_does_not_block_the_voters() {
        let mut facts = fixture::cluster(4);
        facts.members[3].member.is_learner = true;
        facts.members[3].status = Err(Unknown::new(UnknownKind::Unreachable, "refused"));
        assert_eq!(label(&facts), None);
    }
}
