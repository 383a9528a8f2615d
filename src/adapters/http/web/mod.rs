//! `--web.config.file` in use: TLS, authentication, rate limit and additional headers.
//!
//! The file and the certificates are checked for changes while defragd runs. An invalid new version never replaces a
//! valid one, and none may remove protection: that needs a restart, where the rules for starting apply.

mod limit;
mod tls;
mod users;

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use rustls::ServerConfig;
use tracing::{error, info, warn};

use self::users::Users;
pub(super) use self::{
    limit::Bucket,
    users::{Checked, MAX_CHECKS, MAX_WAIT},
};
use super::{connections::ConnectionLimiter, recheck::Recheck};
use crate::ports::web::{ClientAuth, Pem, WebConfig, WebSource, WebTls};

#[derive(Default)]
pub(super) struct Active {
    pub(super) tls: Option<Arc<ServerConfig>>,
    client_auth: ClientAuth,
    /// Whether an accepted certificate says who the client is.
    pub(super) identifies_clients: bool,
    pub(super) headers: HeaderMap,
    pub(super) users: Option<Users>,
    pub(super) bucket: Option<Arc<Bucket>>,
}

pub struct Web {
    source: Option<Box<dyn WebSource>>,
    active: Mutex<Arc<Active>>,
    recheck: Recheck,
    watched: Mutex<Watched>,
    /// Of all listeners together.
    pub(super) connections: Arc<ConnectionLimiter>,
}

/// The files, and their stamps when they were last read.
#[derive(Default)]
struct Watched {
    files: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
}

/// Identifies a version of a file, through links: Kubernetes and certificate managers swap those.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Web {
    /// Plain HTTP without authentication.
    pub fn plain() -> Self {
        Self::with(None, Active::default(), Watched::default())
    }

    /// Loads the current file. The error has one problem per line. Blocks while it reads.
    pub fn open(source: impl WebSource) -> Result<Self, String> {
        let mut watched = Watched { files: vec![source.path().to_owned()], stamps: Vec::new() };
        let active = read(&source, &mut watched, None)?;
        Ok(Self::with(Some(Box::new(source)), active, watched))
    }

    fn with(source: Option<Box<dyn WebSource>>, active: Active, watched: Watched) -> Self {
        Self {
            source,
            active: Mutex::new(Arc::new(active)),
            recheck: Recheck::begun(),
            watched: Mutex::new(watched),
            connections: Arc::default(),
        }
    }

    /// Whether every client must authenticate.
    pub fn authenticates(&self) -> bool {
        let active = self.active();
        active.users.is_some() || active.requires_identity()
    }

    pub fn is_tls(&self) -> bool {
        self.active().tls.is_some()
    }

    /// Loads what has changed, at most once a second, and returns the active configuration.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<Active> {
        if self.source.is_some() && self.recheck.is_due() {
            let web = Arc::clone(self);
            // An error means that it panicked: the active configuration stays.
            let _ = tokio::task::spawn_blocking(move || web.recheck()).await;
        }
        self.active()
    }

    fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.lock())
    }

    fn recheck(&self) {
        let Some(source) = &self.source else { return };
        let mut watched = self.watched.lock();
        if stamps(&watched.files) == watched.stamps {
            return;
        }
        let old = self.active();
        let taken = read(source.as_ref(), &mut watched, Some(&old)).and_then(|new| {
            takes_no_lock_away(&old, &new)?;
            Ok(new)
        });
        let is_taken = taken.is_ok();
        match taken {
            Ok(new) => {
                *self.active.lock() = Arc::new(new);
                info!(file = %source.path().display(), "web configuration reloaded");
            }
            Err(problems) => error!(
                file = %source.path().display(),
                problems = problems.replace('\n', "; "),
                "the changed web configuration is invalid; keeping the previous one"
            ),
        }
        // Last: by then the metric is true.
        source.reloaded(is_taken);
    }
}

/// Reads everything. The stamps are taken before reading, so that later changes are noticed; they are taken even if
/// reading fails, so that the same invalid files are not read again and again.
fn read(source: &dyn WebSource, watched: &mut Watched, old: Option<&Active>) -> Result<Active, String> {
    watched.stamps = stamps(&watched.files);
    // The first is always the configuration itself.
    let before = watched.stamps.first().copied();
    let config = source.load()?;
    watched.files = files(source.path(), &config);
    watched.stamps = before.into_iter().chain(stamps(&watched.files[1..])).collect();
    let tls = config.tls.as_ref().map(|tls| tls::server_config(tls, config.http2)).transpose()?;
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) else {
            return Err(format!("http_server_config.headers.{name}: is not a valid HTTP header"));
        };
        headers.insert(name, value);
    }
    let identifies_clients = config.tls.as_ref().is_some_and(WebTls::identifies_clients);
    let client_auth = config.tls.as_ref().map_or(ClientAuth::None, |tls| tls.client_auth);
    if client_auth.verifies() && !identifies_clients {
        warn!(
            "there is no client_ca_file: a client certificate of any of the system's CAs is accepted, and none allows \
             actions; set client_ca_file, or, with RequireAndVerifyClientCert, client_allowed_sans"
        );
    }
    let bucket = config.rate_limit.map(|limit| {
        if limit.burst == 0 {
            warn!("rate_limit.burst is 0: every request is refused; set it to at least 1");
        }
        // A changed configuration with the same limit does not refill the bucket.
        let kept = old.and_then(|old| old.bucket.clone()).filter(|bucket| bucket.limit() == limit);
        kept.unwrap_or_else(|| Arc::new(Bucket::new(limit)))
    });
    Ok(Active {
        tls: tls.map(Arc::new),
        client_auth,
        identifies_clients,
        headers,
        users: (!config.users.is_empty()).then(|| Users::new(config.users)),
        bucket,
    })
}

impl Active {
    fn requires_identity(&self) -> bool {
        self.client_auth == ClientAuth::RequireAndVerify && self.identifies_clients
    }
}

fn takes_no_lock_away(old: &Active, new: &Active) -> Result<(), String> {
    let lost = if old.tls.is_some() && new.tls.is_none() {
        "tls_server_config"
    } else if old.users.is_some() && new.users.is_none() {
        "basic_auth_users"
    } else if old.client_auth == ClientAuth::RequireAndVerify && new.client_auth != ClientAuth::RequireAndVerify {
        "client_auth_type: RequireAndVerifyClientCert"
    } else if old.requires_identity() && !new.requires_identity() {
        "what identifies clients (client_ca, client_ca_file or client_allowed_sans)"
    } else {
        return Ok(());
    };
    Err(format!("{lost} was removed: to run without it, restart defragd"))
}

fn files(path: &Path, config: &WebConfig) -> Vec<PathBuf> {
    let tls = config.tls.iter().flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
    let of_tls = tls.flatten().filter_map(|pem| match pem {
        Pem::File(path) => Some(path.clone()),
        Pem::Inline(_) => None,
    });
    std::iter::once(path.to_owned()).chain(of_tls).collect()
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;

    /// Written again just after it was read for the first time.
    struct Rewritten(PathBuf);

    impl WebSource for Rewritten {
        fn path(&self) -> &Path {
            &self.0
        }

        fn load(&self) -> Result<WebConfig, String> {
            let read = fs::read_to_string(&self.0).expect("it is there");
            if read == "half" {
                fs::write(&self.0, "the whole").expect("there is space");
            }
            let headers = BTreeMap::from([("x-read".to_owned(), read)]);
            Ok(WebConfig { tls: None, http2: true, headers, users: BTreeMap::new(), rate_limit: None })
        }

        fn reloaded(&self, _: bool) {}
    }

    #[test]
    fn what_is_written_while_the_file_is_being_read_is_noticed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("web.yml");
        fs::write(&path, "half").expect("there is space");
        let web = Web::open(Rewritten(path)).expect("valid");
        assert_eq!(web.active().headers["x-read"], "half");
        web.recheck();
        assert_eq!(web.active().headers["x-read"], "the whole");
    }
}
