//! A cluster as it is configured.

use std::collections::{BTreeMap, HashMap};

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::{
    core::{
        alert::{Labels, Selector},
        check::{At, Problems, Size},
        policy::Policy,
    },
    ports::{
        access::{DiscoverySrv, MetricsPage, TlsFiles, User},
        gate::GateSettings,
    },
};

/// Enough for the checks that people maintain; all of them run after every member.
const MAX_GATES: usize = 50;
/// This many labels have 255 subsets, which are compared with those of the other clusters.
const MAX_COMPARED_LABELS: usize = 8;
/// etcd's default is 2 GiB; a lower quota is hardly useful.
const MIN_QUOTA: ByteSize = ByteSize::mib(1);
/// When these keys need a restart.
const LOCK_IN_THE_TARGET: &str = "if the cluster's lock is kept in its own etcd";

/// One cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterSettings {
    /// The cluster's name, unique in the file. It is the metric label `etcd_cluster`.
    pub name: String,
    /// Client URLs of members. One reachable member is enough to find the others; name several, for the day that one is
    /// down. Without a scheme, it is `https://` if `tls` is set and `http://` if not.
    #[serde(default)]
    #[schemars(extend("x-default" = "required without `discovery_srv`", "x-restart" = LOCK_IN_THE_TARGET))]
    pub endpoints: Vec<String>,
    /// Finds client URLs by DNS SRV records, instead of `endpoints` or in addition to them.
    #[schemars(extend("x-restart" = LOCK_IN_THE_TARGET))]
    pub discovery_srv: Option<DiscoverySrv>,
    /// TLS to the members. The files are read again when they change. With `tls` or `https://` endpoints, nothing is sent
    /// without TLS.
    #[serde(default)]
    #[schemars(extend("x-restart" = LOCK_IN_THE_TARGET))]
    pub tls: TlsFiles,
    /// The etcd user. Only needed where etcd's authentication is on. To defragment, it needs the role `root`.
    #[schemars(extend("x-restart" = LOCK_IN_THE_TARGET))]
    pub auth: Option<User>,
    /// Where the members serve their metrics, if their client URLs do not.
    pub metrics: Option<MetricsPage>,
    /// The members' `--quota-backend-bytes`, for members that do not report it. A reported quota wins over this one.
    #[schemars(with = "Option<Size>", extend("x-default" = "as reported by the member", "x-range" = ["1MiB", null]))]
    pub quota: Option<ByteSize>,
    /// Sets of labels. An alert that has all labels of one set, with equal values, concerns this cluster.
    #[serde(rename = "match")]
    #[schemars(extend("x-default" = "`[{etcd_cluster: NAME}]`"))]
    pub matches: Option<Vec<Labels>>,
    /// When to defragment, and how carefully.
    #[serde(default)]
    pub policy: Policy,
    /// Checks outside etcd, at most 50. A gate that fails before the first member refuses the run; one that fails later
    /// stops it. A gate has exactly one kind: `http`, `tcp`, `promql`, `alertmanager`,
    /// `kubernetes_pods` or `kubernetes_nodes`.
    #[serde(default)]
    pub gates: Vec<GateSettings>,
    /// Messages name flags instead of keys.
    #[serde(skip)]
    pub by_flags: bool,
}

impl ClusterSettings {
    /// Which alerts concern this cluster.
    pub fn selector(&self) -> Selector {
        let by_name = || vec![BTreeMap::from([("etcd_cluster".to_owned(), self.name.clone())])];
        Selector { cluster: self.name.clone(), any_of: self.matches.clone().unwrap_or_else(by_name) }
    }

    /// Finds what is wrong, and completes the endpoints.
    pub(super) fn check(&mut self, mut at: At<'_>) {
        if self.name.trim().is_empty() {
            at.add("name", "must not be empty");
        } else if self.name.chars().any(char::is_control) {
            at.add("name", "must not contain control characters");
        }
        if self.endpoints.is_empty() && self.discovery_srv.is_none() {
            at.add("endpoints", "needs at least one client URL, like https://10.0.0.1:2379");
        }
        check_endpoints(&mut self.endpoints, &self.tls, &mut at);
        if let Some(discovery) = &mut self.discovery_srv {
            discovery.check(at.key("discovery_srv"));
        }
        self.tls.check(at.key("tls"));
        if let Some(user) = &self.auth {
            user.check(at.key("auth"));
        }
        for (index, set) in self.matches.iter().flatten().enumerate() {
            if set.is_empty() {
                let what = "an empty set of labels would match every alert; name at least one label";
                at.add(&format!("match[{index}]"), what);
            }
        }
        if self.matches.as_ref().is_some_and(Vec::is_empty) {
            let what = "is empty, so no alert would concern this cluster; remove it to match etcd_cluster: its name";
            at.add("match", what);
        }
        if let Some(page) = &self.metrics {
            page.check(at.key("metrics"));
        }
        check_quota(self.quota, &mut at);
        self.policy.check(at.key("policy"));
        self.check_gates(at.key("gates"));
    }

    fn check_gates(&mut self, mut at: At<'_>) {
        if self.gates.len() > MAX_GATES {
            at.add("", format!("has {} gates, and at most {MAX_GATES} are allowed", self.gates.len()));
        }
        let mut seen = BTreeMap::new();
        for (index, gate) in self.gates.iter_mut().enumerate() {
            if let Some(first) = seen.insert(gate.name.clone(), index) {
                let what = format!("{:?} is already the name of {}[{first}]", gate.name, at.path());
                at.add(&format!("[{index}].name"), what);
            }
            gate.check(&self.name, at.key(&format!("[{index}]")));
        }
    }
}

pub(super) fn check_quota(quota: Option<ByteSize>, at: &mut At<'_>) {
    if let Some(quota) = quota.filter(|quota| *quota < MIN_QUOTA) {
        let what = format!(
            "is {} bytes: write the members' --quota-backend-bytes with a unit, like 8GiB, or 2GiB if that flag is not \
            set",
            quota.0
        );
        at.add("quota", what);
    }
}

/// Checks endpoints, and completes each to a URL.
pub(super) fn check_endpoints(endpoints: &mut [String], tls: &TlsFiles, at: &mut At<'_>) {
    let secure = [("ca_file", &tls.ca_file), ("cert_file", &tls.cert_file)];
    let secure = secure.into_iter().find_map(|(key, file)| file.is_some().then_some(key));
    for (index, text) in endpoints.iter_mut().enumerate() {
        match endpoint(text, secure) {
            Ok(url) => *text = url,
            Err(error) => at.add(&format!("endpoints[{index}]"), error),
        }
    }
}

/// As etcdctl reads endpoints: the scheme may be omitted. The result has no path and no trailing slash. `secure` is a key
/// of `tls`, if one is set. The error shows no password.
fn endpoint(text: &str, secure: Option<&str>) -> Result<String, String> {
    let text = text.trim();
    let with_scheme = match text.split_once("://") {
        Some(_) => text.to_owned(),
        None if secure.is_some() => format!("https://{text}"),
        None => format!("http://{text}"),
    };
    let hint = "write it like https://10.0.0.1:2379";
    // Before anything is quoted.
    if text.contains('@') {
        return Err("contains a user or password: use auth.username and auth.password_file".to_owned());
    }
    let bad = |what: String| format!("{text:?} {what}");
    let url = Url::parse(&with_scheme).map_err(|error| bad(format!("is not a URL ({error}); {hint}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(format!("has the scheme {}; {hint}", url.scheme())));
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad(format!("has no host; {hint}")))?;
    if url.path() != "/" || url.query().is_some() {
        return Err(bad(format!("has more than a host and a port; {hint}")));
    }
    if let Some(key) = secure.filter(|_| url.scheme() == "http") {
        return Err(bad(format!("begins with http://, but {key} is set: write https://, or remove {key}")));
    }
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    Ok(format!("{}://{host}{port}", url.scheme()))
}

/// Checks that clusters have distinct names, endpoints and alerts.
pub(super) fn check_apart(clusters: &[ClusterSettings], problems: &mut Problems) {
    let (mut names, mut endpoints, mut sets) = (HashMap::new(), HashMap::new(), HashMap::new());
    let sets_of: Vec<_> = clusters.iter().map(|cluster| cluster.selector().any_of).collect();
    for (index, cluster) in clusters.iter().enumerate() {
        let at = format!("clusters[{index}]");
        let first = *names.entry(&cluster.name).or_insert(index);
        if first != index {
            problems.add(format!("{at}.name"), format!("{:?} is already the name of clusters[{first}]", cluster.name));
            // The rest is most likely a copy, too.
            continue;
        }
        let shared = cluster.endpoints.iter().find_map(|url| endpoints.get(url));
        if let Some(other) = shared {
            problems.add(format!("{at}.endpoints"), format!("cluster {other:?} already has one of them"));
        }
        endpoints.extend(cluster.endpoints.iter().map(|url| (url, &cluster.name)));
        for set in &sets_of[index] {
            sets.entry(set).or_insert(index);
        }
    }
    // A set with all labels of another one and more matches only alerts that match both, and those would be ambiguous.
    for (index, _) in clusters.iter().enumerate().filter(|(index, cluster)| names[&cluster.name] == *index) {
        for (number, set) in sets_of[index].iter().enumerate() {
            let within = |other: &BTreeMap<String, String>| sets.get(other).filter(|other| **other != index);
            if let Some(other) = subsets(set).iter().find_map(within) {
                let other = &clusters[*other].name;
                let what = format!(
                    "matches only alerts that also match cluster {other:?}, and an alert must concern one cluster: add a \
                    label that tells them apart"
                );
                problems.add(format!("clusters[{index}].match[{number}]"), what);
            }
        }
    }
}

/// All subsets of these labels, if they are not too many.
fn subsets(labels: &BTreeMap<String, String>) -> Vec<BTreeMap<String, String>> {
    if labels.len() > MAX_COMPARED_LABELS {
        return vec![labels.clone()];
    }
    let chosen = |mask: u32| {
        let labels = labels.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
        labels.map(|(_, (name, value))| (name.clone(), value.clone())).collect()
    };
    (1..1_u32 << labels.len()).map(chosen).collect()
}
