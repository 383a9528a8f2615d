//! The lock, checked: where it lives, and how the replicas reach each other.

use std::{path::PathBuf, time::Duration};

use url::Url;

use super::{
    raw::{self, lock as keys},
    validate::{Problems, endpoint, identity},
};
use crate::core::time::Time;

/// The lease of a shorter one could end while a busy etcd is well: its own limit for a request is 7 s.
const MIN_TTL: Duration = Duration::from_secs(10);
/// The time that a dead replica costs.
const MAX_TTL: Duration = Duration::from_hours(1);
/// Above most defragmentations of a leader: while one is under way under writes, no lease can be renewed.
const DEFAULT_TTL: Duration = Duration::from_secs(60);

/// Which of several replicas acts on a cluster, and how they reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockSettings {
    pub kind: LockKind,
    /// How long a replica that is gone still holds it.
    pub ttl: Duration,
    /// This replica's name; the host's where absent.
    pub name: Option<String>,
    /// Where the other replicas reach this one.
    pub url: Option<Url>,
    pub peers: PeerSettings,
}

impl LockSettings {
    /// Whether each cluster's lock is in that cluster itself.
    pub fn is_in_the_target(&self) -> bool {
        matches!(self.kind, LockKind::Etcd { coordination: None, .. })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LockKind {
    #[default]
    None,
    Etcd {
        /// Before all keys.
        prefix: String,
        /// An etcd for this alone; each cluster's own where absent.
        coordination: Option<Coordination>,
    },
    /// In Leases of Kubernetes.
    Kubernetes {
        /// The cluster that defragd runs in where absent.
        kubeconfig: Option<PathBuf>,
        context: Option<String>,
        /// Where the Leases are; the pod's own namespace where absent.
        namespace: Option<String>,
        /// Before the cluster's name in theirs.
        name_prefix: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coordination {
    /// URLs with a scheme.
    pub endpoints: Vec<String>,
    /// The authorities to trust; the system's where absent.
    pub ca_file: Option<PathBuf>,
    pub identity_files: Option<(PathBuf, PathBuf)>,
    /// etcd user and the file with its password.
    pub user: Option<(String, PathBuf)>,
}

/// What is shown to the other replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSettings {
    pub token_file: Option<PathBuf>,
    pub admin_token_file: Option<PathBuf>,
    /// The authorities to trust; the system's where absent.
    pub ca_file: Option<PathBuf>,
    pub identity_files: Option<(PathBuf, PathBuf)>,
}

impl Default for LockSettings {
    fn default() -> Self {
        Self { kind: LockKind::None, ttl: DEFAULT_TTL, name: None, url: None, peers: PeerSettings::default() }
    }
}

pub(super) fn settings(raw: Option<keys::Lock>, problems: &mut Problems) -> LockSettings {
    let Some(raw) = raw else { return LockSettings::default() };
    let kind = raw.kind.unwrap_or(keys::Kind::None);
    for (given, at, of) in [
        (raw.etcd.is_some(), "lock.etcd", keys::Kind::Etcd),
        (raw.kubernetes.is_some(), "lock.kubernetes", keys::Kind::Kubernetes),
    ] {
        if given && kind != of {
            problems.add(at, "is for another lock.kind");
        }
    }
    let ttl = match raw.ttl.map(Duration::from) {
        None => DEFAULT_TTL,
        Some(ttl) if (MIN_TTL..=MAX_TTL).contains(&ttl) && ttl.subsec_nanos() == 0 => ttl,
        Some(ttl) => {
            problems.add("lock.ttl", format!("is {}, and must be whole seconds from 10s to 1h", Time::from(ttl)));
            DEFAULT_TTL
        }
    };
    if raw.name.as_ref().is_some_and(|name| name.trim().is_empty() || name.chars().count() > 200) {
        problems.add("lock.name", "must have 1 to 200 characters");
    }
    let url = raw.url.and_then(|text| match Url::parse(&text) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => {
            if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
                problems.add("lock.url", "has a user, a password or a query in it");
            }
            Some(url)
        }
        _ => {
            problems.add("lock.url", format!("{text:?} is not a URL like https://10.0.0.1:9379"));
            None
        }
    });
    let kind = match kind {
        keys::Kind::None => LockKind::None,
        keys::Kind::Etcd => etcd(raw.etcd.unwrap_or_default(), problems),
        keys::Kind::Kubernetes => {
            let keys = raw.kubernetes.unwrap_or_default();
            if keys.context.is_some() && keys.kubeconfig.is_none() {
                problems.add("lock.kubernetes.context", "needs kubeconfig");
            }
            if keys.namespace.is_none() && keys.kubeconfig.is_some() {
                problems.add("lock.kubernetes.namespace", "is missing, and kubeconfig needs it");
            }
            let name_prefix = keys.name_prefix.unwrap_or_else(|| "defragd-".to_owned());
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if !name_prefix.chars().all(fits) || name_prefix.starts_with('-') || name_prefix.len() > 40 {
                problems.add("lock.kubernetes.name_prefix", "may have a-z, 0-9 and -, and 40 characters");
            }
            let keys::KubernetesKeys { kubeconfig, context, namespace, .. } = keys;
            LockKind::Kubernetes { kubeconfig, context, namespace, name_prefix }
        }
    };
    let peers = raw.peers.unwrap_or_default();
    let peers = PeerSettings {
        admin_token_file: peers.admin_token_file.or_else(|| peers.token_file.clone()),
        token_file: peers.token_file,
        identity_files: identity("lock.peers.tls", peers.tls.cert_file, peers.tls.key_file, problems),
        ca_file: peers.tls.ca_file,
    };
    LockSettings { kind, ttl, name: raw.name, url, peers }
}

fn etcd(keys: keys::EtcdKeys, problems: &mut Problems) -> LockKind {
    let mut prefix = keys.prefix.unwrap_or_else(|| "/defragd/lock/".to_owned());
    if prefix.is_empty() || prefix.len() > 200 || prefix.chars().any(char::is_control) {
        problems.add("lock.etcd.prefix", "must have 1 to 200 bytes of plain text");
    }
    if !prefix.ends_with('/') {
        prefix.push('/');
    }
    let raw::Tls { ca_file, cert_file, key_file } = keys.tls;
    let secure = ca_file.is_some() || cert_file.is_some();
    let mut endpoints = Vec::new();
    for (index, text) in keys.endpoints.iter().enumerate() {
        match endpoint(text, secure) {
            Ok(url) => endpoints.push(url),
            Err(what) => problems.add(format!("lock.etcd.endpoints[{index}]"), what),
        }
    }
    let identity_files = identity("lock.etcd.tls", cert_file, key_file, problems);
    let user = keys.auth.map(|auth| (auth.username, auth.password_file));
    if keys.endpoints.is_empty() && (secure || user.is_some()) {
        problems.add(
            "lock.etcd.endpoints",
            "is missing, and tls and auth need it; without all three, the lock of a cluster is in the cluster itself",
        );
    }
    let own = !keys.endpoints.is_empty();
    LockKind::Etcd { prefix, coordination: own.then_some(Coordination { endpoints, ca_file, identity_files, user }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn read(lock: &str) -> Result<LockSettings, String> {
        let text = format!("clusters: [{{name: a, endpoints: [x:1]}}]\nlock: {lock}\n");
        let file = raw::parse(&text)?;
        Settings::from_raw(file).map(|settings| settings.lock).map_err(|error| error.to_string())
    }

    #[test]
    fn without_the_key_there_is_no_lock() {
        let settings = Settings::from_raw(raw::parse("clusters: [{name: a, endpoints: [x:1]}]").expect("YAML"));
        assert_eq!(settings.expect("valid").lock, LockSettings::default());
        assert_eq!(read("{}").expect("valid").kind, LockKind::None);
    }

    #[test]
    fn the_lock_in_each_clusters_own_etcd_needs_one_word() {
        let lock = read("{kind: etcd}").expect("valid");
        assert_eq!(lock.kind, LockKind::Etcd { prefix: "/defragd/lock/".to_owned(), coordination: None });
        assert_eq!(lock.ttl, Duration::from_secs(60));
    }

    #[test]
    fn every_key_is_taken() {
        let lock = read(
            "{kind: etcd, ttl: 90s, name: one, url: 'https://10.0.0.1:9379/defragd',
              etcd: {prefix: /x, endpoints: [c:2379], tls: {ca_file: /ca}, auth: {username: u, password_file: /p}},
              peers: {token_file: /t, admin_token_file: /a, tls: {ca_file: /ca, cert_file: /c, key_file: /k}}}",
        )
        .expect("valid");
        let LockKind::Etcd { prefix, coordination: Some(own) } = lock.kind else { panic!("{:?}", lock.kind) };
        assert_eq!((prefix.as_str(), own.endpoints), ("/x/", vec!["https://c:2379".to_owned()]));
        assert_eq!(lock.peers.admin_token_file, Some(PathBuf::from("/a")));
        let lock = read("{kind: kubernetes, kubernetes: {kubeconfig: /k, context: c, namespace: n, name_prefix: d-}}");
        assert!(matches!(lock.expect("valid").kind, LockKind::Kubernetes { namespace: Some(n), .. } if n == "n"));
    }

    #[test]
    fn every_problem_is_reported_with_its_key_path() {
        for (text, expected) in [
            ("{kind: zookeeper}", "zookeeper"),
            ("{kind: etcd, ttl: 5s}", "lock.ttl: is 5s, and must be whole seconds from 10s to 1h"),
            ("{kind: etcd, ttl: 10s500ms}", "lock.ttl"),
            ("{kind: etcd, kubernetes: {}}", "lock.kubernetes: is for another lock.kind"),
            ("{kind: kubernetes, etcd: {}}", "lock.etcd: is for another lock.kind"),
            ("{kind: etcd, name: ''}", "lock.name"),
            ("{kind: etcd, url: '10.0.0.1:9379'}", "lock.url"),
            ("{kind: etcd, url: 'http://u:p@x'}", "lock.url: has a user"),
            ("{kind: etcd, etcd: {endpoints: ['ftp://x']}}", "lock.etcd.endpoints[0]"),
            ("{kind: etcd, etcd: {tls: {ca_file: /x}}}", "lock.etcd.endpoints: is missing"),
            ("{kind: etcd, etcd: {endpoints: [x], tls: {cert_file: /x}}}", "lock.etcd.tls.key_file"),
            ("{kind: etcd, peers: {tls: {key_file: /x}}}", "lock.peers.tls.cert_file"),
            ("{kind: kubernetes, kubernetes: {context: x}}", "lock.kubernetes.context: needs kubeconfig"),
            ("{kind: kubernetes, kubernetes: {kubeconfig: /x}}", "lock.kubernetes.namespace: is missing"),
            ("{kind: kubernetes, kubernetes: {name_prefix: A_}}", "lock.kubernetes.name_prefix"),
            ("{kind: etcd, tll: 5s}", "tll"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{expected:?} is not in:\n{error}");
        }
    }
}
