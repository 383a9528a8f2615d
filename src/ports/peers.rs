//! The other replicas, as one that does not hold a cluster's lock needs them.
//!
//! Contract for every method: one bounded call to the replica that is named, which never tries again by itself. An
//! answer means that the other replica has it in its journal. What is sent is marked, so that the other one never
//! passes it on: two replicas that each take the other for the holder must not send a request round and round.

use futures_util::future::BoxFuture;
use serde_json::Value;
use thiserror::Error;

use crate::core::{alert::Notification, history::RunId, lock::Holder};

/// Marks what one replica passes on to another; its value is the sender's name.
pub const FORWARDED_HEADER: &str = "x-defragd-forwarded";

/// Why a replica did not do what it was asked.
#[derive(Clone, Debug, Error)]
pub enum PeerError {
    /// It has not told where it is reached.
    #[error("replica {0} does not say where it is reached (lock.url)")]
    NoAddress(String),
    /// No answer, or none that is understood.
    #[error("replica {holder} cannot be reached: {detail}")]
    Unreachable { holder: String, detail: String },
    /// It has nothing to do with the alerts.
    #[error("it ignores the alert: {0}")]
    Ignored(String),
    #[error("replica {holder} answered {status}: {detail}")]
    Refused {
        holder: String,
        /// HTTP status.
        status: u16,
        detail: String,
    },
}

/// What a replica decided about the alerts behind one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferAnswer {
    /// This run of it serves them.
    Accepted(RunId),
    /// It had them in this run before, and nothing of it is left to be done.
    Ended(RunId),
    /// It does not hold the lock either.
    NotTheHolder,
}

/// An order to be passed on.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerOrder {
    /// Below `/api/v1/`, like `clusters/a/pause`.
    pub path: [String; 3],
    /// As the API takes it.
    pub body: Value,
}

pub trait Peers: Send + Sync + 'static {
    /// Offers alerts, all of one cluster. Alerts that it ignores are an error: the same clusters must be configured there.
    fn notify<'a>(&'a self, to: &'a Holder, alerts: &'a Notification) -> BoxFuture<'a, Result<OfferAnswer, PeerError>>;

    /// Passes an order on, and gives the answer.
    fn order<'a>(&'a self, to: &'a Holder, order: &'a PeerOrder) -> BoxFuture<'a, Result<Value, PeerError>>;
}
