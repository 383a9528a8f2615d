//! What the counters grew by, across restarts of the processes that count.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Frame, History};
use crate::trend::Point;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Runs {
    /// Runs by outcome; outcomes without a run are left out.
    pub outcomes: BTreeMap<String, f64>,
    pub reclaimed_bytes: f64,
    /// The same per run that was not ended early. One that was continues as the next one, or had not begun.
    pub reclaimed_per_run_bytes: Option<f64>,
}

impl Runs {
    /// How many runs had these outcomes.
    pub fn count(&self, outcomes: &[&str]) -> f64 {
        total(outcomes.iter().filter_map(|outcome| self.outcomes.get(*outcome).copied()))
    }

    pub fn all(&self) -> f64 {
        total(self.outcomes.values().copied())
    }
}

/// The outcomes of runs that may have touched a member.
pub(super) const ACTED: [&str; 5] = ["succeeded", "failed", "mismatched", "stopped", "interrupted"];

pub(super) fn of(history: &History, frame: Frame) -> Runs {
    let series = || history.reclaimed.iter().chain(history.runs.iter().map(|(_, points)| points));
    // A process that begins to count later began at 0 while Prometheus was already scraping.
    let watched_from = series().filter_map(|points| Some(points.first()?.0)).min().unwrap_or(frame.to) + 2 * frame.step;
    let mut runs = Runs::default();
    for (outcome, points) in &history.runs {
        let count = increase(points, watched_from);
        if count > 0.0 {
            *runs.outcomes.entry(outcome.clone()).or_default() += count;
        }
    }
    runs.reclaimed_bytes = total(history.reclaimed.iter().map(|points| increase(points, watched_from)));
    let ended = runs.count(&["succeeded", "failed", "mismatched"]);
    runs.reclaimed_per_run_bytes = (ended > 0.0).then(|| runs.reclaimed_bytes / ended);
    runs
}

/// `sum` of nothing is -0, and the sign would be displayed.
pub(super) fn total(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}

/// A counter that decreases was restarted at 0.
fn increase(points: &[Point], watched_from: i64) -> f64 {
    let first = points.first().filter(|(at, _)| *at > watched_from).map_or(0.0, |(_, value)| *value);
    let grown = |pair: &[Point]| if pair[1].1 >= pair[0].1 { pair[1].1 - pair[0].1 } else { pair[1].1 };
    first + points.windows(2).map(grown).sum::<f64>()
}
