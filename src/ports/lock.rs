//! Where replicas agree on which of them acts on a cluster. One store is for one cluster and one replica.
//!
//! Contract for every method: one bounded round of calls, whose parts have short limits of their own; it never tries
//! again by itself and never waits for the lock. Dropping the future releases everything but what was sent. The loop,
//! and how long an answer is good for, are `app::lock` and [`crate::core::lock`].

use futures_util::future::BoxFuture;

use crate::core::{
    cluster::Fact,
    lock::{LockAnswer, Term},
};

pub trait LockStore: Send + Sync + 'static {
    /// Renews our candidacy, or stands anew if it is lost, and looks who holds the lock. `Held` says that nobody else
    /// can get it for `ttl` after this call *began*; a candidacy that was lost meanwhile comes back with another term.
    fn renew_candidacy(&self) -> BoxFuture<'_, Fact<LockAnswer>>;

    /// Gives the candidacy up, so that the next one need not wait for its end. Where that fails, it ends by itself.
    fn release(&self) -> BoxFuture<'_, ()>;

    /// Leaves a note for the next holder in the place of the last one, if `term` still holds the lock when the store
    /// takes it: a holder that was stopped and came back must not write over its successor's.
    fn write_note<'a>(&'a self, term: Term, note: &'a str) -> BoxFuture<'a, Fact<()>>;

    /// The last note. `Ok(None)` is the store's word that there is none.
    fn read_note(&self) -> BoxFuture<'_, Fact<Option<String>>>;
}
