//! The connections that are open: never more than so many, and never idle ones in the way of others. Those whose request
//! has not come to the end of its body are no better: else whoever sends slowly enough would keep everybody out.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::server::HEADER_TIMEOUT;

/// Scrapers, Alertmanagers and a few people; well below the usual 1,024 file descriptors.
const MAX_CONNECTIONS: usize = 512;
/// A minute is more than most scrape intervals.
const MAX_IDLE: Duration = Duration::from_mins(1);

/// How long a new connection has for its first request before it counts as idle, and a request for its body: as long as
/// its handshake and headers may take, which on a busy machine take seconds without any fault of the client's.
const TO_BEGIN: Duration = HEADER_TIMEOUT;

pub(super) struct Crowd {
    max: usize,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    taken: BTreeMap<u64, Arc<Seat>>,
}

pub(super) struct Seat {
    state: Mutex<State>,
    evicted: Notify,
}

struct State {
    busy: usize,
    /// How many of the busy are requests that have not come to their end yet.
    coming: usize,
    /// Whether a request has been answered on it.
    served: bool,
    /// When the last request ended, or the first of those under way began.
    since: Instant,
}

/// Gives the place back when it is dropped.
pub(super) struct Ticket {
    crowd: Arc<Crowd>,
    number: u64,
    pub(super) seat: Arc<Seat>,
}

/// A request under way, until it is dropped.
pub(super) struct Busy(Arc<Seat>);

/// A request whose body is still to come, until it is dropped.
struct Coming(Arc<Seat>);

/// A body, and that it has not come to its end yet.
pub(super) struct Body<B> {
    body: B,
    coming: Option<Coming>,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { max: MAX_CONNECTIONS, seats: Mutex::default() }
    }
}

impl Crowd {
    /// A place; where all are taken, that of whoever has been idle for the longest, or has been sending a request for the
    /// longest. None if all are waiting for answers. A connection that is new, or has just begun to send, is the last to go:
    /// a client whose connection ends between two requests makes a new one, and one whose request is on its way sees it
    /// fail.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Ticket> {
        let mut seats = self.seats.lock();
        if seats.taken.len() >= self.max {
            let in_the_way = seats.taken.iter().filter_map(|(number, seat)| Some((seat.gives_way()?, *number)));
            let (_, longest) = in_the_way.min()?;
            if let Some(seat) = seats.taken.remove(&longest) {
                seat.evicted.notify_one();
            }
        }
        let number = seats.next;
        seats.next += 1;
        let state = Mutex::new(State { busy: 0, coming: 0, served: false, since: Instant::now() });
        let seat = Arc::new(Seat { state, evicted: Notify::new() });
        seats.taken.insert(number, Arc::clone(&seat));
        drop(seats);
        Some(Ticket { crowd: Arc::clone(self), number, seat })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.crowd.seats.lock().taken.remove(&self.number);
    }
}

impl Seat {
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        let mut state = self.state.lock();
        if state.busy == 0 {
            state.since = Instant::now();
        }
        state.busy += 1;
        Busy(Arc::clone(self))
    }

    pub(super) fn receive<B: HttpBody>(self: &Arc<Self>, body: B) -> Body<B> {
        let coming = (!body.is_end_stream()).then(|| {
            self.state.lock().coming += 1;
            Coming(Arc::clone(self))
        });
        Body { body, coming }
    }

    /// Ends the connection, whatever is under way on it.
    pub(super) fn hang_up(&self) {
        self.evicted.notify_one();
    }

    fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.busy == 0).then_some(state.since)
    }

    /// Whether it is new or has just begun to send, and since when it has been idle, or sending. None while it waits for an
    /// answer.
    fn gives_way(&self) -> Option<(bool, Instant)> {
        let state = self.state.lock();
        // One that sends must not go before those that have just come in and say nothing, who may be many.
        let begins = (!state.served || state.busy > 0) && state.since.elapsed() < TO_BEGIN;
        (state.busy <= state.coming).then_some((begins, state.since))
    }

    /// Ends when the connection must give way, or has been idle for too long.
    pub(super) async fn over(&self) {
        let idle_for_long = async {
            loop {
                let wait_until = self.idle_since().unwrap_or_else(Instant::now) + MAX_IDLE;
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

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.busy -= 1;
        state.served = true;
        state.since = Instant::now();
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.state.lock().coming -= 1;
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
            self.coming = None;
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
        let crowd = Arc::new(Crowd { max: 2, seats: Mutex::default() });
        let first = crowd.enter().expect("a place");
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = crowd.enter().expect("a place");
        let busy = first.seat.begin();
        let third = crowd.enter().expect("the second's");
        assert!(second.seat.over().now_or_never().is_some(), "it was idle");
        assert!(first.seat.over().now_or_never().is_none(), "it is busy");
        let _busy_too = third.seat.begin();
        assert!(crowd.enter().is_none(), "nobody is idle");
        drop(busy);
        assert!(crowd.enter().is_some(), "the first is idle now");
        assert!(crowd.seats.lock().taken.len() <= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_just_come_in_is_not_put_out_by_those_who_ask_again_and_again() {
        let crowd = Arc::new(Crowd { max: 2, seats: Mutex::default() });
        let asks = crowd.enter().expect("a place");
        let has_just_come = crowd.enter().expect("a place");
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(asks.seat.begin());
        let another = crowd.enter().expect("the place of who has been served");
        assert!(asks.seat.over().now_or_never().is_some(), "it has had its answer");
        assert!(has_just_come.seat.over().now_or_never().is_none(), "its request may be on its way");
        drop(another.seat.begin());
        tokio::time::advance(TO_BEGIN).await;
        drop(another.seat.begin());
        let _next = crowd.enter().expect("the place of who asks nothing");
        assert!(has_just_come.seat.over().now_or_never().is_some(), "it has had its time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_just_begun_to_send_goes_after_silent_ones_that_came_earlier() {
        use axum::body::Bytes;
        use http_body_util::Full;
        for has_been_served in [false, true] {
            let crowd = Arc::new(Crowd { max: 2, seats: Mutex::default() });
            let sends = crowd.enter().expect("a place");
            if has_been_served {
                drop(sends.seat.begin());
            }
            let silent = crowd.enter().expect("a place");
            tokio::time::advance(Duration::from_millis(1)).await;
            let _request = sends.seat.begin();
            let _slow = sends.seat.receive(Full::<Bytes>::from("not polled"));
            let another = crowd.enter().expect("the place of who says nothing");
            assert!(silent.seat.over().now_or_never().is_some(), "it says nothing");
            assert!(sends.seat.over().now_or_never().is_none(), "its body is on its way");
            tokio::time::advance(TO_BEGIN).await;
            drop(another);
            let _silent_too = crowd.enter().expect("a place");
            let _last = crowd.enter().expect("the place of who sends so slowly");
            assert!(sends.seat.over().now_or_never().is_some(), "it has had its time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_for_the_longest_gives_way_and_who_waits_for_an_answer_does_not() {
        use axum::body::Bytes;
        use http_body_util::{BodyExt, Full};
        let crowd = Arc::new(Crowd { max: 3, seats: Mutex::default() });
        let waits = crowd.enter().expect("a place");
        let _answer = waits.seat.begin();
        let whole = waits.seat.receive(Full::<Bytes>::from("whole")).collect().await.expect("it comes");
        assert_eq!(whole.to_bytes(), "whole");
        let sends = crowd.enter().expect("a place");
        let _request = sends.seat.begin();
        let _slow = sends.seat.receive(Full::<Bytes>::from("not polled"));
        tokio::time::advance(Duration::from_secs(1)).await;
        let has_just_come = crowd.enter().expect("a place");
        let _another = crowd.enter().expect("the sender's place");
        assert!(sends.seat.over().now_or_never().is_some(), "it was still sending");
        assert!(has_just_come.seat.over().now_or_never().is_none(), "its request may be on its way");
        assert!(waits.seat.over().now_or_never().is_none(), "it waits for its answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_ends_after_a_minute() {
        let crowd = Arc::new(Crowd::default());
        let ticket = crowd.enter().expect("a place");
        let before = Instant::now();
        let busy = ticket.seat.begin();
        let seat = Arc::clone(&ticket.seat);
        let over = tokio::spawn(async move { seat.over().await });
        tokio::time::sleep(MAX_IDLE * 2).await;
        assert!(!over.is_finished(), "busy");
        drop(busy);
        over.await.expect("no panic");
        assert_eq!(before.elapsed().as_secs() / 60, 3);
    }
}
