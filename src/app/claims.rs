//! Which etcd cluster each entry of the configuration leads to, and which one a run of this process works on. Two
//! entries may lead to the same cluster by different endpoints; only the cluster's own id shows that.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::core::{cluster::ClusterId, reason::Reason};

#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Mutex<ClaimTable>>);

#[derive(Debug, Default)]
struct ClaimTable {
    under_way: BTreeMap<ClusterId, String>,
    leads_to: BTreeMap<String, ClusterId>,
    /// The reverse index: every scrape queries every entry.
    entries: BTreeMap<ClusterId, BTreeSet<String>>,
}

impl ClaimTable {
    fn forget(&mut self, entry: &str) {
        let Some(id) = self.leads_to.remove(entry) else { return };
        if let Entry::Occupied(mut entries) = self.entries.entry(id) {
            entries.get_mut().remove(entry);
            if entries.get().is_empty() {
                entries.remove();
            }
        }
    }
}

/// The right to work on one cluster, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    claims: Claims,
    id: ClusterId,
}

impl Claims {
    /// Claims the cluster for the entry `owner`, unless another entry has claimed it.
    pub fn take(&self, id: ClusterId, owner: &str) -> Result<Claim, Reason> {
        let claimed = &mut self.0.lock().under_way;
        if let Some(other) = claimed.get(&id) {
            return Err(Reason::SameCluster { cluster_id: id.to_string(), other: other.clone() });
        }
        claimed.insert(id, owner.to_owned());
        Ok(Claim { claims: self.clone(), id })
    }

    /// The entry leads to this cluster, by the cluster's own id. Returns the other entries that lead there, too.
    pub fn record(&self, id: ClusterId, entry: &str) -> Vec<String> {
        let mut known = self.0.lock();
        if known.leads_to.get(entry) != Some(&id) {
            known.forget(entry);
            known.leads_to.insert(entry.to_owned(), id);
            known.entries.entry(id).or_default().insert(entry.to_owned());
        }
        drop(known);
        self.same_as(entry)
    }

    /// The cluster that an entry leads to, if it has been observed.
    pub fn id_of(&self, entry: &str) -> Option<ClusterId> {
        self.0.lock().leads_to.get(entry).copied()
    }

    /// The other entries that lead to the same cluster.
    pub fn same_as(&self, entry: &str) -> Vec<String> {
        let known = self.0.lock();
        let entries = known.leads_to.get(entry).and_then(|id| known.entries.get(id));
        entries.into_iter().flatten().filter(|other| *other != entry).cloned().collect()
    }

    /// The entry was removed, or leads elsewhere from now on.
    pub fn forget(&self, entry: &str) {
        self.0.lock().forget(entry);
    }
}

impl Claim {
    pub fn id(&self) -> ClusterId {
        self.id
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.0.lock().under_way.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_claimed_by_one_entry_at_a_time() {
        let claims = Claims::default();
        let claim = claims.take(ClusterId(1), "a").expect("free");
        assert_eq!(claims.take(ClusterId(1), "b").map_err(|reason| reason.label()).err(), Some("same_cluster"));
        assert!(claims.take(ClusterId(2), "b").is_ok());
        drop(claim);
        assert!(claims.take(ClusterId(1), "b").is_ok());
    }

    #[test]
    fn entries_that_lead_to_one_cluster_know_of_each_other_until_one_is_gone() {
        let claims = Claims::default();
        assert!(claims.record(ClusterId(1), "a").is_empty());
        assert!(claims.record(ClusterId(2), "b").is_empty());
        assert_eq!(claims.record(ClusterId(1), "c"), ["a"]);
        assert_eq!(claims.same_as("a"), ["c"]);
        assert_eq!(claims.record(ClusterId(2), "c"), ["b"], "it leads elsewhere now");
        assert!(claims.same_as("a").is_empty());
        claims.forget("c");
        assert!(claims.same_as("b").is_empty() && claims.same_as("c").is_empty());
    }
}
