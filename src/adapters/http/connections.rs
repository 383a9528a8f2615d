//! Limits the open connections, and closes idle ones when others need their place. A connection whose request body is
//! still incomplete counts as idle, too: otherwise slow senders could keep all other clients out.
//!
//! Not left to hyper: its time for headers also ends connections between two requests, so that it cannot be short for
//! slow senders and long for scrapers; it does not hold for HTTP/2; and it does not know which connection to give up.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};
use tokio::{sync::Notify, time::Instant};

/// Enough for scrapers, Alertmanagers and a few operators; well below the usual 1,024 file descriptors.
pub const MAX_CONNECTIONS: usize = 512;
/// Twice Prometheus' default scrape interval, so that its connections are kept between scrapes.
pub(super) const MAX_IDLE: Duration = Duration::from_mins(2);
/// How long a new connection has for the TLS handshake and its first request, and a request for its body before the
/// connection counts as idle: on a busy machine this can take seconds even for a well-behaved client.
pub(super) const TO_BEGIN: Duration = Duration::from_secs(10);
/// Evicted connections that may still be open. Each is closed when its task runs next.
const MAX_CLOSING: usize = 8;

pub(super) struct ConnectionLimiter {
    max: usize,
    open: Mutex<OpenConnections>,
    closed: Notify,
}

#[derive(Default)]
struct OpenConnections {
    next: u64,
    /// Those with a place, and those that were evicted and are not closed yet.
    sockets: usize,
    taken: BTreeMap<u64, Arc<ConnectionSlot>>,
}

pub(super) struct ConnectionSlot {
    state: Mutex<ConnectionState>,
    evicted: Notify,
}

struct ConnectionState {
    active: usize,
    /// How many of the busy requests have not been received completely.
    receiving: usize,
    /// Whether a request has been answered on it.
    served: bool,
    /// When the last request ended, or the first of the current ones began.
    since: Instant,
}

/// Frees the place when it is dropped.
pub(super) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    number: u64,
    pub(super) slot: Arc<ConnectionSlot>,
}

/// A request in progress, until it is dropped.
pub(super) struct ActiveRequest(Arc<ConnectionSlot>);

/// A request whose body is still incomplete, until it is dropped.
struct ReceivingBody(Arc<ConnectionSlot>);

/// A request body that counts as incomplete until its end.
pub(super) struct Body<B> {
    body: B,
    receiving: Option<ReceivingBody>,
}

impl Default for ConnectionLimiter {
    fn default() -> Self {
        // Of a small limit, half is left for members, gates and the journal.
        let descriptors = getrlimit(Resource::Nofile).current.and_then(|most| usize::try_from(most).ok());
        let max = descriptors.map_or(MAX_CONNECTIONS, |most| MAX_CONNECTIONS.min(most / 2));
        Self { max, open: Mutex::default(), closed: Notify::new() }
    }
}

impl ConnectionLimiter {
    /// Waits until evicted connections are closed: a burst of new ones must not take all descriptors.
    pub(super) async fn room(&self) {
        loop {
            // Made before the look, so that no end in between is missed.
            let closed = self.closed.notified();
            if self.open.lock().sockets < self.max + MAX_CLOSING {
                return;
            }
            closed.await;
        }
    }

    /// Takes a place; if all are taken, the one of the connection that has been idle or sending a request for the
    /// longest. None if all connections wait for answers. Connections that are new or have just begun to send are
    /// evicted last: a client whose connection ends between two requests opens a new one, but one whose request is on
    /// its way sees it fail.
    pub(super) fn enter(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let mut open = self.open.lock();
        if open.taken.len() >= self.max {
            let in_the_way = open.taken.iter().filter_map(|(number, slot)| Some((slot.gives_way()?, *number)));
            let (_, longest) = in_the_way.min()?;
            if let Some(slot) = open.taken.remove(&longest) {
                slot.evicted.notify_one();
            }
        }
        let number = open.next;
        open.next += 1;
        open.sockets += 1;
        let state = Mutex::new(ConnectionState { active: 0, receiving: 0, served: false, since: Instant::now() });
        let slot = Arc::new(ConnectionSlot { state, evicted: Notify::new() });
        open.taken.insert(number, Arc::clone(&slot));
        drop(open);
        Some(ConnectionPermit { limiter: Arc::clone(self), number, slot })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limiter.open.lock();
        open.taken.remove(&self.number);
        open.sockets -= 1;
        drop(open);
        self.limiter.closed.notify_waiters();
    }
}

impl ConnectionSlot {
    pub(super) fn begin(self: &Arc<Self>) -> ActiveRequest {
        let mut state = self.state.lock();
        if state.active == 0 {
            state.since = Instant::now();
        }
        state.active += 1;
        ActiveRequest(Arc::clone(self))
    }

    pub(super) fn receive<B: HttpBody>(self: &Arc<Self>, body: B) -> Body<B> {
        let receiving = (!body.is_end_stream()).then(|| {
            self.state.lock().receiving += 1;
            ReceivingBody(Arc::clone(self))
        });
        Body { body, receiving }
    }

    /// Ends the connection, even with a request in progress.
    pub(super) fn hang_up(&self) {
        self.evicted.notify_one();
    }

    /// When it ends if no request is complete by then. A client that sends its headers byte by byte gets no more time.
    fn idle_until(&self) -> Instant {
        let state = self.state.lock();
        match state.active {
            0 if !state.served => state.since + TO_BEGIN,
            0 => state.since + MAX_IDLE,
            _ => Instant::now() + TO_BEGIN,
        }
    }

    /// Whether it is new or has just begun to send, and since when it has been idle or sending. None while it waits for
    /// an answer.
    fn gives_way(&self) -> Option<(bool, Instant)> {
        let state = self.state.lock();
        // A sending connection must not be evicted before newly opened silent ones, of which there may be many.
        let begins = (!state.served || state.active > 0) && state.since.elapsed() < TO_BEGIN;
        (state.active <= state.receiving).then_some((begins, state.since))
    }

    /// Resolves when the connection is evicted, or has been idle for too long.
    pub(super) async fn over(&self) {
        let idle_for_long = async {
            loop {
                let wait_until = self.idle_until();
                if wait_until <= Instant::now() {
                    return;
                }
                tokio::time::sleep_until(wait_until).await;
            }
        };
        tokio::select! {
            () = self.evicted.notified() => (),
            () = idle_for_long => (),
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.active -= 1;
        state.served = true;
        state.since = Instant::now();
    }
}

impl Drop for ReceivingBody {
    fn drop(&mut self) {
        self.0.state.lock().receiving -= 1;
    }
}

impl<B: HttpBody + Unpin> HttpBody for Body<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
            self.receiving = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_gives_way_and_the_busy_never_do() {
        let limiter = Arc::new(ConnectionLimiter { max: 2, ..ConnectionLimiter::default() });
        let first = limiter.enter().expect("a place");
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = limiter.enter().expect("a place");
        let active = first.slot.begin();
        let third = limiter.enter().expect("the second's");
        assert!(second.slot.over().now_or_never().is_some(), "it was idle");
        assert!(first.slot.over().now_or_never().is_none(), "it is busy");
        let _busy_too = third.slot.begin();
        assert!(limiter.enter().is_none(), "no connection is idle");
        drop(active);
        assert!(limiter.enter().is_some(), "the first is idle now");
        assert!(limiter.open.lock().taken.len() <= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_is_not_evicted_by_clients_that_reconnect_again_and_again() {
        let limiter = Arc::new(ConnectionLimiter { max: 2, ..ConnectionLimiter::default() });
        let asks = limiter.enter().expect("a place");
        let has_just_come = limiter.enter().expect("a place");
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(asks.slot.begin());
        let another = limiter.enter().expect("the place of the served connection");
        assert!(asks.slot.over().now_or_never().is_some(), "it has had its answer");
        assert!(has_just_come.slot.over().now_or_never().is_none(), "its request may be on its way");
        drop(another.slot.begin());
        tokio::time::advance(TO_BEGIN).await;
        drop(another.slot.begin());
        let _next = limiter.enter().expect("the place of the silent connection");
        assert!(has_just_come.slot.over().now_or_never().is_some(), "it has had its time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_just_begun_to_send_goes_after_silent_ones_that_came_earlier() {
        use axum::body::Bytes;
        use http_body_util::Full;
        for has_been_served in [false, true] {
            let limiter = Arc::new(ConnectionLimiter { max: 2, ..ConnectionLimiter::default() });
            let sends = limiter.enter().expect("a place");
            if has_been_served {
                drop(sends.slot.begin());
            }
            let silent = limiter.enter().expect("a place");
            tokio::time::advance(Duration::from_millis(1)).await;
            let _request = sends.slot.begin();
            let _slow = sends.slot.receive(Full::<Bytes>::from("not polled"));
            let another = limiter.enter().expect("the place of the silent connection");
            assert!(silent.slot.over().now_or_never().is_some(), "it says nothing");
            assert!(sends.slot.over().now_or_never().is_none(), "its body is on its way");
            tokio::time::advance(TO_BEGIN).await;
            drop(another);
            let _silent_too = limiter.enter().expect("a place");
            let _last = limiter.enter().expect("the place of the slow sender");
            assert!(sends.slot.over().now_or_never().is_some(), "it has had its time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_sender_is_evicted_and_a_connection_that_waits_for_its_answer_is_not() {
        use axum::body::Bytes;
        use http_body_util::{BodyExt, Full};
        let limiter = Arc::new(ConnectionLimiter { max: 3, ..ConnectionLimiter::default() });
        let waits = limiter.enter().expect("a place");
        let _answer = waits.slot.begin();
        let whole = waits.slot.receive(Full::<Bytes>::from("whole")).collect().await.expect("it comes");
        assert_eq!(whole.to_bytes(), "whole");
        let sends = limiter.enter().expect("a place");
        let _request = sends.slot.begin();
        let _slow = sends.slot.receive(Full::<Bytes>::from("not polled"));
        tokio::time::advance(Duration::from_secs(1)).await;
        let has_just_come = limiter.enter().expect("a place");
        let _another = limiter.enter().expect("the sender's place");
        assert!(sends.slot.over().now_or_never().is_some(), "it was still sending");
        assert!(has_just_come.slot.over().now_or_never().is_none(), "its request may be on its way");
        assert!(waits.slot.over().now_or_never().is_none(), "it waits for its answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_two_minutes_after_its_last_request_or_ten_seconds_without_any() {
        let limiter = Arc::new(ConnectionLimiter::default());
        let permit = limiter.enter().expect("a place");
        let before = Instant::now();
        let active = permit.slot.begin();
        let slot = Arc::clone(&permit.slot);
        let over = tokio::spawn(async move { slot.over().await });
        tokio::time::sleep(Duration::from_mins(4)).await;
        assert!(!over.is_finished(), "busy");
        drop(active);
        over.await.expect("no panic");
        assert_eq!(before.elapsed().as_secs(), 6 * 60);
        let (silent, before) = (limiter.enter().expect("a place"), Instant::now());
        silent.slot.over().await;
        assert_eq!(before.elapsed().as_secs(), 10);
    }
}
