//! The connections that are open: never more than so many, and never idle ones in the way of others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Scrapers, Alertmanagers and a few people; well below the usual 1,024 file descriptors.
const MAX_CONNECTIONS: usize = 512;
/// A minute is more than most scrape intervals.
const MAX_IDLE: Duration = Duration::from_mins(1);

/// See the module.
pub(super) struct Crowd {
    max: usize,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    taken: BTreeMap<u64, Arc<Seat>>,
}

/// A connection's place.
pub(super) struct Seat {
    state: Mutex<State>,
    evicted: Notify,
}

struct State {
    busy: usize,
    idle_since: Instant,
}

/// Gives the place back when it is dropped.
pub(super) struct Ticket {
    crowd: Arc<Crowd>,
    number: u64,
    pub(super) seat: Arc<Seat>,
}

/// A request under way, until it is dropped.
pub(super) struct Busy(Arc<Seat>);

impl Default for Crowd {
    fn default() -> Self {
        Self { max: MAX_CONNECTIONS, seats: Mutex::default() }
    }
}

impl Crowd {
    /// A place; where all are taken, that of whoever has been idle for the longest. None if nobody is idle.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Ticket> {
        let mut seats = lock(&self.seats);
        if seats.taken.len() >= self.max {
            let idle = seats.taken.iter().filter_map(|(number, seat)| Some((seat.idle_since()?, *number)));
            let (_, longest) = idle.min()?;
            if let Some(seat) = seats.taken.remove(&longest) {
                seat.evicted.notify_one();
            }
        }
        let number = seats.next;
        seats.next += 1;
        let state = Mutex::new(State { busy: 0, idle_since: Instant::now() });
        let seat = Arc::new(Seat { state, evicted: Notify::new() });
        seats.taken.insert(number, Arc::clone(&seat));
        drop(seats);
        Some(Ticket { crowd: Arc::clone(self), number, seat })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.crowd.seats).taken.remove(&self.number);
    }
}

impl Seat {
    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        lock(&self.state).busy += 1;
        Busy(Arc::clone(self))
    }

    fn idle_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        (state.busy == 0).then_some(state.idle_since)
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
        let mut state = lock(&self.0.state);
        state.busy -= 1;
        state.idle_since = Instant::now();
    }
}

// A panic elsewhere while the lock was held leaves these structures whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert!(lock(&crowd.seats).taken.len() <= 2);
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
