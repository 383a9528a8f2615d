//! From the written form to the meaning, with every problem found on the way.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use url::Url;

use super::{
    ClusterSettings, DiscoverySettings, Problem, Settings, gates, lock, metrics, modules, raw, schedule, windows,
};
use crate::core::{
    alert::Selector,
    policy::{Compaction, Policy},
    rule::Rule,
    time::Time,
};

/// Revisions younger than this cannot be distinguished by age: the cluster is sampled every few seconds.
const MIN_COMPACTION_AGE: Duration = Duration::from_mins(1);
/// This many labels have 255 subsets, which are compared with those of the other clusters.
const MAX_COMPARED_LABELS: usize = 8;
/// etcd frees and uses pages of this size.
const PAGE_BYTES: u64 = 4096;
/// A longer deadline would not be a limit any more.
const MAX_DURATION: Duration = Duration::from_hours(24 * 365);

#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl From<Problems> for Vec<Problem> {
    fn from(problems: Problems) -> Self {
        problems.0
    }
}

impl Problems {
    pub(super) fn add(&mut self, at: impl Into<String>, what: impl Into<String>) {
        self.0.push(Problem { at: at.into(), place: None, what: what.into() });
    }
}

pub(super) fn settings(file: raw::File) -> Result<Settings, Vec<Problem>> {
    let mut problems = Problems::default();
    let redacted = file.redacted();
    if file.clusters.is_empty() && file.modules.is_empty() {
        problems.add("clusters", "needs at least one cluster");
    }
    let notify = gates::notify::list(file.notify, &mut problems);
    let mut clusters = Vec::new();
    for (index, raw) in file.clusters.into_iter().enumerate() {
        clusters.push(cluster(&format!("clusters[{index}]"), raw, &mut problems));
    }
    apart(&clusters, &mut problems);
    let modules = modules::modules(file.modules, &mut problems);
    let lock = lock::settings(file.lock, &mut problems);
    if problems.0.is_empty() { Ok(Settings { clusters, lock, modules, notify, redacted }) } else { Err(problems.0) }
}

/// Checks that clusters have distinct names, endpoints and alerts.
fn apart(clusters: &[ClusterSettings], problems: &mut Problems) {
    let (mut names, mut endpoints, mut sets) = (HashMap::new(), HashMap::new(), HashMap::new());
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
        for set in &cluster.selector.any_of {
            sets.entry(set).or_insert(index);
        }
    }
    // A set with all labels of another one and more matches only alerts that match both, and those would be ambiguous.
    for (index, cluster) in clusters.iter().enumerate().filter(|(index, cluster)| names[&cluster.name] == *index) {
        for (number, set) in cluster.selector.any_of.iter().enumerate() {
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

fn cluster(at: &str, raw: raw::Cluster, problems: &mut Problems) -> ClusterSettings {
    if raw.name.trim().is_empty() {
        problems.add(format!("{at}.name"), "must not be empty");
    }
    if raw.endpoints.is_empty() && raw.discovery_srv.is_none() {
        problems.add(format!("{at}.endpoints"), "needs at least one client URL, like https://10.0.0.1:2379");
    }
    let secure = raw.tls.ca_file.is_some() || raw.tls.cert_file.is_some();
    let endpoints = raw
        .endpoints
        .iter()
        .enumerate()
        .filter_map(|(index, text)| {
            endpoint(text, secure).map_err(|what| problems.add(format!("{at}.endpoints[{index}]"), what)).ok()
        })
        .collect();
    let identity_files = identity(&format!("{at}.tls"), raw.tls.cert_file, raw.tls.key_file, problems);
    if raw.auth.as_ref().is_some_and(|auth| auth.username.is_empty()) {
        problems.add(format!("{at}.auth.username"), "must not be empty");
    }
    for (index, set) in raw.matches.iter().flatten().enumerate() {
        if set.is_empty() {
            let what = "an empty set of labels would match every alert; name at least one label";
            problems.add(format!("{at}.match[{index}]"), what);
        }
    }
    if raw.matches.as_ref().is_some_and(Vec::is_empty) {
        let what = "is empty, so no alert would concern this cluster; remove it to match etcd_cluster: its name";
        problems.add(format!("{at}.match"), what);
    }
    let by_name = || vec![BTreeMap::from([("etcd_cluster".to_owned(), raw.name.clone())])];
    let any_of = raw.matches.clone().unwrap_or_else(by_name);
    ClusterSettings {
        selector: Selector { cluster: raw.name.clone(), any_of },
        endpoints,
        discovery: raw.discovery_srv.map(|raw| discovery(&format!("{at}.discovery_srv"), raw, problems)),
        ca_file: raw.tls.ca_file,
        identity_files,
        user: raw.auth.map(|auth| (auth.username, auth.password_file)),
        metrics: metrics::settings(&format!("{at}.metrics"), raw.metrics, problems),
        quota: metrics::quota(&format!("{at}.quota"), raw.quota, problems),
        policy: policy(&format!("{at}.policy"), raw.policy, problems),
        gates: gates::list(&format!("{at}.gates"), &raw.name, raw.gates, problems),
        by_flags: false,
        name: raw.name,
    }
}

fn discovery(at: &str, raw: raw::DiscoverySrv, problems: &mut Problems) -> DiscoverySettings {
    let is_name = |text: &str| {
        !text.is_empty() && text.split('.').all(|label| !label.is_empty() && label.len() < 64) && text.len() < 254
    };
    if !is_name(raw.domain.trim_end_matches('.')) {
        problems
            .add(format!("{at}.domain"), format!("{:?} is not a domain name; write it like example.com", raw.domain));
    }
    if raw.name.as_ref().is_some_and(|name| !is_name(name) || name.contains('.')) {
        problems.add(format!("{at}.name"), "must be one part of a name, like prod for _etcd-client-ssl-prod");
    }
    let domain = raw.domain.trim_end_matches('.').to_owned();
    DiscoverySettings { domain, name: raw.name, insecure: raw.insecure, nameserver: raw.nameserver }
}

pub(super) fn identity(
    at: &str,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    problems: &mut Problems,
) -> Option<(PathBuf, PathBuf)> {
    match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            problems.add(format!("{at}.key_file"), "is missing; it is required with cert_file");
            None
        }
        (None, Some(_)) => {
            problems.add(format!("{at}.cert_file"), "is missing; it is required with key_file");
            None
        }
    }
}

/// As etcdctl reads endpoints: the scheme may be omitted. The result has no path and no trailing slash.
pub(super) fn endpoint(text: &str, secure: bool) -> Result<String, String> {
    let text = text.trim();
    let with_scheme = match text.split_once("://") {
        Some(_) => text.to_owned(),
        None if secure => format!("https://{text}"),
        None => format!("http://{text}"),
    };
    let hint = "write it like https://10.0.0.1:2379";
    let url = Url::parse(&with_scheme).map_err(|error| format!("{text:?} is not a URL ({error}); {hint}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{text:?} has the scheme {}; {hint}", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user or password: use auth.username and auth.password_file".to_owned());
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(format!("{text:?} has no host; {hint}"));
    };
    if url.path() != "/" || url.query().is_some() {
        return Err(format!("{text:?} has more than a host and a port; {hint}"));
    }
    if secure && url.scheme() == "http" {
        return Err(format!("{text:?} begins with http://, but tls is set: write https://, or remove tls"));
    }
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    Ok(format!("{}://{host}{port}", url.scheme()))
}

fn policy(at: &str, keys: raw::PolicyKeys, problems: &mut Problems) -> Policy {
    let default = Policy::default();
    let mut ratio = |key: &str, value: Option<f64>, default: f64| match value {
        Some(value) if !(0.0..=1.0).contains(&value) => {
            problems.add(format!("{at}.{key}"), format!("is {value}, but must be between 0 and 1"));
            default
        }
        value => value.unwrap_or(default),
    };
    let min_fragmentation_ratio =
        ratio("min_fragmentation_ratio", keys.min_fragmentation_ratio, default.min_fragmentation_ratio);
    let quota_usage_ratio = ratio("quota_usage_ratio", keys.quota_usage_ratio, default.quota_usage_ratio);
    for (key, size) in
        [("min_reclaimable", keys.min_reclaimable), ("quota_min_reclaimable", keys.quota_min_reclaimable)]
    {
        if let Some(size) = size.filter(|size| (1..PAGE_BYTES).contains(&size.0)) {
            let what = format!("is {} bytes, less than one page of etcd's file: write a unit, like {0}MiB", size.0);
            problems.add(format!("{at}.{key}"), what);
        }
    }
    let mut duration = |key: &str, value: Option<Time>, least: Duration, default: Duration| {
        let Some(value) = value else { return default };
        let time = Duration::from(value);
        if (least..=MAX_DURATION).contains(&time) {
            return time;
        }
        let what = format!("is {value}, but must be at least {} and at most a year", Time::from(least));
        problems.add(format!("{at}.{key}"), what);
        default
    };
    let second = Duration::from_secs(1);
    let mut policy = Policy {
        mode: keys.mode.unwrap_or(default.mode),
        min_fragmentation_ratio,
        min_reclaimable: keys.min_reclaimable.unwrap_or(default.min_reclaimable),
        quota_usage_ratio,
        quota_min_reclaimable: keys.quota_min_reclaimable.unwrap_or(default.quota_min_reclaimable),
        pause_between_members: duration(
            "pause_between_members",
            keys.pause_between_members,
            Duration::ZERO,
            default.pause_between_members,
        ),
        defrag_deadline: duration("defrag_deadline", keys.defrag_deadline, second, default.defrag_deadline),
        recovery_timeout: duration("recovery_timeout", keys.recovery_timeout, second, default.recovery_timeout),
        cooldown: duration("cooldown", keys.cooldown, Duration::ZERO, default.cooldown),
        leader: keys.leader.unwrap_or(default.leader),
        transfer_above: duration("transfer_above", keys.transfer_above, Duration::ZERO, default.transfer_above),
        liveness_budget: keys
            .liveness_budget
            .map(|time| duration("liveness_budget", Some(time), second, Duration::from_mins(1))),
        max_expected_stall: keys
            .max_expected_stall
            .map(|time| duration("max_expected_stall", Some(time), second, Duration::from_mins(1))),
        on_open_snapshot: keys.on_open_snapshot.unwrap_or(default.on_open_snapshot),
        verify: keys.verify.unwrap_or(default.verify),
        disarm_no_space: keys.disarm_nospace.unwrap_or(default.disarm_no_space),
        allow_without_quorum_slack: keys.allow_without_quorum_slack.unwrap_or(default.allow_without_quorum_slack),
        emergency: keys.emergency.unwrap_or(default.emergency),
        max_runs_per_day: keys.max_runs_per_day.unwrap_or(default.max_runs_per_day),
        breaker_failures: keys.breaker_failures.unwrap_or(default.breaker_failures),
        breaker_reset_after: keys
            .breaker_reset_after
            .map(|time| duration("breaker_reset_after", Some(time), second, Duration::from_hours(1))),
        approval_timeout: duration("approval_timeout", keys.approval_timeout, second, default.approval_timeout),
        ..default
    };
    for (key, value) in [("max_runs_per_day", policy.max_runs_per_day), ("breaker_failures", policy.breaker_failures)] {
        if value == 0 {
            problems.add(format!("{at}.{key}"), "is 0, but must be at least 1; to prevent runs, use mode observe");
        }
    }
    if let Some(text) = keys.rule {
        match Rule::parse(&text) {
            Ok(rule) => policy.rule = Some(rule),
            Err(error) => problems.add(format!("{at}.rule"), error.to_string()),
        }
    }
    if let Some(keys) = keys.compaction {
        policy.compaction = compaction(&format!("{at}.compaction"), keys, problems);
    }
    policy.schedule = schedule::timetable(&format!("{at}.schedule"), keys.schedule.unwrap_or_default(), problems);
    policy.windows = windows::schedule(&format!("{at}.windows"), keys.windows.unwrap_or_default(), problems);
    policy
}

fn compaction(at: &str, keys: raw::CompactionKeys, problems: &mut Problems) -> Option<Compaction> {
    match (keys.keep_revisions, keys.older_than.map(Duration::from)) {
        (Some(keep), None) => Some(Compaction::KeepRevisions(keep)),
        (None, Some(age)) if (MIN_COMPACTION_AGE..=MAX_DURATION).contains(&age) => Some(Compaction::OlderThan(age)),
        (None, Some(_)) => {
            problems.add(format!("{at}.older_than"), "must be at least 1m and at most a year");
            None
        }
        _ => {
            problems.add(at, "needs either keep_revisions, a number, or older_than, like 1h");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn read(text: &str) -> Result<Settings, String> {
        Settings::from_source(&mut Source::from_text(text), |_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_small_file_is_enough() {
        let settings = read("clusters: [{name: a, endpoints: [10.0.0.1:2379]}]").expect("valid");
        let cluster = &settings.clusters[0];
        assert_eq!(cluster.endpoints, ["http://10.0.0.1:2379"]);
        assert_eq!(cluster.policy, Policy::default());
        assert_eq!(cluster.selector.any_of, [BTreeMap::from([("etcd_cluster".to_owned(), "a".to_owned())])]);
    }

    #[test]
    fn endpoints_may_be_found_by_srv_records_instead() {
        let found = |keys: &str| read(&format!("clusters: [{{name: a, discovery_srv: {{{keys}}}}}]"));
        let settings = found("domain: example.com., name: prod, insecure: false, nameserver: '127.0.0.1:8600'");
        let discovery = settings.expect("valid").clusters[0].discovery.clone().expect("it is there");
        assert_eq!((discovery.domain.as_str(), discovery.insecure), ("example.com", false));
        let settings = found("domain: example.com").expect("valid");
        assert!(settings.clusters[0].discovery.as_ref().is_some_and(|discovery| discovery.insecure), "as etcdctl");
        for (keys, problem) in [
            ("domain: ''", "clusters[0].discovery_srv.domain: \"\" is not a domain name"),
            ("domain: a..b", "clusters[0].discovery_srv.domain"),
            ("domain: a.b, name: c.d", "clusters[0].discovery_srv.name: must be one part"),
            ("domain: a.b, nameserver: ns1", "socket address"),
        ] {
            let error = found(keys).expect_err(keys);
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn every_key_is_taken() {
        let text = "
clusters:
  - name: prod-a
    endpoints: [etcd-1.example:2379, 'https://[::1]:2379/']
    tls: {ca_file: /ca.crt, cert_file: /c.crt, key_file: /c.key}
    auth: {username: root, password_file: /pw}
    match: [{job: kube-etcd, env: a}, {etcd_cluster: prod-a}]
    policy:
      mode: enforce
      min_fragmentation_ratio: 0.3
      min_reclaimable: 1 GiB
      quota_usage_ratio: 0.7
      quota_min_reclaimable: 64MiB
      pause_between_members: 0s
      defrag_deadline: 8m
      recovery_timeout: 90s
      cooldown: 1h30m
      leader: last_after_transfer
      compaction: {keep_revisions: 1000}
      disarm_nospace: false
      allow_without_quorum_slack: true
      rule: dbQuotaUsage > 0.8 || dbSizeFree > 200*1024*1024
      windows: [{days: [sat, sun], start: '02:00', end: '05:00', timezone: Europe/Berlin}]
      emergency: true
      max_runs_per_day: 2
      breaker_failures: 5
      breaker_reset_after: 1d12h
      approval_timeout: 2w
";
        let settings = read(text).expect("valid");
        let cluster = &settings.clusters[0];
        assert!(cluster.policy.rule.is_some() && cluster.policy.windows.0.len() == 1);
        assert_eq!(cluster.policy.breaker_reset_after, Some(Duration::from_hours(36)));
        assert_eq!(cluster.policy.approval_timeout, Duration::from_hours(14 * 24));
        assert_eq!(cluster.endpoints, ["https://etcd-1.example:2379", "https://[::1]:2379"]);
        assert_eq!(cluster.policy.cooldown, Duration::from_mins(90));
        assert_eq!(cluster.policy.min_reclaimable.0, 1 << 30);
        assert_eq!(cluster.selector.any_of.len(), 2);
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_key_path() {
        let text = "
clusters:
  - name: a
    endpoints: []
    tls: {cert_file: /c.crt}
    policy: {min_fragmentation_ratio: 45, defrag_deadline: 0s, compaction: {}}
  - name: a
    endpoints: ['ftp://x:1', 'https://user:pw@x:2379', 'https://x:2379/v3']
    match: [{}]
    policy:
      rule: dbsize > 1
      max_runs_per_day: 0
      compaction: {older_than: 1s}
      windows: [{days: [caturday], start: '25:00', end: '05:00', timezone: Europe/Berln}, {start: '02:00', end: '02:00', timezone: UTC}]
";
        let error = read(text).expect_err("invalid");
        for expected in [
            "clusters[0].endpoints: needs at least one",
            "clusters[0].tls.key_file: is missing",
            "clusters[0].policy.min_fragmentation_ratio: is 45, but must be between 0 and 1",
            "clusters[0].policy.defrag_deadline: is 0s",
            "clusters[0].policy.compaction: needs either",
            "clusters[1].policy.compaction.older_than: must be at least 1m",
            "clusters[1].name: \"a\" is already the name of clusters[0]",
            "clusters[1].endpoints[0]: \"ftp://x:1\" has the scheme ftp",
            "clusters[1].endpoints[1]: contains a user or password",
            "clusters[1].endpoints[2]: \"https://x:2379/v3\" has more than a host and a port",
            "clusters[1].match[0]: an empty set of labels",
            "clusters[1].policy.rule: line 1, column 1: there is no variable dbsize",
            "clusters[1].policy.max_runs_per_day: is 0",
            "clusters[1].policy.windows[0].days[0]: \"caturday\" is not a day",
            "clusters[1].policy.windows[0].start: \"25:00\" is not a time of day",
            "clusters[1].policy.windows[0].timezone: \"Europe/Berln\" is not in the IANA",
            "clusters[1].policy.windows[1].end: is equal to start",
        ] {
            assert!(error.contains(expected), "{expected:?} is not in:\n{error}");
        }
        assert!(!error.contains("pw@"), "a password is in:\n{error}");
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused_with_their_line() {
        for (text, expected) in [
            ("clusters:\n  - name: a\n    endpoints: [x:1]\n    polcy: {}\n", "polcy"),
            ("clusters:\n  - name: a\n    endpoints: [x:1]\n    policy: {mode: yolo}\n", "yolo"),
            (
                "clusters:\n  - name: a\n    endpoints: [x:1]\n    policy: {cooldown: soon}\n",
                "4:24: clusters[0].policy.cooldown: is",
            ),
            (
                "clusters:\n  - {name: a, endpoints: [x:1], policy: {min_reclaimable: lots}}\n",
                "2:59: clusters[0].policy.min_reclaimable: is \"lots\", but must be a size",
            ),
            ("clusters: 7\n", "1:11: clusters: is a single value, but must be a list"),
            ("", "clusters: needs at least one cluster"),
            ("clusters: [\n", "is not YAML"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{expected:?} is not in:\n{error}");
        }
    }
}
