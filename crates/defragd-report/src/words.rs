//! A review in words, the same for all formats that people read.

use std::time::Duration;

use bytesize::ByteSize;
use defragd_core::{story, time::Time};
use jiff::Timestamp;

use crate::{
    Report,
    review::{Forecast, Kind, Review},
    trend::Slope,
};

/// More names make no summary.
const MAX_IN_SUMMARY: usize = 5;

/// The heads of [`row`].
pub(crate) const HEADS: [&str; 10] = [
    "cluster",
    "in use",
    "file",
    "quota",
    "growth per day (99 % interval)",
    "days to quota",
    "fragmentation",
    "its trend per day",
    "reclaimed per run",
    "runs (failed)",
];

/// One line of the table.
pub(crate) fn row(review: &Review) -> [String; 10] {
    let runs = &review.runs;
    let percent = |ratio: f64| format!("{:.0} %", ratio * 100.0);
    let points = |slope: Slope| {
        let [per_day, low, high] = [slope.per_day, slope.low, slope.high].map(|ratio| ratio * 100.0);
        if low <= 0.0 && high >= 0.0 { "stable".to_owned() } else { format!("{per_day:+.2} points") }
    };
    [
        review.cluster.clone(),
        size(review.now.in_use_bytes),
        review.now.size_bytes.map_or_else(unknown, size),
        review.now.quota_bytes.map_or_else(unknown, size),
        review.growth.map_or_else(unknown, |growth| {
            format!("{} ({} to {})", size(growth.per_day), size(growth.low), size(growth.high))
        }),
        forecast(&review.forecast),
        percent(review.fragmentation.ratio),
        review.fragmentation.trend.map_or_else(unknown, points),
        runs.reclaimed_per_run_bytes.map_or_else(|| "-".to_owned(), size),
        format!("{:.0} ({:.0})", runs.all(), runs.count(&["failed", "interrupted"])),
    ]
}

pub(crate) fn forecast(forecast: &Forecast) -> String {
    match forecast {
        Forecast::Growing { days_to_quota, days_at_least, days_at_most } => {
            let most = if days_at_most.is_finite() { format!("{days_at_most:.1}") } else { "never".to_owned() };
            format!("{days_to_quota:.1} ({days_at_least:.1} to {most})")
        }
        Forecast::GrowingWithoutQuota => "growing; quota unknown".to_owned(),
        Forecast::Stable => "stable".to_owned(),
        Forecast::Unknown { why } => format!("unknown: {why}"),
    }
}

/// How many clusters need attention, the first of them with the reason.
pub(crate) fn summary(report: &Report) -> String {
    let urgent: Vec<_> = report.clusters.iter().filter_map(attention).collect();
    let all = story::count(report.clusters.len(), "cluster");
    if urgent.is_empty() {
        return format!("{all}, none needs attention.");
    }
    let more = match urgent.len().saturating_sub(MAX_IN_SUMMARY) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let need = if urgent.len() == 1 { "needs" } else { "need" };
    let named = urgent[..urgent.len().min(MAX_IN_SUMMARY)].join(", ");
    format!("{} of {all} {need} attention: {named}{more}.", urgent.len())
}

/// The cluster with the most urgent reason; `None` if there is nothing to do.
fn attention(review: &Review) -> Option<String> {
    let why = match review.recommendations.first()?.kind {
        Kind::OverQuota => "file above its quota".to_owned(),
        Kind::Capacity => match review.forecast {
            Forecast::Growing { days_to_quota, .. } if days_to_quota > 0.0 => {
                format!("quota reached in {days_to_quota:.1} days")
            }
            _ => "quota reached".to_owned(),
        },
        Kind::NoRecentData => "no recent data".to_owned(),
        Kind::FailedRuns => "failed runs".to_owned(),
        Kind::RefusedRuns => "refused runs".to_owned(),
        Kind::QuotaUnknown => "quota unknown".to_owned(),
        Kind::ObserveMode => "mode observe".to_owned(),
        Kind::NoRuns => "no runs".to_owned(),
        Kind::ReturnsSoon => "fragmentation returns soon".to_owned(),
        Kind::TooLittleData => "too little data".to_owned(),
        Kind::Later | Kind::Stable => return None,
    };
    Some(format!("{} ({why})", review.cluster))
}

/// What the figures are based on: gaps, steps, changes of the quota, and other irregularities.
pub(crate) fn remarks(review: &Review) -> Vec<String> {
    let mut said = vec![format!("Fullest member: {}. Members: {}.", review.now.member, review.members.join(", "))];
    if !review.former_members.is_empty() {
        said.push(format!("Former members: {}.", review.former_members.join(", ")));
    }
    let gaps = review.gaps;
    if gaps.count > 0 {
        said.push(format!(
            "{} without samples, the longest {:.1} hours; nothing is interpolated.",
            story::count(gaps.count, "gap"),
            hours(gaps.longest_seconds)
        ));
    }
    for step in &review.steps {
        said.push(format!(
            "On {} the size in use jumped by {}: the growth excludes this step.",
            date(step.at),
            size(step.by)
        ));
    }
    if review.recurring_steps > 0 {
        said.push(format!(
            "The size in use often changes in steps ({} of them): the growth includes them.",
            review.recurring_steps
        ));
    }
    for change in &review.quota_changes {
        let (from, to) = (size(change.from_bytes), size(change.to_bytes));
        said.push(format!("On {} the quota went from {from} to {to}; days to quota use the new one.", date(change.at)));
    }
    let fragmentation = &review.fragmentation;
    if fragmentation.defragmentations > 0 {
        let back = fragmentation.days_to_return.map_or_else(
            || "fragmentation did not reach 45 % again in this range".to_owned(),
            |days| {
                format!("fragmentation reached 45 % again after {days:.1} days (median of {})", fragmentation.returns)
            },
        );
        said.push(format!(
            "{} shrank a member's file; {back}.",
            story::count(fragmentation.defragmentations, "defragmentation")
        ));
    }
    if review.runs.all() > 0.0 {
        let outcomes: Vec<_> = review.runs.outcomes.iter().map(|(name, count)| format!("{name} {count:.0}")).collect();
        let reclaimed = size(review.runs.reclaimed_bytes);
        said.push(format!("Runs: {}. They reclaimed {reclaimed}.", outcomes.join(", ").replace('_', " ")));
    }
    said
}

pub(crate) fn introduction(report: &Report) -> String {
    format!(
        "{} from {} to {}, one value every {}. Growth is that of the size in use, which defragmentation does \
        not change, on the fullest member; if its interval includes 0, the size is called stable.",
        story::count(report.clusters.len(), "cluster"),
        moment(report.frame.from),
        moment(report.frame.to),
        Time::from(Duration::from_secs(report.frame.step.unsigned_abs())),
    )
}

/// A size with its sign.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes; the sign is apart")]
pub(crate) fn size(bytes: f64) -> String {
    let sign = if bytes <= -1.0 { "-" } else { "" };
    format!("{sign}{}", ByteSize(bytes.abs() as u64).display().iec())
}

pub(crate) fn date(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

fn moment(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), story::time)
}

#[expect(clippy::cast_precision_loss, reason = "seconds of some years")]
fn hours(seconds: i64) -> f64 {
    seconds as f64 / 3_600.0
}

fn unknown() -> String {
    "unknown".to_owned()
}
