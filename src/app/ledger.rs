//! Reads what the journal holds about one cluster, as the admission needs it.

use crate::{
    core::ledger::Ledger,
    ports::journal::{Journal, JournalError},
};

/// More than the runs of a day with hourly refusals, so that consecutive failures are among them.
const RUNS_TO_READ: usize = 500;

/// The newest runs of a cluster, and the operators' actions on it.
pub async fn read<J: Journal>(journal: &J, cluster: &str) -> Result<Ledger, JournalError> {
    let runs = journal.runs_of(cluster, RUNS_TO_READ).await?;
    let orders = journal.orders(cluster).await?;
    let inherited = journal.inherited(cluster).await?;
    Ok(Ledger { runs, orders, inherited })
}
