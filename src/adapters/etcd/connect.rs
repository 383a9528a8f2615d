//! How members are reached: TLS, credentials, limits.

use std::{path::PathBuf, time::Duration};

use etcd_client::{Channel, Client, ConnectOptions};
use hyper_util::client::legacy::connect::HttpConnector;
use thiserror::Error;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::error;
use crate::core::cluster::{Fact, Unknown, UnknownKind};

/// A member that accepts no connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// etcd's servers drop clients that ping more often than every 5 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// A peer that answers no ping in this time is gone, however long its RPC may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// What a member does not acknowledge within this time is never delivered. The kernel would else go on sending
/// what was written to a broken connection, and a Defragment would begin long after its run is over.
const UNDELIVERED_AFTER: Duration = Duration::from_secs(20);

/// A TLS file or an endpoint that cannot be used.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// A certificate or key cannot be read.
    #[error("cannot read {what} {}: {source}", path.display())]
    File {
        /// Its part.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or key is not what it should be.
    #[error("{what} {} is not usable: {detail}", path.display())]
    Pem {
        /// Its part.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// The client for the members' metrics pages cannot be made.
    #[error("cannot set up TLS for the members' metrics pages: {0}")]
    Http(String),
}

/// Paths of the TLS files, as etcdctl's `--cacert`, `--cert` and `--key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities to trust; the system's where absent.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// All that is needed to reach any member of one cluster.
pub struct Connection {
    endpoints: Vec<String>,
    tls: ClientTlsConfig,
    user: Option<(String, String)>,
    http_tls: reqwest::Client,
    http_plain: reqwest::Client,
}

impl Connection {
    /// Reads the TLS files. `endpoints` are URLs with a scheme; `user` is a name and a password.
    pub fn new(endpoints: Vec<String>, files: &TlsFiles, user: Option<(String, String)>) -> Result<Self, ConnectError> {
        let plain = || reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT);
        let mut tls = ClientTlsConfig::new();
        let mut http = plain();
        if let Some(path) = &files.ca {
            let pem = read("the CA certificate", path)?;
            let roots =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| pem_error("the CA certificate", path, &e))?;
            if roots.is_empty() {
                let detail = "it holds no PEM certificate".to_owned();
                return Err(ConnectError::Pem { what: "the CA certificate", path: path.clone(), detail });
            }
            tls = tls.ca_certificate(Certificate::from_pem(pem));
            http = http.tls_certs_only(roots);
        } else {
            tls = tls.with_native_roots();
        }
        if let Some((cert_path, key_path)) = &files.identity {
            let cert = read("the client certificate", cert_path)?;
            let key = read("the client key", key_path)?;
            let both = [cert.as_slice(), b"\n", &key].concat();
            let identity = reqwest::Identity::from_pem(&both)
                .map_err(|e| pem_error("the client certificate or key", cert_path, &e))?;
            tls = tls.identity(Identity::from_pem(cert, key));
            http = http.identity(identity);
        }
        let build = |builder: reqwest::ClientBuilder| builder.build().map_err(|e| ConnectError::Http(error::chain(&e)));
        Ok(Self { endpoints, tls, user, http_tls: build(http)?, http_plain: build(plain())? })
    }

    /// The configured endpoints.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// A client for this one address. With a user it authenticates right away; else nothing is sent yet.
    pub(super) async fn client(&self, url: &str) -> Fact<Client> {
        let bad = |detail: String| Unknown::new(UnknownKind::Other, format!("cannot use the address {url}: {detail}"));
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|e| bad(error::chain(&e)))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        if url.starts_with("https://") {
            endpoint = endpoint.tls_config(self.tls.clone()).map_err(|e| bad(error::chain(&e)))?;
        }
        let channel = Channel::Tonic(endpoint.connect_with_connector_lazy(connector()));
        let options = ConnectOptions::new().with_auto_token_refresh(true);
        let Some((name, password)) = &self.user else {
            return Client::from_channel(channel, Some(options)).await.map_err(|failure| error::unknown(&failure));
        };
        match Client::from_channel(channel.clone(), Some(options.clone().with_user(name, password))).await {
            // Somebody switched authentication off, perhaps in an emergency: that must not blind us.
            Err(failure) if error::is_auth_off(&failure) => {
                tracing::warn!(url, "authentication is off on this etcd: going on without the configured user");
                Client::from_channel(channel, Some(options)).await
            }
            other => other,
        }
        .map_err(|failure| error::unknown(&failure))
    }

    /// The client for the metrics page at this address.
    pub(super) fn http(&self, url: &str) -> &reqwest::Client {
        if url.starts_with("https://") { &self.http_tls } else { &self.http_plain }
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_tcp_user_timeout(Some(UNDELIVERED_AFTER));
    connector
}

fn read(what: &'static str, path: &PathBuf) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|source| ConnectError::File { what, path: path.clone(), source })
}

fn pem_error(what: &'static str, path: &std::path::Path, error: &reqwest::Error) -> ConnectError {
    ConnectError::Pem { what, path: path.to_owned(), detail: error::chain(error) }
}
