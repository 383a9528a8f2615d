//! How to reach a server and sign in to it, as it is configured: these types read the configuration's keys themselves, and
//! `check` finds what is wrong with the values. Secrets are in files, which are read when they are needed.

mod check;
mod secret_url;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use schemars::{JsonSchema, Schema};
use serde::Deserialize;

pub(in crate::ports) use self::check::{check_kubeconfig, check_url_source, host_and_port};
pub use self::secret_url::SecretUrl;
use crate::core::page::PageUrl;

/// TLS files of the members of an etcd cluster, and of the other replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM file with the certificate authorities to trust, or with the server's own certificate if it is its own
    /// authority.
    #[schemars(extend("x-default" = "the system's authorities"))]
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client certificate. Needs `key_file`.
    #[schemars(extend("x-default" = "none"))]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key of `cert_file`.
    #[schemars(extend("x-default" = "none"))]
    pub key_file: Option<PathBuf>,
}

impl TlsFiles {
    pub fn identity(&self) -> Option<(&Path, &Path)> {
        self.cert_file.as_deref().zip(self.key_file.as_deref())
    }
}

/// TLS to any other server, as in blackbox exporter's modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// PEM file with the certificate authorities to trust.
    #[schemars(extend("x-default" = "the system's authorities"))]
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client certificate. Needs `key_file`.
    #[schemars(extend("x-default" = "none"))]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key of `cert_file`.
    #[schemars(extend("x-default" = "none"))]
    pub key_file: Option<PathBuf>,
    /// The DNS name to ask for and to verify.
    #[schemars(extend("x-default" = "the host of the address"))]
    pub server_name: Option<String>,
    /// Accept any certificate. Excludes `ca_file` and everything that sends a secret.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

impl ClientTls {
    pub fn identity(&self) -> Option<(&Path, &Path)> {
        self.cert_file.as_deref().zip(self.key_file.as_deref())
    }
}

impl From<TlsFiles> for ClientTls {
    fn from(files: TlsFiles) -> Self {
        let TlsFiles { ca_file, cert_file, key_file } = files;
        Self { ca_file, cert_file, key_file, ..Self::default() }
    }
}

/// A user of a server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The user's name.
    pub username: String,
    /// File with the user's password. It is read again when it changes.
    pub password_file: PathBuf,
}

/// SRV records, as etcdctl's flags of these names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscoverySrv {
    /// The domain of the records `_etcd-client-ssl._tcp` and `_etcd-client._tcp`.
    pub domain: String,
    /// Added to the service name, as in `_etcd-client-ssl-NAME._tcp`, for domains with several clusters.
    #[schemars(extend("x-default" = "none"))]
    pub name: Option<String>,
    /// Whether records without TLS are accepted. With `false`, servers must also prove the domain by their certificate.
    #[serde(default = "yes")]
    pub insecure: bool,
    /// The name server to ask, as `IP:PORT`.
    #[schemars(with = "Option<String>", extend("x-default" = "the system's name servers"))]
    pub nameserver: Option<SocketAddr>,
}

const fn yes() -> bool {
    true
}

/// Where the members' metrics pages are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricsPage {
    /// The page's URL, with `{host}` (the host of the member's client URL) or `{member}` (the member's name) in its
    /// host. The page must be that member's own.
    #[schemars(with = "String")]
    pub url: PageUrl,
    /// TLS to this page, for `https://`. The cluster's client certificate and user are not sent to it.
    #[schemars(transform = trusts_the_same_authorities)]
    pub tls: Option<TlsFiles>,
}

fn trusts_the_same_authorities(tls: &mut Schema) {
    if let Some(ca_file) = tls.pointer_mut("/properties/ca_file") {
        ca_file["x-default"] = "`tls.ca_file` beside `metrics`".into();
    }
}

/// Headers with their values, which are sent as they are.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct Headers(pub BTreeMap<String, String>);

// None of them should be a secret, but one may be all the same.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The headers that sign a request in to an HTTP server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub headers: Headers,
    /// Sent with the content of the files.
    pub header_files: BTreeMap<String, PathBuf>,
    pub bearer_token_file: Option<PathBuf>,
    pub basic_auth: Option<User>,
}
