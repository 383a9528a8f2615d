//! What defragd could know at a moment, from what the network really delivered to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use defragd::{
    core::cluster::{Alarm, AlarmKind, Fact, Gauges, Member, MemberId, Status},
    ports::etcd::Membership,
};

use crate::model::minor;

/// A member may be this far behind: the limit that the design sets.
const MOST_BEHIND: u64 = 1_000;

/// What the network has delivered to defragd since its last request for the member list.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    /// When the member list was requested.
    pub began: Duration,
    /// The last answer.
    pub at: Duration,
    pub membership: Option<Membership>,
    pub status: BTreeMap<MemberId, Fact<Status>>,
    pub read: BTreeMap<MemberId, bool>,
    /// Those whose page was requested, whether or not it came.
    pub requested: Vec<MemberId>,
    pub gauges: BTreeMap<MemberId, Fact<Gauges>>,
    pub alarms: Option<Vec<Alarm>>,
    /// A Defragment rests on it by now: what the member says while that is on its way belongs to no observation.
    pub is_relied_on: bool,
}

impl Deliveries {
    pub fn leader(&self) -> Option<MemberId> {
        self.statuses().find_map(|status| status.leader)
    }

    /// The answers that came.
    pub fn statuses(&self) -> impl Iterator<Item = &Status> {
        self.status.values().filter_map(|status| status.as_ref().ok())
    }

    pub fn is_voter(&self, id: MemberId) -> bool {
        let members = self.membership.iter().flat_map(|membership| &membership.members);
        members.into_iter().any(|member| member.id == id && !member.is_learner)
    }

    /// That members which answered run different minor versions, or report a downgrade, and none is without space.
    pub fn upgrade(&self) -> Option<String> {
        let reported = || self.statuses().flat_map(Status::reported_alarms);
        if self.alarms.iter().flatten().copied().chain(reported()).any(|alarm| alarm.kind == AlarmKind::NoSpace) {
            return None;
        }
        if let Some(to) = self.statuses().find_map(|status| status.downgrade_to.as_ref()) {
            return Some(format!("a downgrade to {to} is enabled"));
        }
        let minors: BTreeSet<_> = self.statuses().map(|status| minor(&status.version)).collect();
        (minors.len() > 1).then(|| format!("the members' versions differ: {minors:?}"))
    }

    /// Why a careful operator would send nothing at all, Defragment or not.
    pub fn unhealthy(&self) -> Option<String> {
        let Some(membership) = &self.membership else { return Some("the members are not known".to_owned()) };
        let voters: Vec<_> = membership.members.iter().filter(|member| !member.is_learner).collect();
        let mut views = Vec::new();
        for voter in &voters {
            let Some(Ok(status)) = self.status.get(&voter.id) else {
                return Some(format!("voter {} has not answered Status", voter.id));
            };
            if self.read.get(&voter.id) != Some(&true) {
                return Some(format!("no linearizable read through voter {} succeeded", voter.id));
            }
            views.push((status.leader, status.raft_term));
        }
        views.dedup();
        match views.as_slice() {
            [(Some(leader), _)] if voters.iter().any(|voter| voter.id == *leader) => {}
            _ => return Some(format!("the leader is not agreed on: {views:?}")),
        }
        match &self.alarms {
            None => Some("the alarms are not known".to_owned()),
            Some(alarms) if alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) => {
                Some("CORRUPT is armed".to_owned())
            }
            Some(_) => busy_or_behind(self, &voters),
        }
    }
}

impl Deliveries {
    /// Why nothing may be sent on this observation: another tool's work may be on a page that was not requested.
    pub fn without_page(&self) -> Option<String> {
        let mut members = self.membership.as_ref()?.members.iter();
        let unread = members.find(|member| !self.requested.contains(&member.id))?;
        Some(format!("the page of {} was not requested", unread.id))
    }
}

fn busy_or_behind(seen: &Deliveries, voters: &[&Member]) -> Option<String> {
    let in_flight = |fact: &Fact<Gauges>| matches!(fact, Ok(Gauges { defrag_in_flight: Some(true), .. }));
    if let Some((busy, _)) = seen.gauges.iter().find(|(_, fact)| in_flight(fact)) {
        return Some(format!("{busy} was seen to defragment"));
    }
    let status = |voter: &&Member| seen.status.get(&voter.id).and_then(|status| status.as_ref().ok());
    let applied: Vec<_> = voters.iter().filter_map(status).map(|status| status.raft_applied_index).collect();
    let behind = applied.iter().max()? - applied.iter().min()?;
    (behind > MOST_BEHIND).then(|| format!("a voter is {behind} entries behind"))
}
