//! From the settings to a client. Done again for each check, and after each failure: credentials change.
//!
//! Without a kubeconfig it uses the service account of the pod in which defragd runs. `$KUBECONFIG` and
//! `~/.kube/config` are not used: they may well be for another cluster, and a gate that watches the wrong cluster is
//! useless. Credential plugins (`exec`) of a kubeconfig are run, without a terminal; defragd does not wait for one that
//! hangs longer than the time limit, but does not kill it either. No proxy is used. `insecure-skip-tls-verify` does
//! what it says.

use std::{path::Path, thread, time::Duration};

use axum::http::{
    HeaderValue, Method, Request,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioExecutor};
use jiff::Timestamp;
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
    config::{AuthInfo, ExecInteractiveMode, KubeConfigOptions, Kubeconfig},
};
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::{runtime::Handle, sync::oneshot};
use tower::{BoxError, ServiceBuilder};

use super::{error, error::ApiError};
use crate::adapters::{outgoing::Secrets, tls::Authorities};

/// A client, and the server that it is for, for messages.
pub(in crate::adapters) struct Connection {
    pub(in crate::adapters) client: Client,
    /// `scheme://host:port`, without anything that could be a secret.
    pub(in crate::adapters) server: String,
    /// The secrets that are sent; empty if a credential plugin provides them, which the library keeps to itself.
    pub(super) secrets: Option<Secrets>,
}

impl Connection {
    /// Reads files, and may run a credential plugin: the caller must bound it by a timeout.
    pub(in crate::adapters) async fn open(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        connect_timeout: Duration,
    ) -> Result<Self, ApiError> {
        let mut config = match kubeconfig {
            Some(path) => from_file(path, context.map(str::to_owned)).await?,
            None => Config::incluster()
                .map_err(|inner| ApiError::Config { kubeconfig: None, detail: error::chain(&inner) })?,
        };
        // From the environment: a proxy in the kubeconfig was refused above.
        config.proxy_url = None;
        // In the API server's audit log.
        let product = HeaderValue::from_static(concat!("defragd/", env!("CARGO_PKG_VERSION")));
        config.headers.push((USER_AGENT, product));
        // The listing as a whole has its limit, and the gate its own repetitions.
        config.default_retry = false;
        config.connect_timeout = Some(connect_timeout);
        let url = &config.cluster_url;
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let server = format!("{}://{}{port}", url.scheme_str().unwrap_or("http"), url.host().unwrap_or_default());
        let for_messages = server.clone();
        let made = aside(move || {
            read_token(&mut config, &for_messages)?;
            let secrets = secrets(&config.auth_info);
            Ok((client(&config, &for_messages)?, secrets))
        });
        match made.await {
            Some(Ok((client, secrets))) => Ok(Self { client, server, secrets }),
            Some(Err(error)) => Err(error),
            None => Err(ApiError::Credentials { server, detail: "they cannot be read".to_owned() }),
        }
    }

    /// One exchange: the status and the body of the answer. `wanted` is the expected answer, such as `a list of pods`. The
    /// client library's own `request` is not used: it reads bodies of any length, and logs those that it cannot parse.
    pub(in crate::adapters) async fn send(
        &self,
        request: Request<Vec<u8>>,
        max_bytes: usize,
        wanted: &str,
    ) -> Result<(u16, Vec<u8>), ApiError> {
        let response = self.client.send(request.map(Body::from)).await;
        let response = response.map_err(|inner| error::transport(&inner, &self.server))?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), max_bytes).collect().await.map_err(|inner| {
            let server = self.server.clone();
            if inner.is::<LengthLimitError>() {
                let detail = format!("it is longer than {max_bytes} bytes");
                ApiError::NotUnderstood { server, wanted: wanted.to_owned(), detail }
            } else {
                ApiError::Unreachable { server, detail: error::chain(inner.as_ref()) }
            }
        })?;
        Ok((code, body.to_bytes().to_vec()))
    }

    /// The same for one object, as JSON.
    pub(in crate::adapters) async fn send_json(
        &self,
        method: Method,
        path: &str,
        object: Option<&Value>,
        max_bytes: usize,
        wanted: &str,
    ) -> Result<(u16, Vec<u8>), ApiError> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json");
        let request = request.body(object.map(|object| object.to_string().into_bytes()).unwrap_or_default());
        let request = request.map_err(|inner| ApiError::NotUnderstood {
            server: self.server.clone(),
            wanted: wanted.to_owned(),
            detail: inner.to_string(),
        })?;
        self.send(request, max_bytes, wanted).await
    }
}

/// As Kubernetes writes a `MicroTime`.
pub(in crate::adapters) fn micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The library's own client, except that it also accepts a server's certificate that is its own authority and is in the
/// CA file, as kubectl does.
fn client(config: &Config, server: &str) -> Result<Client, ApiError> {
    let unusable = |detail: String| ApiError::Credentials { server: server.to_owned(), detail };
    let refused = |inner: kube::Error| error::client(&inner, server);
    let mut tls = config.rustls_client_config().map_err(refused)?;
    if let Some(certificates) = config.root_cert.as_ref().filter(|_| !config.accept_invalid_certs) {
        let authorities = certificates.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let verifier = Authorities::strict(authorities).and_then(Authorities::verifier);
        tls.dangerous().set_certificate_verifier(verifier.map_err(unusable)?);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(config.connect_timeout);
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = ServerName::try_from(name.clone()).map_err(|error| unusable(format!("tls-server-name: {error}")))?;
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(refused)?)
        .layer(config.extra_headers_layer().map_err(refused)?)
        .map_err(BoxError::from)
        .service(client.build(https.enable_http1().wrap_connector(connector)));
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// Does what may block, such as reading files and waiting for a credential plugin, on a separate thread; `None` if that
/// thread cannot be started or panics. It is not one of the runtime's threads: the runtime would wait for it at the
/// end, so a plugin that hangs would keep defragd from exiting.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let runtime = Handle::current();
    let thread = thread::Builder::new().name("kubeconfig".to_owned()).spawn(move || {
        // A client starts a task of its own.
        let _inside = runtime.enter();
        // If the time is up, the receiver is gone.
        let _ = done.send(work());
    });
    thread.ok()?;
    result.await.ok()
}

/// The library uses the content of a token file as it is, and no header can contain a line end.
fn read_token(config: &mut Config, server: &str) -> Result<(), ApiError> {
    if let Some(file) = config.auth_info.token_file.take() {
        let token = std::fs::read_to_string(&file).map_err(|inner| ApiError::Credentials {
            server: server.to_owned(),
            detail: format!("cannot read the token file {file}: {inner}"),
        })?;
        config.auth_info.token = Some(token.trim().to_owned().into());
    }
    Ok(())
}

/// The token and the password, which the library exposes only in a kubeconfig's JSON.
fn secrets(auth: &AuthInfo) -> Option<Secrets> {
    let json = serde_json::to_value(auth).ok()?;
    let plugin = auth.exec.is_some() || auth.auth_provider.is_some();
    (!plugin).then(|| Secrets::of(["token", "password"].iter().filter_map(|key| json.get(key)?.as_str())))
}

async fn from_file(path: &Path, context: Option<String>) -> Result<Config, ApiError> {
    let bad = |detail: String| ApiError::Config { kubeconfig: Some(path.to_owned()), detail };
    let file = path.to_owned();
    let mut kubeconfig = aside(move || Kubeconfig::read_from(file))
        .await
        .ok_or_else(|| bad("it cannot be read".to_owned()))?
        .map_err(|inner| bad(error::kubeconfig(&inner)))?;
    for cluster in kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref()) {
        if cluster.proxy_url.as_ref().is_some_and(|proxy| !proxy.is_empty()) {
            return Err(bad("it has a proxy-url, which is not supported".to_owned()));
        }
    }
    for exec in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()?.exec.as_mut()) {
        // No one can answer a prompt, and what a plugin writes to standard error must not get into our log.
        exec.interactive_mode = Some(ExecInteractiveMode::Never);
    }
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|inner| bad(error::kubeconfig(&inner)))
}
