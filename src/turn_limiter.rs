//! Limits how much work of a kind runs at the same time, without letting work that hangs delay the rest.
//!
//! A semaphore alone, or a stream's `buffer_unordered`, would let as many members as there are places hang and stop all
//! others; and without a limit the first scrape of a large fleet takes its memory for good (`benches/FLEET.md`).

use std::{future::Future, time::Duration};

use tokio::{sync::Semaphore, time::timeout};

/// Places for work that is quick, or else hangs.
pub(crate) struct TurnLimiter {
    places: Semaphore,
    lasts: Duration,
}

impl TurnLimiter {
    /// This many places. Work that takes longer than a turn `lasts` continues without one.
    pub(crate) const fn new(places: usize, lasts: Duration) -> Self {
        Self { places: Semaphore::const_new(places), lasts }
    }

    /// Starts the work when a place is free, so that waiting work uses no resources.
    pub(crate) async fn take<T, F: Future<Output = T>>(&self, work: impl FnOnce() -> F) -> T {
        // It fails only if the semaphore is closed, which never happens.
        let turn = self.places.acquire().await;
        let mut work = Box::pin(work());
        if let Ok(done) = timeout(self.lasts, &mut work).await {
            return done;
        }
        drop(turn);
        work.await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_waits_for_a_place_and_work_that_hangs_gives_its_own_back_and_ends_all_the_same() {
        let turns = TurnLimiter::new(1, Duration::from_millis(100));
        let begun = Instant::now();
        let took = |millis| {
            turns.take(move || async move {
                let at = begun.elapsed();
                sleep(Duration::from_millis(millis)).await;
                (at, begun.elapsed())
            })
        };
        let ended = join_all([took(30), took(1_000), took(10)]).await;
        let millis = |(at, end): &(Duration, Duration)| (at.as_millis(), end.as_millis());
        let ended: Vec<_> = ended.iter().map(millis).collect();
        assert_eq!(ended, [(0, 30), (30, 1_030), (130, 140)]);
    }
}
