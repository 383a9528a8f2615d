//! Where replicas agree on which of them acts on a cluster. One store serves one cluster and one replica.
//!
//! Contract for every method: one bounded round of calls, each with a short timeout of its own; it never retries by
//! itself and never waits for the lock. Dropping the future releases everything except what has been sent. The loop,
//! and how long an answer is valid, are in `app::lock` and [`crate::core::lock`].

use futures_util::future::BoxFuture;

use crate::core::{
    cluster::Fact,
    lock::{LockAnswer, Term},
};

pub trait LockStore: Send + Sync + 'static {
    /// Renews our candidacy, or starts a new one if it was lost, and reads who holds the lock. `Held` means that no
    /// other replica can acquire it for `ttl` after this call *began*; a candidacy that was lost meanwhile returns with
    /// a new term.
    fn renew_candidacy(&self) -> BoxFuture<'_, Fact<LockAnswer>>;

    /// Ends the candidacy, so that the next holder need not wait until it expires. If this fails, it expires.
    fn release(&self) -> BoxFuture<'_, ()>;

    /// Stores a note for the next holder, replacing the last one, if `term` still holds the lock when the store
    /// receives it: a holder that was suspended and resumes must not overwrite its successor's note.
    fn write_note<'a>(&'a self, term: Term, note: &'a str) -> BoxFuture<'a, Fact<()>>;

    /// The last note. `Ok(None)` means that the store has none.
    fn read_note(&self) -> BoxFuture<'_, Fact<Option<String>>>;
}
