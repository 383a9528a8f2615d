//! How often and how long a check is attempted: until it succeeds once, and then whether it keeps succeeding.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::ports::gate::{Reading, Tries};

/// For the time between the attempts, on a busy machine.
const MARGIN: Duration = Duration::from_secs(5);

impl Tries {
    /// No check takes longer.
    pub(super) fn limit(&self) -> Duration {
        let each = self.timeout + self.interval;
        let held = if self.hold.is_zero() { Duration::ZERO } else { self.hold + each };
        each * self.attempts.max(1) + held + MARGIN
    }

    /// Cancel safety: nothing is stored between attempts, so the future may be dropped at any point.
    pub(super) async fn run<F: Future<Output = Reading>>(self, attempt: impl Fn() -> F) -> Reading {
        let mut count = 0;
        let first = loop {
            count += 1;
            let reading = self.once(attempt()).await;
            if reading.passed {
                break reading.with("attempts", count);
            }
            if count >= self.attempts {
                return spent(reading, count);
            }
            sleep(self.interval).await;
        };
        let began = Instant::now();
        let mut last = first;
        while began.elapsed() < self.hold {
            sleep(self.interval.min(self.hold.saturating_sub(began.elapsed()))).await;
            let reading = self.once(attempt()).await.with("attempts", count);
            if !reading.passed {
                let (held, hold) = (began.elapsed().as_secs(), self.hold);
                let detail = format!(
                    "{}; {held} s after its first success, but it must keep succeeding for {hold:?}",
                    reading.detail
                );
                return Reading { detail, ..reading }.with("held_seconds", held);
            }
            last = reading;
        }
        last
    }

    async fn once(&self, attempt: impl Future<Output = Reading>) -> Reading {
        let late = || Reading::fail(format!("no result within {:?}", self.timeout));
        // The attempts limit their time themselves, with better messages; this limit applies in any case.
        timeout(self.timeout + Duration::from_millis(50), attempt).await.unwrap_or_else(|_| late())
    }
}

fn spent(reading: Reading, count: u32) -> Reading {
    let detail = if count > 1 { format!("{} (the last of {count} attempts)", reading.detail) } else { reading.detail };
    Reading { detail, ..reading }.with("attempts", count)
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        future::{pending, ready},
    };

    use super::*;

    fn tries(attempts: u32, hold_ms: u64) -> Tries {
        let ms = Duration::from_millis;
        Tries { timeout: ms(100), attempts, interval: ms(10), hold: ms(hold_ms) }
    }

    /// Replays these results, and repeats the last one.
    async fn play(tries: Tries, results: &[bool]) -> (Reading, usize) {
        let next = Cell::new(0);
        let reading = tries
            .run(|| {
                let index = next.replace(next.get() + 1).min(results.len() - 1);
                ready(if results[index] { Reading::pass("fine") } else { Reading::fail("bad") })
            })
            .await;
        (reading, next.get())
    }

    #[tokio::test]
    async fn it_tries_as_often_as_it_may_and_no_more() {
        let (reading, asked) = play(tries(3, 0), &[false, false, true]).await;
        assert_eq!((reading.passed, asked), (true, 3));
        let (reading, asked) = play(tries(3, 0), &[false, false, false, true]).await;
        assert_eq!((reading.passed, asked), (false, 3));
        assert_eq!(reading.detail, "bad (the last of 3 attempts)");
        let (reading, asked) = play(tries(3, 0), &[true, false]).await;
        assert_eq!((reading.passed, asked, reading.evidence["attempts"].as_u64()), (true, 1, Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_failure_while_it_must_hold_is_a_failure() {
        let (reading, asked) = play(tries(1, 60), &[true]).await;
        assert!(reading.passed && asked >= 2, "{reading:?} after {asked}");
        let (reading, asked) = play(tries(3, 60_000), &[true, true, false, true]).await;
        assert_eq!((reading.passed, asked), (false, 3));
        assert!(reading.detail.contains("must keep succeeding for 60s"), "{}", reading.detail);
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_fails_within_the_limit() {
        let (tries, began) = (tries(4, 0), Instant::now());
        let reading = tries.run(pending).await;
        assert!(!reading.passed && began.elapsed() < tries.limit(), "{reading:?}");
        assert!(reading.detail.contains("no result within 100ms"), "{}", reading.detail);
    }
}
