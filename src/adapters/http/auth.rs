//! Who may ask for a run.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use axum::http::{HeaderMap, header::AUTHORIZATION};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// Shorter tokens can be guessed.
const MIN_TOKEN_BYTES: usize = 16;

/// Why the program must not start like this.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the bearer token file {}: {source}", path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token is too short.
    #[error(
        "the bearer token in {} has {found} bytes and needs at least {MIN_TOKEN_BYTES}; make one with: openssl rand -hex 32", path.display()
    )]
    TooShort {
        /// Where.
        path: PathBuf,
        /// Bytes.
        found: usize,
    },
    /// Anybody on the network could ask for a run.
    #[error(
        "the webhook would be open to the network on {address}: give --web.bearer-token-file, or listen on loopback only (--web.listen-address 127.0.0.1:{port}), or run without the receiver (--exporter-only)", port = address.port()
    )]
    OpenToTheNetwork {
        /// The address.
        address: SocketAddr,
    },
}

/// What a request that may cause a write to etcd has to show.
#[derive(Clone)]
pub enum Access {
    /// The receiver is switched off.
    Closed,
    /// Nothing: every listener is on loopback.
    Loopback,
    /// This bearer token.
    Bearer(String),
}

impl Access {
    /// Decides from the options, and refuses an open receiver on the network.
    pub fn new(receiver: bool, token_file: Option<&Path>, listen: &[SocketAddr]) -> Result<Self, TokenError> {
        if !receiver {
            return Ok(Self::Closed);
        }
        if let Some(path) = token_file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| TokenError::Unreadable { path: path.to_owned(), source })?;
            let token = text.trim();
            if token.len() < MIN_TOKEN_BYTES {
                return Err(TokenError::TooShort { path: path.to_owned(), found: token.len() });
            }
            return Ok(Self::Bearer(token.to_owned()));
        }
        match listen.iter().find(|address| !address.ip().is_loopback()) {
            Some(address) => Err(TokenError::OpenToTheNetwork { address: *address }),
            None => Ok(Self::Loopback),
        }
    }

    /// Whether the request shows what it has to.
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        let Self::Bearer(expected) = self else { return matches!(self, Self::Loopback) };
        let shown = headers.get(AUTHORIZATION).map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
        let Some((scheme, token)) = shown.split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(token.ct_eq(expected.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(token: Option<&str>, listen: &[&str]) -> Result<Access, TokenError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        if let Some(token) = token {
            std::fs::write(&path, token).expect("written");
        }
        let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().expect("an address")).collect();
        Access::new(true, token.map(|_| path.as_path()), &listen)
    }

    #[test]
    fn an_open_receiver_on_the_network_is_refused() {
        for listen in ["0.0.0.0:9379", "[::]:9379", "10.0.0.1:9379"] {
            assert!(matches!(access(None, &["127.0.0.1:1", listen]), Err(TokenError::OpenToTheNetwork { .. })));
        }
        assert!(matches!(access(None, &["127.0.0.1:1", "[::1]:1"]), Ok(Access::Loopback)));
        assert!(access(Some("0123456789abcdef\n"), &["0.0.0.0:1"]).is_ok());
        assert!(matches!(access(Some("short"), &["127.0.0.1:1"]), Err(TokenError::TooShort { found: 5, .. })));
    }

    #[test]
    fn only_the_token_itself_opens() {
        let access = access(Some("0123456789abcdef\n"), &["0.0.0.0:1"]).expect("valid");
        let allowed = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
            access.allows(&headers)
        };
        assert!(allowed("Bearer 0123456789abcdef"));
        assert!(allowed("bearer 0123456789abcdef"));
        for wrong in
            ["Bearer 0123456789abcdeF", "Bearer 0123456789abcdef0", "Bearer ", "Basic 0123456789abcdef", "", "Bearer"]
        {
            assert!(!allowed(wrong), "{wrong:?}");
        }
        assert!(!access.allows(&HeaderMap::new()));
    }
}
