//! What people order about a cluster, as the journal holds it: who, why, when.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// Ends a pause and closes the breaker.
    Resume {
        /// Who, as they said.
        by: String,
        /// Why.
        reason: String,
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
