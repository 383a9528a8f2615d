//! Waiting for a condition with a bound and a reason.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep, timeout};

/// How often a condition is checked: quick compared with the waits (seconds), light on two cores.
const POLL: Duration = Duration::from_millis(50);

/// Tries until it succeeds or the limit has passed, then fails with `what` and the last failure.
///
/// Each try is bounded by what is left of the limit, so one hanging call cannot outlast it.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut attempt: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let end = Instant::now() + limit;
    let mut last = anyhow!("it was never tried to the end");
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match timeout(left, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        // Looked at here too: a future that is ready at once never times out.
        if Instant::now() >= end {
            return Err(last.context(format!("{what}: not within {limit:?}")));
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tries_again_until_it_succeeds() {
        let mut tries = 0;
        let got = until("third time", Duration::from_mins(1), || {
            tries += 1;
            let now = tries;
            async move { if now == 3 { Ok(now) } else { Err(anyhow!("not yet")) } }
        })
        .await;
        assert_eq!(got.unwrap(), 3);
    }

    #[tokio::test]
    async fn says_what_was_waited_for_and_why_it_failed_last() {
        // However late the first try is, it is made to its end.
        let error = until("a miracle", Duration::from_millis(200), || async { Err::<(), _>(anyhow!("no wine")) })
            .await
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("a miracle") && text.contains("no wine"), "{text}");
    }
}
