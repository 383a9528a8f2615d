//! What an operator rejected instead of approving it: the alerts behind it request nothing until they fire anew (then
//! they have another start), and at most for the cooldown. It is known to every later lock holder.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    history::{AlertKey, Outcome, RunId, RunView},
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
    pub(super) fn of(run: &RunView) -> Option<Self> {
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
