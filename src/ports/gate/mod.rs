//! Gates: checks of the world outside etcd.
//!
//! Contract for every probe: it only reads. It answers within its [`Gate::limit`], whatever its target does, and reads
//! a bounded amount of what the target sends. If something cannot be determined, the check fails. Dropping the future
//! ends the check. A result never contains a secret: no header, token, password, or URL with user information or query.
//!
//! [`GateSettings`] is a gate as it is configured, and has one structure for each kind ([`kinds`], [`kubernetes`]), which
//! reads its own keys.

pub mod kinds;
mod kubernetes;
mod matcher;
mod query;
mod settings;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

pub use self::{
    kinds::{Address, AlertmanagerGate, HttpGate, PromqlGate, TcpGate, Tries},
    kubernetes::{KubernetesNodesGate, KubernetesPodsGate},
    settings::{GateCheck, GateSettings},
};
use crate::core::gate::{GateRule, Moment};

#[derive(Clone, Copy, Debug)]
pub struct CheckContext<'a> {
    pub moment: Moment,
    /// The baseline that the same gate recorded before the run; `None` before the run, or for gates without one.
    pub baseline: Option<&'a Value>,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub passed: bool,
    /// One line for people: what was found and, if it failed, what was expected.
    pub detail: String,
    /// What was found, for programs. A few hundred bytes.
    pub evidence: Map<String, Value>,
    /// The baseline for later checks; only set before the run, by gates that compare.
    pub baseline: Option<Value>,
}

impl Reading {
    pub fn pass(detail: impl Into<String>) -> Self {
        Self { passed: true, detail: detail.into(), ..Self::default() }
    }

    /// Something is wrong, or could not be determined.
    pub fn fail(detail: impl Into<String>) -> Self {
        Self { passed: false, detail: detail.into(), ..Self::default() }
    }

    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.evidence.insert(key.to_owned(), value.into());
        self
    }
}

pub trait GateProbe: Send + Sync + 'static {
    /// Checks once, including the repetitions and grace period of its configuration.
    fn check<'a>(&'a self, context: CheckContext<'a>) -> BoxFuture<'a, Reading>;
}

/// A gate that can be checked.
#[derive(Clone)]
pub struct Gate {
    /// Its name, its moments, and the effect of a failure.
    pub rule: GateRule,
    /// A check that takes longer counts as failed, repetitions and grace period included.
    pub limit: Duration,
    pub probe: Arc<dyn GateProbe>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("rule", &self.rule).field("limit", &self.limit).finish_non_exhaustive()
    }
}
