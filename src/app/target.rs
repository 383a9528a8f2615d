//! One etcd cluster that is looked at: the way to it, and what is remembered from one look to the next. Each configured
//! cluster has one, and each that `/probe` measures. Nothing here knows of requests or runs.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Weak},
    time::Duration,
};

use bytesize::ByteSize;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{observer, revisions::Revisions};
use crate::{
    core::cluster::{ClusterFacts, Fact, Member, MemberId},
    ports::etcd::{Etcd, Membership, Renewal},
};

/// A quota changes only with a restart of the member; this bounds how long the old one is shown.
const QUOTA_REMEMBERED_FOR: Duration = Duration::from_mins(5);
/// Small files: whatever takes longer hangs, and the other clusters' turn comes.
const RENEWAL_LIMIT: Duration = Duration::from_secs(2);

pub(super) struct ObservedCluster<E> {
    name: String,
    /// A run has that of its begin to its end, whatever a reload brings.
    etcd: Mutex<Arc<E>>,
    /// Earlier connections that a run still uses.
    older: Mutex<Vec<Weak<E>>>,
    memory: Mutex<Memory>,
    /// What is watched may be another thing.
    revisions_changed: Notify,
}

#[derive(Default)]
struct Memory {
    membership: Option<Membership>,
    quotas: BTreeMap<MemberId, (ByteSize, Instant)>,
    /// For a policy that compacts by age.
    revisions: Option<Revisions>,
    /// Why the changed credentials are not taken.
    refused: Option<String>,
}

/// What a cheap look at all members brought.
pub(super) struct ScrapeObservation {
    /// Why no endpoint gave the member list, if none did.
    pub(super) listed: Fact<()>,
    /// Of the members of now or, without a list, of last time.
    pub(super) facts: Option<ClusterFacts>,
    /// The connection was not replaced meanwhile. What an earlier connection saw is shown, but not remembered.
    pub(super) is_current: bool,
}

impl<E: Etcd> ObservedCluster<E> {
    /// `name` is for the log.
    pub(super) fn new(name: String, etcd: E) -> Self {
        Self {
            name,
            etcd: Mutex::new(Arc::new(etcd)),
            older: Mutex::default(),
            memory: Mutex::default(),
            revisions_changed: Notify::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What is used from now on to reach it.
    pub(super) fn etcd(&self) -> Arc<E> {
        Arc::clone(&self.etcd.lock())
    }

    /// From now on it is reached so.
    pub(super) fn replace(&self, etcd: E) {
        let before = std::mem::replace(&mut *self.etcd.lock(), Arc::new(etcd));
        self.older.lock().push(Arc::downgrade(&before));
        self.memory.lock().refused = None;
    }

    /// It may be another cluster: nothing that was seen of the one before counts any more.
    pub(super) fn forget(&self) {
        *self.memory.lock() = Memory::default();
    }

    /// Remembers revisions from now on, for answers about this long ago; or none.
    pub(super) fn remember_revisions(&self, age: Option<Duration>) {
        self.memory.lock().revisions = age.map(Revisions::new);
        self.revisions_changed.notify_one();
    }

    /// Looks whether the files with the credentials changed. Never fails: what is not whole is not taken, and said once.
    pub(super) async fn renew(&self) {
        let mut older: Vec<_> = self.older.lock().iter().filter_map(Weak::upgrade).collect();
        self.older.lock().retain(|etcd| etcd.strong_count() > 0);
        older.retain(|etcd| Arc::strong_count(etcd) > 1);
        for etcd in older {
            let _ = timeout(RENEWAL_LIMIT, etcd.renew()).await;
        }
        let renewal = timeout(RENEWAL_LIMIT, self.etcd().renew()).await;
        let refused =
            match renewal.unwrap_or_else(|_| Renewal::Refused("the files cannot be read within 2 s".to_owned())) {
                Renewal::Unchanged => None,
                Renewal::Applied => {
                    info!(cluster = self.name, "the credentials changed: new connections are made with them");
                    None
                }
                Renewal::Refused(detail) => Some(detail),
            };
        let mut memory = self.memory.lock();
        if let Some(detail) = refused.as_ref().filter(|_| memory.refused != refused) {
            warn!(cluster = self.name, detail, "the changed credentials are not taken: going on with those before");
        }
        memory.refused = refused;
    }

    /// Whether changed credentials are not taken.
    pub(super) fn refuses_credentials(&self) -> bool {
        self.memory.lock().refused.is_some()
    }

    /// A cheap look at all members, within `budget`.
    pub(super) async fn observe_for_scrape(&self, budget: Duration) -> ScrapeObservation {
        let (known, quotas) = {
            let memory = self.memory.lock();
            (memory.membership.clone(), memory.quotas.clone())
        };
        let remembered = |member: &Member| {
            let (quota, seen) = quotas.get(&member.id)?;
            (seen.elapsed() < QUOTA_REMEMBERED_FOR).then_some(*quota)
        };
        let etcd = self.etcd();
        let (listed, observed) = observer::observe_for_scrape(&*etcd, budget, known, remembered).await;
        let is_current = Arc::ptr_eq(&etcd, &self.etcd());
        let facts = observed.map(|(membership, mut facts)| {
            if is_current {
                self.learn(membership, &facts);
            }
            facts.assume_quota(etcd.quota_override());
            facts
        });
        ScrapeObservation { listed, facts, is_current }
    }

    fn learn(&self, membership: Membership, facts: &ClusterFacts) {
        let (mut memory, now) = (self.memory.lock(), Instant::now());
        memory.membership = Some(membership);
        for member in &facts.members {
            let asked = matches!(&member.gauges, Some(Ok(gauges)) if gauges.quota.is_some());
            let quota = member.status.as_ref().ok().and_then(|status| status.quota);
            // One that was only remembered does not become younger by it.
            if let Some(quota) = quota.filter(|_| asked || !memory.quotas.contains_key(&member.member.id)) {
                memory.quotas.insert(member.member.id, (quota, now));
            }
        }
    }

    /// One look at all members; `None` if they do not answer in time.
    pub(super) async fn observe_status(&self) -> Option<ClusterFacts> {
        let etcd = self.etcd();
        timeout(observer::OBSERVE_BUDGET * 2, observer::observe_status(&*etcd, observer::OBSERVE_BUDGET))
            .await
            .ok()?
            .ok()
    }

    /// All that a run would see; `None` if the member list does not come in time.
    pub(super) async fn observe(&self) -> Option<ClusterFacts> {
        let etcd = self.etcd();
        Box::pin(observer::observe(&*etcd)).await.ok()
    }

    /// Looks at the cluster's revision again and again, for a compaction by age. Never ends, but has nothing to do
    /// where there is none.
    pub(super) async fn watch_revisions(&self) -> Infallible {
        loop {
            let interval = self.memory.lock().revisions.as_ref().map(Revisions::interval);
            let Some(interval) = interval else {
                self.revisions_changed.notified().await;
                continue;
            };
            let etcd = self.etcd();
            if let Ok(facts) = observer::observe_status(&*etcd, observer::OBSERVE_BUDGET).await
                && Arc::ptr_eq(&etcd, &self.etcd())
                && let (Some(revisions), Some(revision)) = (&mut self.memory.lock().revisions, facts.oldest_revision())
            {
                revisions.record(Instant::now(), revision);
            }
            drop(etcd);
            tokio::select! {
                biased;
                () = sleep(interval) => {}
                () = self.revisions_changed.notified() => {}
            }
        }
    }

    /// The newest revision that is old enough to be compacted, for a policy that says so by age.
    pub(super) fn old_revision(&self) -> Option<u64> {
        let memory = self.memory.lock();
        let old = memory.revisions.as_ref()?.old_enough(Instant::now());
        if old.is_none() {
            info!(cluster = self.name, "not compacting: the cluster has not been watched for long enough yet");
        }
        old
    }
}
