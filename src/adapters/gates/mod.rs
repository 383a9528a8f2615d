//! The probes of the gates: checks outside etcd, one module per kind.
//!
//! They only read, fail if they cannot determine the state, and expose nothing that they sent. [`tries`] bounds them.

pub mod alertmanager;
pub mod http;
pub mod kubernetes;
pub mod promql;
pub mod tcp;
pub mod tries;

#[cfg(test)]
mod fixture;
#[cfg(test)]
#[path = "gates_tests.rs"]
mod tests;

use std::time::{Duration, Instant};

pub use alertmanager::AlertmanagerProbe;
pub use http::HttpProbe;
pub use promql::PromqlProbe;
pub use tcp::TcpProbe;
pub use tries::Tries;

use super::outgoing::CallError;
use crate::ports::gate::Reading;

/// Milliseconds, for the evidence.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A failed call as a reading.
fn failure(error: &CallError, began: Instant) -> Reading {
    let reading = Reading::fail(error.to_string()).with("latency_ms", millis(began.elapsed()));
    match error {
        CallError::Unreachable { url, .. } | CallError::NotUnderstood { url, .. } => reading.with("url", url.as_str()),
        CallError::Refused { url, status, detail } => {
            reading.with("url", url.as_str()).with("status", *status).with("body_excerpt", detail.as_str())
        }
        CallError::File { .. } | CallError::Url { .. } | CallError::Tls(_) | CallError::Header(_) => reading,
    }
}
