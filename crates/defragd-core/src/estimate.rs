//! How long a member will be unavailable for its defragmentation.
//!
//! Copying the space in use takes the time. So a member's estimate is the size in use divided by the speed of its last
//! defragmentations; before the first one, of those of the other members; else by upstream's rule of thumb.

use std::{collections::BTreeMap, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::{
    cluster::MemberId,
    history::{MemberEnd, MemberResult},
    reason::Reason,
    wire,
};

/// Bytes per second, from the comment in etcd's source. Reports range from 25 MB/s under write load to 250 MB/s.
const RULE_OF_THUMB: f64 = 100e6;
/// How much slower or faster than the rule of thumb.
const UNCERTAINTY: (f64, f64) = (4.0, 2.5);
/// How much slower or faster than the last time, because the load differs.
const UNCERTAINTY_MEASURED: (f64, f64) = (2.0, 2.0);
/// This many of the last times count.
const REMEMBERED: usize = 3;
/// A smaller copy says nothing about the disk: opening and closing the files takes most of the time.
const LEAST_MEASURED: ByteSize = ByteSize::mib(16);

/// How long one member will be unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    #[serde(rename = "seconds", with = "wire::number")]
    pub expected: Duration,
    #[serde(rename = "least_seconds", with = "wire::number")]
    pub least: Duration,
    /// At most, unless the disk is very slow.
    #[serde(rename = "most_seconds", with = "wire::number")]
    pub most: Duration,
    /// Whether a defragmentation of this cluster was measured.
    pub measured: bool,
}

/// How fast members were defragmented: the last times of each, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Speeds(BTreeMap<MemberId, Vec<f64>>);

impl Speeds {
    /// From results, oldest first.
    pub fn of<'a>(results: impl IntoIterator<Item = &'a MemberResult>) -> Self {
        let mut speeds = Self::default();
        results.into_iter().for_each(|result| speeds.record(result));
        speeds
    }

    pub fn record(&mut self, result: &MemberResult) {
        let copied = result.intent.before.db_size_in_use;
        let unavailable = match &result.end {
            MemberEnd::Defragmented { took, unavailable, .. } => unavailable.unwrap_or(*took),
            MemberEnd::Failed { took: Some(took), .. } => *took,
            // It took longer than that.
            MemberEnd::Failed { reason: Reason::DeadlineExceeded { deadline, .. }, .. } => *deadline,
            _ => return,
        };
        if copied >= LEAST_MEASURED && !unavailable.is_zero() {
            let speeds = self.0.entry(result.intent.member_id).or_default();
            speeds.push(bytes(copied) / unavailable.as_secs_f64());
            if speeds.len() > REMEMBERED {
                speeds.remove(0);
            }
        }
    }

    pub fn estimate(&self, member: MemberId, in_use: ByteSize) -> Estimate {
        let own = self.0.get(&member).and_then(|speeds| middle(speeds.iter().copied()));
        // Members usually have the same disks.
        let measured = own.or_else(|| middle(self.0.values().flatten().copied()));
        let (longer, shorter) = if measured.is_some() { UNCERTAINTY_MEASURED } else { UNCERTAINTY };
        let seconds = bytes(in_use) / measured.unwrap_or(RULE_OF_THUMB);
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        Estimate {
            expected: time(seconds),
            least: time(seconds / shorter),
            most: time(seconds * longer),
            measured: measured.is_some(),
        }
    }
}

/// The median, so that a single delayed time does not count; the slower of two.
fn middle(speeds: impl Iterator<Item = f64>) -> Option<f64> {
    let mut speeds: Vec<_> = speeds.collect();
    speeds.sort_by(f64::total_cmp);
    speeds.get(speeds.len().checked_sub(1)? / 2).copied()
}

#[expect(clippy::cast_precision_loss, reason = "sizes stay below 2^52")]
fn bytes(size: ByteSize) -> f64 {
    size.0 as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, history::Sizes};

    fn result(member: u64, in_use: ByteSize, took: Duration, unavailable: Option<Duration>) -> MemberResult {
        let sizes = Sizes { db_size: ByteSize::gib(4), db_size_in_use: in_use };
        fixture::attempt(member, sizes, MemberEnd::Defragmented { after: sizes, took, unavailable })
    }

    fn seconds(speeds: &Speeds, member: u64) -> f64 {
        speeds.estimate(MemberId(member), ByteSize::mb(1000)).expected.as_secs_f64()
    }

    #[test]
    fn a_member_s_own_last_times_count_then_the_others_then_the_rule_of_thumb() {
        let mut speeds = Speeds::default();
        let guess = speeds.estimate(MemberId(1), ByteSize::mb(1000));
        assert_eq!((guess.expected, guess.measured), (Duration::from_secs(10), false));
        assert_eq!((guess.least, guess.most), (Duration::from_secs(4), Duration::from_secs(40)));
        let at = |mb_per_second: u64| Duration::from_secs(500 / mb_per_second);
        speeds.record(&result(1, ByteSize::mb(500), at(50), None));
        speeds.record(&result(2, ByteSize::mb(500), at(250), None));
        assert!((seconds(&speeds, 1) - 20.0).abs() < 0.01);
        assert!((seconds(&speeds, 2) - 4.0).abs() < 0.01);
        assert!((seconds(&speeds, 3) - 20.0).abs() < 0.01, "the slower of the two others");
        for mb_per_second in [100, 100] {
            speeds.record(&result(1, ByteSize::mb(500), at(mb_per_second), None));
        }
        assert!((seconds(&speeds, 1) - 10.0).abs() < 0.01, "one that was slow counts no more");
        for mb_per_second in [50, 50] {
            speeds.record(&result(1, ByteSize::mb(500), at(mb_per_second), None));
        }
        assert!((seconds(&speeds, 1) - 20.0).abs() < 0.01, "the last three");
        assert!(speeds.estimate(MemberId(1), ByteSize::mb(1000)).measured);
    }

    #[test]
    fn a_deadline_that_was_exceeded_says_how_slow_it_was_at_the_least() {
        let mut slow = result(1, ByteSize::mb(500), Duration::ZERO, None);
        let (member, deadline) = ("etcd-1".to_owned(), Duration::from_secs(100));
        slow.end = MemberEnd::Failed { reason: Reason::DeadlineExceeded { member, deadline }, after: None, took: None };
        assert!((seconds(&Speeds::of(&[slow]), 1) - 200.0).abs() < 0.01);
    }

    #[test]
    fn a_lost_answer_says_how_slow_it_was_only_where_its_end_was_seen() {
        let lost = |took| {
            let reason = Reason::ConnectionLost { member: "etcd-1".to_owned(), detail: "reset".to_owned() };
            let end = MemberEnd::Failed { reason, after: None, took };
            Speeds::of(&[MemberResult { end, ..result(1, ByteSize::mb(500), Duration::ZERO, None) }])
        };
        assert!((seconds(&lost(Some(Duration::from_secs(100))), 1) - 200.0).abs() < 0.01);
        assert_eq!(lost(None), Speeds::default());
    }

    #[test]
    fn what_says_nothing_is_not_learned_from() {
        let mut speeds = Speeds::default();
        speeds.record(&result(1, ByteSize::mib(1), Duration::from_secs(10), None));
        speeds.record(&result(2, ByteSize::mb(500), Duration::ZERO, None));
        assert_eq!(speeds, Speeds::default());
    }

    #[test]
    fn only_the_time_without_answers_counts_where_etcd_answers_meanwhile() {
        let speeds =
            Speeds::of(&[result(1, ByteSize::mb(500), Duration::from_secs(100), Some(Duration::from_secs(1)))]);
        assert!((seconds(&speeds, 1) - 2.0).abs() < 0.01);
    }
}
