//! How to connect to members: TLS, credentials, limits.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, OnceLock, Weak},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use hyper::Uri;
use parking_lot::Mutex;
use rustls::{
    ClientConfig,
    client::{ClientSessionMemoryCache, Resumption},
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use thiserror::Error;

use super::{
    channel::{CONNECT_TIMEOUT, Link},
    credentials::{CredentialFiles, Credentials},
    denied::EtcdUser,
    dial::Dial,
    error,
    handshake::{Dials, TlsHints},
    names::Names,
    sources::Sources,
};
use crate::{
    adapters::tls::{self, Authorities, Trust},
    core::cluster::{Fact, Unknown, UnknownKind},
    ports::access::{DiscoverySrv, TlsFiles},
};

/// How long a connection to a metrics page is kept for reuse: a run observes several times around a member.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// How long the cause of a closed connection is used again: each diagnosis makes two more connections, and scrapes come
/// every few seconds.
const DIAGNOSED_FOR: Duration = Duration::from_mins(1);

/// How long clusters share the system's authorities that one of them has read: the start of a large fleet.
const SYSTEM_CAS_FOR: Duration = Duration::from_mins(1);

/// Sessions to be resumed, such as by the connection to a member's metrics page: some for each member of a large fleet. One
/// store for all, because each makes room for thousands at once; rustls resumes none with another certificate or other
/// authorities than it was made with.
static SESSIONS: LazyLock<Arc<ClientSessionMemoryCache>> =
    LazyLock::new(|| Arc::new(ClientSessionMemoryCache::new(32_768)));

/// A TLS file or an endpoint is unusable.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("cannot read {what} {}: {cause}", path.display())]
    File { what: &'static str, path: PathBuf, cause: std::io::Error },
    /// The content of a file is wrong.
    #[error("{what} {} is not usable: {detail}", path.display())]
    Unusable { what: &'static str, path: PathBuf, detail: String },
    /// The parts do not make a client.
    #[error("cannot set up TLS for the members: {0}")]
    Tls(String),
}

impl ConnectError {
    /// The file that cannot be used, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } | Self::Unusable { path, .. } => Some(path),
            Self::Tls(_) => None,
        }
    }
}

/// All that is needed to connect to any member of one cluster, with the credentials of one moment.
pub(super) struct Connection {
    pub(super) credentials: Credentials,
    pub(super) etcd_user: EtcdUser,
    pub(super) hints: TlsHints,
    /// By URL, when and what was found.
    diagnoses: Mutex<HashMap<String, (Instant, Option<String>)>>,
    server_name: Option<String>,
    tls: Arc<TlsClients>,
    names: Names,
    http_plain: reqwest::Client,
}

// Made when first needed: with the system's CAs, it takes longer and more memory than everything else of a cluster,
// and a minimal machine has none.
type Lazy<T> = LazyLock<Result<T, String>, Box<dyn FnOnce() -> Result<T, String> + Send>>;

impl Connection {
    /// Checks that the credentials are valid and belong together; `files` is where they come from, for messages. With a
    /// `discovery`, servers may have to prove its domain; with `skip_verify` they have to prove nothing.
    pub(super) fn new(
        files: &CredentialFiles,
        credentials: Credentials,
        sources: &Sources,
    ) -> Result<Self, ConnectError> {
        let discovery = sources.discovery.as_ref();
        let names = Names { nameserver: discovery.and_then(|discovery| discovery.nameserver) };
        let server_name = discovery.and_then(DiscoverySrv::server_name).map(ToOwned::to_owned);
        let tls = TlsClients::of(files, &credentials, names, sources.insecure_skip_verify)?;
        if credentials.ca.is_some() || credentials.identity.is_some() {
            // It will most likely be needed, and problems with the files are better reported now.
            let made = (*tls.http).as_ref().map(drop);
            made.map_err(|detail| ConnectError::Tls(detail.clone()))?;
        }
        let etcd_user = EtcdUser {
            user: credentials.user.as_ref().map(|(name, _)| name.clone()),
            common_name: tls.common_name.clone(),
            by_flags: sources.by_flags,
        };
        let http_plain = if names.nameserver.is_some() {
            let own = named(http_builder(), names).tls_certs_only([]).build();
            own.map_err(|failure| ConnectError::Tls(error::chain(&failure)))?
        } else {
            plain_http()?
        };
        let hints = TlsHints {
            by_flags: sources.by_flags,
            has_ca: credentials.ca.is_some(),
            has_identity: credentials.identity.is_some(),
        };
        Ok(Self { credentials, etcd_user, hints, diagnoses: Mutex::default(), server_name, tls, names, http_plain })
    }

    /// The connection to this address. Sends nothing yet.
    pub(super) fn link(&self, url: &str) -> Fact<Link> {
        let bad = |detail: String| Unknown::new(UnknownKind::Other, format!("cannot use the address {url}: {detail}"));
        let address: Uri = url.parse().map_err(|failure| bad(error::chain(&failure)))?;
        let dial = if url.starts_with("https://") {
            let config = self.tls.config().map_err(bad)?;
            Dial::tls(address, self.names, config, self.server_name.as_deref())
        } else {
            Dial::plain(address, self.names)
        };
        Ok(Link::new(dial.map_err(bad)?))
    }

    /// The same, with the cause if the server at this address closed the connection without giving one.
    pub(super) async fn diagnosed(&self, url: &str, unknown: Unknown) -> Unknown {
        const CLOSED: [&str; 5] = ["broken pipe", "eof", "reset", "closed", "frame"];
        if unknown.kind != UnknownKind::Unreachable || !CLOSED.iter().any(|text| unknown.detail.contains(text)) {
            return unknown;
        }
        let last = self.diagnoses.lock().get(url).filter(|(at, _)| at.elapsed() < DIAGNOSED_FOR).cloned();
        let cause = match last {
            Some((_, cause)) => cause,
            None => {
                let cause = self.diagnose(url).await;
                self.diagnoses.lock().insert(url.to_owned(), (Instant::now(), cause.clone()));
                cause
            }
        };
        match cause {
            Some(cause) => Unknown::new(UnknownKind::Tls, format!("{cause} ({})", unknown.detail)),
            None => unknown,
        }
    }

    async fn diagnose(&self, url: &str) -> Option<String> {
        let dials = || {
            let (address, is_tls) = (url.parse::<Uri>().ok()?, url.starts_with("https://"));
            let config = if is_tls { self.tls.config() } else { client_config(Trust::AnyServer, None).map(Arc::new) };
            let tls = Dial::tls(address.clone(), self.names, config.ok()?, self.server_name.as_deref()).ok()?;
            Some(Dials { plain: Dial::plain(address, self.names).ok()?, tls, is_tls })
        };
        Box::pin(self.hints.diagnose(dials()?)).await
    }

    /// The client for the metrics page at this address.
    pub(super) fn http(&self, url: &str) -> Fact<&reqwest::Client> {
        if !url.starts_with("https://") {
            return Ok(&self.http_plain);
        }
        (*self.tls.http).as_ref().map_err(|detail| Unknown::new(UnknownKind::Other, detail.clone()))
    }
}

/// What clusters share whose files have the same content. At a thousand clusters, one for each would be most of the
/// memory and time that they take before the first connection.
struct TlsClients {
    made: Instant,
    /// Of the client certificate.
    common_name: Option<String>,
    config: Arc<Lazy<Arc<ClientConfig>>>,
    /// For metrics pages.
    http: Lazy<reqwest::Client>,
}

impl TlsClients {
    fn of(
        files: &CredentialFiles,
        credentials: &Credentials,
        names: Names,
        skip_verify: bool,
    ) -> Result<Arc<Self>, ConnectError> {
        // By a hash, so that it holds no key that is no longer in use.
        static SHARED: LazyLock<Mutex<HashMap<[u8; SHA256_OUTPUT_LEN], Weak<TlsClients>>>> =
            LazyLock::new(Mutex::default);
        let key = content_hash(credentials, names, skip_verify);
        let mut shared = SHARED.lock();
        // The system's authorities are read again with a new connection, in case they could not be read or have changed.
        let is_current = |same: &Arc<Self>| credentials.ca.is_some() || same.made.elapsed() < SYSTEM_CAS_FOR;
        if let Some(same) = shared.get(&key).and_then(Weak::upgrade).filter(is_current) {
            return Ok(same);
        }
        let new = Arc::new(Self::new(files, credentials, names, skip_verify)?);
        shared.retain(|_, clients| clients.strong_count() > 0);
        shared.insert(key, Arc::downgrade(&new));
        Ok(new)
    }

    fn new(
        files: &CredentialFiles,
        credentials: &Credentials,
        names: Names,
        skip_verify: bool,
    ) -> Result<Self, ConnectError> {
        let ca = credentials.ca.as_deref().map(|pem| {
            let unusable = |detail| unusable("the CA certificate", files.tls.ca_file.as_deref(), detail);
            // A bundle may contain certificates that this library does not accept; one accepted certificate is enough.
            Authorities::lenient(tls::certificates(pem).map_err(unusable)?).map_err(unusable)
        });
        let trust =
            if skip_verify { Trust::AnyServer } else { ca.transpose()?.map_or(Trust::System, Trust::Authorities) };
        let identity = credentials.identity.as_ref().map(|(cert, key)| Identity::new(&files.tls, cert, key));
        let identity = identity.transpose()?;
        let common_name = identity.as_ref().and_then(Identity::common_name);
        let config: Arc<Lazy<_>> =
            Arc::new(LazyLock::new(Box::new(move || client_config(trust, identity).map(Arc::new))));
        let of_calls = Arc::clone(&config);
        let http: Lazy<_> = LazyLock::new(Box::new(move || {
            let mut config = ClientConfig::clone((**of_calls).as_ref().map_err(Clone::clone)?);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let http = named(http_builder(), names).tls_backend_preconfigured(config);
            http.build().map_err(|failure| error::chain(&failure))
        }));
        Ok(Self { made: Instant::now(), common_name, config, http })
    }

    /// For HTTP/2.
    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        (**self.config).clone()
    }
}

/// Of all that [`TlsClients`] are made from.
fn content_hash(credentials: &Credentials, names: Names, skip_verify: bool) -> [u8; SHA256_OUTPUT_LEN] {
    let (cert, key) = credentials.identity.as_ref().map(|(cert, key)| (&cert[..], &key[..])).unzip();
    let nameserver = names.nameserver.map(|address| address.to_string());
    let mut hash = Context::new(&SHA256);
    for part in [credentials.ca.as_deref(), cert, key, nameserver.as_deref().map(str::as_bytes)] {
        // With its length, so that no two contents run together.
        hash.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.update(&[u8::from(skip_verify)]);
    let mut hashed = [0; SHA256_OUTPUT_LEN];
    hashed.copy_from_slice(hash.finish().as_ref());
    hashed
}

fn http_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        // A member's page is at its own address: a redirect leads elsewhere.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(KEPT_FOR)
}

fn named(builder: reqwest::ClientBuilder, names: Names) -> reqwest::ClientBuilder {
    if names.nameserver.is_some() { builder.dns_resolver(Arc::new(names)) } else { builder }
}

/// One for all clusters: it depends on none. Without CAs, because it never uses TLS.
fn plain_http() -> Result<reqwest::Client, ConnectError> {
    static SHARED: OnceLock<reqwest::Client> = OnceLock::new();
    if let Some(client) = SHARED.get() {
        return Ok(client.clone());
    }
    let client =
        http_builder().tls_certs_only([]).build().map_err(|failure| ConnectError::Tls(error::chain(&failure)))?;
    Ok(SHARED.get_or_init(|| client).clone())
}

/// A client certificate and its key, which belong together.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Between the writes of the two files they do not belong together. `files` is where they come from, for messages.
    fn new(files: &TlsFiles, cert: &[u8], key: &[u8]) -> Result<Self, ConnectError> {
        let of_cert = |detail| unusable("the client certificate", files.cert_file.as_deref(), detail);
        let chain = tls::certificates(cert).map_err(of_cert)?;
        let key = tls::key(key).map_err(|detail| unusable("the client key", files.key_file.as_deref(), detail))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let whole = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider);
        whole.map_err(|error| {
            of_cert(match error.to_string() {
                text if text.contains("UnsupportedCertVersion") => {
                    "it is X.509 version 1, which is not supported: issue a version 3 certificate".to_owned()
                }
                text => {
                    let key = files.key_file.as_deref().unwrap_or(Path::new("")).display();
                    format!("it and the key {key} do not belong together, or are incomplete: {text}")
                }
            })
        })?;
        Ok(Self { chain, key })
    }

    fn common_name(&self) -> Option<String> {
        let (_, leaf) = x509_parser::parse_x509_certificate(self.chain.first()?).ok()?;
        let name = leaf.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        Some(name)
    }
}

/// The trusted CAs and the client certificate, for HTTP/2.
fn client_config(trust: Trust, identity: Option<Identity>) -> Result<ClientConfig, String> {
    let builder = tls::trusting(trust)?;
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { chain, key }) => {
            builder.with_client_auth_cert(chain, key).map_err(|failure| error::chain(&failure))?
        }
    };
    config.alpn_protocols.push(b"h2".to_vec());
    config.resumption = Resumption::store(SESSIONS.clone());
    Ok(config)
}

fn unusable(what: &'static str, path: Option<&Path>, detail: String) -> ConnectError {
    ConnectError::Unusable { what, path: path.unwrap_or(Path::new("")).to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_share_their_tls_if_all_of_their_files_have_the_same_content() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let pki = |name: &str| testkit::Pki::create(&dir.path().join(name)).expect("certificates");
        let (one, two) = (pki("one"), pki("two"));
        let open = |ca: &testkit::Pki, client: Option<&testkit::Pki>, skip_verify| {
            let tls = TlsFiles {
                ca_file: Some(ca.ca().to_owned()),
                cert_file: client.map(|pki| pki.client().cert.clone()),
                key_file: client.map(|pki| pki.client().key.clone()),
            };
            let files = CredentialFiles { tls, ..CredentialFiles::default() };
            let sources = Sources { insecure_skip_verify: skip_verify, ..Sources::default() };
            Connection::new(&files, files.read().expect("read"), &sources).expect("whole")
        };
        let first = open(&one, Some(&one), false);
        assert!(Arc::ptr_eq(&first.tls, &open(&one, Some(&one), false).tls));
        for other in [
            open(&two, Some(&one), false),
            open(&one, Some(&two), false),
            open(&one, None, false),
            open(&one, Some(&one), true),
        ] {
            assert!(!Arc::ptr_eq(&first.tls, &other.tls));
        }
    }

    #[test]
    fn an_unusable_key_is_named_by_its_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let own = testkit::Pki::self_signed(dir.path(), "own", |_| {}).unwrap();
        std::fs::write(&own.key, "").unwrap();
        let named = format!("the client key {} is not usable: it contains no private key", own.key.display());
        let tls = TlsFiles { ca_file: None, cert_file: Some(own.cert), key_file: Some(own.key) };
        let files = CredentialFiles { tls, user: None };
        let refused = Connection::new(&files, files.read().unwrap(), &Sources::default()).err().unwrap();
        assert!(refused.to_string().starts_with(&named), "{refused}");
    }
}
