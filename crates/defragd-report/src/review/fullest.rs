//! The fullest member at each moment: the one with the largest part of its quota in use. It is what stops the cluster.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{MemberHistory, by_time};
use crate::trend::Point;

/// The fullest member at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moment {
    pub member: String,
    pub in_use_bytes: f64,
    /// Bytes of the file.
    pub size_bytes: Option<f64>,
    /// Its quota in bytes, as last known.
    pub quota_bytes: Option<f64>,
}

/// The quota of the fullest member changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct QuotaChange {
    /// When it was seen.
    pub at: i64,
    pub from_bytes: f64,
    pub to_bytes: f64,
}

/// A member whose file is larger than its quota.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileOverQuota {
    pub member: String,
    pub size_bytes: f64,
    pub in_use_bytes: f64,
    pub quota_bytes: f64,
}

/// By the last samples.
pub(super) fn file_over_quota(members: &[&MemberHistory]) -> Option<FileOverQuota> {
    let full = |member: &&MemberHistory| {
        let last = |points: &[Point]| points.last().map(|(_, value)| *value);
        let (size_bytes, quota_bytes) = (last(&member.size)?, last(&member.quota).filter(|quota| *quota > 0.0)?);
        (size_bytes > quota_bytes).then_some(FileOverQuota {
            member: member.name.clone(),
            size_bytes,
            in_use_bytes: last(&member.in_use)?,
            quota_bytes,
        })
    };
    let used = |one: &FileOverQuota| one.size_bytes / one.quota_bytes;
    members.iter().filter_map(full).max_by(|a, b| used(a).total_cmp(&used(b)))
}

/// The fullest member at each moment that has one.
pub(super) fn moments(members: &[MemberHistory]) -> Vec<(i64, Moment)> {
    let mut all: BTreeMap<i64, Moment> = BTreeMap::new();
    for member in members {
        let (sizes, quotas) = (by_time(&member.size), by_time(&member.quota));
        for (at, in_use) in &member.in_use {
            let moment = Moment {
                member: member.name.clone(),
                in_use_bytes: *in_use,
                size_bytes: sizes.get(at).copied(),
                // A quota that could not be read for a while is still the same.
                quota_bytes: quotas.range(..=at).next_back().map(|(_, quota)| *quota),
            };
            match all.get_mut(at) {
                Some(other) if !is_fuller(&moment, other) => {}
                _ => {
                    all.insert(*at, moment);
                }
            }
        }
    }
    let mut moments: Vec<_> = all.into_iter().collect();
    // A new member may not have reported its quota yet.
    let mut known = None;
    for (_, moment) in &mut moments {
        moment.quota_bytes = moment.quota_bytes.or(known);
        known = moment.quota_bytes;
    }
    moments
}

fn is_fuller(a: &Moment, b: &Moment) -> bool {
    match (a.quota_bytes, b.quota_bytes) {
        (Some(a_quota), Some(b_quota)) if a_quota > 0.0 && b_quota > 0.0 => {
            a.in_use_bytes / a_quota > b.in_use_bytes / b_quota
        }
        _ => a.in_use_bytes > b.in_use_bytes,
    }
}

pub(super) fn quota_changes(moments: &[(i64, Moment)]) -> Vec<QuotaChange> {
    let quotas: Vec<_> = moments.iter().filter_map(|(at, moment)| Some((*at, moment.quota_bytes?))).collect();
    let changed = |pair: &&[(i64, f64)]| (pair[0].1 - pair[1].1).abs() >= 1.0;
    quotas
        .windows(2)
        .filter(changed)
        .map(|pair| QuotaChange { at: pair[1].0, from_bytes: pair[0].1, to_bytes: pair[1].1 })
        .collect()
}
