//! One observed etcd cluster: the connection to it, and what is remembered between observations. Each configured
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

use super::{
    observer::{self, Remembered},
    revisions::Revisions,
};
use crate::{
    core::cluster::{ClusterFacts, Fact, Member, MemberId, Unknown, UnknownKind},
    ports::etcd::{Etcd, Membership, Renewal},
};

/// A quota changes only with a restart of the member; this limits how long the old one is shown.
const QUOTA_REMEMBERED_FOR: Duration = Duration::from_mins(5);
/// After so many metrics pages in a row that did not come in time, a scrape no longer waits for the next one ...
const OVERDUE_PAGES: u32 = 3;
/// ... except once in this time.
const PAGE_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// The files are small: a read that takes longer hangs, and must not delay the other clusters.
const RENEWAL_LIMIT: Duration = Duration::from_secs(2);

pub(super) struct ObservedCluster<E> {
    name: String,
    /// A run uses the connection of its start until its end, whatever a reload changes.
    etcd: Mutex<Arc<E>>,
    /// Earlier connections that a run still uses.
    older: Mutex<Vec<Weak<E>>>,
    memory: Mutex<Memory>,
    /// Signals that the sampling interval may have changed.
    revisions_changed: Notify,
}

#[derive(Default)]
struct Memory {
    membership: Option<Membership>,
    quotas: BTreeMap<MemberId, (ByteSize, Instant)>,
    pages: BTreeMap<MemberId, OverduePages>,
    /// For a policy that compacts by age.
    revisions: Option<Revisions>,
    /// Why the changed credentials were rejected.
    refused: Option<String>,
}

/// A member's metrics pages that did not come in time, such as from a port whose packets a firewall drops. An error that
/// comes at once delays nobody and is not among them.
struct OverduePages {
    in_a_row: u32,
    last: Instant,
    unknown: Unknown,
}

impl OverduePages {
    fn is_due(&self) -> bool {
        self.in_a_row < OVERDUE_PAGES || self.last.elapsed() >= PAGE_AGAIN_AFTER
    }

    /// Why the next one is not requested now.
    fn not_asked(&self) -> Option<Unknown> {
        if self.is_due() {
            return None;
        }
        let detail = format!("{}; scrapes request it once a minute until it answers", self.unknown.detail);
        Some(Unknown::new(self.unknown.kind, detail))
    }
}

/// The result of a cheap observation of all members.
pub(super) struct ScrapeObservation {
    /// Why no endpoint gave the member list, if none did.
    pub(super) listed: Fact<()>,
    /// The current members or, without a list, the last known ones.
    pub(super) facts: Option<ClusterFacts>,
    /// Whether the connection is still the current one. Results of an earlier connection are shown, but not remembered.
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

    /// The current connection.
    pub(super) fn etcd(&self) -> Arc<E> {
        Arc::clone(&self.etcd.lock())
    }

    /// Replaces the connection.
    pub(super) fn replace(&self, etcd: E) {
        let before = std::mem::replace(&mut *self.etcd.lock(), Arc::new(etcd));
        self.older.lock().push(Arc::downgrade(&before));
        let mut memory = self.memory.lock();
        memory.refused = None;
        // They may be at another URL now.
        memory.pages.clear();
    }

    /// It may lead to another cluster: earlier observations no longer count.
    pub(super) fn forget(&self) {
        *self.memory.lock() = Memory::default();
    }

    /// Remembers revisions from now on, up to this age; or none.
    pub(super) fn remember_revisions(&self, age: Option<Duration>) {
        self.memory.lock().revisions = age.map(Revisions::new);
        self.revisions_changed.notify_one();
    }

    /// Checks whether the credential files changed. Never fails: invalid ones are rejected, and that is logged once.
    pub(super) async fn renew(&self) {
        let mut older: Vec<_> = self.older.lock().iter().filter_map(Weak::upgrade).collect();
        self.older.lock().retain(|etcd| etcd.strong_count() > 0);
        older.retain(|etcd| Arc::strong_count(etcd) > 1);
        for etcd in older {
            let _ = timeout(RENEWAL_LIMIT, etcd.renew()).await;
        }
        let renewal = timeout(RENEWAL_LIMIT, self.etcd().renew()).await;
        let is_unchanged = renewal == Ok(Renewal::Unchanged);
        let refused =
            match renewal.unwrap_or_else(|_| Renewal::Refused("reading the files took longer than 2 s".to_owned())) {
                Renewal::Unchanged => None,
                Renewal::Applied => {
                    info!(cluster = self.name, "credentials reloaded: new connections use them");
                    None
                }
                Renewal::Refused(detail) => Some(detail),
            };
        let mut memory = self.memory.lock();
        if let Some(detail) = refused.as_ref().filter(|_| memory.refused != refused) {
            warn!(cluster = self.name, detail, "the changed credentials are invalid: keeping the previous ones");
        }
        if is_unchanged && memory.refused.is_some() {
            info!(cluster = self.name, "the credentials are valid again, and the same as before");
        }
        memory.refused = refused;
    }

    /// Whether changed credentials were rejected.
    pub(super) fn refuses_credentials(&self) -> bool {
        self.memory.lock().refused.is_some()
    }

    /// A cheap observation of all members, within `budget`.
    pub(super) async fn observe_for_scrape(&self, budget: Duration) -> ScrapeObservation {
        let known = || self.memory.lock().membership.clone();
        let remembered = |member: &Member| self.memory.lock().of(member.id);
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
            match (&member.gauges, &member.status) {
                (Some(Err(unknown)), Ok(_)) if unknown.kind == UnknownKind::TimedOut => {
                    memory.overdue(member.member.id, unknown);
                }
                // Of a member that does not answer at all, it says nothing about the page.
                (Some(Err(unknown)), Err(_)) if unknown.kind == UnknownKind::TimedOut => {}
                (Some(_), _) => drop(memory.pages.remove(&member.member.id)),
                (None, _) => {}
            }
            let asked = matches!(&member.gauges, Some(Ok(gauges)) if gauges.quota.is_some());
            let quota = member.status.as_ref().ok().and_then(|status| status.quota);
            // A remembered quota does not become younger by being shown again.
            if let Some(quota) = quota.filter(|_| asked || !memory.quotas.contains_key(&member.member.id)) {
                memory.quotas.insert(member.member.id, (quota, now));
            }
        }
    }

    /// One observation of all members; `None` if they do not answer in time.
    pub(super) async fn observe_status(&self) -> Option<ClusterFacts> {
        let etcd = self.etcd();
        timeout(observer::OBSERVE_BUDGET * 2, observer::observe_status(&*etcd, observer::OBSERVE_BUDGET))
            .await
            .ok()?
            .ok()
    }

    /// Everything that a run would observe; `None` if the member list does not arrive in time.
    pub(super) async fn observe(&self) -> Option<ClusterFacts> {
        let etcd = self.etcd();
        Box::pin(observer::observe_all(&*etcd)).await.ok()
    }

    /// Samples the cluster's revision for a compaction by age. Never ends, but does nothing if the policy does not
    /// compact by age.
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
            info!(cluster = self.name, "not compacting: the cluster has not been observed for long enough yet");
        }
        old
    }
}

impl Memory {
    fn of(&self, member: MemberId) -> Remembered {
        let quota = self.quotas.get(&member).filter(|(_, seen)| seen.elapsed() < QUOTA_REMEMBERED_FOR);
        let page = self.pages.get(&member).and_then(OverduePages::not_asked);
        Remembered { quota: quota.map(|(quota, _)| *quota), page }
    }

    /// Takes that a member answered, and that its metrics page did not come in time or was not requested for that reason.
    fn overdue(&mut self, member: MemberId, unknown: &Unknown) {
        let now = Instant::now();
        let pages = self.pages.entry(member);
        let pages = pages.or_insert_with(|| OverduePages { in_a_row: 0, last: now, unknown: unknown.clone() });
        if pages.is_due() {
            (pages.in_a_row, pages.last) = (pages.in_a_row.saturating_add(1), now);
        }
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
