//! Operators' actions on a cluster, as the journal stores them: who, why, when.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::request::RunId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// No run starts, and a run in progress starts no further member.
    Pause {
        by: String,
        reason: String,
        /// When it ends by itself.
        until: Option<Timestamp>,
    },
    /// Ends a pause, closes the breaker, and allows automatic runs again after a failure that needs an operator.
    Resume {
        by: String,
        reason: String,
        /// The newest run that had ended then. By its number, because clocks may be set back.
        last_ended: Option<RunId>,
    },
}

/// The action in force in one journal, oldest first: a resume ends all earlier pauses, an operator's pause replaces
/// only that operator's last one, and of several the longest counts.
pub fn in_force(orders: &[OrderRecord]) -> Option<&OrderRecord> {
    let mut resumed = None;
    let mut pauses: BTreeMap<&str, &OrderRecord> = BTreeMap::new();
    for record in orders {
        match &record.order {
            Order::Pause { by, .. } => {
                pauses.insert(by, record);
            }
            Order::Resume { .. } => {
                pauses.clear();
                resumed = Some(record);
            }
        }
    }
    pauses.into_values().max_by_key(|record| record.ends()).or(resumed)
}

/// An action with its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRecord {
    pub cluster: String,
    pub at: Timestamp,
    #[serde(flatten)]
    pub order: Order,
}

impl OrderRecord {
    /// When it ends by itself.
    fn ends(&self) -> Timestamp {
        match &self.order {
            Order::Pause { until, .. } => until.unwrap_or(Timestamp::MAX),
            Order::Resume { .. } => Timestamp::MAX,
        }
    }

    /// The action in force of two journals, by their times.
    pub fn or_other<'a>(&'a self, other: &'a Self) -> &'a Self {
        let newer = if other.at > self.at { other } else { self };
        match (&self.order, &other.order) {
            (Order::Pause { by, .. }, Order::Pause { by: other_by, .. }) if by != other_by => {
                if other.ends() > self.ends() { other } else { self }
            }
            _ => newer,
        }
    }
}
