//! A web site under the test's control, with TLS: an ingress, a Prometheus, an API server that lists pods.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};
use testkit::{Member, Pki};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::rig::MIB;

/// More than any head that we send.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// The server's response to a request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Further lines, each with its line end.
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: String::new(), body: body.into() }
    }
}

/// From the head of a request to its answer.
type Manner = Box<dyn Fn(&str) -> Answer + Send>;

/// A running site with a certificate for 127.0.0.1 and localhost. Dropping it ends it.
pub(crate) struct Site {
    pub(crate) url: String,
    pub(crate) pki: Pki,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Site {
    /// Its certificates go into this directory.
    pub(crate) async fn start(dir: &Path, manner: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let pki = Pki::create(dir).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls(&pki)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (manner, asked) = (Arc::new(Mutex::new(Box::new(manner) as Manner)), Arc::default());
        let (shared, log) = (Arc::clone(&manner), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared, log) = (acceptor.clone(), Arc::clone(&shared), Arc::clone(&log));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    converse(stream, &shared, &log).await;
                });
            }
        });
        Self { url, pki, manner, asked, task }
    }

    /// Answers in this way from now on.
    pub(crate) fn turn(&self, manner: impl Fn(&str) -> Answer + Send + 'static) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(manner);
    }

    /// The heads of all requests so far; with a line `client-certificate: shown` where one was.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A kubeconfig for this site as an API server.
    pub(crate) fn kubeconfig(&self, file: PathBuf, token: &str) -> PathBuf {
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "clusters": [{"name": "x", "cluster": {"server": self.url, "certificate-authority": self.pki.ca()}}],
            "users": [{"name": "x", "user": {"token": token}}]});
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a probe asks in one connection: one request.
async fn converse(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    manner: &Mutex<Manner>,
    asked: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD_BYTES {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let mut head = String::from_utf8_lossy(&head).trim_end().to_owned();
    if stream.get_ref().1.peer_certificates().is_some() {
        head += "\r\nclient-certificate: shown";
    }
    let Answer { status, headers, body } = manner.lock().unwrap_or_else(PoisonError::into_inner)(&head);
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    let length = body.len();
    let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}");
    // The other side need not read it all.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Client certificates are welcome, and not needed.
fn tls(pki: &Pki) -> ServerConfig {
    let pem = |path: &Path| std::fs::read(path).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem(pki.ca())).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain = vec![CertificateDer::from_pem_slice(&pem(&pki.server().cert)).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(&pem(&pki.server().key)).unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
        .with_single_cert(chain, key)
        .unwrap()
}

/// A list of pods as an API server answers it: names with their status, all in the namespace default.
pub(crate) fn pod_list(pods: &[(&str, Value)]) -> Answer {
    let pod = |(name, status): &(&str, Value)| json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "status": status});
    let items: Vec<_> = pods.iter().map(pod).collect();
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
    Answer { headers: "Content-Type: application/json\r\n".to_owned(), ..Answer::new(200, list.to_string()) }
}

/// Whether any member's file has shrunk from the 40 MiB that a rig fills it to. A site that asks so changes at the
/// very moment of the defragmentation, however busy the machine is.
pub(crate) fn shrunk(members: &[Member]) -> impl Fn() -> bool + Send + 'static {
    let files: Vec<_> = members.iter().map(|member| member.data_dir().join("member/snap/db")).collect();
    move || files.iter().any(|file| std::fs::metadata(file).is_ok_and(|meta| meta.len() < 30 * MIB))
}
