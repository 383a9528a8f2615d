//! Where a member is, and a socket to it.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use hyper::{
    Uri,
    http::uri::{Authority, Scheme},
};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::ServiceExt;

use super::names::Names;

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// What a member does not acknowledge within this time is never delivered. Otherwise the kernel would keep resending
/// what was written to a broken connection, and a Defragment could begin long after its run has ended.
const UNDELIVERED_AFTER: Duration = Duration::from_secs(20);

/// Where a member is, and how its identity is verified.
pub(super) struct Dial {
    address: Uri,
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    names: Names,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Dial {
    /// Without TLS.
    pub(super) fn plain(address: Uri, names: Names) -> Result<Self, String> {
        let authority = address.authority().cloned().ok_or("it names no host")?;
        Ok(Self { address, scheme: Scheme::HTTP, authority, names, tls: None })
    }

    /// With TLS; the certificate must be for `server_name`, if it differs from the address's host.
    pub(super) fn tls(
        address: Uri,
        names: Names,
        config: Arc<ClientConfig>,
        server_name: Option<&str>,
    ) -> Result<Self, String> {
        let host = address.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = server_name.unwrap_or(host);
        let name = ServerName::try_from(name).map_err(|error| format!("{name}: {error}"))?.to_owned();
        Ok(Self { tls: Some((config, name)), scheme: Scheme::HTTPS, ..Self::plain(address, names)? })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) async fn socket(&self) -> Result<TcpStream, BoxError> {
        let mut connector = HttpConnector::new_with_resolver(self.names);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_tcp_user_timeout(Some(UNDELIVERED_AFTER));
        Ok(connector.oneshot(self.address.clone()).await?.into_inner())
    }

    /// Only with TLS.
    pub(super) async fn handshake(&self) -> Result<TlsStream<TcpStream>, BoxError> {
        let (config, name) = self.tls.as_ref().ok_or("there is no TLS here")?;
        let socket = self.socket().await?;
        Ok(tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name.clone(), socket).await?)
    }
}
