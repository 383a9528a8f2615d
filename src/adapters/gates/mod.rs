//! The probes of the gates: checks outside etcd, one module per kind.
//!
//! They only read, fail if they cannot determine the state, and expose nothing that they sent. [`tries`] bounds them.

mod alertmanager;
mod http;
pub mod kubernetes;
mod promql;
mod tcp;
mod tries;

#[cfg(test)]
mod fixture;
#[cfg(test)]
#[path = "gates_tests.rs"]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    alertmanager::AlertmanagerProbe,
    http::HttpProbe,
    kubernetes::{NodesProbe, PodsProbe},
    promql::PromqlProbe,
    tcp::TcpProbe,
};
use super::outgoing::CallError;
use crate::ports::gate::{Gate, GateCheck, GateProbe, GateSettings, Reading};

/// A configured gate, ready to be checked; `None` if it has no kind. Blocks while it reads its files, and checks that they
/// are usable.
pub fn gate(settings: &GateSettings) -> Result<Option<Gate>, CallError> {
    let Some(check) = settings.checks().pop() else { return Ok(None) };
    let (limit, probe): (Duration, Arc<dyn GateProbe>) = match check {
        GateCheck::Http(http) => (http.tries().limit(), Arc::new(HttpProbe::new(http.clone())?)),
        GateCheck::Tcp(tcp) => (tcp.tries().limit(), Arc::new(TcpProbe::new(tcp.clone())?)),
        GateCheck::Promql(promql) => (promql.tries().limit(), Arc::new(PromqlProbe::new(promql.clone())?)),
        GateCheck::Alertmanager(alerts) => (alerts.tries().limit(), Arc::new(AlertmanagerProbe::new(alerts.clone())?)),
        GateCheck::KubernetesPods(pods) => (pods.limit(), Arc::new(PodsProbe::new(pods.clone()))),
        GateCheck::KubernetesNodes(nodes) => (nodes.limit(), Arc::new(NodesProbe::new(nodes.clone()))),
    };
    Ok(Some(Gate { rule: settings.rule(check.kind()), limit, probe }))
}

/// Milliseconds, for the evidence.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn failure(error: &CallError, began: Instant) -> Reading {
    let reading = Reading::fail(error.to_string()).with("latency_ms", millis(began.elapsed()));
    match error {
        CallError::Unreachable { url, .. } | CallError::NotUnderstood { url, .. } => reading.with("url", url.as_str()),
        CallError::Refused { url, status, detail, .. } => {
            reading.with("url", url.as_str()).with("status", *status).with("body_excerpt", detail.as_str())
        }
        CallError::File { .. } | CallError::Url { .. } | CallError::Tls(_) | CallError::Header(_) => reading,
    }
}
