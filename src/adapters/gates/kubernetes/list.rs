//! Lists pods, page by page, and counts them.
//!
//! Reads are consistent (no `resourceVersion=0`): an answer from the API server's cache could be older than the
//! problem, and a read that goes through to etcd says something about etcd, too. The client library's own `request` is
//! not used: it reads bodies of any length, and logs those that it cannot parse.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;
use kube::{client::Body, core::params::ListParams};

use super::{
    KubernetesPodsGate,
    census::Census,
    connect::Connection,
    error::{self, ListError},
    pod::Page,
};

/// The same as kubectl's.
const PAGE_PODS: u32 = 500;
/// A page of that many pods has some megabytes; ten times as much is not a list of pods.
const MAX_PAGE_BYTES: usize = 64 << 20;
/// The largest clusters have more, but a gate that reads them all every few seconds would cause problems itself.
const MAX_PODS: usize = 20_000;
/// Continue tokens live for minutes. A listing that loses them repeatedly will not finish.
const MAX_LISTINGS: u32 = 3;

/// Counts all selected pods.
pub(super) async fn count(connection: &Connection, settings: &KubernetesPodsGate) -> Result<Census, ListError> {
    for _ in 0..MAX_LISTINGS {
        if let Some(census) = once(connection, settings).await? {
            return Ok(census);
        }
    }
    Err(ListError::Expired { server: connection.server.clone(), times: MAX_LISTINGS })
}

/// All of them, or `None` if a continue token was too old and the listing must restart.
async fn once(connection: &Connection, settings: &KubernetesPodsGate) -> Result<Option<Census>, ListError> {
    let mut census = Census::new(Timestamp::now());
    if settings.namespaces.is_empty() {
        let all = list(connection, settings, "/api/v1/pods", "in all namespaces", &mut census);
        return Ok(all.await?.then_some(census));
    }
    for namespace in &settings.namespaces {
        if namespace.is_empty() || !namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            let detail = format!("{namespace:?} is not a valid namespace name");
            return Err(ListError::Config { kubeconfig: settings.kubeconfig.clone(), detail });
        }
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let scope = format!("in the namespace {namespace}");
        if !list(connection, settings, &path, &scope, &mut census).await? {
            return Ok(None);
        }
    }
    Ok(Some(census))
}

/// Whether the last page was reached.
async fn list(
    connection: &Connection,
    settings: &KubernetesPodsGate,
    path: &str,
    scope: &str,
    census: &mut Census,
) -> Result<bool, ListError> {
    let mut params = ListParams {
        label_selector: settings.label_selector.clone(),
        field_selector: settings.field_selector.clone(),
        limit: Some(PAGE_PODS),
        ..ListParams::default()
    };
    loop {
        let (code, body) = get(connection, path, &params).await?;
        if code == 410 && params.continue_token.is_some() {
            return Ok(false);
        }
        if code != 200 {
            return Err(error::answer(code, &body, connection, scope));
        }
        let page = read(&body, &connection.server)?;
        for pod in page.items.iter().flatten() {
            if census.pods >= MAX_PODS {
                return Err(ListError::TooMany { limit: MAX_PODS });
            }
            census.count(pod);
        }
        match page.metadata.token.filter(|token| !token.is_empty()) {
            Some(token) if params.continue_token.as_ref() == Some(&token) => {
                let detail = "its pages do not end".to_owned();
                return Err(ListError::NotUnderstood { server: connection.server.clone(), detail });
            }
            Some(token) => params.continue_token = Some(token),
            None => return Ok(true),
        }
    }
}

async fn get(connection: &Connection, path: &str, params: &ListParams) -> Result<(u16, Vec<u8>), ListError> {
    let server = connection.server.as_str();
    let request = kube::core::Request::new(path)
        .list(params)
        .map_err(|inner| ListError::NotUnderstood { server: server.to_owned(), detail: error::chain(&inner) })?;
    let sent = connection.client.send(request.map(Body::from)).await;
    let response = sent.map_err(|inner| error::transport(&inner, server))?;
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_PAGE_BYTES).collect().await.map_err(|inner| {
        let (server, detail) = (server.to_owned(), error::chain(inner.as_ref()));
        if inner.is::<LengthLimitError>() {
            ListError::NotUnderstood { server, detail: format!("a page is longer than {MAX_PAGE_BYTES} bytes") }
        } else {
            ListError::Unreachable { server, detail }
        }
    })?;
    Ok((code, body.to_bytes().to_vec()))
}

fn read(body: &[u8], server: &str) -> Result<Page, ListError> {
    let no = |detail: String| ListError::NotUnderstood { server: server.to_owned(), detail };
    // serde's text may quote a value, so only the position is passed on.
    let page: Page =
        serde_json::from_slice(body).map_err(|inner| no(format!("line {} column {}", inner.line(), inner.column())))?;
    if page.kind == "PodList" { Ok(page) } else { Err(no("it has another kind".to_owned())) }
}
