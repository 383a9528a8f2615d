//! Whether the members hold the same data: etcd's `HashKV` of each voter at one revision.
//!
//! A hash covers what the member would serve: every key-value pair up to the revision that a compaction has not removed.
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

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum HashVerdict {
    /// All voters have the same hash.
    Equal,
    /// Two voters have different ones.
    Different,
    /// It could not be learned.
    Unknown { detail: String },
}

/// A comparison of the voters' data, as the journal holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    pub revision: u64,
    /// The hashes that are known.
    pub hashes: Vec<MemberHash>,
    #[serde(flatten)]
    pub verdict: HashVerdict,
}

impl Verification {
    /// What these answers of the voters say.
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
            // What the others would say cannot make these two equal.
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

    /// Why these voters' hashes would say nothing, whatever they are.
    pub fn not_comparable(facts: &ClusterFacts) -> Option<Self> {
        let version = |voter: &super::cluster::MemberFacts| Some(voter.status.as_ref().ok()?.version.clone());
        let versions: BTreeSet<_> = facts.voters().filter_map(version).collect();
        let revision = facts.oldest_revision().unwrap_or(0);
        let several = versions.into_iter().collect::<Vec<_>>();
        let detail = format!("the members run different versions of etcd ({})", several.join(", "));
        (several.len() > 1).then_some(Self { revision, hashes: Vec::new(), verdict: HashVerdict::Unknown { detail } })
    }

    /// That the members hold different data, if they do.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        cluster::{Unknown, UnknownKind},
        fixture,
    };

    /// Hash and compact revision.
    type Answer = Option<(u32, i64)>;

    fn told(answers: &[Answer]) -> Verification {
        let answers = answers.iter().zip(1..).map(|(answer, id)| {
            let unknown = || Unknown::new(UnknownKind::Unreachable, "connection refused");
            let answer = answer.map(|(hash, compact_revision)| DataHash { hash, compact_revision });
            (MemberId(id), format!("etcd-{id}"), answer.ok_or_else(unknown))
        });
        Verification::of(7, answers.collect())
    }

    #[test]
    fn hashes_are_compared_at_equal_compact_revisions_only() {
        // (hash, compact revision) of each member -> equal, different, or not known
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
            let equal = match told(answers).verdict {
                HashVerdict::Equal => Some(true),
                HashVerdict::Different => Some(false),
                HashVerdict::Unknown { .. } => None,
            };
            assert_eq!(equal, expected, "{answers:?}");
            assert_eq!(told(answers).mismatch().is_some(), expected == Some(false), "{answers:?}");
        }
    }

    #[test]
    fn a_mismatch_names_the_members_and_their_hashes() {
        let text = told(&[Some((0xab, 5)), Some((0xab, 5)), Some((0xcd, 5))]).mismatch().expect("one").to_string();
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
