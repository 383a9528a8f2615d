//! Plain HTTP calls to the programs under test, over loopback only.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Certificate, Client, Identity};

use crate::Pki;

/// Long enough for a busy two-core machine, short enough to notice a hanging server.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Makes aws-lc the process's TLS provider; a test that has chosen one already keeps it.
pub(crate) fn use_tls() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A client for `http://`, or with a PKI for mutual TLS.
pub(crate) fn client(pki: Option<&Pki>) -> Result<Client> {
    patient_client(pki, TIMEOUT)
}

/// The same, with so much time for each request.
pub(crate) fn patient_client(pki: Option<&Pki>, limit: Duration) -> Result<Client> {
    use_tls();
    let mut builder = Client::builder().timeout(limit).no_proxy();
    if let Some(pki) = pki {
        builder = builder
            .tls_certs_only([Certificate::from_pem(&fs::read(pki.ca())?)?])
            .identity(Identity::from_pem(pki.client().pem()?.as_bytes())?);
    } else {
        // No roots: nothing here speaks public TLS, and a bare machine has none to load.
        builder = builder.tls_certs_only([]);
    }
    builder.build().context("failed to make an HTTP client")
}

/// Sends a request and reads the whole answer.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> Result<Response> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    Ok(Response { status, body: answer.text().await? })
}

/// Gets a page that must be answered with 200.
pub(crate) async fn get(client: &Client, url: &str) -> Result<String> {
    let answer = send(client.get(url)).await.with_context(|| format!("failed to get {url}"))?;
    ensure!(answer.status == 200, "{url} answered {}: {}", answer.status, answer.body);
    Ok(answer.body)
}
