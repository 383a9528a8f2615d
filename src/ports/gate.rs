//! Gates: checks of the world outside etcd.
//!
//! Contract for every probe: it only reads. It answers within the limit that stands beside it, whatever its
//! target does, and reads a bounded amount of what the target sends. What cannot be learned is a failure, never
//! a pass. Dropping the future ends the check. Nothing that it returns holds a secret: no header, token,
//! password, or URL with user information or query.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use crate::core::gate::{GateRule, Moment};

/// What a check starts from.
#[derive(Clone, Copy, Debug)]
pub struct CheckContext<'a> {
    pub moment: Moment,
    /// What the same gate gave as its baseline before the run; `None` before, or where there is none.
    pub baseline: Option<&'a Value>,
}

/// What a probe saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub passed: bool,
    /// One line for people: what was seen and, if it failed, what was expected.
    pub detail: String,
    /// What was seen, for programs. A few hundred bytes.
    pub evidence: Map<String, Value>,
    /// What later checks are to be compared with; only given before the run, by gates that compare.
    pub baseline: Option<Value>,
}

impl Reading {
    pub fn pass(detail: impl Into<String>) -> Self {
        Self { passed: true, detail: detail.into(), ..Self::default() }
    }

    /// Something is wrong, or nothing could be learned.
    pub fn fail(detail: impl Into<String>) -> Self {
        Self { passed: false, detail: detail.into(), ..Self::default() }
    }

    /// The same with one more piece of evidence.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.evidence.insert(key.to_owned(), value.into());
        self
    }
}

pub trait GateProbe: Send + Sync + 'static {
    /// Checks once, with whatever repetitions and grace its configuration asks for.
    fn check<'a>(&'a self, context: CheckContext<'a>) -> BoxFuture<'a, Reading>;
}

/// A gate that can be checked.
#[derive(Clone)]
pub struct Gate {
    /// Its name, its moments and what its failure does.
    pub rule: GateRule,
    /// A check that takes longer counts as failed: repetitions and grace included.
    pub limit: Duration,
    pub probe: Arc<dyn GateProbe>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("rule", &self.rule).field("limit", &self.limit).finish_non_exhaustive()
    }
}
