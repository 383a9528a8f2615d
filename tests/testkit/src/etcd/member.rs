//! One member: where it is, how it is started, its process.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use super::spec::{EtcdSpec, Transport};
use crate::disk::SmallDisk;
use crate::network::Host;
use crate::process::Process;
use crate::{DefragLog, Pki, Port, defrag_log, hold};

/// A member of a running cluster.
#[derive(Debug)]
pub struct Member {
    name: String,
    client_url: String,
    http_url: Option<String>,
    peer_url: String,
    dir: PathBuf,
    log: PathBuf,
    program: Mutex<PathBuf>,
    args: Vec<String>,
    ports: Mutex<[Port; 2]>,
    process: Mutex<Option<Process>>,
    host: Host,
    wal_dir: Option<PathBuf>,
    // After the process, which must not outlive it.
    disk: Option<SmallDisk>,
}

impl Member {
    /// Prepares the n-th member (from 0): its ports are held, nothing runs yet.
    pub(super) fn plan(n: usize, program: &Path, spec: &EtcdSpec, dir: &Path) -> Result<Self> {
        let name = format!("etcd-{}", n + 1);
        let (client, peer) = (Port::reserve()?, Port::reserve()?);
        let host = spec.hosts.get(n).copied().unwrap_or(Host::LOOPBACK);
        let scheme = |tls: bool| if tls { "https" } else { "http" };
        let client_url =
            format!("{}://{}", scheme(spec.transport.client_tls()), SocketAddr::new(host.client_ip, client.number()));
        let peer_address = SocketAddr::new(host.peer_ip, peer.number());
        let peer_url = format!("{}://{peer_address}", scheme(spec.transport == Transport::TlsEverywhere));
        let data = dir.join(&name);
        let size = spec.small_disk.filter(|(member, _)| *member == n).map(|(_, bytes)| bytes);
        let disk = size.map(|bytes| SmallDisk::mount(&data, bytes)).transpose()?;
        Ok(Self {
            wal_dir: disk.is_some().then(|| dir.join(format!("{name}-wal"))),
            dir: data,
            log: spec.logs.as_deref().unwrap_or(dir).join(format!("{name}.log")),
            program: Mutex::new(program.to_owned()),
            args: Vec::new(),
            ports: Mutex::new([client, peer]),
            process: Mutex::default(),
            host,
            disk,
            name,
            client_url,
            http_url: None,
            peer_url,
        })
    }

    /// The command line of the n-th member, from 0, once every member's address is known.
    pub(super) fn configure(
        &mut self,
        n: usize,
        spec: &EtcdSpec,
        initial_cluster: &str,
        pki: Option<&Pki>,
        http_port: Option<u16>,
    ) {
        let http_address = http_port.map(|port| SocketAddr::new(self.host.client_ip, port));
        self.http_url = spec.http_apart.as_ref().zip(http_address).map(|(scheme, at)| format!("{scheme}://{at}"));
        let own = spec.published_as.get(n).unwrap_or(&self.client_url).as_str();
        let published: Vec<_> = spec.publishes_also.as_deref().into_iter().chain([own]).collect();
        let listens: Vec<_> = spec.listens_also.as_deref().into_iter().chain([self.client_url.as_str()]).collect();
        let mut args = vec![
            format!("--name={}", self.name),
            format!("--data-dir={}", self.dir.display()),
            format!("--listen-client-urls={}", listens.join(",")),
            format!("--advertise-client-urls={}", published.join(",")),
            format!("--listen-peer-urls={}", self.peer_url),
            format!("--initial-advertise-peer-urls={}", self.peer_url),
            format!("--initial-cluster={initial_cluster}"),
            "--initial-cluster-state=new".to_owned(),
            "--initial-cluster-token=defragd-test".to_owned(),
            "--logger=zap".to_owned(), // 3.4's default is another, without levels
            format!("--log-level={}", spec.log_level),
        ];
        if let Some(bytes) = spec.quota_bytes {
            args.push(format!("--quota-backend-bytes={bytes}"));
        }
        args.extend(self.http_url.as_ref().map(|url| format!("--listen-client-http-urls={url}")));
        if !spec.fsync {
            args.push("--unsafe-no-fsync".to_owned());
        }
        if let Some(pki) = pki {
            let tls = |prefix: &str, identity: &crate::Identity| {
                [
                    format!("--{prefix}cert-file={}", identity.cert.display()),
                    format!("--{prefix}key-file={}", identity.key.display()),
                    format!("--{prefix}trusted-ca-file={}", pki.ca().display()),
                    format!("--{prefix}client-cert-auth"),
                ]
            };
            args.extend(tls("", pki.server()));
            if spec.transport == Transport::TlsEverywhere {
                args.extend(tls("peer-", pki.peer()));
            }
        }
        if let Some(dir) = &self.wal_dir {
            args.push(format!("--wal-dir={}", dir.display()));
        }
        args.extend(spec.extra_args.iter().cloned());
        self.args = args;
    }

    /// Starts it, new or again on the data it has.
    pub(super) fn start(&self) -> Result<()> {
        for port in self.ports.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            port.release();
        }
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let process = match self.host.network_of {
            None => Process::spawn(&self.name, &program, &self.args, &[], &self.log)?,
            Some(pid) => {
                let network = [format!("--net=/proc/{pid}/ns/net"), "--".to_owned(), program.display().to_string()];
                let args = [network.as_slice(), &self.args].concat();
                Process::spawn(&self.name, Path::new("nsenter"), &args, &[], &self.log)?
            }
        };
        *self.process() = Some(process);
        Ok(())
    }

    /// What is started from now on.
    pub(super) fn replace_program(&self, program: PathBuf) {
        *self.program.lock().unwrap_or_else(PoisonError::into_inner) = program;
    }

    pub(super) fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails with the end of its log if it has ended.
    pub(super) fn ensure_running(&self) -> Result<()> {
        self.process().as_ref().with_context(|| format!("{} is stopped", self.name))?.ensure_running()
    }

    /// Its name, `etcd-1` and so on.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its `/metrics` are: at the client URL, or apart from it.
    pub fn http_url(&self) -> &str {
        self.http_url.as_deref().unwrap_or(&self.client_url)
    }

    /// Where clients reach it.
    pub fn client_url(&self) -> &str {
        &self.client_url
    }

    /// Where the other members reach it.
    pub fn peer_url(&self) -> &str {
        &self.peer_url
    }

    /// Its process id, or none while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::pid)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.dir
    }

    /// Its log file.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything it has logged.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// What its log says of its defrags.
    pub fn defrag_log(&self) -> Result<DefragLog> {
        Ok(DefragLog::read(&self.log()?))
    }

    /// From when to when it defragmented, by its log: times that sort as text, of members of one version.
    pub fn defrag_spans(&self) -> Result<Vec<(String, String)>> {
        Ok(defrag_log::spans(&self.log()?))
    }

    /// Whether the copy that a defrag makes is there: true in the middle of one, also of a frozen member,
    /// and after one that was cut off.
    pub fn has_defrag_file(&self) -> bool {
        hold::has_defrag_file(&self.dir)
    }

    /// Fills its small disk until only so many bytes are free.
    pub fn fill_disk(&self, leave_bytes: u64) -> Result<()> {
        self.disk.as_ref().context("it has no small disk")?.fill(leave_bytes)
    }

    /// Removes the file that filled its small disk.
    pub fn clear_disk(&self) -> Result<()> {
        self.disk.as_ref().context("it has no small disk")?.clear()
    }

    /// Changes bytes of its database file underneath: each `from` becomes `to`, of the same length, so that the pages stay
    /// valid. The member must be stopped. Gives how many places it changed.
    pub fn corrupt(&self, from: &[u8], to: &[u8]) -> Result<usize> {
        anyhow::ensure!(from.len() == to.len() && !from.is_empty(), "the lengths differ");
        anyhow::ensure!(self.pid().is_none(), "{} runs", self.name);
        let path = self.dir.join("member/snap/db");
        let mut bytes = fs::read(&path)?;
        let (mut at, mut changed) = (0, 0);
        while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
            bytes[at + found..at + found + from.len()].copy_from_slice(to);
            (at, changed) = (at + found + from.len(), changed + 1);
        }
        fs::write(&path, bytes)?;
        Ok(changed)
    }

    /// The size of its database file, in bytes.
    pub fn file_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(self.dir.join("member/snap/db"))?.len())
    }
}
