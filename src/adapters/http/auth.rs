//! Who may do what: notify (Alertmanager's webhook), and act (approve, pause, resume, cancel and run).
//!
//! If a token is configured for a purpose, only that token allows it, whatever other credentials a request carries. If
//! none is configured, a password or a verified certificate (`--web.config.file`) is enough, and so is loopback, if
//! every listener is on it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::http::{HeaderMap, header::AUTHORIZATION};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use thiserror::Error;
use tracing::{error, info};

use super::recheck::Recheck;

/// Shorter tokens can be guessed.
pub(super) const MIN_TOKEN_BYTES: usize = 16;

/// Why the server must not start with this configuration.
#[derive(Debug, Error)]
pub enum TokenError {
    #[error("cannot read the bearer token file {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error(
        "the bearer token in {} has {found} bytes and needs at least {MIN_TOKEN_BYTES}; generate one with: openssl rand -hex 32", path.display()
    )]
    TooShort {
        path: PathBuf,
        /// Bytes.
        found: usize,
    },
    /// Any client on the network could request a run.
    #[error(
        "the webhook would be open to the network on {address}: pass --web.bearer-token-file, or --web.config.file with basic_auth_users or a client_ca_file and client_auth_type RequireAndVerifyClientCert, or listen on loopback only (--web.listen-address 127.0.0.1:{port}), or disable the receiver (--exporter-only)", port = address.port()
    )]
    OpenToTheNetwork { address: SocketAddr },
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProtectedAction {
    /// Alertmanager reports alerts.
    Notify,
    /// An operator's action: approve, pause, resume, cancel or run.
    Order,
}

/// How the connection and the guard have authenticated the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// A certificate that says who the client is.
    pub(super) certificate: bool,
    pub(super) password: bool,
}

/// What an action needs besides what the connection has already proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orders {
    Closed,
    /// The admin token.
    Token,
    /// Nothing more: the client sent a password or a certificate.
    Known,
    /// Nothing: all listeners are on loopback.
    Open,
    /// A password or a certificate, which is missing.
    Unknown,
}

/// The credentials that a request which may cause a write to etcd needs.
#[derive(Clone)]
pub struct AccessPolicy {
    receiver: bool,
    /// Whether clients without credentials are allowed where no token is configured.
    open: bool,
    webhook: Option<Token>,
    admin: Option<Token>,
    recheck: Arc<Recheck>,
}

/// A secret that clients show. Constant time is the only way to compare it.
#[derive(Clone)]
struct Token {
    /// Where it comes from.
    file: Option<PathBuf>,
    now: Arc<Mutex<CurrentToken>>,
}

struct CurrentToken {
    secret: String,
    /// Why the changed file cannot be used, once it was logged.
    problem: Option<String>,
}

impl Token {
    fn new(secret: String, file: Option<&Path>) -> Self {
        let now = Arc::new(Mutex::new(CurrentToken { secret, problem: None }));
        Self { file: file.map(Path::to_owned), now }
    }

    fn is(&self, shown: &[u8]) -> bool {
        self.now.lock().secret.as_bytes().ct_eq(shown).into()
    }

    /// Reads the file again. Whether the token is another one now.
    fn renew(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let read = token(file);
        let mut now = self.now.lock();
        match read {
            Ok(secret) => {
                now.problem = None;
                let changed = now.secret != secret;
                if changed {
                    now.secret = secret;
                    info!(file = %file.display(), "bearer token reloaded");
                }
                changed
            }
            Err(problem) => {
                let problem = problem.to_string();
                if now.problem.as_ref() != Some(&problem) {
                    error!(problem, "the changed bearer token cannot be used; keeping the previous one");
                    now.problem = Some(problem);
                }
                false
            }
        }
    }
}

impl AccessPolicy {
    /// The receiver is switched off. Reloads need what an action needs elsewhere.
    pub fn exporter_only(
        webhook_file: Option<&Path>,
        admin_file: Option<&Path>,
        listen: &[SocketAddr],
    ) -> Result<Self, TokenError> {
        // What is authenticated elsewhere is so here: nothing is open to the network.
        Ok(Self { receiver: false, ..Self::new(webhook_file, admin_file, listen, true)? })
    }

    /// Access by these tokens; what has no token is open to clients without credentials.
    pub fn tokens(webhook: Option<String>, admin: Option<String>) -> Self {
        let [webhook, admin] = [webhook, admin].map(|secret| secret.map(|secret| Token::new(secret, None)));
        Self { receiver: true, open: true, webhook, admin, recheck: Arc::new(Recheck::begun()) }
    }

    /// Reads the token files again, at most once a second: Kubernetes replaces them in a running pod. Whether one has
    /// changed.
    pub(super) async fn renew(&self) -> bool {
        if !self.recheck.is_due() {
            return false;
        }
        let tokens: Vec<_> =
            [&self.webhook, &self.admin].into_iter().flatten().filter(|token| token.file.is_some()).cloned().collect();
        if tokens.is_empty() {
            return false;
        }
        // An error means that it panicked: the tokens stay.
        let renewed = tokio::task::spawn_blocking(move || tokens.iter().filter(|token| token.renew()).count()).await;
        renewed.is_ok_and(|changed| changed > 0)
    }

    /// Reads the tokens, and refuses an open receiver on the network. `authenticated`: no client reaches a route
    /// without a password or a certificate.
    pub fn new(
        webhook_file: Option<&Path>,
        admin_file: Option<&Path>,
        listen: &[SocketAddr],
        authenticated: bool,
    ) -> Result<Self, TokenError> {
        let read = |file: &Path| Ok(Token::new(token(file)?, Some(file)));
        let (webhook, admin) = (webhook_file.map(read).transpose()?, admin_file.map(read).transpose()?);
        let network = listen.iter().find(|address| !address.ip().is_loopback());
        match network {
            Some(address) if webhook.is_none() && !authenticated => {
                Err(TokenError::OpenToTheNetwork { address: *address })
            }
            _ => Ok(Self { open: network.is_none(), webhook, admin, ..Self::tokens(None, None) }),
        }
    }

    pub fn is_closed(&self) -> bool {
        !self.receiver
    }

    /// Whether the webhook's credentials also allow actions.
    pub fn orders_are_open_to_webhooks(&self) -> bool {
        self.receiver && self.admin.is_none()
    }

    fn token_for(&self, action: ProtectedAction) -> Option<&Token> {
        match action {
            ProtectedAction::Notify => self.webhook.as_ref(),
            ProtectedAction::Order => self.admin.as_ref().or(self.webhook.as_ref()),
        }
    }

    /// What an action needs, besides what the connection has already proved.
    pub(super) fn orders(&self, proof: Proof) -> Orders {
        match self.token_for(ProtectedAction::Order) {
            _ if !self.receiver => Orders::Closed,
            Some(_) => Orders::Token,
            None if proof.password || proof.certificate => Orders::Known,
            None if self.open => Orders::Open,
            None => Orders::Unknown,
        }
    }

    pub(super) fn is_order_token(&self, shown: &str) -> bool {
        self.token_for(ProtectedAction::Order).is_some_and(|token| token.is(shown.as_bytes()))
    }

    /// Whether this is allowed only because all listeners are on loopback.
    pub(super) fn is_free(&self, action: ProtectedAction, proof: Proof) -> bool {
        self.token_for(action).is_none() && !proof.password && !proof.certificate
    }

    /// Whether only a token allows this, which no browser adds by itself.
    pub(super) fn needs_token(&self, action: ProtectedAction) -> bool {
        self.token_for(action).is_some()
    }

    /// Whether the request carries the credentials that this needs.
    pub(super) fn allows(&self, action: ProtectedAction, headers: &HeaderMap, proof: Proof) -> bool {
        match self.token_for(action) {
            Some(token) => shows(headers, token),
            None => self.open || proof.password || proof.certificate,
        }
    }

    /// Whether the request carries any of the tokens. Passwords and tokens share one header, so a request with a token
    /// must pass where a password is required.
    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        // Both are compared, so that the timing does not reveal which one matches.
        let [webhook, admin] =
            [&self.webhook, &self.admin].map(|token| token.as_ref().is_some_and(|token| shows(headers, token)));
        webhook | admin
    }
}

fn token(path: &Path) -> Result<String, TokenError> {
    let text =
        std::fs::read_to_string(path).map_err(|cause| TokenError::Unreadable { path: path.to_owned(), cause })?;
    let token = text.trim();
    if token.len() < MIN_TOKEN_BYTES {
        return Err(TokenError::TooShort { path: path.to_owned(), found: token.len() });
    }
    Ok(token.to_owned())
}

fn shows(headers: &HeaderMap, expected: &Token) -> bool {
    let shown = headers.get(AUTHORIZATION).map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
    let Some((scheme, token)) = shown.split_at_checked("Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ") && expected.is(token)
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
    fn with_an_admin_token_each_token_allows_only_its_own_actions() {
        let access = AccessPolicy::tokens(Some(TOKEN.to_owned()), Some(ADMIN.to_owned()));
        let allowed = |action, token| access.allows(action, &bearer(&format!("Bearer {token}")), Proof::default());
        assert!(allowed(ProtectedAction::Notify, TOKEN) && allowed(ProtectedAction::Order, ADMIN));
        assert!(!allowed(ProtectedAction::Order, TOKEN) && !allowed(ProtectedAction::Notify, ADMIN));
        let one = AccessPolicy::tokens(Some(TOKEN.to_owned()), None);
        assert!(one.allows(ProtectedAction::Order, &bearer(&format!("Bearer {TOKEN}")), Proof::default()));
        assert!(one.orders_are_open_to_webhooks() && !access.orders_are_open_to_webhooks());
    }
}
