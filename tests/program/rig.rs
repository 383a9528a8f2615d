//! What the tests start from: the program in a folder of its own, and clients of it.

use std::{fs, path::Path, time::Duration};

use reqwest::{Certificate, Client, ClientBuilder};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use testkit::{Defragd, Home, Pki};

/// Long for anything here, also on half a processor.
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const TOKEN: &str = Home::TOKEN;

pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_defragd"))
}

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn home() -> Home {
    Home::new(binary()).unwrap()
}

/// Trusts this authority and no other. Every request is a new connection.
pub(crate) fn client(pki: Option<&Pki>) -> ClientBuilder {
    let _ = aws_lc_rs::default_provider().install_default();
    let trusted = pki.map(|pki| Certificate::from_pem(&fs::read(pki.ca()).unwrap()).unwrap());
    Client::builder().tls_certs_only(trusted).no_proxy().pool_max_idle_per_host(0).timeout(MINUTE)
}

/// The same for connections that are not HTTP.
pub(crate) fn roots(pki: &Pki) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.ca()).unwrap()).unwrap();
    roots
}

/// How many files and sockets it has open.
pub(crate) fn descriptors(defragd: &Defragd) -> usize {
    fs::read_dir(format!("/proc/{}/fd", defragd.pid())).unwrap().count()
}

/// What it has in memory.
pub(crate) fn memory_kib(defragd: &Defragd) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", defragd.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
