//! One member: where it is, how it is started, its process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use super::spec::{EtcdSpec, Transport};
use crate::process::Process;
use crate::{Pki, Port};

/// A member of a running cluster.
#[derive(Debug)]
pub struct Member {
    name: String,
    client_url: String,
    peer_url: String,
    dir: PathBuf,
    log: PathBuf,
    program: PathBuf,
    args: Vec<String>,
    ports: Mutex<[Port; 2]>,
    process: Mutex<Option<Process>>,
}

impl Member {
    /// Prepares the n-th member (from 0): its ports are held, nothing runs yet.
    pub(super) fn plan(n: usize, program: &Path, spec: &EtcdSpec, dir: &Path) -> Result<Self> {
        let name = format!("etcd-{}", n + 1);
        let (client, peer) = (Port::reserve()?, Port::reserve()?);
        let scheme = |tls: bool| if tls { "https" } else { "http" };
        let client_url = format!("{}://{}", scheme(spec.transport.client_tls()), client.address());
        let peer_url = format!("{}://{}", scheme(spec.transport == Transport::TlsEverywhere), peer.address());
        Ok(Self {
            dir: dir.join(&name),
            log: spec.logs.as_deref().unwrap_or(dir).join(format!("{name}.log")),
            program: program.to_owned(),
            args: Vec::new(),
            ports: Mutex::new([client, peer]),
            process: Mutex::new(None),
            name,
            client_url,
            peer_url,
        })
    }

    /// The command line, once every member's address is known.
    pub(super) fn configure(&mut self, spec: &EtcdSpec, initial_cluster: &str, pki: Option<&Pki>) {
        let mut args = vec![
            format!("--name={}", self.name),
            format!("--data-dir={}", self.dir.display()),
            format!("--listen-client-urls={}", self.client_url),
            format!("--advertise-client-urls={}", self.client_url),
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
        args.extend(spec.extra_args.iter().cloned());
        self.args = args;
    }

    /// Starts it, new or again on the data it has.
    pub(super) fn start(&self) -> Result<()> {
        for port in self.ports.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            port.release();
        }
        let process = Process::spawn(&self.name, &self.program, &self.args, &[], &self.log)?;
        *self.process() = Some(process);
        Ok(())
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

    /// Where clients reach it; its `/metrics` are there too.
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

    /// The size of its database file, in bytes.
    pub fn file_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(self.dir.join("member/snap/db"))?.len())
    }
}
