//! The gates of a cluster, put together from its configuration.

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tracing::warn;

use crate::{
    adapters::{
        gates::{
            AlertmanagerProbe, HttpProbe, PromqlProbe, TcpProbe, Tries,
            alertmanager::AlertmanagerCheck,
            http::HttpCheck,
            kubernetes::{PodsProbe, PodsSettings},
            promql::PromqlCheck,
            tcp::TcpCheck,
        },
        outgoing::{CallError, ClientSettings, ClientTls, Credentials},
    },
    config::{
        ClusterSettings,
        gates::{AccessSettings, CheckSettings, GateSettings, KubernetesPodsSettings, TlsSettings, TrySettings},
    },
    core::gate::GateRule,
    ports::gate::{Gate, GateProbe},
};

#[derive(Debug, Error)]
#[error("the gate {gate} cannot be used: {detail}")]
pub struct GateError {
    pub gate: String,
    pub detail: String,
}

/// Those of one cluster, or all that is wrong with them in one error.
pub fn of(cluster: &ClusterSettings) -> anyhow::Result<Vec<Gate>> {
    gates(&cluster.gates).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("cluster {}: {}", cluster.name, errors.join("; "))
    })
}

/// Builds them all, and looks whether their files can be used. Blocks while it reads them. Every gate that
/// cannot be used is named, not the first one alone.
pub fn gates(settings: &[GateSettings]) -> Result<Vec<Gate>, Vec<GateError>> {
    let mut gates = Vec::new();
    let mut errors = Vec::new();
    for GateSettings { rule, check } in settings {
        match gate(rule, check) {
            Ok(gate) => gates.push(gate),
            Err(detail) => errors.push(GateError { gate: rule.name.clone(), detail }),
        }
    }
    if errors.is_empty() { Ok(gates) } else { Err(errors) }
}

fn gate(rule: &GateRule, check: &CheckSettings) -> Result<Gate, String> {
    let of = |tries: Tries, probe: Arc<dyn GateProbe>| Gate { rule: rule.clone(), limit: tries.limit(), probe };
    let words = |error: CallError| error.to_string();
    Ok(match check {
        CheckSettings::Http(settings) => {
            let tries = tries(settings.tries);
            let check = HttpCheck {
                url: settings.url.clone(),
                method: settings.method.clone(),
                access: access(&rule.name, &settings.access, tries.timeout, settings.follow_redirects),
                expect_status: settings.expect_status.clone(),
                expect_body: settings.expect_body.clone(),
                tries,
            };
            of(tries, Arc::new(HttpProbe::new(check).map_err(words)?))
        }
        CheckSettings::Tcp(settings) => {
            let tries = tries(settings.tries);
            let tls = settings.tls.as_ref().map(|settings| tls(&rule.name, settings));
            let check = TcpCheck { host: settings.host.clone(), port: settings.port, tls, tries };
            of(tries, Arc::new(TcpProbe::new(check).map_err(words)?))
        }
        CheckSettings::Promql(settings) => {
            let tries = tries(settings.tries);
            let check = PromqlCheck {
                url: settings.url.clone(),
                query: settings.query.clone(),
                expect: settings.expect,
                access: access(&rule.name, &settings.access, tries.timeout, false),
                tries,
            };
            of(tries, Arc::new(PromqlProbe::new(check).map_err(words)?))
        }
        CheckSettings::Alertmanager(settings) => {
            let tries = tries(settings.tries);
            let check = AlertmanagerCheck {
                url: settings.url.clone(),
                matchers: settings.matchers.clone(),
                ignore: settings.ignore.clone(),
                access: access(&rule.name, &settings.access, tries.timeout, false),
                tries,
            };
            of(tries, Arc::new(AlertmanagerProbe::new(check).map_err(words)?))
        }
        CheckSettings::KubernetesPods(settings) => {
            let settings = pods(settings.clone());
            Gate { rule: rule.clone(), limit: settings.limit(), probe: Arc::new(PodsProbe::new(settings)) }
        }
    })
}

fn pods(settings: KubernetesPodsSettings) -> PodsSettings {
    PodsSettings {
        kubeconfig: settings.kubeconfig,
        context: settings.context,
        namespaces: settings.namespaces.into_iter().collect(),
        label_selector: settings.label_selector,
        field_selector: settings.field_selector,
        grace: settings.grace,
        timeout: settings.timeout,
    }
}

fn tries(settings: TrySettings) -> Tries {
    let TrySettings { timeout, attempts, interval, hold } = settings;
    Tries { timeout, attempts, interval, hold }
}

/// How a server is spoken to. `name` is for the log.
pub(super) fn access(
    name: &str,
    settings: &AccessSettings,
    timeout: Duration,
    follow_redirects: bool,
) -> ClientSettings {
    ClientSettings {
        credentials: Credentials {
            headers: settings.headers.clone().into_iter().collect(),
            header_files: settings.header_files.clone().into_iter().collect(),
            bearer_token_file: settings.bearer_token_file.clone(),
            basic_auth: settings.basic_auth.clone(),
        },
        tls: tls(name, &settings.tls),
        timeout,
        follow_redirects,
    }
}

fn tls(name: &str, settings: &TlsSettings) -> ClientTls {
    if settings.insecure_skip_verify {
        warn!(name, "insecure_skip_verify: this gate or target believes whoever answers");
    }
    ClientTls {
        ca_file: settings.ca_file.clone(),
        identity_files: settings.identity_files.clone(),
        server_name: settings.server_name.clone(),
        insecure_skip_verify: settings.insecure_skip_verify,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Settings, raw};

    fn built(list: &str) -> Result<Vec<Gate>, Vec<GateError>> {
        let text = format!("clusters: [{{name: a, endpoints: ['127.0.0.1:1'], gates: [{list}]}}]");
        let settings = Settings::from_raw(raw::parse(&text).expect("YAML")).expect("valid");
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
