//! The durable record of requests, intents and results.
//!
//! Contract: when a method returns `Ok`, the record survives a crash of the process and of the machine.
//! It is append-only, only one process holds it, and it is never stored in an etcd that defragd touches.

use std::future::Future;

use jiff::Timestamp;
use thiserror::Error;

use crate::core::{
    history::{Entry, Record, Request, RunId, RunView},
    note::SuccessionNote,
    order::{Order, OrderRecord},
    reason::Reason,
};

/// Why a call failed. Nothing is half-written.
#[derive(Clone, Debug, Error)]
pub enum JournalError {
    #[error("cannot open the journal {path}: {detail}")]
    Open { path: String, detail: String },
    #[error("the journal {path} is in use by another defragd")]
    InUse { path: String },
    /// It was written by a newer defragd.
    #[error("the journal {path} has schema version {found}, newer than this defragd's {known}: upgrade defragd")]
    Newer { path: String, found: i64, known: i64 },
    #[error("cannot write the journal: {0}")]
    Write(String),
    #[error("cannot read the journal: {0}")]
    Read(String),
}

impl From<JournalError> for Reason {
    fn from(error: JournalError) -> Self {
        let detail = match error {
            // The reason's text begins with these words itself.
            JournalError::Write(detail) => detail,
            other => other.to_string(),
        };
        Self::JournalFailed { detail }
    }
}

pub trait Journal: Send + Sync + 'static {
    /// Records a request and assigns a run number.
    fn accept(&self, request: Request) -> impl Future<Output = Result<RunId, JournalError>> + Send;

    fn append(&self, run: RunId, entry: Entry) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The newest `limit` runs, oldest first.
    fn runs(&self, limit: usize) -> impl Future<Output = Result<Vec<RunView>, JournalError>> + Send;

    /// The newest `limit` runs of one cluster, oldest first; with them the last that ended as `mismatched`, however
    /// old.
    fn runs_of(&self, cluster: &str, limit: usize) -> impl Future<Output = Result<Vec<RunView>, JournalError>> + Send;

    /// Records an operator's action on a cluster.
    fn order(&self, cluster: &str, order: Order) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The recorded actions on a cluster, oldest first.
    fn orders(&self, cluster: &str) -> impl Future<Output = Result<Vec<OrderRecord>, JournalError>> + Send;

    /// Records what other holders of a cluster's lock left, replacing what was recorded before.
    fn inherit(&self, cluster: &str, digest: SuccessionNote) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// What other holders of a cluster's lock left, if anything.
    fn inherited(&self, cluster: &str) -> impl Future<Output = Result<Option<SuccessionNote>, JournalError>> + Send;

    /// Since when the cluster has had this schedule, by the journal's clock: now, if it had another one or none before,
    /// or if the recorded time is in the future.
    fn scheduled_since(
        &self,
        cluster: &str,
        schedule: &str,
    ) -> impl Future<Output = Result<Timestamp, JournalError>> + Send;

    fn run(&self, run: RunId) -> impl Future<Output = Result<Option<RunView>, JournalError>> + Send;

    /// All records of one run, in order; empty if there is no such run.
    fn records(&self, run: RunId) -> impl Future<Output = Result<Vec<Record>, JournalError>> + Send;

    /// The runs that have no outcome yet, oldest first.
    fn open_runs(&self) -> impl Future<Output = Result<Vec<RunView>, JournalError>> + Send;

    /// Checks whether it is writable. Leaves no visible entry.
    fn writable(&self) -> impl Future<Output = Result<(), JournalError>> + Send {
        async { Ok(()) }
    }
}
