//! Work that a client began and that must not end with its connection.

use crate::ports::journal::JournalError;

/// Does the work in a separate task: if a client disconnects, the future that waits here is dropped, and that must not
/// leave a request in the journal that is never served.
pub(super) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, JournalError> {
    let ended = tokio::spawn(work).await;
    ended.map_err(|error| JournalError::Write(format!("the request was not accepted: {error}")))
}
