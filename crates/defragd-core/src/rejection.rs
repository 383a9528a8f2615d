//! What an operator rejected instead of approving it: the alerts behind it request nothing until they fire anew (then
//! they have another start), and at most for the cooldown. It is known to every later lock holder.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    admission::{Ledger, after, has_been},
    history::{AlertKey, Outcome, RunId, RunView, Trigger},
    policy::Policy,
    reason::Reason,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    pub at: Timestamp,
    pub reason: Reason,
    /// Without labels.
    pub alerts: Vec<AlertKey>,
    /// The run in this journal; `None` if another lock holder recorded the rejection.
    #[serde(skip)]
    pub run: Option<RunId>,
}

impl Rejection {
    fn of(run: &RunView) -> Option<Self> {
        let Some(Outcome::Stopped { reason: Reason::Rejected { by, reason, at } }) = &run.outcome else { return None };
        let alerts = run.request.alerts.iter().map(AlertKey::bare).collect();
        // A run that ended because of another holder's rejection does not make it last longer.
        let (at, reason) =
            (at.or(run.finished_at)?, Reason::Rejected { by: by.clone(), reason: reason.clone(), at: None });
        Some(Self { at, reason, alerts, run: Some(run.id) })
    }

    /// The reason for what waits elsewhere for the same alerts. With its time: that end makes the rejection last no longer.
    pub fn reason_elsewhere(&self) -> Reason {
        match self.reason.clone() {
            Reason::Rejected { by, reason, .. } => Reason::Rejected { by, reason, at: Some(self.at) },
            other => other,
        }
    }

    /// Both, oldest first, without those that came back to the one who recorded them.
    pub(super) fn merged(own: Vec<Self>, others: &[Self]) -> Vec<Self> {
        let mut all = own;
        for other in others {
            if !all.iter().any(|own| (own.at, &own.alerts) == (other.at, &other.alerts)) {
                all.push(other.clone());
            }
        }
        all.sort_by_key(|rejection| rejection.at);
        all
    }
}

impl Ledger {
    pub(super) fn rejections_of_its_own(&self) -> impl Iterator<Item = Rejection> {
        self.runs.iter().filter_map(Rejection::of)
    }

    /// Of these alerts, those that request a run; if an operator rejected all of them, the last rejection.
    pub fn without_rejected(
        &self,
        alerts: Vec<AlertKey>,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Vec<AlertKey>, Box<Rejection>> {
        if alerts.is_empty() {
            return Ok(alerts);
        }
        let lasts = |rejection: &Rejection| has_been(rejection.at, now) && after(rejection.at, policy.cooldown) > now;
        let inherited = self.inherited.iter().flat_map(|inherited| &inherited.rejections).cloned();
        let rejections: Vec<_> = self.rejections_of_its_own().chain(inherited).filter(lasts).collect();
        let last =
            alerts.iter().filter_map(|key| newest(&rejections, key)).max_by_key(|rejection| rejection.at).cloned();
        let left: Vec<_> = alerts.into_iter().filter(|key| newest(&rejections, key).is_none()).collect();
        match last {
            Some(rejection) if left.is_empty() => Err(Box::new(rejection)),
            _ => Ok(left),
        }
    }

    /// Why a waiting run asks for nothing any more: all that it is for was rejected, here or by another lock holder.
    pub(super) fn rejected(&self, run: &RunView, policy: &Policy, now: Timestamp) -> Option<Reason> {
        let may_be = run.started_at.is_none() && run.approved.is_none() && run.request.trigger != Trigger::Manual;
        let alerts: Vec<_> = run.open_alerts().filter(|_| may_be).map(AlertKey::bare).collect();
        self.without_rejected(alerts, policy, now).err().map(|rejection| rejection.reason_elsewhere())
    }
}

/// The last rejection of this alert.
fn newest<'a>(rejections: &'a [Rejection], key: &AlertKey) -> Option<&'a Rejection> {
    rejections.iter().filter(|rejection| rejection.alerts.contains(key)).max_by_key(|rejection| rejection.at)
}
