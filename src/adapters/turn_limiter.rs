//! So many of a kind at a time, none of which keeps the others waiting for long.

use std::{future::Future, time::Duration};

use tokio::{sync::Semaphore, time::timeout};

/// Places for work that is quick, or else hangs.
pub struct TurnLimiter {
    places: Semaphore,
    lasts: Duration,
}

impl TurnLimiter {
    /// So many places. Work that takes longer than a turn `lasts` goes on without one.
    pub const fn new(places: usize, lasts: Duration) -> Self {
        Self { places: Semaphore::const_new(places), lasts }
    }

    /// Begins the work when a place is free, and not before: what it needs is not there for all who wait.
    pub async fn take<T, F: Future<Output = T>>(&self, work: impl FnOnce() -> F) -> T {
        // It fails only if somebody closed it, which nobody does.
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
