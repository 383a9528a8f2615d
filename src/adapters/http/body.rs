//! Reads the bodies of requests, within bounds. A body that is not needed is still read to its end, up to a bound: if
//! the server closed the connection while the client still writes, the client would see a broken connection instead of
//! the answer.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use tokio::{sync::Semaphore, time::timeout};

/// A group of twenty thousand alerts fits: Alertmanager does not resend what is refused for its length.
pub(super) const MAX_BODY_BYTES: usize = 16 << 20;
/// A client that takes longer to send its body occupies a connection that others need.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer waits for the rest of a body that is not needed.
const DISCARD_LIMIT: Duration = Duration::from_secs(1);
/// How much of it is read: twice the longest body that any route accepts.
const DISCARD_BYTES: usize = 2 * MAX_BODY_BYTES;

/// Only a few bodies longer than this are kept in memory at once: a notification of some twenty alerts.
const SMALL_BYTES: usize = 16 << 10;
/// How many long bodies at once. Others wait, within their time.
static LONG_BODIES: Semaphore = Semaphore::const_new(8);
/// Only one body longer than this is kept in memory at once: a notification of some thousand alerts.
const LONGEST_BYTES: usize = 2 << 20;
static LONGEST_BODY: Semaphore = Semaphore::const_new(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It did not arrive in time.
    TimedOut,
    /// It is longer than the limit, or ended too early.
    Unusable,
}

/// The body, of at most `limit` bytes.
pub(super) async fn read(mut body: Body, limit: usize) -> Result<Bytes, BodyError> {
    let collected = timeout(BODY_LIMIT, collect(&mut body, limit)).await.map_err(|_| BodyError::TimedOut)?;
    if collected.is_none() {
        discard(body).await;
    }
    collected.ok_or(BodyError::Unusable)
}

/// Reads a body that is not needed to its end.
pub(super) async fn discard(mut body: Body) {
    // Errors do not matter: the answer goes out now.
    let _ = timeout(DISCARD_LIMIT, async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    })
    .await;
}

async fn collect(body: &mut Body, limit: usize) -> Option<Bytes> {
    let mut all = Vec::new();
    let (mut long, mut longest) = (None, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.ok()?;
        let Some(data) = frame.data_ref() else { continue };
        let length = all.len() + data.len();
        if length > limit {
            return None;
        }
        if long.is_none() && length > SMALL_BYTES {
            long = Some(LONG_BODIES.acquire().await.ok()?);
        }
        if longest.is_none() && length > LONGEST_BYTES {
            longest = Some(LONGEST_BODY.acquire().await.ok()?);
        }
        all.extend_from_slice(data);
    }
    Some(all.into())
}
