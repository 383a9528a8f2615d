//! No connection keeps a thread for long: one that sends a lot is read piece by piece, with the other connections in
//! between. Otherwise each of hundreds of clients that send without end, HTTP/2 pings for example, would be read for as
//! long as it has something to read, and a scrape would wait for all of them.

use std::{
    io::{IoSlice, Result},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read before it is the others' turn: more than the head of an ordinary request, and some hundred
/// frames of HTTP/2.
const TURN_BYTES: usize = 2 << 10;

/// A stream that is read in turns. It belongs above TLS: below it, TLS would take bytes that wait for their turn for bytes
/// that have not arrived, and read again at once.
pub(super) struct Fair<S> {
    stream: S,
    /// Bytes left of this turn.
    left: usize,
}

impl<S> Fair<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, left: TURN_BYTES }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Fair<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.left == 0 {
            self.left = TURN_BYTES;
            // Its next turn comes after all other tasks that are ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let most = self.left.min(buffer.remaining());
        let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(most));
        let read = Pin::new(&mut self.stream).poll_read(context, &mut piece);
        let length = piece.filled().len();
        buffer.advance(length);
        // A stream that has nothing to read at the moment has had its turn.
        self.left = if read.is_pending() { TURN_BYTES } else { self.left - length };
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Fair<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn one_that_sends_without_end_is_read_in_turns_and_loses_nothing() {
        let endless = tokio::io::repeat(7);
        let mut fair = Fair::new(endless.take(3 * TURN_BYTES as u64));
        let mut all = Vec::new();
        let mut turns = 1;
        {
            let mut reading = std::pin::pin!(fair.read_to_end(&mut all));
            while poll!(reading.as_mut()).is_pending() {
                turns += 1;
            }
        }
        assert_eq!((all.len(), turns), (3 * TURN_BYTES, 4), "the end is read in a turn of its own");
    }
}
