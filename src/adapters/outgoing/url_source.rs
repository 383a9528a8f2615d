//! Where a server is: a URL of the configuration, or one in a file that is read for each call.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};
use url::Url;

use super::{CallError, ClientTls, file};
use crate::ports::access::SecretUrl;

const WHAT: &str = "the URL in";

#[derive(Clone, Debug)]
pub(in crate::adapters) enum UrlSource {
    Fixed(SecretUrl),
    File {
        path: PathBuf,
        /// TLS is configured, so that the URL must begin with `https://`.
        needs_tls: bool,
    },
}

impl UrlSource {
    /// Of checked settings: one of both is there.
    pub(in crate::adapters) fn new(url: Option<&SecretUrl>, file: Option<&PathBuf>, tls: &ClientTls) -> Self {
        match url {
            Some(url) => Self::Fixed(url.clone()),
            None => Self::File { path: file.cloned().unwrap_or_default(), needs_tls: *tls != ClientTls::default() },
        }
    }

    /// Blocks while it reads the file.
    pub(in crate::adapters) fn read(&self) -> Result<Url, CallError> {
        match self {
            Self::Fixed(url) => Ok(url.expose().clone()),
            Self::File { path, needs_tls } => read(path, *needs_tls),
        }
    }

    /// The same without blocking. On a dead network file system, reading never ends: hence the limit.
    pub(in crate::adapters) async fn current(&self, limit: Duration) -> Result<Url, CallError> {
        let (path, needs_tls) = match self {
            Self::Fixed(url) => return Ok(url.expose().clone()),
            Self::File { path, needs_tls } => (path.clone(), *needs_tls),
        };
        let unreadable = |detail: &str| file::error(WHAT, &path, detail);
        let of_thread = path.clone();
        match timeout(limit, spawn_blocking(move || read(&of_thread, needs_tls))).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => Err(unreadable(&error.to_string())),
            Err(_) => Err(unreadable("it could not be read in time")),
        }
    }
}

fn read(path: &Path, needs_tls: bool) -> Result<Url, CallError> {
    let bad = |detail: &str| file::error(WHAT, path, detail);
    // The parser's error does not quote it.
    let url: SecretUrl = file::secret(WHAT, path)?.parse().map_err(|error: url::ParseError| bad(&error.to_string()))?;
    match url.problem() {
        Some(problem) => Err(bad(&format!("it {problem}"))),
        None if needs_tls && url.expose().scheme() == "http" => {
            Err(bad("it begins with http://, but tls is set: write https://, or remove tls"))
        }
        None => Ok(url.expose().clone()),
    }
}
