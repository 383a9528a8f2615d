//! What people order about a cluster, as the journal holds it: who, why, when.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::history::RunId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// No run begins, and one under way starts no new member.
    Pause {
        by: String,
        reason: String,
        /// When it ends by itself.
        until: Option<Timestamp>,
    },
    /// Ends a pause, closes the breaker, and lets automation try again what it left to a person.
    Resume {
        by: String,
        reason: String,
        /// The newest run that had ended then. By its number, for clocks may be set back.
        last_ended: Option<RunId>,
    },
}

/// What is in force of one journal's orders, oldest first: a resume ends all pauses before it, a person's pause replaces
/// that person's last one and no other's, and of several the longest counts.
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

    /// What is in force of two journals' orders, by their times.
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
