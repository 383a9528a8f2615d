use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use super::read;
use crate::{
    config::{Overrides, Settings, Source},
    core::policy::{Compaction, Policy},
};

#[test]
fn a_small_file_is_enough() {
    let settings = read("clusters: [{name: a, endpoints: [10.0.0.1:2379]}]").expect("valid");
    let cluster = &settings.clusters[0];
    assert_eq!(cluster.endpoints, ["http://10.0.0.1:2379"]);
    assert_eq!(cluster.policy, Policy::default());
    assert_eq!(cluster.selector().any_of, [BTreeMap::from([("etcd_cluster".to_owned(), "a".to_owned())])]);
}

#[test]
fn a_key_without_a_value_has_its_default() {
    let settings = read(
        "lock: {kind: , ttl: , peers: }
clusters:
  - name: a
    endpoints: [10.0.0.1:2379]
    policy: {mode: , cooldown: , max_runs_per_day: , compaction: }
    gates:
",
    );
    assert_eq!(settings.expect("valid").clusters[0].policy, Policy::default());
    let unknown = read("clusters: [{name: a, endpoints: [10.0.0.1:2379], colour: }]").expect_err("unknown");
    assert!(unknown.contains("colour"), "{unknown}");
    let needed = read("clusters: [{name: , endpoints: [10.0.0.1:2379]}]").expect_err("needed");
    assert!(needed.contains("clusters[0]") && needed.contains("name"), "{needed}");
}

#[test]
fn a_compaction_from_a_flag_replaces_the_one_in_the_file() {
    for written in ["{keep_revisions: 10}", "{older_than: 2h}", ""] {
        let text = format!("clusters: [{{name: a, endpoints: [10.0.0.1:2379], policy: {{compaction: {written}}}}}]");
        for (key, other, value) in
            [("keep_revisions", "older_than", json!(7)), ("older_than", "keep_revisions", json!("1h"))]
        {
            let policy = json!({"compaction": {key: value, other: null}});
            let over = Overrides { policy: policy.as_object().expect("keys").clone(), ..Overrides::default() };
            let settings = Settings::from_source(&mut Source::from_text(text.as_str()), &over).expect("valid");
            let compaction = settings.clusters[0].policy.compaction.expect("set");
            let expected = if key == "older_than" {
                Compaction::OlderThan(Duration::from_hours(1))
            } else {
                Compaction::KeepRevisions(7)
            };
            assert_eq!(compaction, expected, "{written}");
        }
    }
}

#[test]
fn endpoints_may_be_found_by_srv_records_instead() {
    let found = |keys: &str| read(&format!("clusters: [{{name: a, discovery_srv: {{{keys}}}}}]"));
    let settings = found("domain: example.com., name: prod, insecure: false, nameserver: '127.0.0.1:8600'");
    let discovery = settings.expect("valid").clusters[0].discovery_srv.clone().expect("it is there");
    assert_eq!((discovery.domain.as_str(), discovery.insecure), ("example.com", false));
    let settings = found("domain: example.com").expect("valid");
    assert!(settings.clusters[0].discovery_srv.as_ref().is_some_and(|discovery| discovery.insecure), "as etcdctl");
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
    assert_eq!(cluster.selector().any_of.len(), 2);
}
