//! How fast a size grows, from samples with noise, gaps, spikes and steps; pure arithmetic.
//!
//! The slope is that of Theil and Sen: the median of the slopes of all pairs of points, which a quarter of bad points
//! does not change. Its interval is Sen's, widened by the autocorrelation of the residuals, because samples an hour
//! apart are not independent. A few steps (a compaction after months, an import) are cut out: a pair never spans one.
//! Many steps are normal for the cluster, and the trend includes them. If the data is not sufficient, the result says
//! so.

use defragd_core::story;
use serde::Serialize;
use thiserror::Error;

/// A sample: seconds since 1970, and the value.
pub type Point = (i64, f64);

/// Seconds in a day.
pub const DAY: f64 = 86_400.0;
/// 65,000 pairs: milliseconds. In 30 days a bucket is two hours, several rounds of etcd's own compaction.
const MAX_BUCKETS: i64 = 360;
/// Fewer points have too small a sample to be robust.
const MIN_BUCKETS: usize = 12;
/// Less than a day shows the time of day rather than a trend.
const MIN_SPAN_SECONDS: i64 = 86_400;
/// A normal distribution's 99 %: a constant cluster is called growing once in two hundred reports.
const Z: f64 = 2.576;
/// From a median absolute deviation to a normal distribution's standard deviation.
const MAD_SCALE: f64 = 1.482_6;
/// A change from one bucket to the next that is this many deviations from the usual one is not noise.
const STEP_DEVIATIONS: f64 = 8.0;
/// A smaller step is not worth a cut: relative to the level. A step in the middle of a bucket appears as two halves,
/// each of which has to be as large.
const MIN_STEP_RATIO: f64 = 0.01;
/// A step stays, a spike goes: this many buckets before and after are compared, …
const STEP_WINDOW: usize = 6;
/// … and at least this many.
const MIN_STEP_WINDOW: usize = 2;
/// More in one range are not accidents but the way in which it grows or shrinks.
const MAX_STEPS: usize = 3;
/// A stronger autocorrelation is a random walk, which cannot be forecast.
const MAX_MEMORY: f64 = 0.99;

/// A slope with its 99 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slope {
    /// Per day.
    pub per_day: f64,
    /// Where the interval begins.
    pub low: f64,
    pub high: f64,
}

/// The analysis of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Trend {
    /// How fast it changes.
    pub slope: Slope,
    /// Its value at the last point without that point's noise.
    pub level: f64,
    /// When the last point was.
    pub last: i64,
    /// Sudden changes that the slope leaves out.
    pub steps: Vec<LevelShift>,
    /// Sudden changes that are too many to be excluded, and are part of the slope.
    pub recurring_steps: usize,
}

/// A sudden change that stayed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LevelShift {
    /// The first bucket after it.
    pub at: i64,
    pub by: f64,
}

/// Why there is no trend.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum TooLittle {
    #[error("only {}, but at least {MIN_BUCKETS} are needed", story::count(*.0, "point"))]
    Points(usize),
    #[error("only {} hours of data, but a day is needed", .0 / 3600)]
    Span(i64),
}

#[derive(Clone, Copy)]
struct Bucket {
    at: f64,
    value: f64,
}

/// The trend of points in the order of their times.
pub fn trend(points: &[Point]) -> Result<Trend, TooLittle> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Err(TooLittle::Points(0)) };
    if points.len() < MIN_BUCKETS {
        return Err(TooLittle::Points(points.len()));
    }
    let span = last.0 - first.0;
    if span < MIN_SPAN_SECONDS {
        return Err(TooLittle::Span(span));
    }
    let buckets = buckets(points, first.0, span);
    if buckets.len() < MIN_BUCKETS {
        return Err(TooLittle::Points(buckets.len()));
    }
    let found = steps(&buckets);
    let (cuts, recurring_steps) = if found.len() > MAX_STEPS { (Vec::new(), found.len()) } else { (found, 0) };
    let parts = parts(&buckets, &cuts);
    let (pairs, residuals) = sen(&parts);
    let per_second = pairs.0;
    let steps =
        cuts.iter().map(|(index, by)| LevelShift { at: first.0 + whole(buckets[*index].at), by: *by }).collect();
    let end = number(span);
    // From the last part and the last day, so that neither a step nor a bend long ago counts.
    let recent = parts.last().copied().unwrap_or_default();
    let fresh: Vec<_> = recent.iter().filter(|bucket| end - bucket.at <= DAY).collect();
    let intercept = median(&mut fresh.iter().map(|bucket| bucket.value - per_second * bucket.at).collect::<Vec<_>>());
    Ok(Trend {
        slope: interval(&parts, pairs, memory(&residuals)),
        level: intercept + per_second * end,
        last: last.0,
        steps,
        recurring_steps,
    })
}

/// Days until the level reaches the limit; `None` if it does not at this slope.
pub fn days_until(limit: f64, level: f64, per_day: f64) -> Option<f64> {
    if level >= limit { Some(0.0) } else { (per_day > 0.0).then(|| (limit - level) / per_day) }
}

/// Medians over equal spans, which preserve slopes and remove spikes. Their times count from the first point.
fn buckets(points: &[Point], first: i64, span: i64) -> Vec<Bucket> {
    let width =
        if i64::try_from(points.len()).is_ok_and(|points| points <= MAX_BUCKETS) { 1 } else { span / MAX_BUCKETS + 1 };
    points
        .chunk_by(|a, b| (a.0 - first) / width == (b.0 - first) / width)
        .map(|chunk| Bucket {
            at: median(&mut chunk.iter().map(|point| number(point.0 - first)).collect::<Vec<_>>()),
            value: median(&mut chunk.iter().map(|point| point.1).collect::<Vec<_>>()),
        })
        .collect()
}

/// The first bucket after each step, and its height.
fn steps(buckets: &[Bucket]) -> Vec<(usize, f64)> {
    let pairs = || buckets.windows(2).map(|pair| (pair[1].at - pair[0].at, pair[1].value - pair[0].value));
    let usual = median(&mut pairs().map(|(time, change)| change / time).collect::<Vec<_>>());
    let surprises: Vec<_> = pairs().map(|(time, change)| change - usual * time).collect();
    let deviation = MAD_SCALE * median(&mut surprises.iter().map(|surprise| surprise.abs()).collect::<Vec<_>>());
    let level = median(&mut buckets.iter().map(|bucket| bucket.value).collect::<Vec<_>>());
    let threshold = (STEP_DEVIATIONS * deviation).max(MIN_STEP_RATIO * level.abs());
    let mut found: Vec<(usize, f64)> = Vec::new();
    for (index, surprise) in surprises.iter().enumerate().map(|(index, surprise)| (index + 1, *surprise)) {
        if surprise.abs() <= threshold || !stays(buckets, index, surprise, usual) {
            continue;
        }
        match found.last_mut() {
            // The same step in the middle of a bucket: it is cut at the larger half.
            Some(before) if index - before.0 < STEP_WINDOW && before.1.signum() == surprise.signum() => {
                let cut = if surprise.abs() > before.1.abs() { index } else { before.0 };
                *before = (cut, before.1 + surprise);
            }
            _ => found.push((index, surprise)),
        }
    }
    found
}

/// Whether what comes after differs from what was before by most of it.
fn stays(buckets: &[Bucket], index: usize, by: f64, usual: f64) -> bool {
    let before = &buckets[index.saturating_sub(STEP_WINDOW)..index];
    let after = &buckets[index..buckets.len().min(index + STEP_WINDOW)];
    if before.len() < MIN_STEP_WINDOW || after.len() < MIN_STEP_WINDOW {
        return false;
    }
    let middle =
        |side: &[Bucket]| median(&mut side.iter().map(|bucket| bucket.value - usual * bucket.at).collect::<Vec<_>>());
    (middle(after) - middle(before)) * by.signum() > by.abs() / 2.0
}

fn parts<'a>(buckets: &'a [Bucket], cuts: &[(usize, f64)]) -> Vec<&'a [Bucket]> {
    let mut parts = Vec::new();
    let mut begin = 0;
    for (cut, _) in cuts {
        parts.push(&buckets[begin..*cut]);
        begin = *cut;
    }
    parts.push(&buckets[begin..]);
    parts
}

/// All pairs' slopes, per second, in order.
fn slopes(parts: &[&[Bucket]]) -> Vec<f64> {
    let mut slopes: Vec<_> = parts
        .iter()
        .flat_map(|part| {
            part.iter()
                .enumerate()
                .flat_map(|(index, a)| part[index + 1..].iter().map(move |b| (b.value - a.value) / (b.at - a.at)))
        })
        .collect();
    slopes.sort_by(f64::total_cmp);
    slopes
}

/// The median of the pairs' slopes with all of them, and the residuals of the parts' points.
fn sen(parts: &[&[Bucket]]) -> ((f64, Vec<f64>), Vec<Vec<f64>>) {
    let slopes = slopes(parts);
    let slope = middle(&slopes);
    let residuals = parts
        .iter()
        .map(|part| {
            let mut flat: Vec<_> = part.iter().map(|bucket| bucket.value - slope * bucket.at).collect();
            let centre = median(&mut flat.clone());
            for value in &mut flat {
                *value -= centre;
            }
            flat
        })
        .collect();
    ((slope, slopes), residuals)
}

/// The autocorrelation of the residuals, 0 to [`MAX_MEMORY`].
fn memory(parts: &[Vec<f64>]) -> f64 {
    let square: f64 = parts.iter().flatten().map(|value| value * value).sum();
    let product: f64 = parts.iter().flat_map(|part| part.windows(2)).map(|pair| pair[0] * pair[1]).sum();
    if square > 0.0 { (product / square).clamp(0.0, MAX_MEMORY) } else { 0.0 }
}

/// Sen's interval by ranks, as if there were fewer points because of their autocorrelation.
fn interval(parts: &[&[Bucket]], (slope, slopes): (f64, Vec<f64>), memory: f64) -> Slope {
    let variance: f64 =
        parts.iter().map(|part| count(part.len())).map(|n| n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sum();
    let reach = Z * (variance * (1.0 + memory) / (1.0 - memory)).sqrt();
    let all = count(slopes.len());
    let rank = |rank: f64| slopes[index(rank.clamp(0.0, all - 1.0))];
    let (low, high) = (rank((all - reach) / 2.0), rank(f64::midpoint(all, reach)));
    Slope { per_day: slope * DAY, low: low.min(slope) * DAY, high: high.max(slope) * DAY }
}

/// The median; changes the order. 0 for no values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    middle(values)
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds of some years")]
fn number(seconds: i64) -> f64 {
    seconds as f64
}

#[expect(clippy::cast_precision_loss, reason = "at most some 65,000")]
fn count(length: usize) -> f64 {
    length as f64
}

#[expect(clippy::cast_possible_truncation, reason = "seconds of some years")]
fn whole(seconds: f64) -> i64 {
    seconds as i64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to an index")]
fn index(rank: f64) -> usize {
    rank as usize
}

#[cfg(test)]
#[path = "trend_tests.rs"]
mod tests;
