//! Which of several processes that share one configuration a cluster belongs to.
//!
//! Every release must give the same answer, or two shards that run different releases would both act on a cluster, so the
//! function is fixed: Lamping and Veach's jump consistent hash, in integers, of the cluster's name under 64-bit FNV-1a.

use std::{fmt, hash::Hasher};

use fnv::FnvHasher;
use serde::{Deserialize, Serialize};

/// One of several processes that divide the clusters of one configuration among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Counted from 0.
    pub ordinal: u32,
    pub total: u32,
}

impl Shard {
    pub fn owns(self, cluster: &str) -> bool {
        owner(cluster, self.total) == self.ordinal
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} (--total-shards={})", self.ordinal, self.total)
    }
}

/// The ordinal of the shard that a cluster belongs to. With one shard more, it stays the same or is the new one.
pub fn owner(cluster: &str, total: u32) -> u32 {
    let mut hasher = FnvHasher::default();
    hasher.write(cluster.as_bytes());
    let mut key = hasher.finish();
    let (mut bucket, mut next) = (0, 0);
    while next < u64::from(total) {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) << 31) / ((key >> 33) + 1);
    }
    u32::try_from(bucket).unwrap_or_default()
}

/// Where a cluster is that does not belong to this shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    pub cluster: String,
    pub owner: u32,
    pub url: Option<String>,
    pub here: Shard,
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {:?} belongs to shard {}", self.cluster, self.owner)?;
        if let Some(url) = &self.url {
            write!(f, ", at {url}")?;
        }
        write!(f, "; this is {}", self.here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTERS: u32 = 10_000;

    fn owners(total: u32) -> Vec<u32> {
        (0..CLUSTERS).map(|number| owner(&format!("prod-{number}"), total)).collect()
    }

    /// The expected values were computed by another program.
    #[test]
    fn the_owner_of_a_name_is_the_same_in_every_release() {
        for (name, expected) in [
            ("prod-a", [0, 0, 2, 2, 2, 58]),
            ("prod-b", [0, 0, 0, 4, 4, 45]),
            ("events", [0, 0, 0, 0, 9, 89]),
            ("etcd", [0, 0, 0, 3, 3, 43]),
            ("Ä", [0, 0, 2, 2, 8, 32]),
        ] {
            assert_eq!([1, 2, 3, 5, 10, 100].map(|total| owner(name, total)), expected, "{name}");
        }
    }

    #[test]
    fn every_cluster_belongs_to_exactly_one_shard_and_shards_are_of_similar_size() {
        for total in [1, 2, 3, 7, 10] {
            let shards: Vec<_> = (0..total).map(|ordinal| Shard { ordinal, total }).collect();
            for number in 0..CLUSTERS {
                let name = format!("prod-{number}");
                assert_eq!(shards.iter().filter(|shard| shard.owns(&name)).count(), 1, "{name}");
            }
            let (owners, fair) = (owners(total), (CLUSTERS / total) as usize);
            for ordinal in 0..total {
                let size = owners.iter().filter(|owner| **owner == ordinal).count();
                assert!((fair * 9 / 10..=fair * 11 / 10 + 1).contains(&size), "shard {ordinal} of {total}: {size}");
            }
        }
    }

    #[test]
    fn one_shard_more_takes_its_part_and_moves_nothing_else() {
        for total in [1, 2, 3, 9] {
            let moved: Vec<_> =
                owners(total).into_iter().zip(owners(total + 1)).filter(|(old, new)| old != new).collect();
            assert!(moved.iter().all(|(_, new)| *new == total), "a cluster moved between old shards");
            let fair = (CLUSTERS / (total + 1)) as usize;
            assert!((fair * 9 / 10..=fair * 11 / 10).contains(&moved.len()), "{total}: {} moved", moved.len());
        }
    }

    #[test]
    fn a_sentence_says_where_a_cluster_is() {
        let here = Shard { ordinal: 0, total: 3 };
        let mut elsewhere = Elsewhere { cluster: "a".to_owned(), owner: 2, url: None, here };
        assert_eq!(elsewhere.to_string(), "cluster \"a\" belongs to shard 2; this is shard 0 (--total-shards=3)");
        elsewhere.url = Some("http://defragd-2:9379".to_owned());
        assert_eq!(
            elsewhere.to_string(),
            "cluster \"a\" belongs to shard 2, at http://defragd-2:9379; this is shard 0 (--total-shards=3)"
        );
    }
}
