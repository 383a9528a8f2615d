//! Real etcd clusters on loopback.

mod control;
mod member;
mod observe;
mod spec;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tempfile::TempDir;

use crate::{EtcdVersion, Pki, Port, Tools, http, until};

pub use member::Member;
pub use observe::MemberStatus;
pub use spec::{EtcdSpec, Transport};

/// How often a start is tried again if another process took the port between its release and its use.
const START_ATTEMPTS: usize = 3;
/// An election takes about a second; a loaded two-core machine some more.
const READY: Duration = Duration::from_secs(60);

/// A running cluster. Dropping it kills the members and removes their data.
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<Member>,
    version: EtcdVersion,
    etcdctl: PathBuf,
    pki: Option<Pki>,
    http: reqwest::Client,
    /// Kept from other tests, where all members serve HTTP at it.
    _http_port: Option<Port>,
    root_password: Mutex<Option<String>>,
    dir: TempDir,
}

impl EtcdCluster {
    /// Starts a cluster and waits until every member answers a linearizable read.
    pub async fn start(tools: &Tools, spec: &EtcdSpec) -> Result<Self> {
        ensure!((1..=5).contains(&spec.members), "a test cluster has 1 to 5 members, not {}", spec.members);
        for version in (0..spec.members).map(|n| spec.version_of(n)) {
            ensure!(tools.etcd(version).is_file(), "etcd {version} is not here; install it with tests/testkit/tools");
        }
        for attempt in 1.. {
            let cluster = Self::launch(tools, spec)?;
            match cluster.ready().await {
                Ok(()) => return Ok(cluster),
                Err(error) if attempt < START_ATTEMPTS && format!("{error:#}").contains("address already in use") => {}
                Err(error) => return Err(error),
            }
        }
        bail!("unreachable: the loop above returns")
    }

    fn launch(tools: &Tools, spec: &EtcdSpec) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("defragd-etcd-").tempdir()?;
        let pki = spec.transport.client_tls().then(|| Pki::create(&dir.path().join("pki"))).transpose()?;
        let plan = |n| Member::plan(n, &tools.etcd(spec.version_of(n)), spec, dir.path());
        let mut members = (0..spec.members).map(plan).collect::<Result<Vec<_>>>()?;
        let initial = members.iter().map(|m| format!("{}={}", m.name(), m.peer_url())).collect::<Vec<_>>().join(",");
        let mut http_port = spec.http_apart.as_ref().map(|_| Port::reserve()).transpose()?;
        for (n, member) in members.iter_mut().enumerate() {
            member.configure(n, spec, &initial, pki.as_ref(), http_port.as_ref().map(Port::number));
        }
        if let Some(port) = &mut http_port {
            port.release();
        }
        for member in &members {
            member.start()?;
        }
        Ok(Self {
            members,
            version: spec.version,
            etcdctl: tools.etcdctl(spec.version),
            http: http::client(pki.as_ref())?,
            _http_port: http_port,
            pki,
            root_password: Mutex::new(None),
            dir,
        })
    }

    /// Waits until every member runs and answers a linearizable read.
    pub async fn ready(&self) -> Result<()> {
        for index in 0..self.members.len() {
            self.member_ready(index).await?;
        }
        Ok(())
    }

    async fn member_ready(&self, index: usize) -> Result<()> {
        let member = &self.members[index];
        let what = format!("a linearizable read through {}", member.name());
        let read = until(&what, READY, || async move {
            if member.ensure_running().is_err() {
                return Ok(()); // Nothing to wait for: the check below says why.
            }
            let mut client = self.client(index).await?;
            tokio::time::timeout(Duration::from_secs(2), client.get("ready", None)).await??;
            Ok(())
        });
        read.await.with_context(|| format!("its log is {}", member.log_path().display()))?;
        member.ensure_running()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Never: a cluster has members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The n-th member, from 0.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    /// Every member, in order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Every member's client URL.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|m| m.client_url().to_owned()).collect()
    }

    /// The version of the members; of the first, where they differ.
    pub fn version(&self) -> EtcdVersion {
        self.version
    }

    /// The certificates, if clients need any.
    pub fn pki(&self) -> Option<&Pki> {
        self.pki.as_ref()
    }

    /// The directory with the members' logs and data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A client of one member alone, without a limit on how long a call may take.
    pub async fn client(&self, index: usize) -> Result<Client> {
        let options = self.connect_options()?;
        Ok(Client::connect([self.members[index].client_url()], Some(options)).await?)
    }

    /// A client balanced over every member.
    pub async fn balanced_client(&self) -> Result<Client> {
        Ok(Client::connect(self.endpoints(), Some(self.connect_options()?)).await?)
    }

    pub(crate) fn connect_options(&self) -> Result<ConnectOptions> {
        http::use_tls();
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(2))
            // Not less than 10 s: etcd closes the connection of a client that pings more often than every 5 s.
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(60));
        if let Some(pki) = &self.pki {
            let (cert, key) = (std::fs::read(&pki.client().cert)?, std::fs::read(&pki.client().key)?);
            options = options.with_tls(
                TlsOptions::new()
                    .ca_certificate(Certificate::from_pem(std::fs::read(pki.ca())?))
                    .identity(Identity::from_pem(cert, key)),
            );
        }
        if let Some(password) = self.root_password() {
            options = options.with_user("root", password);
        }
        Ok(options)
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    fn root_password(&self) -> Option<String> {
        self.root_password.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection flags that etcdctl and defragd share: endpoints and certificates.
    pub fn connection_flags(&self) -> Vec<String> {
        let mut flags = vec![format!("--endpoints={}", self.endpoints().join(","))];
        if let Some(pki) = &self.pki {
            flags.push(format!("--cacert={}", pki.ca().display()));
            flags.push(format!("--cert={}", pki.client().cert.display()));
            flags.push(format!("--key={}", pki.client().key.display()));
        }
        flags
    }
}
