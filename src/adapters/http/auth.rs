//! Who may do what: notify (Alertmanager's webhook) and order (people's approve, pause, resume and run).
//!
//! A token that is configured for a deed is what the deed needs, whatever else was shown. Where there is none, a
//! password or a verified certificate (`--web.config.file`) does, or that every listener is on loopback.

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
    #[error("cannot read the bearer token file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The token is too short.
    #[error(
        "the bearer token in {} has {found} bytes and needs at least {MIN_TOKEN_BYTES}; make one with: openssl rand -hex 32", path.display()
    )]
    TooShort {
        path: PathBuf,
        /// Bytes.
        found: usize,
    },
    /// Anybody on the network could ask for a run.
    #[error(
        "the webhook would be open to the network on {address}: give --web.bearer-token-file, or --web.config.file with basic_auth_users or client_auth_type RequireAndVerifyClientCert, or listen on loopback only (--web.listen-address 127.0.0.1:{port}), or run without the receiver (--exporter-only)", port = address.port()
    )]
    OpenToTheNetwork { address: SocketAddr },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProtectedAction {
    /// Alertmanager tells of alerts.
    Notify,
    /// A person orders something.
    Order,
}

/// What the connection and the guard found out about who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// A certificate that the client CA signed.
    pub(super) certificate: bool,
    pub(super) password: bool,
}

/// What orders need of whoever gives them with what the connection shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orders {
    Closed,
    /// The token for orders.
    Token,
    /// Nothing more: a password or a certificate was shown.
    Known,
    /// Nothing: everything listens on loopback.
    Open,
    /// A password or a certificate, which is not there.
    Unknown,
}

/// What a request that may cause a write to etcd has to show.
#[derive(Clone, Default)]
pub struct AccessPolicy {
    receiver: bool,
    /// Whether whoever shows nothing may come in, too, where there is no token.
    open: bool,
    webhook: Option<String>,
    admin: Option<String>,
}

impl AccessPolicy {
    /// The receiver is switched off.
    pub fn closed() -> Self {
        Self::default()
    }

    /// These tokens; whoever shows nothing may do that for which there is none.
    pub fn tokens(webhook: Option<String>, admin: Option<String>) -> Self {
        Self { receiver: true, open: true, webhook, admin }
    }

    /// Reads the tokens, and refuses an open receiver on the network. `authenticated`: nobody reaches a route
    /// without a password or a certificate.
    pub fn new(
        webhook_file: Option<&Path>,
        admin_file: Option<&Path>,
        listen: &[SocketAddr],
        authenticated: bool,
    ) -> Result<Self, TokenError> {
        let (webhook, admin) = (webhook_file.map(token).transpose()?, admin_file.map(token).transpose()?);
        let network = listen.iter().find(|address| !address.ip().is_loopback());
        match network {
            Some(address) if webhook.is_none() && !authenticated => {
                Err(TokenError::OpenToTheNetwork { address: *address })
            }
            _ => Ok(Self { open: network.is_none(), ..Self::tokens(webhook, admin) }),
        }
    }

    /// Whether there is a receiver.
    pub fn is_closed(&self) -> bool {
        !self.receiver
    }

    /// Whether whoever may notify may order, too.
    pub fn orders_are_open_to_webhooks(&self) -> bool {
        self.receiver && self.admin.is_none()
    }

    fn token_for(&self, action: ProtectedAction) -> Option<&str> {
        match action {
            ProtectedAction::Notify => self.webhook.as_deref(),
            ProtectedAction::Order => self.admin.as_deref().or(self.webhook.as_deref()),
        }
    }

    /// What orders need, besides what the connection shows.
    pub(super) fn orders(&self, proof: Proof) -> Orders {
        match self.token_for(ProtectedAction::Order) {
            _ if !self.receiver => Orders::Closed,
            Some(_) => Orders::Token,
            None if proof.password || proof.certificate => Orders::Known,
            None if self.open => Orders::Open,
            None => Orders::Unknown,
        }
    }

    /// Whether this is the token that orders need.
    pub(super) fn is_order_token(&self, shown: &str) -> bool {
        self.token_for(ProtectedAction::Order).is_some_and(|token| bool::from(token.as_bytes().ct_eq(shown.as_bytes())))
    }

    /// Whether this is allowed only because everything listens on loopback.
    pub(super) fn is_free(&self, action: ProtectedAction, proof: Proof) -> bool {
        self.token_for(action).is_none() && !proof.password && !proof.certificate
    }

    /// Whether the request shows what this needs.
    pub(super) fn allows(&self, action: ProtectedAction, headers: &HeaderMap, proof: Proof) -> bool {
        match self.token_for(action) {
            _ if !self.receiver => false,
            Some(token) => shows(headers, token),
            None => self.open || proof.password || proof.certificate,
        }
    }

    /// Whether any of the tokens is shown. There is one header for a password or a token, so a token must pass
    /// where passwords are asked for.
    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        // Both are compared, so that the time does not tell which.
        let [webhook, admin] =
            [&self.webhook, &self.admin].map(|token| token.as_ref().is_some_and(|token| shows(headers, token)));
        webhook | admin
    }
}

fn token(path: &Path) -> Result<String, TokenError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| TokenError::Unreadable { path: path.to_owned(), source })?;
    let token = text.trim();
    if token.len() < MIN_TOKEN_BYTES {
        return Err(TokenError::TooShort { path: path.to_owned(), found: token.len() });
    }
    Ok(token.to_owned())
}

fn shows(headers: &HeaderMap, expected: &str) -> bool {
    let shown = headers.get(AUTHORIZATION).map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
    let Some((scheme, token)) = shown.split_at_checked("Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(token.ct_eq(expected.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";
    const ADMIN: &str = "fedcba9876543210";

    fn access(token: Option<&str>, listen: &[&str], authenticated: bool) -> Result<AccessPolicy, TokenError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        if let Some(token) = token {
            std::fs::write(&path, token).expect("written");
        }
        let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().expect("an address")).collect();
        AccessPolicy::new(token.map(|_| path.as_path()), None, &listen, authenticated)
    }

    fn bearer(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, token.parse().expect("a header"));
        headers
    }

    #[test]
    fn an_open_receiver_on_the_network_is_refused() {
        for listen in ["0.0.0.0:9379", "[::]:9379", "10.0.0.1:9379"] {
            let refused = access(None, &["127.0.0.1:1", listen], false);
            assert!(matches!(refused, Err(TokenError::OpenToTheNetwork { .. })));
        }
        let loopback = access(None, &["127.0.0.1:1", "[::1]:1"], false).expect("fine");
        assert!(loopback.allows(ProtectedAction::Notify, &HeaderMap::new(), Proof::default()));
        assert!(access(Some("0123456789abcdef\n"), &["0.0.0.0:1"], false).is_ok());
        assert!(matches!(access(Some("short"), &["127.0.0.1:1"], false), Err(TokenError::TooShort { found: 5, .. })));
    }

    #[test]
    fn a_password_or_a_certificate_opens_what_no_token_guards() {
        let passwords = access(None, &["0.0.0.0:1"], true).expect("authenticated");
        let both = access(Some(TOKEN), &["0.0.0.0:1"], true).expect("authenticated");
        let nothing = HeaderMap::new();
        for action in [ProtectedAction::Notify, ProtectedAction::Order] {
            assert!(!passwords.allows(action, &nothing, Proof::default()));
            for proof in [Proof { certificate: true, password: false }, Proof { certificate: false, password: true }] {
                assert!(passwords.allows(action, &nothing, proof));
                assert!(!both.allows(action, &nothing, proof), "the scraper's password must not open the webhook");
            }
            assert!(both.allows(action, &bearer("Bearer 0123456789abcdef"), Proof::default()));
        }
    }

    #[test]
    fn only_the_token_itself_opens() {
        let access = AccessPolicy::tokens(Some(TOKEN.to_owned()), None);
        let allowed = |value: &str| access.allows(ProtectedAction::Notify, &bearer(value), Proof::default());
        assert!(allowed("Bearer 0123456789abcdef"));
        assert!(allowed("bearer 0123456789abcdef"));
        for wrong in
            ["Bearer 0123456789abcdeF", "Bearer 0123456789abcdef0", "Bearer ", "Basic 0123456789abcdef", "", "Bearer"]
        {
            assert!(!allowed(wrong), "{wrong:?}");
            assert!(!access.knows(&bearer(wrong)), "{wrong:?}");
        }
        assert!(!access.allows(ProtectedAction::Notify, &HeaderMap::new(), Proof::default()));
    }

    #[test]
    fn with_a_token_for_orders_each_token_opens_its_own_deed() {
        let access = AccessPolicy::tokens(Some(TOKEN.to_owned()), Some(ADMIN.to_owned()));
        let allowed = |action, token| access.allows(action, &bearer(&format!("Bearer {token}")), Proof::default());
        assert!(allowed(ProtectedAction::Notify, TOKEN) && allowed(ProtectedAction::Order, ADMIN));
        assert!(!allowed(ProtectedAction::Order, TOKEN) && !allowed(ProtectedAction::Notify, ADMIN));
        let one = AccessPolicy::tokens(Some(TOKEN.to_owned()), None);
        assert!(one.allows(ProtectedAction::Order, &bearer(&format!("Bearer {TOKEN}")), Proof::default()));
        assert!(one.orders_are_open_to_webhooks() && !access.orders_are_open_to_webhooks());
    }
}
