//! A review in words, the same for all formats that people read.

use bytesize::ByteSize;
use jiff::Timestamp;

use crate::{
    app::report::Report,
    core::{
        review::{Forecast, Review},
        trend::Slope,
    },
};

/// The heads of [`row`].
pub(super) const HEADS: [&str; 10] = [
    "cluster",
    "in use",
    "file",
    "quota",
    "growth a day (99 % interval)",
    "days to quota",
    "fragmentation",
    "its trend a day",
    "reclaimed per run",
    "runs (failed)",
];

/// One line of the table.
pub(super) fn row(review: &Review) -> [String; 10] {
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

pub(super) fn forecast(forecast: &Forecast) -> String {
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

/// What the figures rest on: everything that is no smooth line.
pub(super) fn remarks(review: &Review) -> Vec<String> {
    let mut said = vec![format!("Fullest member: {}. Members: {}.", review.now.member, review.members.join(", "))];
    if !review.former_members.is_empty() {
        said.push(format!("Members that are no more: {}.", review.former_members.join(", ")));
    }
    let gaps = review.gaps;
    if gaps.count > 0 {
        said.push(format!(
            "{} gap(s) without samples, the longest of {:.1} hours; nothing is made up for them.",
            gaps.count,
            hours(gaps.longest_seconds)
        ));
    }
    for step in &review.steps {
        said.push(format!("On {} in use changed at once by {}: left out of the growth.", date(step.at), size(step.by)));
    }
    if review.recurring_steps > 0 {
        said.push(format!(
            "In use changes in steps ({} of them): the growth goes across them.",
            review.recurring_steps
        ));
    }
    for change in &review.quota_changes {
        let (from, to) = (size(change.from_bytes), size(change.to_bytes));
        said.push(format!("On {} the quota went from {from} to {to}; the days count to the new one.", date(change.at)));
    }
    let fragmentation = &review.fragmentation;
    if fragmentation.defragmentations > 0 {
        let back = fragmentation.days_to_return.map_or_else(
            || "fragmentation did not return to 45 % in this range".to_owned(),
            |days| format!("fragmentation was back at 45 % after {days:.1} days (median of {})", fragmentation.returns),
        );
        said.push(format!("{} times a member's file became smaller; {back}.", fragmentation.defragmentations));
    }
    if review.runs.all() > 0.0 {
        let outcomes: Vec<_> = review.runs.outcomes.iter().map(|(name, count)| format!("{name} {count:.0}")).collect();
        let reclaimed = size(review.runs.reclaimed_bytes);
        said.push(format!("Runs: {}. Reclaimed in them: {reclaimed}.", outcomes.join(", ").replace('_', " ")));
    }
    said
}

pub(super) fn introduction(report: &Report) -> String {
    format!(
        "{} cluster(s) from {} to {}, a sample each {} minutes. The growth is that of what is in use, which \
         defragmentation does not change, on the fullest member; an interval that has 0 in it is called stable.",
        report.clusters.len(),
        moment(report.frame.from),
        moment(report.frame.to),
        (report.frame.step + 30) / 60,
    )
}

/// A size with its sign.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes; the sign is apart")]
pub(super) fn size(bytes: f64) -> String {
    let sign = if bytes <= -1.0 { "-" } else { "" };
    format!("{sign}{}", ByteSize(bytes.abs() as u64).display().iec())
}

pub(super) fn date(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

fn moment(seconds: i64) -> String {
    Timestamp::from_second(seconds)
        .map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

#[expect(clippy::cast_precision_loss, reason = "seconds of some years")]
fn hours(seconds: i64) -> f64 {
    seconds as f64 / 3_600.0
}

fn unknown() -> String {
    "unknown".to_owned()
}
