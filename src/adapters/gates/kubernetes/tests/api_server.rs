//! An API server of one resource, after the recorded behaviour of the real one: TLS with client certificates or
//! bearer tokens, `limit`/`continue` with `remainingItemCount`, `Status` objects for what goes wrong.
//! `tests/e2e/pods.rs` checks the gate against a real one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Identity, Pki};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::{KubernetesPodsGate, PodsProbe};
use crate::adapters::gates::fixture::server_config;

pub(super) const TOKEN: &str = "s3cret-bearer-token";

#[derive(Default)]
pub(super) struct Behaviour {
    pub(super) pods: Vec<Value>,
    /// Path and query of each request.
    pub(super) requests: Vec<String>,
    /// How many more continue tokens are too old.
    pub(super) expire: usize,
    /// How many more requests are answered with 503.
    pub(super) unavailable: usize,
    /// Only this namespace may be read.
    pub(super) only: Option<String>,
    /// The answer to everything else.
    pub(super) instead: Option<String>,
    /// Nothing is answered at all.
    pub(super) hangs: bool,
    /// Everything is denied, with the credentials in the text.
    pub(super) indiscreet: bool,
}

pub(super) struct ApiServer {
    behaviour: Arc<Mutex<Behaviour>>,
    pub(super) pki: Pki,
    pub(super) url: String,
    dir: TempDir,
}

impl ApiServer {
    pub(super) async fn start(pods: Vec<Value>) -> Self {
        Self::showing(pods, |pki, _| pki.server().clone()).await
    }

    /// One that shows another certificate than the one that its authority signed; the directory is for its files.
    pub(super) async fn showing(pods: Vec<Value>, server: impl FnOnce(&Pki, &Path) -> Identity) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let pki = Pki::create(&dir.path().join("pki")).expect("certificates");
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&server(&pki, dir.path()), Some(pki.ca()), true)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let behaviour = Arc::new(Mutex::new(Behaviour { pods, ..Behaviour::default() }));
        let shared = Arc::clone(&behaviour);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let known = stream.get_ref().1.peer_certificates().is_some();
                    let router = Router::new().fallback(answer).with_state((shared, known));
                    let service = TowerToHyperService::new(router);
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { behaviour, pki, url, dir }
    }

    pub(super) fn behave(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A kubeconfig for this server with this `user`, in YAML's flow style.
    pub(super) fn kubeconfig(&self, user: &str) -> PathBuf {
        write_kubeconfig(&self.path("kubeconfig"), &self.url, self.pki.ca(), user)
    }

    /// With the client certificate.
    pub(super) fn settings(&self) -> KubernetesPodsGate {
        let client = self.pki.client();
        let user = format!(
            "{{client-certificate: {:?}, client-key: {:?}}}",
            client.cert.display().to_string(),
            client.key.display().to_string()
        );
        settings(self.kubeconfig(&user))
    }

    pub(super) fn probe(&self) -> PodsProbe {
        PodsProbe::new(self.settings())
    }
}

pub(super) fn write_kubeconfig(file: &Path, url: &str, ca: &Path, user: &str) -> PathBuf {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         contexts: [{{name: here, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: {url:?}, certificate-authority: {:?}}}}}]\n\
         users: [{{name: u, user: {user}}}]\n",
        ca.display().to_string()
    );
    std::fs::write(file, text).expect("written");
    file.to_owned()
}

pub(super) fn settings(kubeconfig: PathBuf) -> KubernetesPodsGate {
    KubernetesPodsGate {
        kubeconfig: Some(kubeconfig),
        context: None,
        namespaces: Vec::new(),
        label_selector: None,
        field_selector: None,
        grace: Duration::from_secs(1),
        timeout: Duration::from_mins(1),
    }
}

async fn answer(
    State((behaviour, known)): State<(Arc<Mutex<Behaviour>>, bool)>,
    uri: Uri,
    headers: header::HeaderMap,
) -> Response {
    if behaviour.lock().hangs {
        std::future::pending::<()>().await;
    }
    let mut behaviour = behaviour.lock();
    behaviour.requests.push(uri.to_string());
    if behaviour.unavailable > 0 {
        behaviour.unavailable -= 1;
        return status(503, "ServiceUnavailable", "the server is currently unable to handle the request");
    }
    let bearer = headers.get(header::AUTHORIZATION).is_some_and(|value| *value == format!("Bearer {TOKEN}"));
    if !known && !bearer {
        return status(401, "Unauthorized", "Unauthorized");
    }
    if behaviour.indiscreet {
        return status(403, "Forbidden", &format!("{:?} may not", headers.get(header::AUTHORIZATION)));
    }
    if let Some(instead) = &behaviour.instead {
        return instead.clone().into_response();
    }
    let namespace = match uri.path() {
        "/api/v1/pods" => None,
        path => path.strip_prefix("/api/v1/namespaces/").and_then(|rest| rest.strip_suffix("/pods")),
    };
    if behaviour.only.is_some() && behaviour.only.as_deref() != namespace {
        let scope = namespace.map_or("at the cluster scope".to_owned(), |name| format!("in the namespace \"{name}\""));
        let said =
            format!("pods is forbidden: User \"viewer\" cannot list resource \"pods\" in API group \"\" {scope}");
        return status(403, "Forbidden", &said);
    }
    let parameters: Vec<(String, String)> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let parameter = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let from: usize = parameter("continue").map_or(0, |token| token.parse().expect("our own token"));
    if from > 0 && behaviour.expire > 0 {
        behaviour.expire -= 1;
        return status(410, "Expired", "The provided continue parameter is too old");
    }
    let chosen: Vec<&Value> =
        behaviour.pods.iter().filter(|pod| namespace.is_none_or(|name| pod["metadata"]["namespace"] == name)).collect();
    let limit: usize = parameter("limit").map_or(usize::MAX, |limit| limit.parse().expect("a number"));
    let rest = chosen.len().saturating_sub(from);
    let mut metadata = json!({"resourceVersion": "4711"});
    if rest > limit {
        metadata["continue"] = json!((from + limit).to_string());
        metadata["remainingItemCount"] = json!(rest - limit);
    }
    let items: Vec<_> = chosen.into_iter().skip(from).take(limit).collect();
    let items = if items.is_empty() { Value::Null } else { json!(items) };
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})).into_response()
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    (StatusCode::from_u16(code).expect("a code"), Json(body)).into_response()
}
