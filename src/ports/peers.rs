//! The other replicas, for a replica that does not hold a cluster's lock.
//!
//! Contract for every method: one bounded call to the named replica, without retries. An answer means that the other
//! replica has it in its journal. What is sent is marked, so that the other replica never forwards it again: two
//! replicas that each take the other for the holder must not send a request back and forth.

use futures_util::future::BoxFuture;
use serde_json::Value;
use thiserror::Error;

use crate::core::{alert::Notification, history::RunId, lock::Holder, reason::Reason};

/// Marks a forwarded request; its value is the sender's name.
pub const FORWARDED_HEADER: &str = "x-defragd-forwarded";

/// Marks a notification that another shard forwarded; its value is that shard.
pub const SHARD_HEADER: &str = "x-defragd-shard";

/// Why a call to a replica failed.
#[derive(Clone, Debug, Error)]
pub enum PeerError {
    /// It has not published its URL.
    #[error("replica {0} has no URL for other replicas: set lock.url (--lock.url) on it")]
    NoAddress(String),
    /// No answer, or an unintelligible one.
    #[error("replica {holder} cannot be reached: {detail}")]
    Unreachable { holder: String, detail: String },
    /// It ignores the alerts.
    #[error("it ignores the alert: {0}")]
    Ignored(String),
    #[error("replica {holder} answered {status}: {detail}")]
    Refused { holder: String, status: u16, detail: String },
}

/// What a replica decided about the alerts behind one request.
#[derive(Clone, Debug, PartialEq)]
pub enum OfferAnswer {
    /// This run of it serves them.
    Accepted(RunId),
    /// It already had them in this run, which is finished.
    Ended(RunId),
    /// An operator rejected them.
    Rejected(Reason),
    /// It does not hold the lock either.
    NotTheHolder,
}

/// An action to be forwarded.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerOrder {
    /// Below `/api/v1/`, like `clusters/a/pause`.
    pub path: [String; 3],
    /// The body that the API accepts.
    pub body: Value,
}

pub trait Peers: Send + Sync + 'static {
    /// Offers alerts, all of one cluster. Alerts that it ignores are an error: the same clusters must be configured
    /// there.
    fn notify<'a>(&'a self, to: &'a Holder, alerts: &'a Notification) -> BoxFuture<'a, Result<OfferAnswer, PeerError>>;

    /// Forwards an action and returns the answer.
    fn order<'a>(&'a self, to: &'a Holder, order: &'a PeerOrder) -> BoxFuture<'a, Result<Value, PeerError>>;
}
