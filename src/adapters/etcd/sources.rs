//! Where a cluster is, and the files for connecting to it, as configured, before anything is read or dialled.

use bytesize::ByteSize;

use super::CredentialFiles;
use crate::ports::access::{DiscoverySrv, MetricsPage, TlsFiles};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// URLs with a scheme.
    pub endpoints: Vec<String>,
    pub discovery: Option<DiscoverySrv>,
    /// Read when the cluster is opened, and again at each [`renew`](crate::ports::etcd::Etcd::renew).
    pub files: CredentialFiles,
    /// Where the metrics pages are; at the client URLs if absent.
    pub pages: Option<MetricsPage>,
    /// The quota of members that do not report it.
    pub quota: Option<ByteSize>,
    /// Accepts any server certificate. Only for showing something to an operator, and never together with a user:
    /// opening refuses that.
    pub insecure_skip_verify: bool,
    /// Messages name flags instead of keys of a configuration file.
    pub by_flags: bool,
}

impl Sources {
    /// Whether the cluster is configured with TLS. Then nothing is dialled without, whatever the records of a discovery
    /// and the members say. The reverse, TLS where none is configured, exposes less, so it is always allowed.
    pub(super) fn is_tls(&self) -> bool {
        let with_tls = |url: &String| url.starts_with("https://");
        let found = self.discovery.as_ref().is_none_or(|discovery| !discovery.insecure);
        self.files.tls != TlsFiles::default() || (found && self.endpoints.iter().all(with_tls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_record_and_no_member_leads_out_of_tls() {
        let endpoints = |urls: &[&str]| Sources {
            endpoints: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..Sources::default()
        };
        let found =
            |insecure| Some(DiscoverySrv { domain: "example.test".to_owned(), name: None, insecure, nameserver: None });
        let tls = TlsFiles { ca_file: Some("ca.crt".into()), ..TlsFiles::default() };
        let files = CredentialFiles { tls, ..CredentialFiles::default() };
        for (what, sources, is_tls) in [
            ("endpoints with TLS", endpoints(&["https://a:1", "https://b:1"]), true),
            ("endpoints without", endpoints(&["http://a:1"]), false),
            ("both, as configured", endpoints(&["https://a:1", "http://b:1"]), false),
            ("secure records", Sources { discovery: found(false), ..Sources::default() }, true),
            ("insecure records", Sources { discovery: found(true), ..Sources::default() }, false),
            ("insecure records beside", Sources { discovery: found(true), ..endpoints(&["https://a:1"]) }, false),
            ("insecure records and a CA", Sources { discovery: found(true), files, ..Sources::default() }, true),
            ("secure records beside", Sources { discovery: found(false), ..endpoints(&["http://a:1"]) }, false),
        ] {
            assert_eq!(sources.is_tls(), is_tls, "{what}");
        }
    }
}
