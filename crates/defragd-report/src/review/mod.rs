//! A capacity review: what a cluster's history says about its future, and what to do; pure.
//!
//! The trend is that of the size *in use*: the file's own size jumps with every defragmentation, and only shows when
//! the last one was. The fullest member counts, at each moment anew ([`fullest`]), so that a replaced member or a
//! different quota causes no break. [`fragmentation`] reviews single members, [`tally`] the counters.

mod advice;
mod fragmentation;
mod fullest;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

pub use advice::{Kind, Recommendation};
pub use fragmentation::Fragmentation;
pub use fullest::{FileOverQuota, Moment, QuotaChange};
pub use tally::Runs;

use crate::trend::{DAY, LevelShift, Point, Slope, days_until, trend};

/// If the growth takes longer, it is too slow to matter.
const MAX_DAYS: f64 = 3_650.0;
/// Shorter gaps are a restart of Prometheus or defragd.
const MIN_GAP_SECONDS: i64 = 3_600;
/// Fewer points have no typical interval.
const MIN_USUAL_POINTS: usize = 12;

/// The reviewed times, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Frame {
    pub from: i64,
    pub to: i64,
    pub step: i64,
}

#[derive(Clone, Debug, Default)]
pub struct MemberHistory {
    pub name: String,
    /// Bytes of the file.
    pub size: Vec<Point>,
    /// Bytes of it in use.
    pub in_use: Vec<Point>,
    /// The quota in bytes.
    pub quota: Vec<Point>,
}

#[derive(Clone, Debug, Default)]
pub struct History {
    /// Its members, including removed ones.
    pub members: Vec<MemberHistory>,
    /// The counter of reclaimed bytes, one series for each process that counted.
    pub reclaimed: Vec<Vec<Point>>,
    /// The counters of runs with their outcome.
    pub runs: Vec<(String, Vec<Point>)>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "forecast", rename_all = "snake_case")]
pub enum Forecast {
    Growing {
        /// Days until the size in use reaches the quota.
        days_to_quota: f64,
        /// The same at the upper end of the growth's interval.
        days_at_least: f64,
        /// The same at the lower end.
        days_at_most: f64,
    },
    /// It grows, but the quota is unknown.
    GrowingWithoutQuota,
    /// It does not grow, shrinks, or grows so slowly that it does not matter.
    Stable,
    Unknown {
        why: String,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// What counts as a gap: more than this, an hour unless samples are sparse.
    pub over_seconds: i64,
    pub count: usize,
    pub longest_seconds: i64,
    pub last_sample_age_seconds: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Review {
    pub cluster: String,
    /// The member that was the fullest at the end, and its figures.
    pub now: Moment,
    /// Members that existed at the end.
    pub members: Vec<String>,
    /// Members that existed, but no longer do.
    pub former_members: Vec<String>,
    /// Bytes that a defragmentation would reclaim on all members.
    pub reclaimable_bytes: f64,
    /// Growth of the size in use, bytes per day, with the 99 % interval.
    pub growth: Option<Slope>,
    #[serde(flatten)]
    pub forecast: Forecast,
    /// Sudden changes of the size in use that the growth excludes.
    pub steps: Vec<LevelShift>,
    /// Recurring sudden changes, which are part of the growth.
    pub recurring_steps: usize,
    pub quota_changes: Vec<QuotaChange>,
    /// The member whose file is furthest above its quota, if there is one.
    pub file_over_quota: Option<FileOverQuota>,
    pub gaps: Gaps,
    pub fragmentation: Fragmentation,
    pub runs: Runs,
    /// What to do, the most urgent first.
    pub recommendations: Vec<Recommendation>,
    /// The history of the fullest member, for charts.
    #[serde(skip)]
    pub history: Vec<(i64, Moment)>,
}

impl Review {
    /// Smaller is more urgent: what is recommended first, the days to the quota, the name.
    pub(crate) fn urgency(&self) -> (Option<Kind>, f64, &str) {
        let days = match self.forecast {
            Forecast::Growing { days_to_quota, .. } => days_to_quota,
            _ => f64::INFINITY,
        };
        (self.recommendations.first().map(|one| one.kind), days, &self.cluster)
    }
}

/// Reviews a cluster; `None` if no member has a sample.
pub fn review(cluster: &str, history: &History, frame: Frame) -> Option<Review> {
    let moments = fullest::moments(&history.members);
    let (last, now) = moments.last()?.clone();
    let in_use: Vec<Point> = moments.iter().map(|(at, moment)| (*at, moment.in_use_bytes)).collect();
    let trend = trend(&in_use);
    let (growth, steps, recurring_steps) = match &trend {
        Ok(trend) => (Some(trend.slope), trend.steps.clone(), trend.recurring_steps),
        Err(_) => (None, Vec::new(), 0),
    };
    let forecast = match &trend {
        Err(error) => Forecast::Unknown { why: error.to_string() },
        Ok(trend) => {
            // It continued to grow after the last sample.
            let level = trend.level + trend.slope.per_day.max(0.0) * days(frame.to - trend.last);
            forecast(level, trend.slope, now.quota_bytes)
        }
    };
    let gaps = gaps(&in_use, frame);
    let fresh = |member: &&MemberHistory| member.in_use.last().is_some_and(|(at, _)| last - at <= gaps.over_seconds);
    let (present, gone): (Vec<_>, Vec<_>) =
        history.members.iter().filter(|member| !member.in_use.is_empty()).partition(fresh);
    let names = |members: &[&MemberHistory]| members.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
    let mut review = Review {
        cluster: cluster.to_owned(),
        members: names(&present),
        former_members: names(&gone),
        reclaimable_bytes: tally::total(present.iter().filter_map(|member| reclaimable(member))),
        growth,
        forecast,
        steps,
        recurring_steps,
        quota_changes: fullest::quota_changes(&moments),
        file_over_quota: fullest::file_over_quota(&present),
        gaps,
        fragmentation: fragmentation::of(&history.members, &present),
        runs: tally::of(history, frame),
        recommendations: Vec::new(),
        now,
        history: moments,
    };
    review.recommendations = advice::of(&review);
    Some(review)
}

fn forecast(level: f64, slope: Slope, quota: Option<f64>) -> Forecast {
    let grows = slope.low > 0.0;
    let Some(quota) = quota else { return if grows { Forecast::GrowingWithoutQuota } else { Forecast::Stable } };
    let until = |per_day| days_until(quota, level, per_day);
    match until(slope.per_day) {
        Some(days) if (grows && days <= MAX_DAYS) || days == 0.0 => Forecast::Growing {
            days_to_quota: days,
            days_at_least: until(slope.high).unwrap_or(days),
            days_at_most: until(slope.low).unwrap_or(f64::INFINITY),
        },
        _ => Forecast::Stable,
    }
}

fn reclaimable(member: &MemberHistory) -> Option<f64> {
    Some((member.size.last()?.1 - member.in_use.last()?.1).max(0.0))
}

fn gaps(points: &[Point], frame: Frame) -> Gaps {
    let distances: Vec<_> = points.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    // A single missing sample is not a gap, even if samples are sparser than the steps.
    let over_seconds = MIN_GAP_SECONDS.max(2 * frame.step.max(usual(&distances)));
    let holes = || distances.iter().copied().filter(|distance| *distance > over_seconds);
    Gaps {
        over_seconds,
        count: holes().count(),
        longest_seconds: holes().max().unwrap_or(0),
        last_sample_age_seconds: points.last().map_or(0, |(at, _)| frame.to - at),
    }
}

/// The median, which a gap does not change; 0 if there is none.
fn usual(distances: &[i64]) -> i64 {
    if distances.len() < MIN_USUAL_POINTS {
        return 0;
    }
    let mut sorted = distances.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "seconds of some years")]
fn days(seconds: i64) -> f64 {
    seconds as f64 / DAY
}

/// A series by its times.
fn by_time(points: &[Point]) -> BTreeMap<i64, f64> {
    points.iter().copied().collect()
}
