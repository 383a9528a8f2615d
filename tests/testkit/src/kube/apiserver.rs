//! A real kube-apiserver on a real etcd. By itself, without kubelets and controllers: pods are created and their status is
//! set through its API, as a kubelet would. Or as a part of [`super::KubeLab`].

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Certificate, Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::{EtcdCluster, Pki, Port, Response, Tools, http};

/// It is ready after some ten seconds; a loaded two-core machine takes longer.
const READY: Duration = Duration::from_secs(120);
const ADMIN: &str = "admin-of-the-test";

/// A running kube-apiserver. Dropping it kills it.
#[derive(Debug)]
pub struct KubeApiserver {
    url: String,
    port: u16,
    http: Client,
    pki: Pki,
    process: Process,
    _dir: TempDir,
}

impl KubeApiserver {
    /// Starts it on that etcd (one member suffices), logging to a file, and waits until it is ready.
    pub async fn start(tools: &Tools, etcd: &EtcdCluster, log: &Path) -> Result<Self> {
        Self::start_behind(tools, etcd, &etcd.endpoints(), log).await
    }

    /// The same, where it reaches etcd at these URLs.
    pub async fn start_behind(tools: &Tools, etcd: &EtcdCluster, urls: &[String], log: &Path) -> Result<Self> {
        let alone = [
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--authorization-mode=RBAC",
            // Loopback is no address for an endpoint, and nothing here needs the service `kubernetes`.
            "--endpoint-reconciler-type=none",
            // It waits for accounts that a controller would make.
            "--disable-admission-plugins=ServiceAccount",
        ];
        Self::start_with(tools, (etcd, urls), log, &alone.map(str::to_owned), "").await
    }

    /// The same with these flags, and with these users besides the administrator: lines of `--token-auth-file`.
    pub(super) async fn start_with(
        tools: &Tools,
        (etcd, urls): (&EtcdCluster, &[String]),
        log: &Path,
        flags: &[String],
        users: &str,
    ) -> Result<Self> {
        let program = tools.kube_apiserver().context("there is no kube-apiserver here")?;
        let dir = tempfile::Builder::new().prefix("defragd-kube-").tempdir()?;
        let pki = Pki::create(&dir.path().join("pki"))?;
        let tokens = dir.path().join("tokens.csv");
        fs::write(&tokens, format!("{ADMIN},admin,admin,\"system:masters\"\n{users}"))?;
        let mut port = Port::reserve()?;
        let path = |path: &Path| path.display().to_string();
        let mut args = vec![
            format!("--etcd-servers={}", urls.join(",")),
            format!("--secure-port={}", port.number()),
            format!("--cert-dir={}", path(&dir.path().join("certs"))),
            format!("--tls-cert-file={}", path(&pki.server().cert)),
            format!("--tls-private-key-file={}", path(&pki.server().key)),
            format!("--client-ca-file={}", path(pki.ca())),
            format!("--token-auth-file={}", path(&tokens)),
            "--service-account-issuer=https://defragd.test".to_owned(),
            format!("--service-account-key-file={}", path(&pki.peer().cert)),
            format!("--service-account-signing-key-file={}", path(&pki.peer().key)),
        ];
        args.extend_from_slice(flags);
        if let Some(pki) = etcd.pki() {
            args.push(format!("--etcd-cafile={}", path(pki.ca())));
            args.push(format!("--etcd-certfile={}", path(&pki.client().cert)));
            args.push(format!("--etcd-keyfile={}", path(&pki.client().key)));
        }
        let url = format!("https://{}", port.address());
        port.release();
        let process = Process::spawn("kube-apiserver", &program, &args, &[], log)?;
        http::use_tls();
        let http = Client::builder()
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .tls_certs_only([Certificate::from_pem(&fs::read(pki.ca())?)?])
            .build()?;
        let server = Self { url, port: port.number(), http, pki, process, _dir: dir };
        server.process.ready(READY, || server.get_ok("/readyz")).await?;
        Ok(server)
    }

    /// Where it serves.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its certificates; clients with one of its CA are users of that common name, without rights.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Its log file.
    pub fn log_path(&self) -> &Path {
        self.process.log_path()
    }

    /// One request with a bearer token.
    pub async fn call(&self, method: Method, path: &str, token: &str, kind: &str, body: String) -> Result<Response> {
        let request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(token);
        http::send(request.header("content-type", kind).body(body)).await
    }

    /// Writes the administrator's kubeconfig.
    pub fn admin_kubeconfig(&self, file: PathBuf) -> Result<PathBuf> {
        self.kubeconfig(file, ADMIN)
    }

    async fn admin(&self, method: Method, path: &str, kind: &str, body: String) -> Result<Value> {
        let answer = self.call(method, path, ADMIN, kind, body).await?;
        ensure!((200..300).contains(&answer.status), "{path} answered {}: {}", answer.status, answer.body);
        Ok(serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    async fn get_ok(&self, path: &str) -> Result<()> {
        self.admin(Method::GET, path, "application/json", String::new()).await.map(drop)
    }

    /// Reads an object or a collection, as an administrator.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.admin(Method::GET, path, "application/json", String::new()).await
    }

    /// Creates an object in a collection, as an administrator.
    pub async fn create(&self, collection: &str, object: &Value) -> Result<Value> {
        self.admin(Method::POST, collection, "application/json", object.to_string()).await
    }

    /// Replaces an object, as an administrator, whatever version of it is there.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value> {
        self.admin(Method::PUT, path, "application/json", object.to_string()).await
    }

    /// Deletes an object at once, as an administrator.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.admin(Method::DELETE, &format!("{path}?gracePeriodSeconds=0"), "application/json", String::new())
            .await
            .map(drop)
    }

    /// Creates one YAML document in a collection, as an administrator.
    pub async fn create_yaml(&self, collection: &str, document: &str) -> Result<Value> {
        self.admin(Method::POST, collection, "application/yaml", document.to_owned()).await
    }

    /// Creates a pod and gives it a status. It is on a node that does not exist, so nothing changes it.
    pub async fn pod(&self, metadata: &Value, status: &Value) -> Result<()> {
        let spec = json!({"nodeName": "nowhere", "containers": [{"name": "c", "image": "i"}]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        self.create("/api/v1/namespaces/default/pods", &pod).await?;
        self.pod_status(metadata["name"].as_str().context("a pod has a name")?, status).await
    }

    /// Sets the status of a pod, as its kubelet would.
    pub async fn pod_status(&self, name: &str, status: &Value) -> Result<()> {
        let path = format!("/api/v1/namespaces/default/pods/{name}/status");
        let patch = json!({"status": status}).to_string();
        self.admin(Method::PATCH, &path, "application/merge-patch+json", patch).await.map(drop)
    }

    /// Asks for a pod's deletion, with that grace period. Without a kubelet it stays.
    pub async fn delete_pod(&self, name: &str, grace_seconds: u32) -> Result<()> {
        let path = format!("/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds={grace_seconds}");
        self.admin(Method::DELETE, &path, "application/json", String::new()).await.map(drop)
    }

    /// A token of a service account, as `kubectl create token` gives it.
    pub async fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let answer = self.create(&path, &request).await?;
        Ok(answer["status"]["token"].as_str().context("a TokenRequest has a token")?.to_owned())
    }

    /// Writes a kubeconfig with a bearer token.
    pub fn kubeconfig(&self, file: PathBuf, token: &str) -> Result<PathBuf> {
        let ca = self.pki.ca();
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": ca}}],
            "users": [{"name": "test", "user": {"token": token}}]});
        fs::write(&file, config.to_string())?;
        Ok(file)
    }
}
