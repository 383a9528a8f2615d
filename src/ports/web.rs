//! How the HTTP side is secured: `--web.config.file` with its values checked. Only the adapter knows whether the
//! certificates are readable and match.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use strum::{EnumString, VariantNames};

/// The supported TLS 1.2 and 1.3 suites, by Go's names, which exporter-toolkit uses.
pub const CIPHER_SUITES: [&str; 9] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// The supported groups for the key exchange, by Go's names.
pub const CURVES: [&str; 4] = ["CurveP256", "CurveP384", "X25519", "X25519MLKEM768"];

#[derive(Clone, Debug, PartialEq)]
pub struct WebConfig {
    /// Plain HTTP if absent.
    pub tls: Option<WebTls>,
    /// Offered over TLS.
    pub http2: bool,
    /// Added to every answer. Names and values are valid for headers.
    pub headers: BTreeMap<String, String>,
    /// Users with the bcrypt hashes of their passwords; if empty, no password is required.
    pub users: BTreeMap<String, PasswordHash>,
    /// For all requests together.
    pub rate_limit: Option<RateLimit>,
}

/// The server's side of TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct WebTls {
    pub cert: Pem,
    pub key: Pem,
    /// The CA that signs the clients' certificates; the system's CAs if absent.
    pub client_ca: Option<Pem>,
    pub client_auth: ClientAuth,
    /// One of these must be among the names in a client's certificate, if any are listed.
    pub client_allowed_sans: Vec<String>,
    pub min_version: TlsVersion,
    /// The newest version, not older than the oldest.
    pub max_version: TlsVersion,
    /// From [`CIPHER_SUITES`], in order of preference; all if empty.
    pub cipher_suites: Vec<String>,
    /// Whether the server's order of suites decides, or the client's.
    pub prefer_server_cipher_suites: bool,
    /// From [`CURVES`], in order of preference; all if empty.
    pub curve_preferences: Vec<String>,
}

impl WebTls {
    /// Whether an accepted certificate says who the client is. One of the system's CAs does not: they sign for everybody.
    pub fn identifies_clients(&self) -> bool {
        self.client_auth.verifies() && (self.client_ca.is_some() || !self.client_allowed_sans.is_empty())
    }
}

/// Text in PEM format: in the configuration itself, or in a file.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    Inline(String),
    /// The file's content, which may change.
    File(PathBuf),
}

// It may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(***)"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is asked of clients. Its names are Go's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, VariantNames)]
pub enum ClientAuth {
    /// None, and none is requested.
    #[default]
    #[strum(serialize = "NoClientCert")]
    None,
    /// A certificate is requested, but not required; any is accepted.
    #[strum(serialize = "RequestClientCert")]
    Request,
    /// The second is exporter-toolkit's old name for it.
    #[strum(serialize = "RequireAnyClientCert", serialize = "RequireClientCert")]
    RequireAny,
    /// A certificate is not required, but if there is one, the client CA must have signed it.
    #[strum(serialize = "VerifyClientCertIfGiven")]
    VerifyIfGiven,
    /// A certificate that the client CA has signed.
    #[strum(serialize = "RequireAndVerifyClientCert")]
    RequireAndVerify,
}

impl ClientAuth {
    /// Whether an accepted certificate proves who the client is.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }

    /// Whether a client without a certificate is rejected.
    pub fn requires(self) -> bool {
        matches!(self, Self::RequireAny | Self::RequireAndVerify)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// A token is added this often; above 0.
    pub interval: Duration,
    /// So many requests may come at once; 0 refuses all.
    pub burst: u32,
}

/// The source of the configuration, which can be read again.
pub trait WebSource: Send + Sync + 'static {
    fn path(&self) -> &Path;

    /// Reads and checks the current file. May block. The error is for people: one problem per line.
    fn load(&self) -> Result<WebConfig, String>;

    /// The file was read again: `taken` says whether it is now active.
    fn reloaded(&self, taken: bool);
}
