//! Which etcd cluster a run of this process is at work on. Two entries of a configuration may lead to the
//! same cluster by different endpoints; only the cluster's own id tells.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::core::{cluster::ClusterId, reason::Reason};

/// The clusters under way in this process.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Mutex<BTreeMap<ClusterId, String>>>);

/// The right to work on one cluster, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    claims: Claims,
    id: ClusterId,
}

impl Claims {
    /// Takes the right for the entry `owner`, unless another entry has it.
    pub fn take(&self, id: ClusterId, owner: &str) -> Result<Claim, Reason> {
        let mut claimed = self.lock();
        if let Some(other) = claimed.get(&id) {
            return Err(Reason::SameCluster { cluster_id: id.to_string(), other: other.clone() });
        }
        claimed.insert(id, owner.to_owned());
        Ok(Claim { claims: self.clone(), id })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClusterId, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Which cluster it is for.
    pub fn id(&self) -> ClusterId {
        self.id
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.id);
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
}
