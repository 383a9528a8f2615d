//! The servers' true state, whatever an observation reported: a state that had lasted for a while when a Defragment was
//! sent is no race, and defragd must have seen it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use defragd::core::cluster::{AlarmKind, MemberId};
use tokio::time::sleep;

use crate::{
    faults::wants,
    model::{Door, Node, World, minor, since_3_6},
    sim::Sim,
};

/// How often it is checked, besides right before each Defragment.
const LOOK: Duration = Duration::from_secs(5);
/// Longer than an observation may be old.
const STEADY: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Truth {
    leader: Option<MemberId>,
    /// Voters that take no part, or do not answer.
    down: Vec<MemberId>,
    /// Voters that need a defragmentation.
    wanting: Vec<MemberId>,
    /// Voters run different minor versions, or may be about to, and have space.
    upgrading: bool,
}

/// Since when it has been so.
#[derive(Debug, Default)]
pub struct Steady {
    truth: Truth,
    since: Duration,
}

/// Looks again and again. Never ends.
pub async fn watch(sim: Arc<Sim>) {
    loop {
        sleep(LOOK).await;
        sim.world().look_at_truth();
    }
}

impl World {
    fn truth(&self) -> Truth {
        let no_space = self.alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace);
        let wants = |node: &Node| {
            let quota = (node.has_page || since_3_6(&node.version)).then_some(node.quota);
            wants(&self.schedule.policy, node.size, node.in_use, quota, no_space)
        };
        let voters = || self.current().into_iter().map(|node| &self.nodes[node]).filter(|node| node.voter());
        let ids = |is: &dyn Fn(&Node) -> bool| voters().filter(|node| is(node)).map(Node::id).collect();
        let minors: BTreeSet<_> = voters().map(|node| minor(&node.version)).collect();
        let downgrade = voters().any(|node| node.downgrade_to.is_some());
        Truth {
            upgrading: !no_space && (minors.len() > 1 || downgrade),
            leader: self.leader.map(|leader| self.nodes[leader].id()),
            down: ids(&|node| !node.connected() || node.door() != Door::Open),
            wanting: ids(&wants),
        }
    }

    fn look_at_truth(&mut self) {
        let truth = self.truth();
        if self.steady.truth != truth {
            self.steady = Steady { truth, since: self.now };
        }
    }

    /// I2, I3 and I7 by the truth.
    pub fn check_truth(&mut self, target: MemberId) {
        self.look_at_truth();
        // What servers report of their sizes may be from before.
        let stale = self.nodes.iter().any(|node| node.stale_in_use.is_some());
        if self.now < self.steady.since + STEADY || stale {
            return;
        }
        let Truth { leader, down, wanting, upgrading } = self.steady.truth.clone();
        // One that is cut off may have given the list, as it was before.
        let listed = self.watch.seen.membership.iter().flat_map(|membership| &membership.members);
        let down = listed.map(|member| member.id).find(|id| down.contains(id));
        if let Some(down) = down {
            self.violate("I3", format!("Defragment to {target} although {down} has been down for {STEADY:?}"));
        }
        if upgrading {
            self.violate("I3", format!("Defragment to {target} although an upgrade has been under way for {STEADY:?}"));
        }
        if !wanting.contains(&target) {
            self.violate("I7", format!("{target} has not needed a defragmentation for {STEADY:?}"));
        }
        if leader == Some(target) {
            let waiting = wanting.into_iter().find(|id| *id != target && !self.is_dealt_with(*id));
            if let Some(waiting) = waiting {
                self.violate("I2", format!("the leader of {STEADY:?} is defragmented while {waiting} waits"));
            }
        }
    }
}
