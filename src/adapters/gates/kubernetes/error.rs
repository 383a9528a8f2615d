//! Why the pods could not be listed, in words for the operator.
//!
//! Not one of these texts may hold a secret. The client library's own do: its error of a credential plugin has
//! the plugin's whole output, that of a kubeconfig may quote it. So nothing of either is passed on unseen.

use std::{error::Error as StdError, path::PathBuf, time::Duration};

use kube::{
    client::AuthError,
    config::{KubeconfigError, LoadDataError},
    core::Status,
};
use thiserror::Error;

use super::connect::Connection;

/// The API server's own words are a sentence; what a proxy answers may be a page.
const MAX_WORDS_CHARS: usize = 240;

/// Why there is no list of pods.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(in crate::adapters) enum ListError {
    /// How to reach the API server is not known.
    #[error("cannot use {}: {detail}", source_of(kubeconfig.as_ref()))]
    Config { kubeconfig: Option<PathBuf>, detail: String },
    /// There is something wrong with what is to prove who we are.
    #[error("cannot use the credentials for {server}: {detail}")]
    Credentials { server: String, detail: String },
    #[error("cannot reach the API server {server}: {detail}")]
    Unreachable { server: String, detail: String },
    /// No whole answer in time.
    #[error("the API server {server} did not list the pods within {} s", after.as_secs_f64())]
    TimedOut { server: String, after: Duration },
    /// It does not know us.
    #[error("the API server {server} does not accept the credentials (401)")]
    Unauthorized { server: String },
    /// We lack the permission.
    #[error("the API server denies it (403): the permission to list pods {scope} is missing; it says: {said}")]
    Denied { scope: String, said: String },
    /// It says no for another reason.
    #[error("the API server {server} answered {code}: {said}")]
    Refused { server: String, code: u16, said: String },
    #[error("the API server {server} answered what is no list of pods: {detail}")]
    NotUnderstood { server: String, detail: String },
    /// The listing was too slow for the API server, again and again.
    #[error("the API server {server} gave up the listing {times} times before its last page (410)")]
    Expired { server: String, times: u32 },
    /// There is more than a gate should look at.
    #[error("there are more than {limit} pods; choose namespaces or selectors")]
    TooMany { limit: usize },
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
        // The parser's own text quotes the line, and that may be a token's.
        KubeconfigError::Parse(_) => "it is not the YAML of a kubeconfig".to_owned(),
        KubeconfigError::CurrentContextNotSet => "it has no current-context, and no context is set".to_owned(),
        KubeconfigError::LoadContext(name) => format!("it has no context {name:?}"),
        KubeconfigError::LoadClusterOfContext(name) => format!("it has no cluster {name:?}"),
        KubeconfigError::MissingClusterUrl => "its cluster has no server".to_owned(),
        KubeconfigError::ParseClusterUrl(_) => "the server of its cluster is no URL".to_owned(),
        KubeconfigError::ParseProxyUrl(_) => "the proxy in the environment is no URL (none is used)".to_owned(),
        KubeconfigError::LoadCertificateAuthority(error) => data("certificate authority", error),
        KubeconfigError::LoadClientCertificate(error) => data("client certificate", error),
        KubeconfigError::LoadClientKey(error) => data("client key", error),
        KubeconfigError::ParseCertificates(_) => "its certificate authority is not PEM".to_owned(),
        _ => "it is not understood".to_owned(),
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
                _ => "they, or their plugin, are not of a kind that is supported".to_owned(),
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
pub(super) fn client(error: &kube::Error, server: &str) -> ListError {
    let detail = credentials(error).unwrap_or_else(|| match error {
        kube::Error::RustlsTls(error) => chain(error),
        kube::Error::InferKubeconfig(error) => kubeconfig(error),
        _ => "they are not understood".to_owned(),
    });
    ListError::Credentials { server: server.to_owned(), detail }
}

pub(super) fn transport(error: &kube::Error, server: &str) -> ListError {
    let server = server.to_owned();
    if let kube::Error::Service(inner) = error
        && let Some(detail) = credentials(inner.as_ref())
    {
        return ListError::Credentials { server, detail };
    }
    match error {
        kube::Error::Service(inner) => ListError::Unreachable { server, detail: chain(inner.as_ref()) },
        kube::Error::HyperError(inner) => ListError::Unreachable { server, detail: chain(inner) },
        other => client(other, &server),
    }
}

pub(super) fn answer(code: u16, body: &[u8], connection: &Connection, scope: &str) -> ListError {
    let Connection { server, secrets, .. } = connection;
    // Only what is a Status of Kubernetes' is shown: anything else is not the API server's. What stands before it may
    // say back what it was told.
    let said = serde_json::from_slice::<Status>(body).ok().map(|status| status.message).filter(|said| !said.is_empty());
    let said = match (said, secrets) {
        (None, _) => "nothing more".to_owned(),
        (Some(_), None) => "what is not shown, for the credential plugin's token may be in it".to_owned(),
        (Some(said), Some(secrets)) => secrets.mask(&said).chars().take(MAX_WORDS_CHARS).collect(),
    };
    match code {
        401 => ListError::Unauthorized { server: server.clone() },
        403 => ListError::Denied { scope: scope.to_owned(), said },
        _ => ListError::Refused { server: server.clone(), code, said },
    }
}

/// The text of an error with its causes, each once.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ").chars().take(MAX_WORDS_CHARS).collect()
}
