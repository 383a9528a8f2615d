//! The lock in an etcd: each replica keeps one key alive with a lease, and the oldest key holds the lock.
//!
//! This is the recipe of etcd's own election, but without its Campaign call, because of NOSPACE, which is when defragd
//! is needed most: then `LeaseGrant`, `Put` and every `Txn` with a put are refused, while `KeepAlive`, reads, deletes
//! and `LeaseRevoke` work. So every replica writes its key when it starts, and acquires the lock by becoming the
//! oldest, which needs no write. The term is the key's create revision.
//!
//! Why it is safe: a key never becomes older than it was, and disappears only with its lease (or is deleted by hand,
//! which the read after each renewal detects). So once our key is the oldest it stays so for as long as the lease
//! lives, and a renewal says how long that is. An etcd leader that does not know yet that it was deposed can answer a
//! renewal, but not for longer than an election takes, by which the new leader extends every lease in turn.
//!
//! A member that is being defragmented answers no renewal: each call has a short limit, and the next endpoint is tried.
//! While *the leader* is defragmented under write load, no endpoint can renew (measured: `shared/etcd-facts.md`); the
//! TTL has to be longer than that, or leadership must be transferred before (`leader: last_after_transfer`), or the
//! lock must be in another etcd. Otherwise the lock is lost in the middle: no further member is started, and the next
//! holder observes the current one and waits for it.

use std::{future::Future, time::Duration};

use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse,
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::{
    adapters::etcd::EtcdCluster,
    core::{
        cluster::{Fact, Unknown, UnknownKind},
        lock::{Holder, LockAnswer, Term},
    },
    ports::{
        etcd::{Etcd, Renewal},
        lock::{LockCandidate, LockStore},
    },
};

/// Limit of one call to one endpoint. A healthy member answers within milliseconds, and an unhealthy one must not use
/// up the validity of the lock.
const CALL_LIMIT: Duration = Duration::from_secs(2);
/// How often the cluster's member list is read for further addresses.
const LEARN_EVERY: Duration = Duration::from_mins(5);

pub struct EtcdLock {
    etcd: EtcdCluster,
    /// Of the keys of all clusters, like `/defragd/lock/`.
    prefix: String,
    candidate: LockCandidate,
    state: Mutex<EtcdLockState>,
}

#[derive(Default)]
struct EtcdLockState {
    learned: Vec<String>,
    learned_at: Option<Instant>,
    /// The endpoint that answered last: the others are not queried as long as it answers.
    good: Option<String>,
    lease: Option<i64>,
    /// Of our key.
    created: Option<i64>,
}

impl EtcdLock {
    /// In this etcd. Nothing is sent yet.
    pub fn new(etcd: EtcdCluster, prefix: String, candidate: LockCandidate) -> Self {
        Self { etcd, prefix, candidate, state: Mutex::default() }
    }

    fn candidates(&self) -> String {
        format!("{}{}/candidates/", self.prefix, escaped(&self.candidate.cluster))
    }

    fn key(&self, lease: i64) -> String {
        format!("{}{lease:016x}", self.candidates())
    }

    fn note(&self) -> String {
        format!("{}{}/note", self.prefix, escaped(&self.candidate.cluster))
    }

    /// The endpoints, the one that answered last first.
    fn endpoints(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut all = Vec::new();
        for url in state.good.iter().chain(self.etcd.endpoints()).chain(&state.learned) {
            if !all.contains(url) {
                all.push(url.clone());
            }
        }
        all
    }

    /// One call, through the first endpoint that answers it. An error from the cluster itself is an answer.
    async fn call<T, F: Future<Output = Result<T, Error>>>(&self, what: &str, ask: impl Fn(Client) -> F) -> Fact<T> {
        let mut failures = Vec::new();
        let mut kind = UnknownKind::Other;
        for url in self.endpoints() {
            let asked = self.etcd.call_at(&url, what, &ask);
            let answer = timeout(CALL_LIMIT, asked).await.unwrap_or_else(|_| Err(Unknown::timed_out(what, CALL_LIMIT)));
            match answer {
                Ok(answer) => {
                    self.state.lock().good = Some(url);
                    return Ok(answer);
                }
                Err(unknown) => {
                    kind = unknown.kind;
                    failures.push(format!("{url}: {}", unknown.detail));
                    if !matches!(unknown.kind, UnknownKind::TimedOut | UnknownKind::Unreachable) {
                        break;
                    }
                }
            }
        }
        // The certificates or the password may have changed.
        if let Renewal::Refused(detail) = self.etcd.renew().await {
            failures.push(detail);
        }
        Err(Unknown::new(kind, failures.join("; ")))
    }

    /// The addresses that the members publish: the only configured endpoint may be the member that is defragmented.
    async fn learn(&self) {
        if self.state.lock().learned_at.is_some_and(|at| at.elapsed() < LEARN_EVERY) {
            return;
        }
        let listed = self.call("the member list", |mut client| async move { client.member_list().await }).await;
        if let Ok(list) = listed {
            let urls = list.members().iter().filter(|member| !member.is_learner());
            let urls = urls.flat_map(|member| member.client_urls().to_vec());
            let urls = urls.filter(|url| self.etcd.may_dial(url).is_ok()).collect();
            let mut state = self.state.lock();
            state.learned = urls;
            state.learned_at = Some(Instant::now());
        }
    }

    /// Renews our lease, or gets a new one; returns its remaining time in any case.
    async fn renew(&self) -> Fact<(i64, Duration)> {
        let lease = self.state.lock().lease;
        if let Some(lease) = lease {
            let renewed = self
                .call("the renewal", move |mut client| async move {
                    // The client library sends a first renewal itself, and discards its answer.
                    let (mut keeper, mut answers) = match client.lease_keep_alive(lease).await {
                        Err(Error::LeaseKeepAliveError(_)) => return Ok(0),
                        other => other?,
                    };
                    keeper.keep_alive().await?;
                    Ok(answers.message().await?.map_or(0, |answer| answer.ttl()))
                })
                .await?;
            if let Ok(left) = u64::try_from(renewed)
                && left > 0
            {
                return Ok((lease, Duration::from_secs(left)));
            }
            let mut state = self.state.lock();
            (state.lease, state.created) = (None, None);
        }
        let ttl = i64::try_from(self.candidate.ttl.as_secs()).unwrap_or(i64::MAX);
        let granted =
            self.call("the lease", move |mut client| async move { client.lease_grant(ttl, None).await }).await?;
        let mut state = self.state.lock();
        (state.lease, state.created) = (Some(granted.id()), None);
        Ok((granted.id(), Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0))))
    }

    /// Writes our key, unless it exists.
    async fn candidate(&self, lease: i64) -> Fact<i64> {
        let created = self.state.lock().created;
        if let Some(created) = created {
            return Ok(created);
        }
        let (key, value) = (self.key(lease), serde_json::to_string(&self.candidate.me).unwrap_or_default());
        let txn = Txn::new()
            .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.clone(), value, Some(PutOptions::new().with_lease(lease)))])
            .or_else([TxnOp::get(key, None)]);
        let answer = self
            .call("the candidacy", move |mut client| {
                let txn = txn.clone();
                async move { client.txn(txn).await }
            })
            .await?;
        let created = if answer.succeeded() {
            answer.header().map(etcd_client::ResponseHeader::revision)
        } else {
            // The answer to an earlier attempt was lost.
            answer.op_responses().into_iter().find_map(|op| match op {
                TxnOpResponse::Get(got) => got.kvs().first().map(KeyValue::create_revision),
                _ => None,
            })
        };
        let created = created.filter(|revision| *revision > 0).ok_or_else(|| other("our candidacy has no revision"))?;
        self.state.lock().created = Some(created);
        Ok(created)
    }

    /// All candidates, the oldest first, by a read that needs a quorum.
    async fn row(&self) -> Fact<Vec<KeyValue>> {
        let prefix = self.candidates();
        let answer = self
            .call("the candidates", move |mut client| {
                let prefix = prefix.clone();
                let oldest_first = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
                async move { client.get(prefix, Some(oldest_first)).await }
            })
            .await?;
        Ok(answer.kvs().to_vec())
    }

    /// If nothing can be written (NOSPACE), an expired candidacy cannot be renewed. But it can be read who holds the
    /// lock, and that must be known: requests and actions are forwarded there.
    async fn elsewhere(&self, refusal: Unknown) -> Fact<LockAnswer> {
        if refusal.kind != UnknownKind::Other {
            return Err(refusal);
        }
        let row = self.row().await?;
        let oldest = row.first().and_then(|oldest| serde_json::from_slice::<Holder>(oldest.value()).ok());
        // A key of ours from a lease that we no longer know is not valid for acting.
        let other = oldest.filter(|holder| holder.name != self.candidate.me.name).ok_or(refusal)?;
        Ok(LockAnswer::Elsewhere { holder: other })
    }

    async fn renew_or_rejoin(&self) -> Fact<(i64, Duration, i64)> {
        let (lease, ttl) = self.renew().await?;
        Ok((lease, ttl, self.candidate(lease).await?))
    }

    async fn observe(&self) -> Fact<LockAnswer> {
        let (lease, ttl, created) = match self.renew_or_rejoin().await {
            Ok(candidacy) => candidacy,
            Err(refusal) => return self.elsewhere(refusal).await,
        };
        let row = self.row().await?;
        let ours = self.key(lease);
        if row.iter().all(|candidate| candidate.key() != ours.as_bytes() || candidate.create_revision() != created) {
            // It was deleted by hand. The next candidate may have begun: we start a new candidacy, at the end of the
            // queue.
            self.state.lock().created = None;
            return Err(other("our candidacy was deleted; starting a new one"));
        }
        self.learn().await;
        let Some(oldest) = row.first() else { return Err(other("there is no candidate")) };
        if oldest.create_revision() == created {
            let term = Term(u64::try_from(created).unwrap_or(0));
            return Ok(LockAnswer::Held { term, ttl: ttl.min(self.candidate.ttl) });
        }
        // Keys in another format are candidates, too: the oldest holds the lock.
        let unnamed = || Holder { name: String::from_utf8_lossy(oldest.key()).into_owned(), url: None };
        Ok(LockAnswer::Elsewhere { holder: serde_json::from_slice(oldest.value()).unwrap_or_else(|_| unnamed()) })
    }
}

impl LockStore for EtcdLock {
    fn renew_candidacy(&self) -> BoxFuture<'_, Fact<LockAnswer>> {
        Box::pin(self.observe())
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Some(lease) = self.state.lock().lease.take() else { return };
            self.state.lock().created = None;
            let revoked =
                self.call("the end of the lease", move |mut client| async move { client.lease_revoke(lease).await });
            if let Err(unknown) = revoked.await {
                tracing::warn!(detail = unknown.detail, "could not release the lock: it expires after its TTL");
            }
        })
    }

    fn write_note<'a>(&'a self, term: Term, note: &'a str) -> BoxFuture<'a, Fact<()>> {
        Box::pin(async move {
            let (lease, created) = {
                let state = self.state.lock();
                (state.lease, state.created)
            };
            let ours = created.filter(|created| u64::try_from(*created).is_ok_and(|created| created == term.0));
            let (Some(lease), Some(created)) = (lease, ours) else {
                return Err(other("this replica does not hold the lock"));
            };
            // The key was the oldest in this term, so if it exists it still is.
            let txn = Txn::new()
                .when([Compare::create_revision(self.key(lease), CompareOp::Equal, created)])
                .and_then([TxnOp::put(self.note(), note, None)]);
            let answer = self
                .call("the note", move |mut client| {
                    let txn = txn.clone();
                    async move { client.txn(txn).await }
                })
                .await?;
            if answer.succeeded() { Ok(()) } else { Err(other("another replica holds the lock")) }
        })
    }

    fn read_note(&self) -> BoxFuture<'_, Fact<Option<String>>> {
        Box::pin(async {
            let key = self.note();
            let answer = self
                .call("the last holder's note", move |mut client| {
                    let key = key.clone();
                    async move { client.get(key, None).await }
                })
                .await?;
            Ok(answer.kvs().first().map(|note| String::from_utf8_lossy(note.value()).into_owned()))
        })
    }
}

fn other(what: &str) -> Unknown {
    Unknown::new(UnknownKind::Other, what)
}

/// A name as one segment of a path: `/` separates keys, and `%` begins an escape.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}
