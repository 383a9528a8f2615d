//! The gates of a cluster, built from its configuration.

use thiserror::Error;
use tracing::warn;

use crate::{
    adapters::gates::gate,
    config::{ClusterSettings, ConfigError},
    ports::{
        access::ClientTls,
        gate::{Gate, GateSettings},
    },
};

#[derive(Debug, Error)]
#[error("the gate {gate} cannot be used: {detail}")]
pub struct GateError {
    pub gate: String,
    pub detail: String,
}

/// The gates of one cluster, or everything that is wrong with them in one error.
pub fn of(cluster: &ClusterSettings) -> anyhow::Result<Vec<Gate>> {
    gates(&cluster.gates).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        ConfigError::Unusable(format!("cluster {}: {}", cluster.name, errors.join("; "))).into()
    })
}

/// Builds all gates, and checks that their files are usable. Blocks while it reads them. Reports every gate that cannot
/// be used, not only the first.
pub fn gates(settings: &[GateSettings]) -> Result<Vec<Gate>, Vec<GateError>> {
    let mut gates = Vec::new();
    let mut errors = Vec::new();
    for settings in settings {
        for tls in settings.checks().iter().filter_map(|check| check.tls()) {
            warn_unverified(&settings.name, tls);
        }
        match gate(settings) {
            Ok(gate) => gates.extend(gate),
            Err(error) => errors.push(GateError { gate: settings.name.clone(), detail: error.to_string() }),
        }
    }
    if errors.is_empty() { Ok(gates) } else { Err(errors) }
}

/// `name` is that of the gate or the target.
pub(super) fn warn_unverified(name: &str, tls: &ClientTls) {
    if tls.insecure_skip_verify {
        warn!(name, "insecure_skip_verify is set: certificates are not verified for this gate or target");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Settings;

    fn built(list: &str) -> Result<Vec<Gate>, Vec<GateError>> {
        let text = format!("clusters: [{{name: a, endpoints: ['127.0.0.1:1'], gates: [{list}]}}]");
        let settings = Settings::from_text(&text).expect("valid");
        gates(&settings.clusters[0].gates)
    }

    #[test]
    fn the_limit_holds_every_attempt_and_the_time_that_it_must_hold() {
        let gates = built(
            "{name: a, http: {url: 'http://h/', timeout: 2s, attempts: 4, interval: 3s, for: 1m}}, \
             {name: b, tcp: {address: 'h:1', timeout: 2s, attempts: 1, interval: 3s}}",
        )
        .expect("usable");
        let least = |gate: &Gate, seconds| {
            let limit = gate.limit;
            assert!(limit >= Duration::from_secs(seconds) && limit < Duration::from_secs(seconds + 30), "{gate:?}");
        };
        least(&gates[0], 4 * 2 + 3 * 3 + 60);
        least(&gates[1], 2);
    }

    #[test]
    fn every_gate_that_cannot_be_used_is_named() {
        let errors = built(
            "{name: one, http: {url: 'https://h/', tls: {ca_file: /nowhere/ca.crt}}}, \
             {name: fine, tcp: {address: 'h:1'}}, \
             {name: two, promql: {url: 'http://h', query: up, bearer_token_file: /nowhere/token}}",
        )
        .expect_err("no such files");
        let words: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(words.len(), 2, "{words:?}");
        assert!(
            words[0].starts_with("the gate one cannot be used: ") && words[0].contains("/nowhere/ca.crt"),
            "{words:?}"
        );
        assert!(
            words[1].starts_with("the gate two cannot be used: ") && words[1].contains("/nowhere/token"),
            "{words:?}"
        );
    }
}
