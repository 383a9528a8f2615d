//! Where replicas agree on which of them acts on a cluster. One store serves one cluster and one replica.
//!
//! Contract for every method: one bounded round of calls, each with a short timeout of its own; it never retries by
//! itself and never waits for the lock. Dropping the future releases everything except what has been sent. The loop,
//! and how long an answer is valid, are in `app::lock` and [`crate::core::lock`].

use std::{path::PathBuf, time::Duration};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::core::{
    check::At,
    cluster::Fact,
    lock::{Holder, LockAnswer, Term},
};

pub trait LockStore: Send + Sync + 'static {
    /// Renews our candidacy, or starts a new one if it was lost, and reads who holds the lock. `Held` means that no
    /// other replica can acquire it for `ttl` after this call *began*; a candidacy that was lost meanwhile returns with
    /// a new term.
    fn renew_candidacy(&self) -> BoxFuture<'_, Fact<LockAnswer>>;

    /// Ends the candidacy, so that the next holder need not wait until it expires. If this fails, it expires.
    fn release(&self) -> BoxFuture<'_, ()>;

    /// Stores a note for the next holder, replacing the last one, if `term` still holds the lock when the store
    /// receives it: a holder that was suspended and resumes must not overwrite its successor's note.
    fn write_note<'a>(&'a self, term: Term, note: &'a str) -> BoxFuture<'a, Fact<()>>;

    /// The last note. `Ok(None)` means that the store has none.
    fn read_note(&self) -> BoxFuture<'_, Fact<Option<String>>>;
}

/// A replica that wants the lock of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockCandidate {
    pub cluster: String,
    pub me: Holder,
    /// How long the lock stays with a replica that has died.
    pub ttl: Duration,
}

/// Kind `kubernetes`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesKeys {
    /// The kubeconfig of the Kubernetes cluster that keeps the Leases.
    #[schemars(extend("x-default" = "the cluster that defragd runs in, by its service account"))]
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig.
    #[schemars(extend("x-default" = "the current context"))]
    pub context: Option<String>,
    /// The namespace of the Leases. Required with `kubeconfig`.
    #[schemars(extend("x-default" = "the pod's own"))]
    pub namespace: Option<String>,
    /// Prefix of the Leases' names, before the cluster's name.
    #[schemars(extend("default" = "defragd-"))]
    pub name_prefix: String,
}

impl Default for KubernetesKeys {
    fn default() -> Self {
        Self { kubeconfig: None, context: None, namespace: None, name_prefix: "defragd-".to_owned() }
    }
}

impl KubernetesKeys {
    pub fn check(&self, mut at: At<'_>) {
        if self.context.is_some() && self.kubeconfig.is_none() {
            at.add("context", "needs kubeconfig");
        }
        if self.namespace.is_none() && self.kubeconfig.is_some() {
            at.add("namespace", "is missing; it is required with kubeconfig");
        }
        let prefix = &self.name_prefix;
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !prefix.chars().all(fits) || prefix.starts_with('-') || prefix.len() > 40 {
            at.add("name_prefix", "must be at most 40 characters of a-z, 0-9 and -");
        }
    }
}
