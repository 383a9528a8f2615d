//! Progress lines, each with the time since the start.

use std::time::{Duration, Instant};

/// Prints progress.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console(Instant);

impl Console {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// One line of progress.
    pub(crate) fn say(self, text: &str) {
        println!("[{:6.1}s] {text}", self.0.elapsed().as_secs_f64());
    }
}

/// Bytes as MiB with one decimal.
pub(crate) fn mib(bytes: u64) -> String {
    let tenths = (bytes * 10 + 512 * 1024) / (1024 * 1024);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// A duration in seconds with two decimals.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_to_tenths_of_a_mebibyte() {
        assert_eq!(mib(0), "0.0 MiB");
        assert_eq!(mib(1024 * 1024 * 3 / 2), "1.5 MiB");
        assert_eq!(mib(1024 * 1024 - 1), "1.0 MiB");
    }
}
