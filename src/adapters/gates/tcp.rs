//! A connection, with a TLS handshake if configured.
//!
//! A load balancer without a server behind it accepts connections and closes them, and with TLS 1.3 a server rejects
//! our certificate only after the handshake. So the connection is watched for a moment.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, FutureExt};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::millis;
use crate::{
    adapters::outgoing::{CallError, detail},
    ports::gate::{Address, CheckContext, GateProbe, Reading, TcpGate},
};

/// A round trip to the other end of the world; a server that has sent nothing by then waits for us, as it should.
const WATCH: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
pub(super) struct TcpProbe {
    check: TcpGate,
    watch: Duration,
}

impl TcpProbe {
    /// Checks that its files are usable.
    pub(super) fn new(check: TcpGate) -> Result<Self, CallError> {
        if let Some(tls) = &check.tls {
            tls.config()?;
            server_name(&check).map_err(|error| CallError::Tls(error.to_string()))?;
        }
        Ok(Self { check, watch: WATCH })
    }

    /// Watches for so long: a server of a test that closes may get its turn late.
    #[cfg(test)]
    pub(super) fn watching(self, watch: Duration) -> Self {
        Self { watch, ..self }
    }

    async fn once(&self) -> Reading {
        let (began, limit) = (Instant::now(), self.check.timeout);
        let address = address(&self.check.address);
        let late = || Err(io::Error::other(format!("not finished within {limit:?}")));
        let result = timeout(limit, connect(&self.check, self.watch)).await.unwrap_or_else(|_| late());
        let latency = millis(began.elapsed());
        let what = if self.check.tls.is_some() { "a TLS connection" } else { "a connection" };
        let reading = match result {
            Ok(()) => Reading::pass(format!("{what} to {address} succeeded")),
            Err(error) => Reading::fail(format!("no {} to {address}: {}", &what[2..], detail(&error.to_string()))),
        };
        let reading = reading.with("address", address).with("latency_ms", latency);
        let unverified = self.check.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify);
        if unverified { reading.with("tls_verified", false) } else { reading }
    }
}

fn address(Address { host, port }: &Address) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn server_name(check: &TcpGate) -> Result<ServerName<'static>, rustls::pki_types::InvalidDnsNameError> {
    let name = check.tls.as_ref().and_then(|tls| tls.server_name.as_ref()).unwrap_or(&check.address.host);
    ServerName::try_from(name.trim_end_matches('.').to_owned())
}

async fn connect(check: &TcpGate, watch: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect((check.address.host.as_str(), check.address.port)).await?;
    let Some(tls) = check.tls.clone() else { return stays(&mut stream, watch).await };
    let config = spawn_blocking(move || tls.config()).await?.map_err(io::Error::other)?;
    let name = server_name(check).map_err(io::Error::other)?;
    let handshake = |error: io::Error| io::Error::other(format!("the TLS handshake failed: {error}"));
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(handshake)?;
    stays(&mut stream, watch).await
}

/// Whether the server keeps the connection open. What it sends is discarded.
async fn stays(stream: &mut (impl AsyncRead + Unpin), watch: Duration) -> io::Result<()> {
    match timeout(watch, stream.read(&mut [0; 1])).await {
        // Nothing came, or a greeting.
        Err(_) | Ok(Ok(1..)) => Ok(()),
        Ok(Ok(0)) => Err(io::Error::other("it was accepted and closed at once")),
        Ok(Err(error)) => Err(io::Error::other(format!("it was accepted and aborted: {error}"))),
    }
}

impl GateProbe for TcpProbe {
    fn check<'a>(&'a self, _: CheckContext<'a>) -> BoxFuture<'a, Reading> {
        self.check.tries().run(|| self.once()).boxed()
    }
}
