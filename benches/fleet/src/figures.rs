//! Numbers from many measurements.

use std::time::Duration;

use serde::Serialize;

/// The middle of several rounds, and how far they lie apart.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Spread {
    /// Of at least one number.
    pub(crate) fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(all.len() / 2), lowest: at(0), highest: at(all.len().saturating_sub(1)) }
    }
}

/// By the nearest rank: of fewer than a hundred, the 99th percentile is the slowest.
pub(crate) fn percentile(all: &[Duration], percent: usize) -> Duration {
    let mut sorted = all.to_vec();
    sorted.sort();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// A goal and what was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) wanted: String,
    pub(crate) measured: String,
    pub(crate) met: bool,
}

impl Goal {
    pub(crate) fn new(goal: impl Into<String>, measured: impl Into<String>, met: bool) -> Self {
        Self { wanted: goal.into(), measured: measured.into(), met }
    }
}

/// Where and when it was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) compiler: String,
    pub(crate) commit: String,
    /// Of the last minute, when the measurement began: well above 1, others were at work.
    pub(crate) load_average: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let said = |program: &str, args: &[&str]| {
            let output = std::process::Command::new(program).args(args).output();
            let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
            text.map_or_else(|| "unknown".to_owned(), |text| String::from_utf8_lossy(&text).trim().to_owned())
        };
        let after = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).and_then(|line| line.split_once(':'));
            line.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
        Self {
            processor: after(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            compiler: said("rustc", &["--version"]),
            commit: said("git", &["describe", "--always", "--dirty", "--exclude=*"]),
            load_average: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

pub(crate) fn mebibytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let bytes = bytes as f64;
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_go_by_the_nearest_rank() {
        let all: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&all, 50), Duration::from_millis(50));
        assert_eq!(percentile(&all, 99), Duration::from_millis(99));
        assert_eq!(percentile(&all[..10], 99), Duration::from_millis(100));
    }

    #[test]
    fn the_median_of_rounds_comes_with_its_neighbours() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]);
        assert!((spread.median - 2.0).abs() < 1e-9 && spread.lowest < 1.1 && spread.highest > 2.9);
    }
}
