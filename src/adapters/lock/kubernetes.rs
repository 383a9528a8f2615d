//! The lock as a Lease of Kubernetes, by the rules of client-go's leader election.
//!
//! - A record counts as expired when *we* have seen no change of it for its whole duration on our monotonic clock:
//!   clocks are never compared, and the times in the record are for people.
//! - Every write carries the `resourceVersion` that was read, so that of two replicas that write one gets a conflict.
//! - The term is `leaseTransitions`. The note for the next holder, and the holder's name and URL for the other
//!   replicas, are annotations of the same object.
//!
//! A renewal is a write to the etcd behind the API server. If that is the etcd that defragd manages, then under NOSPACE
//! no renewal succeeds, and no replica may act when it is needed most: use the kind `etcd` there.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::rand;
use axum::http::Method;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex as SyncMutex;
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    adapters::gates::kubernetes::{ApiError, Connection, answer, micro_time},
    core::{
        cluster::{Fact, Unknown, UnknownKind},
        lock::{Holder, LockAnswer, Term},
    },
    ports::lock::{KubernetesKeys, LockCandidate, LockStore},
};

/// Limit of one call. A healthy API server answers within milliseconds.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// The token of a service account is replaced regularly.
const CONNECTION_FOR: Duration = Duration::from_mins(5);
/// A Lease has some hundred bytes, and a note some kilobytes.
const MAX_BODY_BYTES: usize = 2 << 20;
/// The holder, as JSON.
const HOLDER: &str = "defragd.io/holder";
/// For the next holder.
const NOTE: &str = "defragd.io/note";

pub struct KubernetesLock {
    keys: KubernetesKeys,
    candidate: LockCandidate,
    /// Different in each process: two replicas with the same name must not mistake each other's Lease for their own.
    identity: String,
    connection: SyncMutex<Option<(Arc<Connection>, Instant)>>,
    /// Our own calls must not conflict with each other.
    seen: Mutex<Option<(Value, Instant)>>,
}

impl KubernetesLock {
    /// Nothing is sent yet.
    pub fn new(keys: KubernetesKeys, candidate: LockCandidate) -> Self {
        let mut random = [0u8; 8];
        // Without randomness, the name alone has to be enough.
        let _ = rand::fill(&mut random);
        let suffix = u64::from_be_bytes(random);
        let identity = format!("{}_{suffix:016x}", candidate.me.name);
        Self { keys, candidate, identity, connection: SyncMutex::default(), seen: Mutex::default() }
    }

    async fn connection(&self) -> Fact<Arc<Connection>> {
        let known = self.connection.lock().clone().filter(|(_, opened)| opened.elapsed() < CONNECTION_FOR);
        if let Some((connection, _)) = known {
            return Ok(connection);
        }
        let (kubeconfig, context) = (self.keys.kubeconfig.as_deref(), self.keys.context.as_deref());
        let connection = Arc::new(Connection::open(kubeconfig, context, CALL_LIMIT).await?);
        *self.connection.lock() = Some((Arc::clone(&connection), Instant::now()));
        Ok(connection)
    }

    /// A name that the API server accepts; changed names get a hash, so that they stay distinct.
    fn name(&self) -> String {
        let cluster = &self.candidate.cluster;
        let plain: String =
            cluster.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
        let changed = plain != *cluster || plain.starts_with('-') || plain.ends_with('-') || plain.len() > 150;
        let name = format!("{}{}", self.keys.name_prefix, plain.chars().take(150).collect::<String>());
        if !changed {
            return name;
        }
        // FNV-1a: it must be the same in every release.
        let hash = cluster
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("{name}-{hash:016x}")
    }

    /// One call; the status and the JSON of its answer.
    async fn call(&self, method: Method, lease: Option<&Value>) -> Fact<(u16, Value)> {
        let sent = timeout(CALL_LIMIT, self.send(method, lease)).await;
        let answer = sent.unwrap_or_else(|_| Err(Unknown::timed_out("the API server", CALL_LIMIT)));
        if answer.is_err() {
            // Its credentials may be old.
            *self.connection.lock() = None;
        }
        answer
    }

    async fn send(&self, method: Method, lease: Option<&Value>) -> Fact<(u16, Value)> {
        let connection = self.connection().await?;
        let namespace = self.keys.namespace.as_deref().unwrap_or_else(|| connection.client.default_namespace());
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if namespace.is_empty() || !namespace.chars().all(fits) {
            return Err(other("lock.kubernetes.namespace is not a valid namespace name"));
        }
        let mut path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        if method != Method::POST {
            path = format!("{path}/{}", self.name());
        }
        let (code, body) = connection.send_json(method, &path, lease, MAX_BODY_BYTES, "a Lease").await?;
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        match code {
            200 | 201 if json["kind"] != "Lease" => Err(other("the API server did not answer with a Lease")),
            200 | 201 | 404 | 409 => Ok((code, json)),
            _ => {
                let task = format!("read and write leases in the namespace {namespace}");
                Err(answer(code, &body, &connection, &task).into())
            }
        }
    }

    async fn get(&self) -> Fact<Option<Value>> {
        let (code, lease) = self.call(Method::GET, None).await?;
        Ok((code == 200).then_some(lease))
    }

    /// Writes the changed Lease; fails if another replica has changed it since it was read.
    async fn put(&self, lease: &Value) -> Fact<Value> {
        match self.call(Method::PUT, Some(lease)).await? {
            (200 | 201, lease) => Ok(lease),
            _ => Err(other("another replica has changed the Lease")),
        }
    }

    async fn create(&self) -> Fact<Value> {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": self.name(), "annotations": { HOLDER: json!(self.candidate.me).to_string() } },
            "spec": self.spec(1, &now(), &now()),
        });
        match self.call(Method::POST, Some(&lease)).await? {
            (200 | 201, lease) => Ok(lease),
            (404, _) => Err(other("the namespace of the Lease does not exist")),
            _ => Err(other("another replica has created the Lease")),
        }
    }

    fn spec(&self, transitions: u64, acquired: &str, renewed: &str) -> Value {
        json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.candidate.ttl.as_secs(),
            "acquireTime": acquired,
            "renewTime": renewed,
            "leaseTransitions": transitions,
        })
    }

    async fn observe(&self) -> Fact<LockAnswer> {
        let mut seen = self.seen.lock().await;
        let Some(mut lease) = self.get().await? else {
            let made = self.create().await?;
            return Ok(self.won(&made));
        };
        let spec = lease["spec"].clone();
        let now = now();
        if spec["holderIdentity"] == self.identity {
            let acquired = spec["acquireTime"].as_str().unwrap_or(&now).to_owned();
            lease["spec"] = self.spec(transitions(&spec), &acquired, &now);
            return Ok(self.won(&self.put(&lease).await?));
        }
        let since = match &*seen {
            Some((before, since)) if *before == spec => *since,
            _ => {
                let since = Instant::now();
                *seen = Some((spec.clone(), since));
                since
            }
        };
        let is_free = spec["holderIdentity"].as_str().is_none_or(str::is_empty);
        let duration = Duration::from_secs(spec["leaseDurationSeconds"].as_u64().unwrap_or(0)).max(self.shortest());
        if is_free || since.elapsed() >= duration {
            lease["spec"] = self.spec(transitions(&spec).saturating_add(1), &now, &now);
            lease["metadata"]["annotations"][HOLDER] = json!(json!(self.candidate.me).to_string());
            return Ok(self.won(&self.put(&lease).await?));
        }
        let reported = lease["metadata"]["annotations"][HOLDER].as_str();
        let reported = reported.and_then(|text| serde_json::from_str::<Holder>(text).ok());
        let unnamed = || Holder { name: spec["holderIdentity"].as_str().unwrap_or_default().to_owned(), url: None };
        // In another format, or of the previous holder: only the identity is certain.
        let fits = |holder: &Holder| unnamed().name.starts_with(&format!("{}_", holder.name));
        Ok(LockAnswer::Elsewhere { holder: reported.filter(fits).unwrap_or_else(unnamed) })
    }

    /// A record without a duration, or with one that was edited by hand, must not give the lock away.
    fn shortest(&self) -> Duration {
        self.candidate.ttl.min(Duration::from_secs(10))
    }

    fn won(&self, lease: &Value) -> LockAnswer {
        LockAnswer::Held { term: Term(transitions(&lease["spec"])), ttl: self.candidate.ttl }
    }

    /// The Lease, if this replica holds it in this term.
    async fn ours(&self, term: Option<Term>) -> Fact<Option<Value>> {
        let lease = self.get().await?;
        Ok(lease.filter(|lease| {
            let spec = &lease["spec"];
            spec["holderIdentity"] == self.identity && term.is_none_or(|term| transitions(spec) == term.0)
        }))
    }

    async fn give_up(&self) -> Fact<()> {
        let _ours_alone = self.seen.lock().await;
        let Some(mut lease) = self.ours(None).await? else { return Ok(()) };
        // As client-go does it: without a holder, and short, in case a client checks the duration anyway.
        lease["spec"]["holderIdentity"] = json!("");
        lease["spec"]["leaseDurationSeconds"] = json!(1);
        lease["spec"]["renewTime"] = json!(now());
        self.put(&lease).await.map(drop)
    }
}

impl LockStore for KubernetesLock {
    fn renew_candidacy(&self) -> BoxFuture<'_, Fact<LockAnswer>> {
        Box::pin(self.observe())
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Err(unknown) = self.give_up().await {
                tracing::warn!(detail = unknown.detail, "could not release the lock: it expires after its duration");
            }
        })
    }

    fn write_note<'a>(&'a self, term: Term, note: &'a str) -> BoxFuture<'a, Fact<()>> {
        Box::pin(async move {
            let _ours_alone = self.seen.lock().await;
            let Some(mut lease) = self.ours(Some(term)).await? else {
                return Err(other("another replica holds the lock"));
            };
            lease["metadata"]["annotations"][NOTE] = json!(note);
            self.put(&lease).await.map(drop)
        })
    }

    fn read_note(&self) -> BoxFuture<'_, Fact<Option<String>>> {
        Box::pin(async {
            let lease = self.get().await?;
            Ok(lease.and_then(|lease| Some(lease["metadata"]["annotations"][NOTE].as_str()?.to_owned())))
        })
    }
}

fn transitions(spec: &Value) -> u64 {
    spec["leaseTransitions"].as_u64().unwrap_or(0)
}

fn now() -> String {
    micro_time(Timestamp::now())
}

impl From<ApiError> for Unknown {
    fn from(error: ApiError) -> Self {
        let kind = match error {
            ApiError::Unreachable { .. } | ApiError::TimedOut { .. } => UnknownKind::Unreachable,
            ApiError::Unauthorized { .. } | ApiError::Denied { .. } => UnknownKind::Denied,
            _ => UnknownKind::Other,
        };
        Self::new(kind, error.to_string())
    }
}

fn other(what: &str) -> Unknown {
    Unknown::new(UnknownKind::Other, what)
}

#[cfg(test)]
#[path = "kubernetes_tests.rs"]
mod tests;
