//! How the HTTP side is secured: `--web.config.file`, as it means once its values are checked. Whether the
//! certificates can be read and fit, only the adapter knows.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

/// The TLS 1.2 and 1.3 suites that can be had, by Go's names: those that exporter-toolkit's users write.
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

/// The groups for the key exchange that can be had, by Go's names.
pub const CURVES: [&str; 4] = ["CurveP256", "CurveP384", "X25519", "X25519MLKEM768"];

#[derive(Clone, Debug, PartialEq)]
pub struct WebConfig {
    /// Plain HTTP where absent.
    pub tls: Option<WebTls>,
    /// Offered over TLS.
    pub http2: bool,
    /// Added to every answer. Names and values are fit for headers.
    pub headers: BTreeMap<String, String>,
    /// Who may come in, with the bcrypt hash of the password; everybody where empty.
    pub users: BTreeMap<String, PasswordHash>,
    /// Of all requests together.
    pub rate_limit: Option<RateLimit>,
}

/// The server's side of TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct WebTls {
    /// The certificate chain.
    pub cert: Pem,
    pub key: Pem,
    /// Who signs the clients' certificates.
    pub client_ca: Option<Pem>,
    pub client_auth: ClientAuth,
    /// One of these must be among the names in a client's certificate, where there are any.
    pub client_allowed_sans: Vec<String>,
    pub min_version: TlsVersion,
    /// The newest version, not older than the oldest.
    pub max_version: TlsVersion,
    /// From [`CIPHER_SUITES`], in the order of preference; all where empty.
    pub cipher_suites: Vec<String>,
    /// Whether our order of suites decides, or the client's.
    pub prefer_server_cipher_suites: bool,
    /// From [`CURVES`], in the order of preference; all where empty.
    pub curve_preferences: Vec<String>,
}

/// Text in the PEM format: in the configuration itself, or in a file.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    Inline(String),
    /// What the file holds, whenever it changes.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nothing, and nothing is asked for.
    None,
    /// A certificate is asked for; none is fine, and so is any.
    Request,
    RequireAny,
    /// None is fine, but one that is shown must be signed by the client CA.
    VerifyIfGiven,
    /// A certificate that is signed by the client CA.
    RequireAndVerify,
}

impl ClientAuth {
    /// Whether a certificate that was accepted proves who the client is.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }

    /// Whether a client without a certificate is turned away.
    pub fn requires(self) -> bool {
        matches!(self, Self::RequireAny | Self::RequireAndVerify)
    }
}

/// What can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// A token comes back this often; above 0.
    pub interval: Duration,
    /// So many requests may come at once; at least 1.
    pub burst: u32,
}

/// Where the configuration comes from, again and again.
pub trait WebSource: Send + Sync + 'static {
    fn path(&self) -> &Path;

    /// Reads and checks it, as it is now. The error is for people, one problem a line. May block.
    fn load(&self) -> Result<WebConfig, String>;

    /// It was read again while running: whether what it says is in use now.
    fn reloaded(&self, taken: bool);
}
