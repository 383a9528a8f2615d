//! Why a request to the API server failed, in words for the operator.
//!
//! None of these texts may contain a secret. The client library's own do: its error of a credential plugin contains the
//! plugin's whole output, that of a kubeconfig may quote it. So neither is passed on unchecked.

use std::{error::Error as StdError, path::PathBuf, time::Duration};

use kube::{
    client::AuthError,
    config::{KubeconfigError, LoadDataError},
    core::Status,
};
use thiserror::Error;

use super::connect::Connection;
use crate::adapters::causes;

/// The API server's own messages are a sentence; the answer of a proxy may be a page.
const MAX_WORDS_CHARS: usize = 240;

/// Why there is no answer that could be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(in crate::adapters) enum ApiError {
    /// It is unclear how to reach the API server.
    #[error("cannot use {}: {detail}", source_of(kubeconfig.as_ref()))]
    Config { kubeconfig: Option<PathBuf>, detail: String },
    /// The credentials are wrong.
    #[error("cannot use the credentials for {server}: {detail}")]
    Credentials { server: String, detail: String },
    #[error("cannot reach the API server {server}: {detail}")]
    Unreachable { server: String, detail: String },
    /// No complete answer in time.
    #[error("the API server {server} did not {task} within {} s", after.as_secs_f64())]
    TimedOut { server: String, task: String, after: Duration },
    /// It does not know the client.
    #[error("the API server {server} does not accept the credentials (401)")]
    Unauthorized { server: String },
    /// The client lacks the permission.
    #[error("the API server denies it (403): the permission to {task} is missing: {said}")]
    Denied { task: String, said: String },
    /// Another error.
    #[error("the API server {server} answered {code}: {said}")]
    Refused { server: String, code: u16, said: String },
    #[error("the API server {server} did not answer with {wanted}: {detail}")]
    NotUnderstood { server: String, wanted: String, detail: String },
    /// The listing was too slow for the API server, repeatedly.
    #[error("the API server {server} aborted the listing {times} times before its last page (410)")]
    Expired { server: String, times: u32 },
    /// There are more than a gate should read.
    #[error("there are more than {limit} {what}; choose namespaces or selectors")]
    TooMany { what: &'static str, limit: usize },
}

fn source_of(kubeconfig: Option<&PathBuf>) -> String {
    match kubeconfig {
        Some(path) => format!("the kubeconfig {}", path.display()),
        None => "the service account of a pod (no kubeconfig is set)".to_owned(),
    }
}

pub(super) fn kubeconfig(error: &KubeconfigError) -> String {
    let data = |what: &str, error: &LoadDataError| match error {
        LoadDataError::ReadFile(error, path) => format!("cannot read the {what} {}: {error}", path.display()),
        LoadDataError::DecodeBase64(_) => format!("the {what} in it is not base64"),
        LoadDataError::NoBase64DataOrFile => format!("there is no {what}"),
    };
    match error {
        KubeconfigError::ReadConfig(error, _) => format!("cannot read it: {error}"),
        // The parser's own text quotes the line, which may contain a token.
        KubeconfigError::Parse(_) => "it is not a valid kubeconfig".to_owned(),
        KubeconfigError::CurrentContextNotSet => "it has no current-context, and no context is set".to_owned(),
        KubeconfigError::LoadContext(name) => format!("it has no context {name:?}"),
        KubeconfigError::LoadClusterOfContext(name) => format!("it has no cluster {name:?}"),
        KubeconfigError::MissingClusterUrl => "its cluster has no server".to_owned(),
        KubeconfigError::ParseClusterUrl(_) => "the server of its cluster is not a URL".to_owned(),
        KubeconfigError::ParseProxyUrl(_) => "the proxy in the environment is not a URL (no proxy is used)".to_owned(),
        KubeconfigError::LoadCertificateAuthority(error) => data("certificate authority", error),
        KubeconfigError::LoadClientCertificate(error) => data("client certificate", error),
        KubeconfigError::LoadClientKey(error) => data("client key", error),
        KubeconfigError::ParseCertificates(_) => "its certificate authority is not PEM".to_owned(),
        _ => "it cannot be parsed".to_owned(),
    }
}

/// What is wrong with the credentials, if that is what an error is about.
fn credentials(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<AuthError>() {
            return Some(match error {
                AuthError::AuthExecStart(error) => format!("the credential plugin cannot be started: {error}"),
                AuthError::AuthExecRun { out, .. } => format!("the credential plugin failed ({})", out.status),
                AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed => {
                    "the credential plugin gave no credentials".to_owned()
                }
                AuthError::ReadTokenFile(error, path) => {
                    format!("cannot read the token file {}: {error}", path.display())
                }
                AuthError::InvalidBearerToken(_) => "the token cannot be put into a header".to_owned(),
                _ => "this kind of credentials or plugin is not supported".to_owned(),
            });
        }
        // Its `source` is its error's source: the error itself would be passed over.
        if let Some(kube::Error::Auth(error)) = error.downcast_ref::<kube::Error>() {
            return credentials(error);
        }
        next = error.source();
    }
    None
}

/// Why a client could not be made.
pub(super) fn client(error: &kube::Error, server: &str) -> ApiError {
    let detail = credentials(error).unwrap_or_else(|| match error {
        kube::Error::RustlsTls(error) => chain(error),
        kube::Error::InferKubeconfig(error) => kubeconfig(error),
        _ => "they cannot be parsed".to_owned(),
    });
    ApiError::Credentials { server: server.to_owned(), detail }
}

pub(super) fn transport(error: &kube::Error, server: &str) -> ApiError {
    let server = server.to_owned();
    if let kube::Error::Service(inner) = error
        && let Some(detail) = credentials(inner.as_ref())
    {
        return ApiError::Credentials { server, detail };
    }
    match error {
        kube::Error::Service(inner) => ApiError::Unreachable { server, detail: chain(inner.as_ref()) },
        kube::Error::HyperError(inner) => ApiError::Unreachable { server, detail: chain(inner) },
        other => client(other, &server),
    }
}

/// What an error status means. `task` is what was requested, such as `list pods in all namespaces`.
pub(in crate::adapters) fn answer(code: u16, body: &[u8], connection: &Connection, task: &str) -> ApiError {
    let Connection { server, secrets, .. } = connection;
    // Only a Kubernetes Status is shown: any other answer is not the API server's. A server in front of it may repeat
    // what it was sent.
    let said = serde_json::from_slice::<Status>(body).ok().map(|status| status.message).filter(|said| !said.is_empty());
    let said = match (said, secrets) {
        (None, _) => "no details".to_owned(),
        (Some(_), None) => "details hidden, because they may contain the credential plugin's token".to_owned(),
        (Some(said), Some(secrets)) => secrets.mask(&said).chars().take(MAX_WORDS_CHARS).collect(),
    };
    match code {
        401 => ApiError::Unauthorized { server: server.clone() },
        403 => ApiError::Denied { task: task.to_owned(), said },
        _ => ApiError::Refused { server: server.clone(), code, said },
    }
}

/// The text of an error with its causes, cut.
pub(super) fn chain(error: &dyn StdError) -> String {
    causes::chain(error).chars().take(MAX_WORDS_CHARS).collect()
}
