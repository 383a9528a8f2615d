use std::{collections::BTreeSet, time::Duration};

use crate::{
    core::{
        expect::{Samples, Statuses},
        gate::{GateKind, Moment, OnFailure},
    },
    ports::{
        access::{ClientTls, Credentials},
        gate::{GateSettings, Tries},
    },
};

fn file(gates: &str) -> String {
    let gates = gates.trim_end().replace('\n', "\n      ");
    format!("clusters:\n  - name: prod-a\n    endpoints: [10.0.0.1:2379]\n    gates:\n      {gates}\n")
}

fn read(gates: &str) -> Result<Vec<GateSettings>, String> {
    let settings = super::read(&file(gates))?;
    Ok(settings.clusters.into_iter().flat_map(|cluster| cluster.gates).collect())
}

fn one(gate: &str) -> Result<GateSettings, String> {
    read(&format!("- {{name: g, {gate}}}")).map(|mut gates| gates.remove(0))
}

#[test]
fn what_is_left_out_has_a_careful_default() {
    let gates = read("- name: api\n  http: {url: 'https://10.0.0.1:6443/readyz'}").expect("valid");
    let [gate] = gates.as_slice() else { panic!("{gates:?}") };
    let (rule, http) = (gate.rule(gate.checks()[0].kind()), gate.http.as_ref().expect("it is one"));
    assert_eq!((rule.name.as_str(), rule.kind, rule.on_failure), ("api", GateKind::Http, OnFailure::Stop));
    assert_eq!(rule.when, BTreeSet::from(Moment::ALL));
    assert_eq!((http.method.as_str(), http.follow_redirects), ("GET", false));
    assert_eq!((http.expect_status.clone(), http.expect_body.clone()), (Statuses::default(), None));
    let second = Duration::from_secs(1);
    let tries = Tries { timeout: 5 * second, attempts: 3, interval: second, hold: Duration::ZERO };
    assert_eq!(http.tries(), tries);
    assert_eq!((http.credentials(), &http.tls), (Credentials::default(), &ClientTls::default()));

    let promql = one("promql: {url: 'http://p:9090', query: up == 0}").expect("valid").promql.expect("it is one");
    assert_eq!(promql.expect, Samples::Empty);
    let pods = one("kubernetes_pods: {}").expect("valid").kubernetes_pods.expect("it is one");
    assert_eq!((pods.grace, pods.timeout), (60 * second, 10 * second));
    assert!(pods.kubeconfig.is_none() && pods.namespaces.is_empty());
}

#[test]
fn every_key_of_every_kind_is_taken() {
    let gates = read(
        r#"
- name: site
  when: [before, after]
  on_failure: warn
  http:
    url: https://203.0.113.7/health?full=1
    method: head
    headers: {Host: shop.example.org, X-Scope-OrgID: team-a}
    header_files: {X-Api-Key: /key}
    basic_auth: {username: probe, password_file: /pw}
    expect_status: [200, "3xx"]
    tls: {ca_file: /ca.crt, cert_file: /c.crt, key_file: /c.key, server_name: shop.example.org}
    timeout: 2s
    attempts: 5
    interval: 500ms
    for: 30s
    follow_redirects: true
- {name: body, http: {url: 'http://h/', expect_body: '^ok', bearer_token_file: /token}}
- {name: bare, tcp: {address: '[::1]:443', tls: {insecure_skip_verify: true}, timeout: 1s, attempts: 1, interval: 1s}}
- {name: plain, tcp: {address: 'db.example.org:5432'}}
- {name: errors, promql: {url: 'http://p:9090/prefix', query: 'x{a="$etcd_cluster"}', expect: {below: 0.05}, headers: {X-Scope-OrgID: a}}}
- {name: some, promql: {url: 'http://p:9090', query: up, expect: not_empty}}
- {name: free, promql: {url: 'http://p:9090', query: up, expect: {above: -1}}}
- {name: alerts, alertmanager: {url: 'https://am/x', matchers: ['severity="critical"', 'a=~"b.*"', 'c!=d'], ignore: [Watchdog], timeout: 3s}}
- name: pods
  kubernetes_pods:
    {kubeconfig: /kc, context: prod, namespaces: [default, kube-system], label_selector: 'a in (b)', field_selector: x=y, grace: 2m, timeout: 5s}
- {name: nodes, kubernetes_nodes: {kubeconfig: /kc, context: prod, label_selector: role=master, grace: 0s, timeout: 5s}}
- {name: own-nodes, kubernetes_nodes: {}}
"#,
    )
    .expect("valid");
    assert_eq!(gates.len(), 11);
    let http = gates[0].http.as_ref().expect("it is one");
    assert_eq!((http.method.as_str(), http.hold), ("HEAD", Duration::from_secs(30)));
    assert!(http.expect_status.contains(302) && !http.expect_status.contains(201) && http.follow_redirects);
    assert_eq!(
        http.tls.cert_file.as_deref().zip(http.tls.key_file.as_deref()),
        Some(("/c.crt".as_ref(), "/c.key".as_ref()))
    );
    assert_eq!(gates[0].rule(GateKind::Http).when, BTreeSet::from([Moment::Before, Moment::After]));
    let tcp = gates[2].tcp.as_ref().expect("it is one");
    assert_eq!((tcp.address.host.as_str(), tcp.address.port), ("::1", 443));
    let promql = gates[4].promql.as_ref().expect("it is one");
    assert_eq!((promql.query.as_str(), promql.expect), (r#"x{a="prod-a"}"#, Samples::Below(0.05)));
    let alerts = gates[7].alertmanager.as_ref().expect("it is one");
    assert_eq!(alerts.matchers, [r#"severity="critical""#, r#"a=~"b.*""#, "c!=d"]);
    let nodes = gates[10].kubernetes_nodes.as_ref().expect("it is one");
    assert_eq!(nodes.label_selector, "node-role.kubernetes.io/control-plane");
}

/// A gate, and what is said of it, beside those in `tests/config/bad_gates_*.yaml`.
const BAD: &[(&str, &str)] = &[
    ("when: [], tcp: {address: 'a:1'}", "gates[0].when: is empty"),
    ("http: {url: readyz}", "http.url: is not a URL"),
    ("http: {url: 'ftp://x'}", "http.url: must begin with http"),
    ("http: {url: 'https://u:canary@x'}", "http.url: contains a user or password: use basic_auth"),
    ("http: {url: 'https://canary@x'}", "http.url: contains a user or password"),
    ("http: {url: 'https://u:canary@x:y'}", "http.url: is not a URL"),
    (
        "http: {url: 'https://x/?api_key=canary'}",
        "http.url: contains the parameter \"api_key\", which looks like a secret: send it as a header, with header_files",
    ),
    ("http: {url: 'https://x/?X-Amz-Signature=canary'}", "looks like a secret"),
    ("http: {url: 'https://x/#a'}", "has a fragment"),
    ("http: {url: 'https://x:0/'}", "has the port 0"),
    ("http: {url: 'https://x', method: DELETE}", "http.method: is \"DELETE\", but a check must not change anything"),
    ("http: {url: 'https://x', expect_status: []}", "http.expect_status: is empty"),
    ("http: {url: 'https://x', expect_status: [20]}", "\"20\" is not an HTTP status"),
    ("http: {url: 'https://x', expect_status: [7xx]}", "\"7xx\" is not an HTTP status"),
    (
        "http: {url: 'https://x', expect_body: '('}",
        "http.expect_body: is not a regular expression: error: unclosed group",
    ),
    ("http: {url: 'https://x', method: HEAD, expect_body: ok}", "the answer to HEAD has no body"),
    (
        "http: {url: 'https://x', headers: {Authorization: canary}}",
        "http.headers.Authorization: looks like a secret: put it in a file",
    ),
    ("http: {url: 'https://x', headers: {X-Auth-Token: canary}}", "headers.X-Auth-Token: looks like a secret"),
    ("http: {url: 'https://x', headers: {'a b': c}}", "headers.a b: is not a valid header name"),
    ("http: {url: 'https://x', headers: {A: \"x\\ny\"}}", "headers.A: must be one line"),
    ("http: {url: 'https://x', headers: {Content-Length: '3'}}", "is set by defragd and cannot be configured"),
    ("http: {url: 'https://x', headers: {a: b}, header_files: {A: /c}}", "header_files.A: is defined twice"),
    (
        "http: {url: 'https://x', bearer_token_file: /t, basic_auth: {username: u, password_file: /p}}",
        "http.bearer_token_file: cannot be used together with basic_auth",
    ),
    ("http: {url: 'https://x', bearer_token_file: /t, header_files: {authorization: /a}}", "cannot be used together"),
    (
        "http: {url: 'https://x', basic_auth: {username: 'a:b', password_file: /p}}",
        "http.basic_auth.username: must not be empty or contain a colon",
    ),
    (
        "http: {url: 'https://x', bearer_token_file: /t, tls: {insecure_skip_verify: true}}",
        "would send the secret to an unverified server",
    ),
    (
        "http: {url: 'https://x', tls: {ca_file: /c, insecure_skip_verify: true}}",
        "cannot be used together with ca_file",
    ),
    ("http: {url: 'https://x', tls: {cert_file: /c}}", "gates[0].http.tls.key_file: is missing"),
    ("http: {url: 'https://x', tls: {server_name: 10.0.0.1}}", "tls.server_name: must be a DNS name"),
    ("http: {url: 'http://x', tls: {ca_file: /c}}", "http.tls: has no effect, because the URL begins with http://"),
    ("http: {url: 'https://x', timeout: 5m}", "http.timeout: is 5m, but must be from 100ms to 1m"),
    (
        "http: {url: 'https://x', timeout: -5s}",
        "http.timeout: is \"-5s\", but must be a time like 10s, 5m, 1h30m or 2d, not negative",
    ),
    ("http: {url: 'https://x', interval: 0s}", "http.interval: is 0s"),
    ("http: {url: 'https://x', attempts: 0}", "http.attempts: is 0, but must be from 1 to 100"),
    ("http: {url: 'https://x', for: 2h}", "http.for: is 2h"),
    ("http: {url: 'https://x', for: 1h, attempts: 100, timeout: 1m}", "are more than an hour"),
    ("tcp: {address: x}", "tcp.address: is not HOST:PORT"),
    ("tcp: {address: 'x:0'}", "is not HOST:PORT"),
    ("tcp: {address: 'x:99999'}", "is not HOST:PORT"),
    ("tcp: {address: '::1:443'}", "is not HOST:PORT"),
    ("tcp: {address: 'https://x:443'}", "is not HOST:PORT"),
    ("promql: {url: 'http://p', query: ' '}", "promql.query: must not be empty"),
    ("promql: {url: 'http://p', query: 'x{a=\"${cluster:regex}\"}'}", "has the variable ${cluster:regex}"),
    ("alertmanager: {url: 'http://a', matchers: ['a=\"b']}", "has a quote that does not end"),
    ("alertmanager: {url: 'http://a', matchers: ['a=\"b\",c=\"d\"']}", "has text after its value"),
    ("alertmanager: {url: 'http://a', matchers: ['{a=\"b\"}']}", "has no label name"),
    ("alertmanager: {url: 'http://a', matchers: ['a=b c']}", "has a value that needs double quotes"),
];

#[test]
fn each_bad_thing_has_its_place_and_its_hint() {
    for (gate, expected) in BAD {
        let error = one(gate).expect_err(gate);
        assert!(error.contains(expected), "{gate}: {expected:?} is not in:\n{error}");
        assert!(error.starts_with("5:") && error.contains(": clusters[0].gates[0]"), "{error}");
        assert!(!error.contains("canary"), "a secret is in:\n{error}");
    }
}

#[test]
fn names_are_metric_labels_and_unique_in_their_cluster() {
    for name in ["''", "A", "a b", "a.b", "ü", &"x".repeat(64)] {
        let error = read(&format!("- {{name: {name}, tcp: {{address: 'a:1'}}}}")).expect_err(name);
        assert!(error.contains("gates[0].name: must be 1 to 63 of a-z"), "{error}");
    }
    let two = "- {name: a, tcp: {address: 'a:1'}}\n- {name: a, tcp: {address: 'b:1'}}";
    let error = read(two).expect_err("twice");
    assert!(error.contains("gates[1].name: \"a\" is already the name of clusters[0].gates[0]"), "{error}");
    let many: Vec<_> = (0..51).map(|n| format!("- {{name: g{n}, tcp: {{address: 'a:1'}}}}")).collect();
    assert!(read(&many.join("\n")).expect_err("too many").contains("gates: has 51 gates, and at most 50"));
}

#[test]
fn all_problems_of_all_gates_are_reported_at_once() {
    let gates = "
- {name: A, http: {url: x, method: PUT, timeout: 0s, attempts: 0}}
- {name: b, alertmanager: {url: 'http://u:p@a', matchers: [x, y]}, tcp: {address: z}}
";
    let error = read(gates).expect_err("invalid");
    assert_eq!(error.lines().count(), 10, "{error}");
}

#[test]
fn unknown_keys_and_values_are_refused_with_their_line() {
    for (gate, expected) in [
        ("http: {url: 'http://x', expect: 200}", "expect"),
        ("http: {url: 'http://x', tls: {ca: /x}}", "ca"),
        ("http: {method: GET}", "url"),
        ("tcp: {address: 'a:1', for: 3s}", "for"),
        ("promql: {url: 'http://p', query: up, expect: none}", "none"),
        ("alertmanager: {url: 'http://a'}", "matchers"),
        ("kubernetes_pods: {namespace: x}", "namespace"),
    ] {
        let error = one(gate).expect_err(gate);
        assert!(error.contains(expected) && error.starts_with("5:"), "{gate}: {error}");
    }
}
