//! Reads the bodies of requests, within bounds. A body that is not needed is still read to its end, up to a bound: if
//! the server closed the connection while the client still writes, the client would see a broken connection instead of
//! the answer.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody},
    http::StatusCode,
};
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::{sync::Semaphore, time::timeout};

/// A group of twenty thousand alerts fits: Alertmanager does not resend what is refused for its length.
pub(super) const MAX_BODY_BYTES: usize = 16 << 20;
/// A client that takes longer to send its body occupies a connection that others need.
pub(super) const BODY_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer waits for the rest of a body that is not needed.
const DISCARD_LIMIT: Duration = Duration::from_secs(1);
/// How much of it is read: twice the longest body that any route accepts.
const DISCARD_BYTES: usize = 2 * MAX_BODY_BYTES;

/// Only a few bodies longer than this are kept in memory at once: a notification of some twenty alerts.
pub(super) const SMALL_BYTES: usize = 16 << 10;
/// How many long bodies at once. Others wait, within their time.
pub(super) const MAX_LONG_BODIES: usize = 8;
static LONG_BODIES: Semaphore = Semaphore::const_new(MAX_LONG_BODIES);
/// Only one body longer than this is kept in memory at once: a notification of some thousand alerts.
pub(super) const LONGEST_BYTES: usize = 2 << 20;
static LONGEST_BODY: Semaphore = Semaphore::const_new(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum BodyError {
    #[error("the body did not arrive in time")]
    TimedOut,
    /// With the limit.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    #[error("the body is malformed or incomplete")]
    Malformed,
}

impl BodyError {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Malformed => StatusCode::BAD_REQUEST,
        }
    }
}

/// The body, of at most `limit` bytes. One whose announced length is above it is refused before it arrives.
pub(super) async fn read(mut body: Body, limit: usize) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        // While the client reads the answer.
        tokio::spawn(discard(body));
        return Err(BodyError::TooLong(limit));
    }
    let collected = timeout(BODY_LIMIT, collect(&mut body, limit)).await.unwrap_or(Err(BodyError::TimedOut));
    if matches!(collected, Err(BodyError::TooLong(_))) {
        discard(body).await;
    }
    collected
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

async fn collect(body: &mut Body, limit: usize) -> Result<Bytes, BodyError> {
    let mut all = Vec::new();
    let (mut long, mut longest) = (None, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Malformed)?;
        let Some(data) = frame.data_ref() else { continue };
        let length = all.len() + data.len();
        if length > limit {
            return Err(BodyError::TooLong(limit));
        }
        if long.is_none() && length > SMALL_BYTES {
            long = LONG_BODIES.acquire().await.ok();
        }
        if longest.is_none() && length > LONGEST_BYTES {
            longest = LONGEST_BODY.acquire().await.ok();
        }
        all.extend_from_slice(data);
    }
    Ok(all.into())
}
