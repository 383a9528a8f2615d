//! The cluster that a test needs.

use std::path::{Path, PathBuf};

use crate::EtcdVersion;
use crate::network::Host;

/// How members are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Plain HTTP everywhere.
    Plain,
    /// Mutual TLS for clients, plain HTTP between the members.
    Tls,
    /// Mutual TLS for clients and between the members.
    TlsEverywhere,
}

impl Transport {
    /// Whether clients need certificates.
    pub fn client_tls(self) -> bool {
        self != Self::Plain
    }
}

/// A cluster to start: by default three members with mutual TLS.
#[derive(Debug, Clone)]
pub struct EtcdSpec {
    pub(crate) version: EtcdVersion,
    pub(crate) mixed: Vec<EtcdVersion>,
    pub(crate) members: usize,
    pub(crate) transport: Transport,
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) fsync: bool,
    pub(crate) log_level: String,
    pub(crate) logs: Option<PathBuf>,
    pub(crate) extra_args: Vec<String>,
    pub(crate) small_disk: Option<(usize, u64)>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) publishes_also: Option<String>,
    pub(crate) published_as: Vec<String>,
    pub(crate) listens_also: Option<String>,
    pub(crate) http_apart: Option<String>,
}

impl EtcdSpec {
    /// Three members of that version, mutual TLS for clients, etcd's default quota and election settings. Of
    /// [`EtcdVersion::wanted`] instead, where that is set.
    pub fn new(version: EtcdVersion) -> Self {
        Self {
            version: EtcdVersion::wanted().unwrap_or(version),
            mixed: Vec::new(),
            members: 3,
            transport: Transport::Tls,
            quota_bytes: None,
            fsync: false,
            log_level: "info".to_owned(),
            logs: None,
            extra_args: Vec::new(),
            small_disk: None,
            hosts: Vec::new(),
            publishes_also: None,
            published_as: Vec::new(),
            listens_also: None,
            http_apart: None,
        }
    }

    /// How many members, 1 to 5.
    #[must_use]
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// A version for each member, in order, as in the middle of an upgrade.
    #[must_use]
    pub fn mixed(mut self, versions: &[EtcdVersion]) -> Self {
        self.version = versions[0];
        versions.clone_into(&mut self.mixed);
        self.members(versions.len())
    }

    /// How members are spoken to.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// The backend quota in bytes.
    #[must_use]
    pub fn quota_bytes(mut self, bytes: u64) -> Self {
        self.quota_bytes = Some(bytes);
        self
    }

    /// Makes members sync their files, as in production. Off by default (`--unsafe-no-fsync`, which 3.4
    /// knows too): a test writes hundreds of megabytes and does not lose power.
    #[must_use]
    pub fn fsync(mut self) -> Self {
        self.fsync = true;
        self
    }

    /// etcd's `--log-level`; `info` by default.
    #[must_use]
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log_level);
        self
    }

    /// Where the members' logs go, to outlast the cluster; beside its data by default.
    #[must_use]
    pub fn logs_in(mut self, dir: &Path) -> Self {
        self.logs = Some(dir.to_owned());
        self
    }

    /// One more argument for every member, such as `--auto-compaction-retention=1`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.extra_args.push(arg.to_owned());
        self
    }

    /// Members that miss a leader for six seconds before they hold an election, not for one: on a busy machine a leader
    /// is silent for longer than that. For tests in which the leader must stay, and no member dies.
    #[must_use]
    pub fn patient(self) -> Self {
        self.arg("--election-timeout=6000")
    }

    /// A client URL that every member publishes besides its own, as behind a Service.
    #[must_use]
    pub fn publishes_also(mut self, url: &str) -> Self {
        self.publishes_also = Some(url.to_owned());
        self
    }

    /// The client URL that each member publishes in place of its own, in order: of what stands in front of it.
    #[must_use]
    pub fn published_as(mut self, urls: &[String]) -> Self {
        urls.clone_into(&mut self.published_as);
        self
    }

    /// A client URL that every member listens on and does not publish by itself; for clusters of one member.
    #[must_use]
    pub fn listens_also(mut self, url: &str) -> Self {
        self.listens_also = Some(url.to_owned());
        self
    }

    /// Serves HTTP, the metrics among it, at a port of its own, with this scheme (`--listen-client-http-urls`, since 3.5):
    /// each member at an address of its own, all at the same port, as on separate machines.
    #[must_use]
    pub fn http_apart(mut self, scheme: &str) -> Self {
        self.http_apart = Some(scheme.to_owned());
        self.hosts = (1..=3).map(|n| Host { client_ip: [127, 0, 0, n].into(), ..Host::LOOPBACK }).collect();
        self
    }

    /// Puts the database of one member, and nothing else of it, on a file system of its own with this size.
    /// Only inside [`crate::in_namespaces`].
    #[must_use]
    pub fn small_disk(mut self, member: usize, bytes: u64) -> Self {
        self.small_disk = Some((member, bytes));
        self
    }

    /// The version of the n-th member, from 0.
    pub(crate) fn version_of(&self, n: usize) -> EtcdVersion {
        self.mixed.get(n).copied().unwrap_or(self.version)
    }

    /// Where each member runs, in order; those without one run on loopback.
    #[must_use]
    pub fn hosts(mut self, hosts: &[Host]) -> Self {
        hosts.clone_into(&mut self.hosts);
        self
    }
}
