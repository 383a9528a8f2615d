//! What requests are, and who makes them.

use serde::{Deserialize, Serialize};

/// What a request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A put through one certain member.
    Put,
    /// A transaction that compares and puts, through one certain member.
    Txn,
    /// A linearizable range of up to 100 keys, through one certain member.
    Range,
    /// A put's way to a watcher on each member.
    Watch,
    /// A keepalive through one certain member.
    Keepalive,
    /// A put through a client that tries the next member after a second.
    FailoverPut,
    /// A range through such a client.
    FailoverRange,
    /// A keepalive through such a client.
    FailoverKeepalive,
    /// An update of an object of an API server.
    ApiWrite,
    /// A list of an API server's objects.
    ApiList,
    /// client-go's renewal of a Lease.
    ApiRenewal,
    /// From an update to a watcher of an API server.
    ApiWatch,
    /// A put by etcd's Go client, balanced over all members.
    GoPut,
    /// A range by such a client.
    GoRange,
    /// A put by such a client that asks for health checks.
    CheckedPut,
    /// A range by one that asks for health checks.
    CheckedRange,
}

/// Who makes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Clients {
    /// Those that know one member.
    Pinned,
    /// Those that try the next member after a second.
    Failover,
    /// Those of an API server.
    Api,
    /// etcd's Go client.
    Go,
    /// The same with health checks.
    GoChecked,
}

impl Clients {
    /// For tables.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Failover => "failover",
            Self::Api => "API server",
            Self::Go => "Go client",
            Self::GoChecked => "Go client, health checks",
        }
    }
}

impl Kind {
    /// For tables.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Txn => "txn",
            Self::Range => "range",
            Self::Watch => "watch",
            Self::Keepalive => "keepalive",
            Self::FailoverPut => "put, failover",
            Self::FailoverRange => "range, failover",
            Self::FailoverKeepalive => "keepalive, failover",
            Self::ApiWrite => "write, API server",
            Self::ApiList => "list, API server",
            Self::ApiRenewal => "renewal, API server",
            Self::ApiWatch => "watch, API server",
            Self::GoPut => "put, Go client",
            Self::GoRange => "range, Go client",
            Self::CheckedPut => "put, Go client, health checks",
            Self::CheckedRange => "range, Go client, health checks",
        }
    }

    /// Who makes it.
    pub(crate) const fn clients(self) -> Clients {
        match self {
            Self::Put | Self::Txn | Self::Range | Self::Watch | Self::Keepalive => Clients::Pinned,
            Self::FailoverPut | Self::FailoverRange | Self::FailoverKeepalive => Clients::Failover,
            Self::ApiWrite | Self::ApiList | Self::ApiRenewal | Self::ApiWatch => Clients::Api,
            Self::GoPut | Self::GoRange => Clients::Go,
            Self::CheckedPut | Self::CheckedRange => Clients::GoChecked,
        }
    }

    /// Whether it is a write, whose gaps count.
    pub(crate) const fn is_write(self) -> bool {
        matches!(self, Self::Put | Self::FailoverPut | Self::ApiWrite | Self::GoPut | Self::CheckedPut)
    }
}
