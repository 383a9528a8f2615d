//! How fast members fragment, and how soon again after a defragmentation, no matter which tool did it: files only
//! shrink that way.

use defragd_core::policy::Policy;
use serde::Serialize;

use super::{MemberHistory, by_time, days};
use crate::trend::{Point, Slope, median, trend};

/// A file that shrinks by at least this part of its size was defragmented …
const MIN_SHRINK_RATIO: f64 = 0.05;
/// … if it is also at least this much.
const MIN_SHRINK_BYTES: f64 = 1_048_576.0;

/// How the files of a cluster fragment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Fragmentation {
    /// The worst member's last ratio: 1 - in use / size.
    pub ratio: f64,
    pub highest_ratio: f64,
    /// How the worst member's ratio changes per day, over the whole range and across defragmentations.
    pub trend: Option<Slope>,
    /// How often a member's file became smaller.
    pub defragmentations: usize,
    /// How many of them were followed by a ratio at the default policy's threshold within the range.
    pub returns: usize,
    /// The median of the days until then.
    pub days_to_return: Option<f64>,
}

pub(super) fn of(members: &[MemberHistory], present: &[&MemberHistory]) -> Fragmentation {
    let threshold = Policy::default().min_fragmentation_ratio;
    let all: Vec<Vec<Point>> = members.iter().map(ratios).collect();
    let mut worst = std::collections::BTreeMap::new();
    for (at, ratio) in all.iter().flatten() {
        let entry = worst.entry(*at).or_insert(*ratio);
        *entry = ratio.max(*entry);
    }
    let worst: Vec<Point> = worst.into_iter().collect();
    let (mut returns, mut defragmentations) = (Vec::new(), 0);
    for (member, ratios) in members.iter().zip(&all) {
        let ends = shrinks(&member.size);
        defragmentations += ends.len();
        for (index, end) in ends.iter().enumerate() {
            let next = ends.get(index + 1).copied().unwrap_or(i64::MAX);
            let later = ratios.iter().filter(|(at, _)| (*end..next).contains(at));
            // A member that was not below the threshold afterwards cannot return to it.
            let mut later = later.skip_while(|(_, ratio)| *ratio >= threshold).peekable();
            if later.peek().is_some_and(|(at, _)| at == end) {
                returns.extend(later.find(|(_, ratio)| *ratio >= threshold).map(|(at, _)| days(at - end)));
            }
        }
    }
    Fragmentation {
        ratio: present.iter().filter_map(|member| ratios(member).last().map(|(_, ratio)| *ratio)).fold(0.0, f64::max),
        highest_ratio: worst.iter().map(|(_, ratio)| *ratio).fold(0.0, f64::max),
        trend: trend(&worst).ok().map(|trend| trend.slope),
        defragmentations,
        returns: returns.len(),
        days_to_return: (!returns.is_empty()).then(|| median(&mut returns)),
    }
}

fn ratios(member: &MemberHistory) -> Vec<Point> {
    let sizes = by_time(&member.size);
    let ratio = |(at, in_use): &Point| {
        let size = sizes.get(at).filter(|size| **size > 0.0)?;
        Some((*at, (1.0 - in_use / size).max(0.0)))
    };
    member.in_use.iter().filter_map(ratio).collect()
}

/// The first sample after each.
fn shrinks(sizes: &[Point]) -> Vec<i64> {
    let is_shrink = |pair: &&[Point]| {
        let lost = pair[0].1 - pair[1].1;
        lost >= MIN_SHRINK_BYTES && lost >= MIN_SHRINK_RATIO * pair[0].1
    };
    sizes.windows(2).filter(is_shrink).map(|pair| pair[1].0).collect()
}
