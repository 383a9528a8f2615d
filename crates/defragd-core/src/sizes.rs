//! How large a cluster's members were over the last days: enough for a small chart, without Prometheus.
//!
//! Bounded: a member has at most [`MAX_POINTS`] points of 12 bytes, which is 1.5 KiB. 1,000 clusters of three members
//! take 4.5 MiB. Points become sparser as they age: of the last hours there is one every 25 minutes or more often, of
//! a week ago one every three hours.

use std::collections::BTreeMap;

use bytesize::ByteSize;
use jiff::Timestamp;

use super::{
    cluster::{ClusterFacts, MemberFacts, MemberId},
    history::Sizes,
};

/// Points of one member.
pub const MAX_POINTS: usize = 128;
/// A younger last point is replaced by the next observation.
const SPACING_SECONDS: u32 = 5 * 60;
/// Older points are forgotten.
const KEPT_SECONDS: u32 = 7 * 24 * 60 * 60;
/// Points of this age are twice as far apart as new ones.
const THINNING_SECONDS: u64 = 24 * 60 * 60;
/// Sizes are kept in etcd's usual page size, so that four bytes suffice for 16 TiB.
const PAGE_BYTES: u64 = 4096;

/// The sizes of a member at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizePoint {
    /// Unix time, seconds.
    at: u32,
    size_pages: u32,
    in_use_pages: u32,
}

impl SizePoint {
    /// Unix time, seconds.
    pub const fn seconds(self) -> u32 {
        self.at
    }

    /// Of the file, rounded down to a page.
    pub fn size(self) -> ByteSize {
        ByteSize(u64::from(self.size_pages) * PAGE_BYTES)
    }

    pub fn in_use(self) -> ByteSize {
        ByteSize(u64::from(self.in_use_pages) * PAGE_BYTES)
    }
}

/// The points of each member, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SizeHistory(BTreeMap<MemberId, Vec<SizePoint>>);

impl SizeHistory {
    /// Adds an observation; members that left the cluster are forgotten.
    pub fn record(&mut self, now: Timestamp, facts: &ClusterFacts) {
        let now = u32::try_from(now.as_second()).unwrap_or(0);
        self.0.retain(|id, _| facts.member(*id).is_some());
        for member in &facts.members {
            if let Some(sizes) = sizes_of(member) {
                add(self.0.entry(member.member.id).or_default(), now, sizes);
            }
        }
    }

    /// Oldest first.
    pub fn of(&self, member: MemberId) -> &[SizePoint] {
        self.0.get(&member).map_or(&[], Vec::as_slice)
    }
}

/// From `Status`, or from the metrics page while `Status` hangs.
pub fn sizes_of(member: &MemberFacts) -> Option<Sizes> {
    if let Ok(status) = &member.status {
        return Some(Sizes { db_size: status.db_size, db_size_in_use: status.db_size_in_use });
    }
    let gauges = member.gauges.as_ref()?.as_ref().ok()?;
    Some(Sizes { db_size: gauges.db_size?, db_size_in_use: gauges.db_size_in_use? })
}

fn add(points: &mut Vec<SizePoint>, now: u32, sizes: Sizes) {
    let pages = |size: ByteSize| u32::try_from(size.0 / PAGE_BYTES).unwrap_or(u32::MAX);
    let point = SizePoint { at: now, size_pages: pages(sizes.db_size), in_use_pages: pages(sizes.db_size_in_use) };
    // After the clock was set back, later points would run backwards.
    points.retain(|old| old.at <= now && now - old.at <= KEPT_SECONDS);
    // The last point is always the newest observation. It stays once it is far enough from the one before it.
    if let [.., before, last] = points.as_mut_slice()
        && last.at - before.at < SPACING_SECONDS
    {
        *last = point;
        return;
    }
    if points.len() >= MAX_POINTS {
        thin_out(points, now);
    }
    points.push(point);
}

/// Removes the point that is nearest to its neighbours for its age.
fn thin_out(points: &mut Vec<SizePoint>, now: u32) {
    let crowding = |index: &usize| {
        let gap = u64::from(points[index + 1].at - points[index - 1].at);
        let age = u64::from(now - points[*index].at);
        // In millionths, because the order of integers is total.
        gap * 1_000_000 / (age + THINNING_SECONDS)
    };
    if let Some(index) = (1..points.len() - 1).min_by_key(crowding) {
        points.remove(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const START: i64 = 1_700_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(START + second).expect("a time")
    }

    fn mib(size: u64) -> ClusterFacts {
        let mut facts = fixture::cluster(1);
        fixture::status_mut(&mut facts, 0).db_size = ByteSize::mib(size);
        facts
    }

    #[test]
    fn a_month_of_scrapes_is_a_week_of_bounded_points_that_are_denser_towards_now() {
        let mut history = SizeHistory::default();
        let minutes = 30 * 24 * 60;
        for minute in 0..minutes {
            history.record(at(i64::try_from(minute * 60).expect("small")), &mib(minute));
        }
        let points = history.of(MemberId(1));
        assert!(points.len() <= MAX_POINTS && points.len() > MAX_POINTS / 2, "{}", points.len());
        let age = |point: &SizePoint| i64::from(points[points.len() - 1].at) - i64::from(point.at);
        assert!(age(&points[0]) > 6 * 86_400 && age(&points[0]) <= 7 * 86_400, "{}", age(&points[0]));
        let widest = |days: std::ops::Range<i64>| {
            let gaps = points.windows(2).filter(|pair| days.contains(&(age(&pair[0]) / 86_400)));
            gaps.map(|pair| pair[1].at - pair[0].at).max().expect("points of that age")
        };
        assert!(widest(0..1) <= 3_600, "{}", widest(0..1));
        assert!(widest(0..7) <= 6 * 3_600 && widest(5..7) > widest(0..1), "{} {}", widest(0..7), widest(5..7));
        assert_eq!(points[points.len() - 1].size(), ByteSize::mib(minutes - 1), "the last is the newest");
        assert!(points.iter().all(|point| point.in_use() == ByteSize::mib(100)));
    }

    #[test]
    fn observations_within_minutes_are_one_point_the_newest() {
        let mut history = SizeHistory::default();
        for second in 0..200 {
            history.record(at(second), &mib(u64::try_from(second).expect("positive")));
        }
        let sizes: Vec<_> = history.of(MemberId(1)).iter().map(|point| point.size()).collect();
        assert_eq!(sizes, [ByteSize::mib(0), ByteSize::mib(199)]);
    }

    #[test]
    fn members_that_left_and_a_future_that_never_came_are_forgotten() {
        let mut history = SizeHistory::default();
        history.record(at(1_000_000), &fixture::cluster(3));
        history.record(at(0), &fixture::cluster(2));
        assert_eq!(history.of(MemberId(2)).len(), 1, "the clock was set back");
        assert!(history.of(MemberId(3)).is_empty(), "it left");
    }
}
