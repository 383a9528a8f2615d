//! Gates, checked: what is looked at outside etcd, and when.
//!
//! Secrets come from files, and are not read here; what looks like one in the file itself is refused.

mod keys;
mod matcher;
pub mod notify;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use url::Url;

use self::keys::{At, HttpKeys};
use super::{raw::gates as raw, validate::Problems};
use crate::core::{
    expect::{Pattern, Samples, Statuses},
    gate::{GateKind, GateRule, Moment},
};

/// More are no checks of a person's any more, and all of them are run after every member.
const MAX_GATES: usize = 50;
/// It is a metric label.
const MAX_NAME_BYTES: usize = 63;
/// Of a URL's query, which carries it.
const MAX_QUERY_BYTES: usize = 4_000;
/// Beyond it, `label_selector` and `field_selector` are no selectors.
const MAX_SELECTOR_BYTES: usize = 1_000;
/// Stands for the cluster's name in a query.
const CLUSTER_VARIABLE: &str = "$etcd_cluster";
/// A check that takes longer would hold up a run for longer than the run itself takes.
const MAX_CHECK: Duration = Duration::from_hours(1);

#[derive(Clone, Debug, PartialEq)]
pub struct GateSettings {
    /// Its name, its moments and what its failure does.
    pub rule: GateRule,
    pub check: CheckSettings,
}

/// What a gate looks at, as its kind needs it.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckSettings {
    Http(HttpSettings),
    Tcp(TcpSettings),
    Promql(PromqlSettings),
    Alertmanager(AlertmanagerSettings),
    KubernetesPods(KubernetesPodsSettings),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The authorities to trust; the system's where absent.
    pub ca_file: Option<PathBuf>,
    pub identity_files: Option<(PathBuf, PathBuf)>,
    /// The name to ask for and to verify, where it is not the address's.
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSettings {
    /// Sent as they are; none of them a secret.
    pub headers: BTreeMap<String, String>,
    /// Sent with what the files hold.
    pub header_files: BTreeMap<String, PathBuf>,
    pub bearer_token_file: Option<PathBuf>,
    /// The user and the file with its password.
    pub basic_auth: Option<(String, PathBuf)>,
    pub tls: TlsSettings,
}

/// How often and how long a check tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrySettings {
    /// Of one attempt.
    pub timeout: Duration,
    /// At least one.
    pub attempts: u32,
    /// Between attempts.
    pub interval: Duration,
    /// How long it must keep succeeding after the first success.
    pub hold: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpSettings {
    /// Without user information.
    pub url: Url,
    /// A method that only reads, or `POST`.
    pub method: String,
    pub access: AccessSettings,
    pub expect_status: Statuses,
    /// What must be found in its body.
    pub expect_body: Option<Pattern>,
    /// Whether to go where it sends us.
    pub follow_redirects: bool,
    pub tries: TrySettings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSettings {
    /// A name or an address, without brackets.
    pub host: String,
    /// Not 0.
    pub port: u16,
    /// A handshake too.
    pub tls: Option<TlsSettings>,
    pub tries: TrySettings,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PromqlSettings {
    /// The base, without query.
    pub url: Url,
    /// With the cluster's name in it.
    pub query: String,
    pub expect: Samples,
    pub access: AccessSettings,
    pub tries: TrySettings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertmanagerSettings {
    /// The base, without query.
    pub url: Url,
    /// In Alertmanager's syntax; never empty.
    pub matchers: Vec<String>,
    /// Names of alerts that are no failure.
    pub ignore: BTreeSet<String>,
    pub access: AccessSettings,
    pub tries: TrySettings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesPodsSettings {
    /// In the cluster itself where absent.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's current one where absent.
    pub context: Option<String>,
    /// All where empty.
    pub namespaces: BTreeSet<String>,
    /// As `kubectl --selector`.
    pub label_selector: Option<String>,
    /// As `kubectl --field-selector`.
    pub field_selector: Option<String>,
    /// How long a pod may be unhealthy.
    pub grace: Duration,
    /// Of one request.
    pub timeout: Duration,
}

/// The gates of the cluster of that name.
pub(super) fn list(at: &str, cluster: &str, raw: Vec<raw::Gate>, problems: &mut Problems) -> Vec<GateSettings> {
    if raw.len() > MAX_GATES {
        problems.add(at, format!("are {}, and at most {MAX_GATES} are possible", raw.len()));
    }
    let mut seen = BTreeMap::new();
    let mut gates = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let here = format!("{at}[{index}]");
        if let Some(first) = seen.insert(raw.name.clone(), index) {
            problems.add(format!("{here}.name"), format!("{:?} is the name of {at}[{first}] already", raw.name));
        }
        gates.extend(gate(&here, cluster, raw, problems));
    }
    gates
}

fn gate(at: &str, cluster: &str, raw: raw::Gate, problems: &mut Problems) -> Option<GateSettings> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if raw.name.is_empty() || raw.name.len() > MAX_NAME_BYTES || !raw.name.chars().all(plain) {
        let what = format!("must be 1 to {MAX_NAME_BYTES} of a-z, 0-9, _ and -: it is a metric label");
        problems.add(format!("{at}.name"), what);
    }
    let when = match raw.when {
        Some(when) if when.is_empty() => {
            problems.add(format!("{at}.when"), "is empty; leave it out for all of before, between, after");
            BTreeSet::new()
        }
        Some(when) => when.into_iter().collect(),
        None => BTreeSet::from(Moment::ALL),
    };
    if raw.exec.is_some() {
        let what = "does not exist: an alert comes from the network, and must not become a command on this machine. \
                    Serve what your script finds as a page or a metric, and check that with http or promql";
        problems.add(format!("{at}.exec"), what);
        return None;
    }
    let kinds = "http, tcp, promql, alertmanager, kubernetes_pods";
    let mut checks = Vec::new();
    // Not `or_else`: each kind that is there is checked, so that every problem is reported.
    checks.extend(raw.http.map(|raw| (GateKind::Http, http(&format!("{at}.http"), raw, problems))));
    checks.extend(raw.tcp.map(|raw| (GateKind::Tcp, tcp(&format!("{at}.tcp"), raw, problems))));
    checks.extend(raw.promql.map(|raw| (GateKind::Promql, promql(&format!("{at}.promql"), cluster, raw, problems))));
    let of_alerts = |raw| (GateKind::Alertmanager, alertmanager(&format!("{at}.alertmanager"), raw, problems));
    checks.extend(raw.alertmanager.map(of_alerts));
    let of_pods = |raw| (GateKind::KubernetesPods, kubernetes_pods(&format!("{at}.kubernetes_pods"), raw, problems));
    checks.extend(raw.kubernetes_pods.map(of_pods));
    if checks.len() > 1 {
        let found: Vec<_> = checks.iter().map(|(kind, _)| kind.label()).collect();
        problems
            .add(at, format!("is of {} kinds ({}); write a gate of its own for each", checks.len(), found.join(", ")));
        return None;
    }
    let Some((kind, check)) = checks.pop() else {
        problems.add(at, format!("says not what to check; write one of: {kinds}"));
        return None;
    };
    if kind == GateKind::KubernetesPods && !when.is_empty() && !when.contains(&Moment::Before) {
        problems.add(format!("{at}.when"), "needs before: what pods are later compared with is seen then");
    }
    let rule = GateRule { name: raw.name, kind, when, on_failure: raw.on_failure.unwrap_or_default() };
    Some(GateSettings { rule, check: check? })
}

fn http(at: &str, raw: raw::Http, problems: &mut Problems) -> Option<CheckSettings> {
    let mut at = At::new(at, problems);
    let url = at.url("url", &raw.url, true);
    let method = raw.method.map_or_else(|| "GET".to_owned(), |method| method.trim().to_ascii_uppercase());
    if !["GET", "HEAD", "OPTIONS", "POST"].contains(&method.as_str()) {
        at.add("method", format!("is {method:?}, and a check must not change anything: GET, HEAD, OPTIONS or POST"));
    }
    let words = raw.expect_status.map(|words| words.into_iter().map(keys::status_word).collect::<Vec<_>>());
    let expect_status =
        words.map_or(Ok(Statuses::default()), |words| Statuses::parse(words.iter().map(String::as_str)));
    let expect_status = at.good("expect_status", expect_status).unwrap_or_default();
    let expect_body = raw.expect_body.and_then(|text| at.good("expect_body", Pattern::parse(&text)));
    if expect_body.is_some() && method == "HEAD" {
        at.add("expect_body", "needs another method: the answer to HEAD has no body");
    }
    let tries = at.tries(raw.timeout, raw.attempts, raw.interval, raw.hold);
    let keys = HttpKeys {
        headers: raw.headers,
        header_files: raw.header_files,
        bearer_token_file: raw.bearer_token_file,
        basic_auth: raw.basic_auth,
        tls: raw.tls,
    };
    let access = at.access(keys, url.as_ref());
    let follow_redirects = raw.follow_redirects;
    Some(CheckSettings::Http(HttpSettings {
        url: url?,
        method,
        access,
        expect_status,
        expect_body,
        follow_redirects,
        tries,
    }))
}

fn tcp(at: &str, raw: raw::Tcp, problems: &mut Problems) -> Option<CheckSettings> {
    let mut at = At::new(at, problems);
    let address = at.host_and_port("address", &raw.address);
    let tries = at.tries(raw.timeout, raw.attempts, raw.interval, None);
    let tls = raw.tls.map(|tls| at.tls(tls));
    let (host, port) = address?;
    Some(CheckSettings::Tcp(TcpSettings { host, port, tls, tries }))
}

fn promql(at: &str, cluster: &str, raw: raw::Promql, problems: &mut Problems) -> Option<CheckSettings> {
    let mut at = At::new(at, problems);
    let url = at.url("url", &raw.url, false);
    let tries = at.tries(raw.timeout, raw.attempts, raw.interval, None);
    let query = raw.query.replace(CLUSTER_VARIABLE, &escaped(cluster));
    if raw.query.trim().is_empty() {
        at.add("query", "must not be empty");
    } else if query.len() > MAX_QUERY_BYTES {
        at.add("query", format!("is longer than {MAX_QUERY_BYTES} bytes; make a recording rule of it"));
    } else if let Some(name) = variable(&query) {
        // Copied from a dashboard. In Prometheus a `$` with a word behind it never matches anything.
        at.add("query", format!("has the variable {name}, and only {CLUSTER_VARIABLE} is known"));
    }
    let expect = match raw.expect.unwrap_or(raw::Expect::Empty) {
        raw::Expect::Empty => Samples::Empty,
        raw::Expect::NotEmpty => Samples::NotEmpty,
        raw::Expect::Above(limit) | raw::Expect::Below(limit) if !limit.is_finite() => {
            at.add("expect", format!("is {limit}, and must be a number"));
            Samples::Empty
        }
        raw::Expect::Above(limit) => Samples::Above(limit),
        raw::Expect::Below(limit) => Samples::Below(limit),
    };
    let keys = HttpKeys {
        headers: raw.headers,
        header_files: raw.header_files,
        bearer_token_file: raw.bearer_token_file,
        basic_auth: raw.basic_auth,
        tls: raw.tls,
    };
    let access = at.access(keys, url.as_ref());
    Some(CheckSettings::Promql(PromqlSettings { url: url?, query, expect, access, tries }))
}

/// The name as it stands in any of PromQL's quotes, without ending them.
fn escaped(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        match c {
            '\\' => text.push_str(r"\\"),
            '"' => text.push_str(r"\x22"),
            '\'' => text.push_str(r"\x27"),
            '`' => text.push_str(r"\x60"),
            '\n' => text.push_str(r"\n"),
            c => text.push(c),
        }
    }
    text
}

/// The first `$word` or `${word}` in a query.
fn variable(query: &str) -> Option<&str> {
    query.match_indices('$').find_map(|(start, _)| {
        let rest = &query[start + 1..];
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_{}:".contains(c))).unwrap_or(rest.len());
        (length > 0 && !rest.starts_with(|c: char| c.is_ascii_digit() || c == '}'))
            .then(|| &query[start..=start + length])
    })
}

fn alertmanager(at: &str, raw: raw::Alertmanager, problems: &mut Problems) -> Option<CheckSettings> {
    let mut at = At::new(at, problems);
    let url = at.url("url", &raw.url, false);
    let tries = at.tries(raw.timeout, raw.attempts, raw.interval, None);
    if raw.matchers.is_empty() {
        at.add("matchers", "is empty, and would match every alert, the one that started the run among them");
    }
    let mut matchers = Vec::new();
    for (index, text) in raw.matchers.iter().enumerate() {
        matchers.extend(at.good(&format!("matchers[{index}]"), matcher::checked(text)));
    }
    for (index, name) in raw.ignore.iter().enumerate() {
        if name.trim().is_empty() || name.contains(['=', '~', '{']) {
            at.add(
                &format!("ignore[{index}]"),
                "is no alert's name; what is finer belongs into matchers, like 'team!=\"x\"'",
            );
        }
    }
    let keys = HttpKeys {
        headers: raw.headers,
        header_files: raw.header_files,
        bearer_token_file: raw.bearer_token_file,
        basic_auth: raw.basic_auth,
        tls: raw.tls,
    };
    let access = at.access(keys, url.as_ref());
    let ignore = raw.ignore.into_iter().collect();
    Some(CheckSettings::Alertmanager(AlertmanagerSettings { url: url?, matchers, ignore, access, tries }))
}

#[expect(clippy::unnecessary_wraps, reason = "the same shape as the other kinds")]
fn kubernetes_pods(at: &str, raw: raw::KubernetesPods, problems: &mut Problems) -> Option<CheckSettings> {
    let mut at = At::new(at, problems);
    if raw.context.is_some() && raw.kubeconfig.is_none() {
        at.add("context", "needs kubeconfig: without it, it is the cluster that defragd runs in");
    }
    if raw.context.as_ref().is_some_and(|context| context.trim().is_empty()) {
        at.add("context", "must not be empty; leave it out for the kubeconfig's current one");
    }
    for (index, name) in raw.namespaces.iter().enumerate() {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty()
            || name.len() > 63
            || !name.chars().all(plain)
            || name.starts_with('-')
            || name.ends_with('-')
        {
            at.add(&format!("namespaces[{index}]"), format!("{name:?} is no namespace's name"));
        }
    }
    for (key, selector) in [("label_selector", &raw.label_selector), ("field_selector", &raw.field_selector)] {
        let bad = |text: &String| {
            text.trim().is_empty() || text.len() > MAX_SELECTOR_BYTES || text.chars().any(char::is_control)
        };
        if selector.as_ref().is_some_and(bad) {
            at.add(key, format!("must be one line of at most {MAX_SELECTOR_BYTES} bytes, and not empty"));
        }
    }
    let grace = at.duration("grace", raw.grace, (Duration::ZERO, MAX_CHECK), Duration::from_secs(60));
    let timeout = at.timeout(raw.timeout, Duration::from_secs(10));
    Some(CheckSettings::KubernetesPods(KubernetesPodsSettings {
        kubeconfig: raw.kubeconfig,
        context: raw.context,
        namespaces: raw.namespaces.into_iter().collect(),
        label_selector: raw.label_selector,
        field_selector: raw.field_selector,
        grace,
        timeout,
    }))
}
