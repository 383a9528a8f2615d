//! What to do, and why: each recommendation names the figures that it is based on.

use bytesize::ByteSize;
use defragd_core::{policy::Policy, story};
use serde::Serialize;

use super::{FileOverQuota, Forecast, Review, tally::ACTED};
use crate::{trend::Slope, words::size};

/// A quarter of a year: within it, an operator should act.
const SOON_DAYS: f64 = 90.0;
/// The maximum that etcd's documentation suggests; above it, etcd warns at start.
const MAX_QUOTA_BYTES: f64 = 8.0 * 1_073_741_824.0;
/// Defragmentation more often than weekly treats a symptom.
const SOON_AGAIN_DAYS: f64 = 7.0;
/// This long without a sample is not a restart.
const MAX_AGE_SECONDS: i64 = 6 * 3_600;

/// Something to do, or nothing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recommendation {
    pub kind: Kind,
    pub action: String,
    pub reason: String,
}

/// The most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    OverQuota,
    Capacity,
    NoRecentData,
    FailedRuns,
    RefusedRuns,
    QuotaUnknown,
    ObserveMode,
    NoRuns,
    ReturnsSoon,
    TooLittleData,
    Later,
    Stable,
}

fn say(kind: Kind, action: impl Into<String>, reason: String) -> Recommendation {
    Recommendation { kind, action: action.into(), reason }
}

/// In the order of their urgency.
pub(super) fn of(review: &Review) -> Vec<Recommendation> {
    let mut all: Vec<_> =
        [over_quota(review), capacity(review), silence(review), failures(review), idle(review), returns(review)]
            .into_iter()
            .flatten()
            .collect();
    if all.is_empty() {
        all.push(nothing(review));
    }
    all.sort_by_key(|one| one.kind);
    all
}

fn over_quota(review: &Review) -> Option<Recommendation> {
    let FileOverQuota { member, size_bytes, in_use_bytes, quota_bytes } = review.file_over_quota.as_ref()?;
    let action = if in_use_bytes < quota_bytes {
        format!("defragment {member} now: `defragd run`")
    } else {
        format!("raise the quota or delete keys now, then defragment {member}: `defragd run`")
    };
    let reason = format!(
        "the file of {member} is at {:.1} % of its quota ({} of {}, {} in use): etcd raises NOSPACE and refuses writes",
        size_bytes / quota_bytes * 100.0,
        size(*size_bytes),
        size(*quota_bytes),
        size(*in_use_bytes),
    );
    Some(say(Kind::OverQuota, action, reason))
}

fn capacity(review: &Review) -> Option<Recommendation> {
    let growth = review.growth.map(growth).unwrap_or_default();
    let level = size(review.now.in_use_bytes);
    match &review.forecast {
        Forecast::Growing { days_to_quota, days_at_least, days_at_most } if *days_to_quota <= SOON_DAYS => {
            let quota = review.now.quota_bytes.unwrap_or_default();
            let action = if quota >= MAX_QUOTA_BYTES {
                "delete keys or keep fewer revisions: the quota is already at the maximum that etcd suggests, 8 GiB;"
            } else {
                "raise the quota or delete keys"
            };
            Some(say(
                Kind::Capacity,
                format!("{action} {}", within(*days_at_least)),
                format!(
                    "{level} of {} are in use on {}, growing by {growth}: the quota is reached in {days_to_quota:.1} days ({} to {})",
                    size(quota),
                    review.now.member,
                    tenths(*days_at_least),
                    tenths(*days_at_most),
                ),
            ))
        }
        Forecast::GrowingWithoutQuota => Some(say(
            Kind::QuotaUnknown,
            "make the quota known: upgrade etcd to 3.6.6, set metrics.url to the members' own metrics page, or set quota",
            format!("{level} are in use, growing by {growth}, and the quota is unknown"),
        )),
        Forecast::Unknown { why } => Some(say(
            Kind::TooLittleData,
            "wait for more data, or choose a longer range",
            format!("no trend can be determined: {why}"),
        )),
        Forecast::Growing { .. } | Forecast::Stable => None,
    }
}

/// Like `within 15 days`.
fn within(days: f64) -> String {
    match days {
        days if days >= 2.0 => format!("within {:.0} days", days.floor()),
        days if days >= 1.0 => "within a day".to_owned(),
        _ => "now".to_owned(),
    }
}

fn silence(review: &Review) -> Option<Recommendation> {
    let age = review.gaps.last_sample_age_seconds;
    (age > MAX_AGE_SECONDS).then(|| {
        let reason = format!("the last sample is {} hours old; all figures are of that time", age / 3_600);
        say(Kind::NoRecentData, "find out why Prometheus has no new samples of this cluster", reason)
    })
}

fn failures(review: &Review) -> Option<Recommendation> {
    let runs = &review.runs;
    let failed = runs.count(&["failed", "interrupted"]);
    let refused = runs.count(&["refused"]);
    if failed > 0.0 {
        let reason = format!("{failed:.0} of {:.0} runs failed or were interrupted", runs.all());
        Some(say(Kind::FailedRuns, "find the cause: `defragd runs`", reason))
    } else if refused > 0.0 && runs.count(&["succeeded"]) == 0.0 {
        Some(say(
            Kind::RefusedRuns,
            "find out what forbids a run: `defragd plan`",
            format!("{} refused, none succeeded", run_count(refused)),
        ))
    } else {
        None
    }
}

/// Space that no run reclaims.
fn idle(review: &Review) -> Option<Recommendation> {
    let policy = Policy::default();
    let is_worth = review.fragmentation.ratio >= policy.min_fragmentation_ratio
        && review.reclaimable_bytes >= float(policy.min_reclaimable);
    let acted = review.runs.count(&ACTED);
    if acted > 0.0 || !is_worth {
        return None;
    }
    let space = format!(
        "{} are reclaimable on {}, fragmentation is {:.0} %",
        size(review.reclaimable_bytes),
        story::count(review.members.len(), "member"),
        review.fragmentation.ratio * 100.0
    );
    let observed = review.runs.count(&["observed"]);
    Some(if observed > 0.0 {
        say(
            Kind::ObserveMode,
            "set the mode to approve or enforce",
            format!("defragd only observes ({} would have started), but {space}", run_count(observed)),
        )
    } else {
        say(
            Kind::NoRuns,
            "route the fragmentation alerts to defragd, or use `defragd run`",
            format!("no run was requested, but {space}"),
        )
    })
}

fn returns(review: &Review) -> Option<Recommendation> {
    let fragmentation = &review.fragmentation;
    let days = fragmentation.days_to_return.filter(|days| *days < SOON_AGAIN_DAYS)?;
    let reason = format!(
        "fragmentation returns within {} days of each defragmentation (median of {})",
        tenths(days),
        fragmentation.returns
    );
    Some(say(
        Kind::ReturnsSoon,
        "check compaction and the clients that write: keep fewer revisions, or compact more often",
        reason,
    ))
}

fn nothing(review: &Review) -> Recommendation {
    let growth = review.growth.map(growth).unwrap_or_default();
    match &review.forecast {
        Forecast::Growing { days_to_quota, .. } => say(
            Kind::Later,
            "nothing now",
            format!("in use grows by {growth}; the quota is reached in {days_to_quota:.0} days"),
        ),
        _ => say(Kind::Stable, "stable: nothing to do", format!("in use changes by {growth}")),
    }
}

fn growth(slope: Slope) -> String {
    format!("{} per day ({} to {})", size(slope.per_day), size(slope.low), size(slope.high))
}

/// Like `1 run`, `2 runs`.
fn run_count(runs: f64) -> String {
    format!("{runs:.0} run{}", if runs.round() > 1.0 { "s" } else { "" })
}

fn tenths(days: f64) -> String {
    if days.is_finite() { format!("{days:.1}") } else { "never".to_owned() }
}

#[expect(clippy::cast_precision_loss, reason = "bytes")]
fn float(size: ByteSize) -> f64 {
    size.as_u64() as f64
}
