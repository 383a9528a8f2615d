//! Whether the members hold the same data: etcd's `HashKV` of each voter at one revision.
//!
//! A hash covers what the member would serve: every key-value pair up to the revision that no compaction has removed.
//! Two hashes can be compared only if the members have compacted up to the same revision (etcd's own check of the data
//! requires that, too), and only between members of one release: releases differ in what a compaction keeps.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    cluster::{ClusterFacts, Fact, MemberId},
    reason::Reason,
};

/// A member's answer to `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataHash {
    /// CRC-32.
    pub hash: u32,
    /// Up to which revision the member has compacted; -1 if it never has.
    pub compact_revision: i64,
}

/// A member's hash, with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberHash {
    pub member_id: MemberId,
    pub member: String,
    #[serde(flatten)]
    pub data: DataHash,
}

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum HashVerdict {
    /// All voters have the same hash.
    Equal,
    /// Two voters have different ones.
    Different,
    /// It could not be determined.
    Unknown { detail: String },
}

/// A comparison of the voters' data, as the journal holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    pub revision: u64,
    /// The known hashes.
    pub hashes: Vec<MemberHash>,
    #[serde(flatten)]
    pub verdict: HashVerdict,
}

impl Verification {
    /// The result of these answers of the voters.
    pub fn of(revision: u64, answers: Vec<(MemberId, String, Fact<DataHash>)>) -> Self {
        let (mut hashes, mut missing) = (Vec::new(), Vec::new());
        for (member_id, member, answer) in answers {
            match answer {
                Ok(data) => hashes.push(MemberHash { member_id, member, data }),
                Err(unknown) => missing.push(format!("{member}: {unknown}")),
            }
        }
        let mut of_compaction: BTreeMap<i64, BTreeSet<u32>> = BTreeMap::new();
        for MemberHash { data, .. } in &hashes {
            of_compaction.entry(data.compact_revision).or_default().insert(data.hash);
        }
        let verdict = if of_compaction.values().any(|different| different.len() > 1) {
            // The answers of the others cannot make these two equal.
            HashVerdict::Different
        } else if !missing.is_empty() {
            HashVerdict::Unknown { detail: missing.join("; ") }
        } else if of_compaction.len() == 1 {
            HashVerdict::Equal
        } else {
            HashVerdict::Unknown { detail: "the members have compacted up to different revisions".to_owned() }
        };
        Self { revision, hashes, verdict }
    }

    /// Why hashes of these voters could not be compared, whatever they are.
    pub fn not_comparable(facts: &ClusterFacts) -> Option<Self> {
        let version = |voter: &super::cluster::MemberFacts| Some(voter.status.as_ref().ok()?.version.clone());
        let versions: BTreeSet<_> = facts.voters().filter_map(version).collect();
        let revision = facts.oldest_revision().unwrap_or(0);
        let several = versions.into_iter().collect::<Vec<_>>();
        let detail = format!("the members run different versions of etcd ({})", several.join(", "));
        (several.len() > 1).then_some(Self { revision, hashes: Vec::new(), verdict: HashVerdict::Unknown { detail } })
    }

    /// The pairs of members whose hashes can be compared and differ.
    fn differing(&self) -> BTreeSet<(MemberId, MemberId)> {
        let pairs = self.hashes.iter().enumerate().flat_map(|(at, one)| {
            let differs = |other: &&MemberHash| {
                one.data.compact_revision == other.data.compact_revision && one.data.hash != other.data.hash
            };
            self.hashes[..at].iter().filter(differs).map(|other| (other.member_id, one.member_id))
        });
        pairs.collect()
    }

    /// The reason, if the members hold different data.
    pub fn mismatch(&self) -> Option<Reason> {
        if self.verdict != HashVerdict::Different {
            return None;
        }
        let mut holders: BTreeMap<(i64, u32), Vec<&str>> = BTreeMap::new();
        for MemberHash { member, data, .. } in &self.hashes {
            holders.entry((data.compact_revision, data.hash)).or_default().push(member);
        }
        let each = holders.iter().map(|((_, hash), members)| format!("{hash:08x} on {}", members.join(", ")));
        let hashes = each.collect::<Vec<_>>().join("; ");
        Some(Reason::HashMismatch { revision: self.revision, hashes })
    }
}

/// The readings of one comparison. A difference holds all automation until an operator resumes, and etcd's hash can be
/// wrong for a moment, while a compaction is under way: it counts only if a second reading of all members shows it, too.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// The members that every reading so far found to differ, and the last such reading.
    differing: Option<(BTreeSet<(MemberId, MemberId)>, Verification)>,
    /// How many readings said nothing.
    unknown: u32,
}

impl Comparison {
    /// Readings that say nothing, before it counts as not possible.
    const MOST_UNKNOWN: u32 = 3;

    /// Takes a reading of all members; gives the result, once there is one.
    pub fn result(&mut self, reading: Verification) -> Option<Verification> {
        match (&reading.verdict, self.differing.take()) {
            (HashVerdict::Different, None) => {
                self.differing = Some((reading.differing(), reading));
                None
            }
            (HashVerdict::Different, Some((before, _))) if !before.is_disjoint(&reading.differing()) => Some(reading),
            (HashVerdict::Equal, None) => Some(reading),
            (HashVerdict::Equal | HashVerdict::Different, Some((_, before))) => {
                let revision = before.revision;
                let detail = format!("a reading at revision {revision} showed a difference that a second one did not");
                Some(Verification { verdict: HashVerdict::Unknown { detail }, ..reading })
            }
            (HashVerdict::Unknown { detail }, before) => {
                self.unknown += 1;
                let detail = before.as_ref().map(|(_, before)| {
                    let revision = before.revision;
                    format!(
                        "a reading at revision {revision} showed a difference, and no second one was possible: {detail}"
                    )
                });
                self.differing = before;
                let verdict = detail.map_or(reading.verdict.clone(), |detail| HashVerdict::Unknown { detail });
                (self.unknown >= Self::MOST_UNKNOWN).then_some(Verification { verdict, ..reading })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{Unknown, UnknownKind},
        fixture,
    };

    /// Hash and compact revision.
    type Answer = Option<(u32, i64)>;

    fn reported(answers: &[Answer]) -> Verification {
        let answers = answers.iter().zip(1..).map(|(answer, id)| {
            let unknown = || Unknown::new(UnknownKind::Unreachable, "connection refused");
            let answer = answer.map(|(hash, compact_revision)| DataHash { hash, compact_revision });
            (MemberId(id), format!("etcd-{id}"), answer.ok_or_else(unknown))
        });
        Verification::of(7, answers.collect())
    }

    #[test]
    fn hashes_are_compared_at_equal_compact_revisions_only() {
        // (hash, compact revision) of each member -> equal, different, or unknown
        let table: [(&[Answer], Option<bool>); 7] = [
            (&[Some((1, -1)), Some((1, -1)), Some((1, -1))], Some(true)),
            (&[Some((1, 5)), Some((1, 5)), Some((2, 5))], Some(false)),
            (&[Some((1, 5)), Some((1, 5)), Some((2, 6))], None),
            (&[Some((1, 5)), Some((1, 5)), Some((1, 6))], None),
            (&[Some((1, 5)), Some((1, 5)), None], None),
            (&[Some((1, 5)), Some((2, 5)), None], Some(false)),
            (&[Some((1, 5))], Some(true)),
        ];
        for (answers, expected) in table {
            let equal = match reported(answers).verdict {
                HashVerdict::Equal => Some(true),
                HashVerdict::Different => Some(false),
                HashVerdict::Unknown { .. } => None,
            };
            assert_eq!(equal, expected, "{answers:?}");
            assert_eq!(reported(answers).mismatch().is_some(), expected == Some(false), "{answers:?}");
        }
    }

    type Case<'a> = (&'a [[Answer; 3]], usize, Option<bool>);

    #[test]
    fn only_a_difference_that_a_second_reading_shows_is_a_mismatch() {
        let (equal, odd) = ([Some((1, 5)); 3], [Some((1, 5)), Some((1, 5)), Some((2, 5))]);
        let (another, all) = ([Some((2, 5)), Some((1, 5)), Some((1, 5))], [Some((1, 5)), Some((2, 5)), Some((3, 5))]);
        let (third_lost, odd_lost) = ([Some((1, 5)), Some((2, 5)), None], [Some((1, 5)), Some((1, 5)), None]);
        // readings -> how many were needed, and equal, different or not known
        let table: [Case<'_>; 10] = [
            (&[equal], 1, Some(true)),
            (&[odd, odd], 2, Some(false)),
            (&[odd, all], 2, Some(false)),
            (&[odd, equal], 2, None),
            (&[odd, third_lost], 2, None),
            (&[third_lost, third_lost], 2, Some(false)),
            (&[odd, odd_lost, odd], 3, Some(false)),
            (&[odd, odd_lost, equal], 3, None),
            (&[odd, odd_lost, odd_lost, odd_lost], 4, None),
            (&[odd_lost, odd_lost, another, another], 4, Some(false)),
        ];
        for (readings, needed, expected) in table {
            let mut comparison = Comparison::default();
            let results: Vec<_> = readings.iter().filter_map(|answers| comparison.result(reported(answers))).collect();
            let [result] = results.as_slice() else { panic!("{readings:?}: {results:?}") };
            let equal = match result.verdict {
                HashVerdict::Equal => Some(true),
                HashVerdict::Different => Some(false),
                HashVerdict::Unknown { .. } => None,
            };
            assert_eq!((needed, equal), (readings.len(), expected), "{readings:?}: {result:?}");
        }
    }

    #[test]
    fn a_mismatch_names_the_members_and_their_hashes() {
        let text = reported(&[Some((0xab, 5)), Some((0xab, 5)), Some((0xcd, 5))]).mismatch().expect("one").to_string();
        assert!(text.contains("000000ab on etcd-1, etcd-2; 000000cd on etcd-3"), "{text}");
    }

    #[test]
    fn members_of_different_versions_are_not_compared() {
        let mut facts = fixture::cluster(3);
        assert_eq!(Verification::not_comparable(&facts), None);
        fixture::status_mut(&mut facts, 1).version = "3.6.0".to_owned();
        let verification = Verification::not_comparable(&facts).expect("they differ");
        assert!(matches!(verification.verdict, HashVerdict::Unknown { .. }));
    }
}
