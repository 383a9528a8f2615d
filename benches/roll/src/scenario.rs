//! The loads of the comparison.

use clap::ValueEnum;
use serde::Serialize;
use testkit::{EtcdVersion, GoClients, Haproxy, Tools};

use crate::{
    dataset::Size,
    load::{Go, Spec},
};

/// A load and the data that it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
pub(crate) enum Scenario {
    /// As Kubernetes: puts, transactions, ranges, watches, leases, through every member and through failover clients.
    Kubernetes,
    /// The same on a cluster without compaction.
    History,
    /// No clients: what the tool itself asks for is all there is.
    Idle,
    /// Many large writes, large files.
    WriteHeavy,
    /// Leases of 5 s, large files, some writes.
    ShortLeases,
    /// Leases of 5, 15 and 60 s, large files, some writes.
    Leases,
    /// The clients of a real API server on large files.
    ApiServer,
    /// The same on members that report `NOT_SERVING` while they defragment.
    ApiServerGate,
    /// The same clients, where the API server reaches etcd through a proxy that leaves out members that are not ready.
    ApiServerProxy,
    /// etcd's own Go clients, with and without health checks, large files.
    GoClients,
    /// The same on members that report `NOT_SERVING` while they defragment.
    GoClientsGate,
}

impl Scenario {
    /// For tables.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::History => "history",
            Self::Idle => "idle",
            Self::WriteHeavy => "write-heavy",
            Self::ShortLeases => "short-leases",
            Self::Leases => "leases",
            Self::ApiServer => "api-server",
            Self::ApiServerGate => "api-server-gate",
            Self::ApiServerProxy => "api-server-proxy",
            Self::GoClients => "go-clients",
            Self::GoClientsGate => "go-clients-gate",
        }
    }

    /// For the reader of the results.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::Kubernetes => {
                "2 KiB values; through each member 15 puts, 10 transactions, 10 ranges of 100 keys a second, a watcher \
                 and 3 leases of 15 s; through failover clients 15 puts and 15 ranges a second and 3 leases"
            }
            Self::History => "the clients of kubernetes; without compaction, so that overwritten data is in use too",
            Self::Idle => "no clients",
            Self::WriteHeavy => {
                "16 KiB values, large files; through each member 20 puts and 2 ranges a second; through \
                 failover clients 30 puts and 30 ranges a second"
            }
            Self::ShortLeases => {
                "large files; 10 leases of 5 s through each member, 10 through failover clients; 2 KiB \
                 values, 15 puts a second through each member and through failover clients"
            }
            Self::Leases => {
                "large files; 5 leases each of 5, 15 and 60 s through each member, and as many through failover clients; \
                 2 KiB values, 15 puts a second through each member and through failover clients"
            }
            Self::ApiServer => {
                "large files; one kube-apiserver that knows all three members; through it 8 leader elections by client-go \
                 (15 s, 10 s, 2 s), 4 writers and 1 lister of 10 requests a second each, 2 watchers. Each has one request \
                 at a time, without a limit of its own"
            }
            Self::ApiServerGate => "the clients of api-server; members with StopGRPCServiceOnDefrag",
            Self::ApiServerProxy => {
                "the clients of api-server, which knows one address: HAProxy's, which asks each member for /readyz every 0.5 s \
                 and closes all connections to one that does not answer within a second, twice"
            }
            Self::GoClients => {
                "large files; 4 writers and 4 readers of 10 requests a second each by etcd's Go client, balanced over all \
                 members, with a limit of 5 s; and as many that ask for health checks"
            }
            Self::GoClientsGate => "the clients of go-clients; members with StopGRPCServiceOnDefrag",
        }
    }

    /// How much data.
    pub(crate) const fn size(self) -> Size {
        match self {
            Self::Kubernetes | Self::Idle => Size::Small,
            Self::History => Size::History,
            _ => Size::Large,
        }
    }

    /// Whether members report `NOT_SERVING` to health checks while they defragment.
    const fn gate(self) -> bool {
        matches!(self, Self::ApiServerGate | Self::GoClientsGate)
    }

    /// What the members are started with besides.
    pub(crate) fn etcd_arg(self, version: EtcdVersion) -> Option<&'static str> {
        version.stop_grpc_on_defrag().filter(|_| self.gate())
    }

    /// Why it cannot be measured here, if so.
    pub(crate) fn missing(self, tools: &Tools, version: EtcdVersion) -> Option<String> {
        if self.gate() && version.stop_grpc_on_defrag().is_none() {
            return Some(format!("etcd {version} cannot report NOT_SERVING"));
        }
        let go = self.load().go?;
        let api_server = (go.has_api_server() && tools.kube_apiserver().is_none())
            .then(|| "there is no kube-apiserver here; `make tools-kube` builds it".to_owned());
        let proxy = || (go == Go::ApiServerBehindProxy).then(|| Haproxy::missing(tools)).flatten();
        api_server.or_else(proxy).or_else(|| GoClients::missing(tools))
    }

    /// What the clients do.
    pub(crate) const fn load(self) -> Spec {
        let none = Spec {
            puts: 0.0,
            txns: 0.0,
            ranges: 0.0,
            failover: 0.0,
            value_bytes: 2_048,
            leases: 0,
            lease_ttls_seconds: &[15],
            watches: false,
            go: None,
        };
        match self {
            Self::Kubernetes | Self::History => {
                Spec { puts: 15.0, txns: 10.0, ranges: 10.0, failover: 15.0, leases: 3, watches: true, ..none }
            }
            Self::Idle => none,
            Self::WriteHeavy => Spec { puts: 20.0, ranges: 2.0, failover: 30.0, value_bytes: 16_384, ..none },
            Self::ShortLeases => Spec { puts: 15.0, failover: 15.0, leases: 10, lease_ttls_seconds: &[5], ..none },
            Self::Leases => Spec { puts: 15.0, failover: 15.0, leases: 5, lease_ttls_seconds: &[5, 15, 60], ..none },
            Self::ApiServer | Self::ApiServerGate => Spec { go: Some(Go::ApiServer), ..none },
            Self::ApiServerProxy => Spec { go: Some(Go::ApiServerBehindProxy), ..none },
            Self::GoClients | Self::GoClientsGate => Spec { go: Some(Go::Etcd), ..none },
        }
    }
}
