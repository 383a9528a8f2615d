//! Which members' metrics pages an observation includes.
//!
//! etcd gathers all of its metrics for each request, 2–4 ms of its processor time, however little of the page is read.
//! So a page is requested only where it can change a decision. No RPC reports what is on it:
//! - that another tool's Defragment has begun on a member that still answers `Status`: it waits for etcd's locks, or
//!   the member answers all along (`NonBlockingDefrag`). It counts for every member, right before something is sent.
//! - open snapshots: for the member that is next, when the pause before it ends, and for one that is watched.
//! - the quota of 3.4 and 3.5, and feature gates: they stay the same while a member runs.

use std::time::Duration;

use super::{Action, OBSERVE_INTERVAL, Phase, Run};
use crate::{cluster::MemberId, plan::Plan};

/// The metrics pages that an observation includes. Whatever is requested, the page of a member whose `Status` does not
/// answer soon is always included: it shows whether the member is being defragmented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// Those of all members.
    #[default]
    All,
    /// That of this member.
    Only(MemberId),
    None,
}

impl Pages {
    pub fn include(self, member: MemberId) -> bool {
        match self {
            Self::All => true,
            Self::Only(only) => only == member,
            Self::None => false,
        }
    }
}

impl Run {
    /// Observes what the phase needs.
    pub(super) fn observe(&mut self, after: Duration) -> Action {
        self.pages = self.needed_pages();
        Action::Observe { after, pages: self.pages }
    }

    /// Observes in the pause after a member, of which so much is left: the last time when it ends.
    pub(super) fn observe_in_pause(&mut self, left: Duration) -> Action {
        if left <= OBSERVE_INTERVAL || self.may_answer {
            return self.observe(OBSERVE_INTERVAL.min(left));
        }
        // It decides nothing but whether the cluster is still healthy.
        self.pages = Pages::None;
        Action::Observe { after: OBSERVE_INTERVAL, pages: self.pages }
    }

    fn needed_pages(&self) -> Pages {
        // An answer to `Status` proves nothing then.
        if self.may_answer {
            return Pages::All;
        }
        match &self.phase {
            // The pause begins with it.
            Phase::Recovering { healthy_since: None, .. } if !self.pause().is_zero() => Pages::None,
            // What follows is decided by another observation, except for which member is next.
            Phase::Recovering { intent, .. } => self.next_after(Some(intent.member_id)),
            Phase::Transfer(_) => self.next_after(None),
            Phase::Settling(_) => Pages::None,
            _ => Pages::All,
        }
    }

    /// That of the member that is next by the last plan, once this one is done.
    fn next_after(&self, member: Option<MemberId>) -> Pages {
        let mut pending = self.plan.iter().flat_map(Plan::pending).map(|(step, _)| step);
        let next = pending.find(|step| step.waits_for.is_none() && Some(step.member_id) != member);
        next.map_or(Pages::None, |step| Pages::Only(step.member_id))
    }
}
