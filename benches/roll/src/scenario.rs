//! The loads of the comparison.

use clap::ValueEnum;

use crate::{dataset::Size, load::Spec};

/// A load and the data that it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
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
        }
    }

    /// How much data.
    pub(crate) const fn size(self) -> Size {
        match self {
            Self::Kubernetes | Self::Idle => Size::Small,
            Self::History => Size::History,
            Self::WriteHeavy | Self::ShortLeases => Size::Large,
        }
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
            lease_ttl_seconds: 15,
            watches: false,
        };
        match self {
            Self::Kubernetes | Self::History => {
                Spec { puts: 15.0, txns: 10.0, ranges: 10.0, failover: 15.0, leases: 3, watches: true, ..none }
            }
            Self::Idle => none,
            Self::WriteHeavy => Spec { puts: 20.0, ranges: 2.0, failover: 30.0, value_bytes: 16_384, ..none },
            Self::ShortLeases => Spec { puts: 15.0, failover: 15.0, leases: 10, lease_ttl_seconds: 5, ..none },
        }
    }
}
