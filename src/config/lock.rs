//! The lock: where it is stored, and how the replicas reach each other.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::cluster::check_endpoints;
use crate::{
    core::{
        check::At,
        time::{self, Time},
    },
    ports::{
        access::{TlsFiles, User},
        lock::KubernetesKeys,
    },
};

/// A shorter lease could expire on a busy but healthy etcd: its own limit for a request is 7 s.
const MIN_TTL: Duration = Duration::from_secs(10);
/// The time that passes after a replica has died.
const MAX_TTL: Duration = Duration::from_hours(1);
/// Longer than most defragmentations of a leader: during one under write load, no lease can be renewed.
const DEFAULT_TTL: Duration = Duration::from_secs(60);

/// Which of several replicas acts on a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LockSettings {
    /// Where the lock is kept. `none`: there is one replica. `etcd`: a key with a lease. `kubernetes`: Leases of a
    /// Kubernetes API server.
    #[schemars(extend("default" = "none"))]
    pub kind: LockKind,
    /// How long a replica that is gone still holds the lock, in whole seconds. It should be longer than the
    /// defragmentation of a leader takes, since no lease can be renewed meanwhile.
    #[schemars(extend("default" = "60s", "x-range" = ["10s", "1h"]))]
    #[schemars(with = "Time")]
    #[serde(deserialize_with = "time::duration")]
    pub ttl: Duration,
    /// This replica's name.
    #[schemars(extend("x-default" = "the host's name"))]
    pub name: Option<String>,
    /// URL under which the other replicas reach this one. They forward requests to it while it holds the lock. It
    /// differs in each replica, so rather give `--lock.url` or `DEFRAGD_LOCK_URL`.
    #[schemars(extend("x-default" = "none: the other replicas keep their requests until they hold the lock"))]
    pub url: Option<String>,
    /// Details of `kind: etcd`.
    pub etcd: Option<EtcdKeys>,
    /// Details of `kind: kubernetes`.
    pub kubernetes: Option<KubernetesKeys>,
    /// How this replica authenticates to the other replicas.
    pub peers: PeerSettings,
}

/// Where the lock lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LockKind {
    /// There is a single replica.
    #[default]
    None,
    /// In an etcd.
    Etcd,
    /// In Kubernetes Leases.
    Kubernetes,
}

/// Kind `etcd`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EtcdKeys {
    /// Prefix of the lock's keys.
    #[schemars(extend("default" = "/defragd/lock/"))]
    pub prefix: String,
    /// Client URLs of a separate etcd for the locks.
    #[schemars(extend("x-default" = "the lock of a cluster is kept in that cluster"))]
    pub endpoints: Vec<String>,
    /// TLS to `endpoints`.
    pub tls: TlsFiles,
    /// The user of that etcd.
    pub auth: Option<User>,
}

/// What is shown to the other replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PeerSettings {
    /// File with the token of their `--web.bearer-token-file`.
    #[schemars(extend("x-default" = "none"))]
    pub token_file: Option<PathBuf>,
    /// File with the token of their `--web.admin-token-file`.
    #[schemars(extend("x-default" = "`token_file`"))]
    pub admin_token_file: Option<PathBuf>,
    /// TLS to the other replicas.
    pub tls: TlsFiles,
}

impl Default for LockSettings {
    fn default() -> Self {
        Self {
            kind: LockKind::default(),
            ttl: DEFAULT_TTL,
            name: None,
            url: None,
            etcd: None,
            kubernetes: None,
            peers: PeerSettings::default(),
        }
    }
}

impl Default for EtcdKeys {
    fn default() -> Self {
        let prefix = "/defragd/lock/".to_owned();
        Self { prefix, endpoints: Vec::new(), tls: TlsFiles::default(), auth: None }
    }
}

impl PeerSettings {
    pub fn admin_token_file(&self) -> Option<&PathBuf> {
        self.admin_token_file.as_ref().or(self.token_file.as_ref())
    }
}

impl LockSettings {
    pub fn etcd(&self) -> EtcdKeys {
        self.etcd.clone().unwrap_or_default()
    }

    pub fn kubernetes(&self) -> KubernetesKeys {
        self.kubernetes.clone().unwrap_or_default()
    }

    /// Whether each cluster's lock is stored in that cluster itself.
    pub fn is_in_the_target(&self) -> bool {
        self.kind == LockKind::Etcd && self.etcd.as_ref().is_none_or(|etcd| etcd.endpoints.is_empty())
    }

    /// Finds what is wrong, and completes URLs and the prefix.
    pub(super) fn check(&mut self, mut at: At<'_>) {
        let kinds = [
            (self.etcd.is_some(), "etcd", LockKind::Etcd),
            (self.kubernetes.is_some(), "kubernetes", LockKind::Kubernetes),
        ];
        for (_, key, _) in kinds.into_iter().filter(|(is_given, _, kind)| *is_given && *kind != self.kind) {
            at.add(key, "belongs to another lock.kind");
        }
        if !(MIN_TTL..=MAX_TTL).contains(&self.ttl) || self.ttl.subsec_nanos() != 0 {
            at.add("ttl", format!("is {}, but must be whole seconds from 10s to 1h", Time::from(self.ttl)));
        }
        if self.name.as_ref().is_some_and(|name| name.trim().is_empty() || name.chars().count() > 200) {
            at.add("name", "must have 1 to 200 characters");
        }
        if let Some(text) = &mut self.url {
            match Url::parse(text) {
                Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => {
                    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
                        at.add("url", "must not contain a user, a password or a query");
                    }
                    *text = url.into();
                }
                _ if text.contains('@') => at.add("url", "must not contain a user, a password or a query"),
                _ => at.add("url", format!("{text:?} is not a URL like https://10.0.0.1:9379")),
            }
        }
        if let (LockKind::Etcd, Some(etcd)) = (self.kind, &mut self.etcd) {
            etcd.check(at.key("etcd"));
        }
        if let (LockKind::Kubernetes, Some(kubernetes)) = (self.kind, &self.kubernetes) {
            kubernetes.check(at.key("kubernetes"));
        }
        self.peers.tls.check(at.key("peers.tls"));
    }
}

impl EtcdKeys {
    fn check(&mut self, mut at: At<'_>) {
        if self.prefix.is_empty() || self.prefix.len() > 200 || self.prefix.chars().any(char::is_control) {
            at.add("prefix", "must have 1 to 200 bytes of plain text");
        }
        if !self.prefix.ends_with('/') {
            self.prefix.push('/');
        }
        check_endpoints(&mut self.endpoints, &self.tls, &mut at);
        self.tls.check(at.key("tls"));
        let is_secure = self.tls.ca_file.is_some() || self.tls.cert_file.is_some();
        if self.endpoints.is_empty() && (is_secure || self.auth.is_some()) {
            let what = "is missing; tls and auth require it. Without all three, the lock of a cluster is stored in the \
            cluster itself";
            at.add("endpoints", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn read(lock: &str) -> Result<LockSettings, String> {
        let text = format!("clusters: [{{name: a, endpoints: [x:1]}}]\nlock: {lock}\n");
        Settings::from_text(&text).map(|settings| settings.lock).map_err(|error| error.to_string())
    }

    #[test]
    fn without_the_key_there_is_no_lock() {
        let settings = Settings::from_text("clusters: [{name: a, endpoints: [x:1]}]");
        assert_eq!(settings.expect("valid").lock, LockSettings::default());
        assert_eq!(read("{}").expect("valid").kind, LockKind::None);
    }

    #[test]
    fn the_lock_in_each_clusters_own_etcd_needs_one_word() {
        let lock = read("{kind: etcd}").expect("valid");
        assert!(lock.kind == LockKind::Etcd && lock.is_in_the_target());
        assert_eq!(lock.etcd(), EtcdKeys { prefix: "/defragd/lock/".to_owned(), ..EtcdKeys::default() });
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
        let etcd = lock.etcd();
        assert!(lock.kind == LockKind::Etcd && !lock.is_in_the_target());
        assert_eq!((etcd.prefix.as_str(), etcd.endpoints), ("/x/", vec!["https://c:2379".to_owned()]));
        assert_eq!(lock.peers.admin_token_file(), Some(&PathBuf::from("/a")));
        let lock = read("{kind: kubernetes, kubernetes: {kubeconfig: /k, context: c, namespace: n, name_prefix: d-}}");
        let lock = lock.expect("valid");
        assert_eq!((lock.kind, lock.kubernetes().namespace.as_deref()), (LockKind::Kubernetes, Some("n")));
    }

    #[test]
    fn every_problem_is_reported_with_its_key_path() {
        for (text, expected) in [
            ("{kind: zookeeper}", "zookeeper"),
            ("{kind: etcd, ttl: 5s}", "lock.ttl: is 5s, but must be whole seconds from 10s to 1h"),
            ("{kind: etcd, ttl: 10s500ms}", "lock.ttl"),
            ("{kind: etcd, kubernetes: {}}", "lock.kubernetes: belongs to another lock.kind"),
            ("{kind: kubernetes, etcd: {}}", "lock.etcd: belongs to another lock.kind"),
            ("{kind: etcd, name: ''}", "lock.name"),
            ("{kind: etcd, url: '10.0.0.1:9379'}", "lock.url"),
            ("{kind: etcd, url: 'http://u:p@x'}", "lock.url: must not contain a user"),
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
