//! A gate as it is configured: its rule, and one kind with its keys.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, de::IgnoredAny};

use super::{
    kinds::{AlertmanagerGate, HttpGate, PromqlGate, TcpGate},
    kubernetes::{KubernetesNodesGate, KubernetesPodsGate},
    query,
};
use crate::{
    core::{
        check::At,
        gate::{GateKind, GateRule, Moment, OnFailure},
    },
    ports::access::ClientTls,
};

/// The name is a metric label.
const MAX_NAME_BYTES: usize = 63;

/// One gate.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateSettings {
    /// The gate's name, unique within the cluster: 1 to 63 of a-z, 0-9, _ and -. It is a metric label.
    pub name: String,
    /// When the gate is checked: `before` the first member, `between` two members, `after` the last one.
    #[schemars(extend("x-default" = "all three"))]
    pub when: Option<Vec<Moment>>,
    /// `stop` refuses or stops the run. `warn` logs and counts the failure, and the run continues.
    #[serde(default)]
    #[schemars(extend("default" = "stop"))]
    pub on_failure: OnFailure,
    /// Passes if a URL answers as expected.
    pub http: Option<HttpGate>,
    /// Passes if a connection can be opened, and is not closed again at once.
    pub tcp: Option<TcpGate>,
    /// Passes if a query of Prometheus returns what is expected.
    pub promql: Option<PromqlGate>,
    /// Passes if no active alert matches. Silenced and inhibited alerts do not count.
    pub alertmanager: Option<AlertmanagerGate>,
    /// Passes if no pod has become unhealthy since the run began. Needs `before` in `when`.
    pub kubernetes_pods: Option<KubernetesPodsGate>,
    /// Passes if all control-plane nodes are Ready and not cordoned, and no upgrade of the control plane is in progress.
    pub kubernetes_nodes: Option<KubernetesNodesGate>,
    /// Only here to be refused with an explanation, whatever its value.
    #[schemars(skip)]
    pub exec: Option<IgnoredAny>,
}

/// Key, kind and settings of each kind.
macro_rules! kinds {
    ($($key:ident: $kind:ident($settings:ty),)*) => {
        #[derive(Clone, Copy, Debug)]
        pub enum GateCheck<'a> {
            $($kind(&'a $settings),)*
        }

        impl GateCheck<'_> {
            pub const fn kind(self) -> GateKind {
                match self {
                    $(Self::$kind(_) => GateKind::$kind,)*
                }
            }
        }

        impl GateSettings {
            /// All kinds that are written; exactly one, once the settings are checked.
            pub fn checks(&self) -> Vec<GateCheck<'_>> {
                // All keys are named, so that a new kind does not compile until it is in the list.
                let Self { name: _, when: _, on_failure: _, exec: _, $($key),* } = self;
                [$($key.as_ref().map(GateCheck::$kind)),*].into_iter().flatten().collect()
            }

            fn check_kinds(&mut self, at: &mut At<'_>) {
                $(if let Some(gate) = &mut self.$key {
                    gate.check(at.key(stringify!($key)));
                })*
            }
        }
    };
}

kinds! {
    http: Http(HttpGate),
    tcp: Tcp(TcpGate),
    promql: Promql(PromqlGate),
    alertmanager: Alertmanager(AlertmanagerGate),
    kubernetes_pods: KubernetesPods(KubernetesPodsGate),
    kubernetes_nodes: KubernetesNodes(KubernetesNodesGate),
}

impl<'a> GateCheck<'a> {
    /// Of its connections.
    pub fn tls(self) -> Option<&'a ClientTls> {
        match self {
            Self::Http(gate) => Some(&gate.tls),
            Self::Tcp(gate) => gate.tls.as_ref(),
            Self::Promql(gate) => Some(&gate.tls),
            Self::Alertmanager(gate) => Some(&gate.tls),
            Self::KubernetesPods(_) | Self::KubernetesNodes(_) => None,
        }
    }
}

impl GateSettings {
    pub fn rule(&self, kind: GateKind) -> GateRule {
        let when = self.when.clone().map_or_else(|| BTreeSet::from(Moment::ALL), BTreeSet::from_iter);
        GateRule { name: self.name.clone(), kind, when, on_failure: self.on_failure }
    }

    /// Finds what is wrong, and fills in the cluster's name.
    pub fn check(&mut self, cluster: &str, mut at: At<'_>) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES || !self.name.chars().all(plain) {
            at.add("name", format!("must be 1 to {MAX_NAME_BYTES} of a-z, 0-9, _ and -: it is a metric label"));
        }
        if self.when.as_ref().is_some_and(Vec::is_empty) {
            at.add("when", "is empty; remove it to check before, between and after");
        }
        if self.exec.is_some() {
            let what = "is not supported: an alert comes from the network, and must not run a command on this machine. \
            Publish what your script finds as a page or a metric, and check that with http or promql";
            at.add("exec", what);
            return;
        }
        if let Some(gate) = &mut self.promql {
            gate.query = query::filled(&gate.query, cluster);
        }
        self.check_kinds(&mut at);
        let checks = self.checks();
        match checks.as_slice() {
            [] => {
                let what =
                    "has no check; write one of: http, tcp, promql, alertmanager, kubernetes_pods, kubernetes_nodes";
                at.add("", what);
            }
            [GateCheck::KubernetesPods(_)]
                if self.when.as_ref().is_some_and(|when| !when.is_empty() && !when.contains(&Moment::Before)) =>
            {
                at.add("when", "must include before: it records what pods are compared with later");
            }
            [_] => {}
            several => {
                let found: Vec<_> = several.iter().map(|check| check.kind().label()).collect();
                let what = format!("has {} kinds ({}); write a separate gate for each", found.len(), found.join(", "));
                at.add("", what);
            }
        }
    }
}
