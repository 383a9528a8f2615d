//! What people order about a cluster, as the journal holds it: who, why, when.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::history::RunId;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// No run begins, and one under way starts no new member.
    Pause {
        /// Who, as they said.
        by: String,
        /// Why.
        reason: String,
        /// When it ends by itself.
        until: Option<Timestamp>,
    },
    /// Ends a pause, closes the breaker, and lets automation try again what it left to a person.
    Resume {
        /// Who, as they said.
        by: String,
        /// Why.
        reason: String,
        /// The newest run that had ended then. By its number, for clocks may be set back.
        last_ended: Option<RunId>,
    },
}

/// An order with its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRecord {
    /// Of which cluster.
    pub cluster: String,
    /// When it was given.
    pub at: Timestamp,
    /// What it says.
    #[serde(flatten)]
    pub order: Order,
}
