//! Real servers on loopback, well-behaved and hostile, for the tests of the probes.

use std::{
    future::{Future, pending},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde::de::DeserializeOwned;
use testkit::{Identity, Pki};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    core::gate::Moment,
    ports::gate::{CheckContext, GateProbe, Reading, Tries},
};

/// For servers that answer, on a busy machine.
pub(super) const PATIENT: Tries = tries(Duration::from_secs(10), 1);
/// For servers that do not.
pub(super) const IMPATIENT: Tries = tries(Duration::from_millis(300), 2);

const fn tries(timeout: Duration, attempts: u32) -> Tries {
    Tries { timeout, attempts, interval: Duration::from_millis(50), hold: Duration::ZERO }
}

/// A gate with these keys, as in a configuration.
pub(super) fn read<T: DeserializeOwned>(keys: serde_json::Value) -> T {
    serde_json::from_value(keys).expect("its keys")
}

/// Gives a gate its tries.
macro_rules! tried {
    ($check:expr, $tries:expr) => {{
        let (mut check, tries) = ($check, $tries);
        (check.timeout, check.attempts, check.interval) = (tries.timeout, tries.attempts, tries.interval);
        check
    }};
}
pub(super) use tried;

pub(super) async fn check(probe: &dyn GateProbe) -> Reading {
    probe.check(CheckContext { moment: Moment::Before, baseline: None }).await
}

/// Serves every connection in this way.
pub(super) async fn serve<F>(manner: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(manner(stream));
        }
    });
    address
}

/// A server that answers every request with the same bytes, and records the requests.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Site {
    pub(super) fn url(&self, path: &str) -> url::Url {
        format!("http://{}{path}", self.address).parse().expect("a URL")
    }

    /// The heads of the requests.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

/// Answers with this status, these further headers and this body.
pub(super) async fn site(status: u16, headers: &str, body: &str) -> Site {
    let answer = answer(status, headers, body);
    answering(move |_| answer.clone()).await
}

/// Answers as the function says, from the head of the request.
pub(super) async fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Site {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
    let address = serve(move |mut stream| {
        let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
        async move {
            let head = head(&mut stream).await;
            let text = answer(&head);
            log.lock().push(head);
            // The client need not read it all.
            let _ = stream.write_all(text.as_bytes()).await;
        }
    })
    .await;
    Site { address, asked }
}

pub(super) fn answer(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
}

/// The head of a request, up to its empty line.
pub(super) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Ways in which a server can be useless. Each acts after it has received a request.
pub(super) const HOSTILE: [&str; 9] = [
    "refuses",
    "never answers",
    "closes at once",
    "garbage",
    "slow head",
    "slow body",
    "cut body",
    "10 MB",
    "redirects",
];

/// A server that behaves in that way.
pub(super) async fn hostile(manner: &'static str) -> SocketAddr {
    if manner == "refuses" {
        // A port that no other server of these tests gets, and no client.
        let mut port = testkit::Port::reserve().expect("a port");
        port.release();
        let address = port.address();
        std::mem::forget(port);
        return address;
    }
    serve(move |mut stream| async move {
        if manner == "closes at once" {
            return;
        }
        head(&mut stream).await;
        let ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        match manner {
            "never answers" => pending().await,
            "garbage" => {
                let _ = stream.write_all(&[0xff, 0x00, 0x16, b'\n', 0x80, b'x', b'\r', b'\n', b'\r', b'\n']).await;
            }
            "slow head" => drip(&mut stream, ok).await,
            "slow body" => {
                let _ = stream.write_all(format!("{ok}Content-Length: 1000\r\n\r\n").as_bytes()).await;
                drip(&mut stream, &"x".repeat(1_000)).await;
            }
            "cut body" => {
                let _ = stream.write_all(format!("{ok}Content-Length: 1000\r\n\r\n[").as_bytes()).await;
            }
            "10 MB" => {
                let _ = stream.write_all(format!("{ok}Content-Length: 10000000\r\n\r\n").as_bytes()).await;
                let _ = stream.write_all(&vec![b'['; 10_000_000]).await;
            }
            "redirects" => {
                let elsewhere = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /ready?token=x\r\n\r\n";
                let _ = stream.write_all(elsewhere.as_bytes()).await;
            }
            other => panic!("no manner {other}"),
        }
    })
    .await
}

/// A byte now and then: never long without one, never finished.
async fn drip(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    for byte in text.bytes() {
        if stream.write_u8(byte).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A TLS server with the PKI's server certificate, that says `ready`, the name that it was asked for and the
/// header `Host`.
/// `clients` is the CA of the accepted clients; without it, all are accepted.
pub(super) async fn tls_site(pki: &Pki, clients: Option<&Path>) -> SocketAddr {
    tls_server(pki.server(), clients).await
}

/// The same with this certificate.
pub(super) async fn tls_server(own: &Identity, clients: Option<&Path>) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(own, clients, false)));
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let name = stream.get_ref().1.server_name().unwrap_or("nobody").to_owned();
            let head = head(&mut stream).await;
            let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("nobody");
            let body = format!("ready, says {name} to {host}");
            let _ = stream.write_all(answer(200, "", &body).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

/// With this certificate. Clients must have one of this CA, or may, if they are `optional`.
pub(in crate::adapters::gates) fn server_config(
    own: &Identity,
    clients: Option<&Path>,
    optional: bool,
) -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_file(&own.cert).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(&own.key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.expect("versions");
    let Some(ca) = clients else {
        return builder.with_no_client_auth().with_single_cert(chain, key).expect("a certificate with its key");
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("an authority");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
    let builder = builder.with_client_cert_verifier(verifier.build().expect("a verifier"));
    builder.with_single_cert(chain, key).expect("a certificate with its key")
}
