//! The probes against real servers: good ones, hostile ones, and ones that repeat what they received.

use std::{net::SocketAddr, path::Path};

use serde_json::json;
use testkit::Pki;

use super::{
    fixture::{
        HOSTILE, IMPATIENT, PATIENT, answer, answering, check, hostile, read, serve, site, tls_server, tls_site, tried,
    },
    *,
};
use crate::{
    core::expect::{Pattern, Samples},
    ports::{
        access::{ClientTls, Credentials, Headers, User},
        gate::{AlertmanagerGate, HttpGate, PromqlGate, TcpGate, Tries},
    },
};

fn http(url: url::Url, tries: Tries) -> HttpGate {
    tried!(read::<HttpGate>(json!({ "url": String::from(url), "expect_body": "ready|ok" })), tries)
}

async fn ask(check: HttpGate) -> Reading {
    super::fixture::check(&HttpProbe::new(check).expect("usable")).await
}

fn promql(url: url::Url, tries: Tries) -> PromqlProbe {
    expecting(Samples::Above(0.5), url, tries)
}

fn expecting(expect: Samples, url: url::Url, tries: Tries) -> PromqlProbe {
    let check = PromqlGate { expect, ..read(json!({ "url": String::from(url), "query": "up" })) };
    PromqlProbe::new(tried!(check, tries)).expect("usable")
}

fn alerts(url: url::Url, tries: Tries) -> AlertmanagerProbe {
    let keys = json!({ "url": String::from(url), "matchers": ["severity=\"critical\""], "ignore": ["Watchdog"] });
    AlertmanagerProbe::new(tried!(read::<AlertmanagerGate>(keys), tries)).expect("usable")
}

fn tcp(address: SocketAddr, tls: Option<ClientTls>, tries: Tries) -> TcpProbe {
    let check = TcpGate { tls, ..read(json!({ "address": address.to_string() })) };
    TcpProbe::new(tried!(check, tries)).expect("usable")
}

/// The gate with these credentials.
macro_rules! with {
    ($check:expr, $credentials:expr) => {{
        let (mut check, credentials) = ($check, $credentials.clone());
        check.headers = credentials.headers;
        check.header_files = credentials.header_files;
        check.bearer_token_file = credentials.bearer_token_file;
        check.basic_auth = credentials.basic_auth;
        check
    }};
}

fn trusting(pki: &Pki) -> ClientTls {
    ClientTls { ca_file: Some(pki.ca().to_owned()), ..ClientTls::default() }
}

fn secure(address: SocketAddr, tls: ClientTls) -> HttpGate {
    let mut check = http(format!("https://{address}/").parse().expect("a URL"), PATIENT);
    check.tls = tls;
    check
}

fn pki(dir: &Path) -> Pki {
    Pki::create(dir).expect("a PKI")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_server_fails_every_probe_within_its_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = pki(dir.path());
    let all = HOSTILE.into_iter().map(|manner| every_probe_fails(manner, &pki));
    futures_util::future::join_all(all).await;
}

async fn every_probe_fails(manner: &'static str, pki: &Pki) {
    let address = hostile(manner).await;
    let url: url::Url = format!("http://{address}/").parse().expect("a URL");
    let probes: [(&str, Arc<dyn GateProbe>); 4] = [
        ("http", Arc::new(HttpProbe::new(http(url.clone(), IMPATIENT)).expect("usable"))),
        ("promql", Arc::new(promql(url.clone(), IMPATIENT))),
        ("alertmanager", Arc::new(alerts(url, IMPATIENT))),
        ("tls", Arc::new(tcp(address, Some(trusting(pki)), IMPATIENT))),
    ];
    for (kind, probe) in probes {
        let began = Instant::now();
        let reading = check(probe.as_ref()).await;
        let what = format!("{kind} of a server that {manner}: {reading:?}");
        assert!(!reading.passed, "{what}");
        assert!(began.elapsed() < IMPATIENT.limit(), "{what} after {:?}", began.elapsed());
        assert!(reading.detail.contains("the last of 2 attempts") && !reading.detail.contains('\n'), "{what}");
        assert!(reading.detail.len() < 500, "{what}");
        let evidence = serde_json::to_string(&reading.evidence).expect("JSON");
        assert!(evidence.len() < 1_000 && evidence.contains("latency_ms"), "{what}");
        assert!(!evidence.contains("token=x") && !reading.detail.contains("token=x"), "{what}");
    }
}

#[tokio::test]
async fn a_reason_says_what_was_seen() {
    for (manner, expected) in [
        ("refuses", "Connection refused"),
        ("never answers", "no complete answer within 300ms"),
        ("slow head", "no complete answer within 300ms"),
        ("slow body", "no complete answer within 300ms"),
        ("closes at once", "cannot reach http://127.0.0.1:"),
        ("redirects", "/ready, but expected 2xx"),
        ("10 MB", "the first 65536 bytes of its body does not match"),
    ] {
        let url = format!("http://{}/", hostile(manner).await).parse().expect("a URL");
        // One that answers may take its time, on a busy machine.
        let tries = if expected.contains("300ms") { IMPATIENT } else { PATIENT };
        let reading = ask(http(url, tries)).await;
        assert!(reading.detail.contains(expected), "{manner}: {expected:?} is not in {reading:?}");
    }
    let url = format!("http://{}/", hostile("10 MB").await).parse().expect("a URL");
    let reading = check(&promql(url, PATIENT)).await;
    assert!(reading.detail.contains("longer than 4194304 bytes"), "{reading:?}");
}

#[tokio::test]
async fn a_good_answer_passes_with_its_evidence() {
    let site = site(200, "", "all\r\n  ok\u{202e}").await;
    let mut check = http(site.url("/readyz?verbose=1"), PATIENT);
    check.headers.0 = [("X-Scope-OrgID".to_owned(), "team-a".to_owned())].into();
    let reading = ask(check).await;
    assert!(reading.passed, "{reading:?}");
    assert_eq!(reading.evidence["status"], 200);
    assert_eq!(reading.evidence["body_excerpt"], "all ok");
    assert_eq!(reading.evidence["url"], site.url("").as_str().trim_end_matches('/'));
    assert!(reading.evidence["latency_ms"].is_u64() && reading.baseline.is_none());
    let asked = site.asked().concat();
    assert!(asked.starts_with("GET /readyz?verbose=1 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("x-scope-orgid: team-a") && asked.contains("user-agent: defragd/"), "{asked}");
}

#[tokio::test]
async fn status_and_body_must_both_be_as_expected() {
    for (status, body, passes, word) in [
        (200, "ready", true, "answered 200"),
        (503, "ready", false, "answered 503 in"),
        (200, "[-]etcd failed", false, "does not match \"ready|ok\""),
        (302, "ready", false, "but expected 2xx"),
    ] {
        let reading = ask(http(site(status, "", body).await.url("/"), PATIENT)).await;
        assert_eq!(reading.passed, passes, "{reading:?}");
        assert!(reading.detail.contains(word), "{reading:?}");
    }
    // What follows the first 64 KiB is not checked, and without a pattern not needed.
    let long = "x".repeat(100_000) + "ready";
    let mut check = http(site(200, "", &long).await.url("/"), PATIENT);
    assert!(!ask(check.clone()).await.passed);
    check.expect_body = None;
    let reading = ask(check).await;
    assert!(reading.passed && reading.evidence["body_is_cut"] == true, "{reading:?}");
}

#[tokio::test]
async fn redirects_are_followed_only_if_configured_and_never_with_a_secret_to_another_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    std::fs::write(&token, "canary-token\n").expect("written");
    let target = site(200, "", "ready").await;
    let gate = site(302, &format!("Location: {}\r\n", target.url("/there?a=b")), "").await;
    let mut check = http(gate.url("/"), PATIENT);
    let reading = ask(check.clone()).await;
    assert!(!reading.passed && target.asked().is_empty());
    assert_eq!(reading.evidence["location"], target.url("/there").as_str());
    check.follow_redirects = true;
    assert!(ask(check.clone()).await.passed);
    assert_eq!(target.asked().len(), 1);
    check.bearer_token_file = Some(token);
    let reading = ask(check).await;
    assert!(!reading.passed && reading.detail.contains("must not get our headers"), "{reading:?}");
    assert_eq!(target.asked().len(), 1, "the secret went elsewhere");

    let around = answering(|_| answer(302, "Location: /again\r\n", "")).await;
    let mut check = http(around.url("/"), PATIENT);
    check.follow_redirects = true;
    let reading = ask(check).await;
    assert!(!reading.passed && reading.detail.contains("more than 5 redirects"), "{reading:?}");
    assert!(around.asked().len() <= 7);
}

#[tokio::test]
async fn tls_is_verified_and_shows_our_certificate_where_it_is_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = (pki(&dir.path().join("ours")), pki(&dir.path().join("theirs")));
    let open = tls_site(&ours, None).await;
    let mutual = tls_site(&ours, Some(ours.ca())).await;
    let known = |identity: &testkit::Identity| ClientTls {
        cert_file: Some(identity.cert.clone()),
        key_file: Some(identity.key.clone()),
        ..trusting(&ours)
    };
    let named = |name: &str| ClientTls { server_name: Some(name.to_owned()), ..trusting(&ours) };
    let anyone = ClientTls { insecure_skip_verify: true, ..ClientTls::default() };
    for (what, address, tls, passes) in [
        ("our authority", open, trusting(&ours), true),
        ("another authority", open, trusting(&theirs), false),
        ("a name of the certificate", open, named("localhost"), true),
        ("another name", open, named("other.example"), false),
        ("no verification", open, anyone, true),
        ("our certificate", mutual, known(ours.client()), true),
        ("no certificate", mutual, trusting(&ours), false),
        ("a stranger's certificate", mutual, known(theirs.client()), false),
    ] {
        let reading = ask(secure(address, tls.clone())).await;
        assert_eq!(reading.passed, passes, "http, {what}: {reading:?}");
        let tcp = check(&tcp(address, Some(tls.clone()), PATIENT)).await;
        assert_eq!(tcp.passed, passes, "tcp, {what}: {tcp:?}");
        assert_eq!(tcp.evidence.contains_key("tls_verified"), tls.insecure_skip_verify, "{tcp:?}");
    }
    let mut renamed = secure(open, named("localhost"));
    let reading = ask(renamed.clone()).await;
    assert_eq!(reading.evidence["body_excerpt"], format!("ready, says localhost to {open}"));
    assert_eq!(reading.evidence["url"], format!("https://{open}"));
    renamed.headers.0 = [("Host".to_owned(), "shop.example".to_owned())].into();
    let reading = ask(renamed).await;
    assert_eq!(reading.evidence["body_excerpt"], "ready, says localhost to ***");
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_taken_from_its_file_and_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let [own, other] = ["own", "other"].map(|name| Pki::self_signed(dir.path(), name, |_| {}).expect("signed"));
    let address = tls_server(&own, None).await;
    for (ca, passes) in [(&own, true), (&other, false)] {
        let tls = ClientTls { ca_file: Some(ca.cert.clone()), ..ClientTls::default() };
        let reading = ask(secure(address, tls.clone())).await;
        assert_eq!(reading.passed, passes, "http: {reading:?}");
        let tcp = check(&tcp(address, Some(tls), PATIENT)).await;
        assert_eq!(tcp.passed, passes, "tcp: {tcp:?}");
        assert!(passes || tcp.detail.contains("only if this very certificate is in the CA file"), "{tcp:?}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_at_the_next_check() {
    let dir = tempfile::tempdir().expect("a directory");
    let (old, new) = (pki(&dir.path().join("old")), pki(&dir.path().join("new")));
    let ca = dir.path().join("current.crt");
    std::fs::copy(old.ca(), &ca).expect("copied");
    let address = tls_site(&new, None).await;
    let tls = ClientTls { ca_file: Some(ca.clone()), ..ClientTls::default() };
    let probe = HttpProbe::new(secure(address, tls)).expect("usable");
    assert!(!check(&probe).await.passed);
    std::fs::copy(new.ca(), &ca).expect("copied");
    assert!(check(&probe).await.passed);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_found_when_the_probe_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = pki(dir.path());
    let (absent, empty) = (dir.path().join("absent"), dir.path().join("empty"));
    std::fs::write(&empty, "\n").expect("written");
    let address = "127.0.0.1:1".parse().expect("an address");
    let ca = |path: &Path| ClientTls { ca_file: Some(path.to_owned()), ..ClientTls::default() };
    let swapped = ClientTls {
        cert_file: Some(pki.client().key.clone()),
        key_file: Some(pki.client().cert.clone()),
        ..trusting(&pki)
    };
    for (tls, expected) in [
        (ca(&absent), "cannot read the certificate authorities"),
        (ca(&empty), "contains no PEM certificate"),
        (ca(dir.path()), "is not a regular file"),
        (swapped, "contains no PEM certificate"),
    ] {
        let error = HttpProbe::new(secure(address, tls.clone())).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        let check = TcpGate { tls: Some(tls), ..read(json!({ "address": "127.0.0.1:1" })) };
        assert!(TcpProbe::new(check).expect_err(expected).to_string().contains(expected));
    }
    for path in [&absent, &empty] {
        let mut check = http("http://127.0.0.1:1".parse().expect("a URL"), PATIENT);
        check.bearer_token_file = Some(path.clone());
        assert!(HttpProbe::new(check).expect_err("no token").to_string().contains("the token file"));
    }
}

#[tokio::test]
async fn a_connection_must_stand_for_a_moment() {
    let silent = serve(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let reading = check(&tcp(silent, None, PATIENT)).await;
    assert!(reading.passed && reading.detail.ends_with("succeeded"), "{reading:?}");
    for (manner, expected) in [("closes at once", "it was accepted and"), ("refuses", "refused")] {
        let reading = check(&tcp(hostile(manner).await, None, IMPATIENT)).await;
        assert!(!reading.passed && reading.detail.contains(expected), "{manner}: {reading:?}");
    }
    let limit = Tries { timeout: std::time::Duration::from_millis(200), ..IMPATIENT };
    let reading =
        check(&tcp(silent, Some(ClientTls { insecure_skip_verify: true, ..ClientTls::default() }), limit)).await;
    assert!(!reading.passed && reading.detail.contains("not finished within 200ms"), "{reading:?}");
}

#[tokio::test]
async fn an_answer_of_prometheus_must_be_whole_and_as_expected() {
    let vector =
        |samples: serde_json::Value| json!({"status": "success", "data": {"resultType": "vector", "result": samples}});
    let sample = |value: &str| json!({"metric": {"__name__": "up", "job": "a"}, "value": [1.5, value]});
    let with = |mut answer: serde_json::Value, key: &str, value: serde_json::Value| {
        answer[key] = value;
        answer
    };
    let good = vector(json!([sample("1")]));
    for (answer, expect, passes, word) in [
        (good.clone(), Samples::Above(0.5), true, "1 sample, as expected"),
        (good.clone(), Samples::Below(0.5), false, "up{job=\"a\"} is 1"),
        (good.clone(), Samples::NotEmpty, true, ""),
        (good.clone(), Samples::Empty, false, "not as expected (no sample)"),
        (vector(json!([])), Samples::Empty, true, "returned 0"),
        (vector(json!([])), Samples::Above(0.5), false, "returned nothing, but must return samples above 0.5"),
        (vector(json!([])), Samples::NotEmpty, false, "returned nothing"),
        (vector(json!([sample("2"), sample("NaN")])), Samples::Above(0.5), false, "up{job=\"a\"} is NaN"),
        (vector(json!([sample("+Inf")])), Samples::Above(0.5), true, ""),
        (vector(json!([{"metric": {}, "histogram": [1, {}]}])), Samples::Above(0.5), false, "is NaN"),
        (
            json!({"status": "success", "data": {"resultType": "scalar", "result": [1, "3"]}}),
            Samples::Above(0.5),
            true,
            "",
        ),
        (
            json!({"status": "success", "data": {"resultType": "matrix", "result": []}}),
            Samples::Empty,
            false,
            "is not an instant vector",
        ),
        (
            json!({"status": "success", "data": {"resultType": "string", "result": [1, "x"]}}),
            Samples::NotEmpty,
            false,
            "is not an instant vector",
        ),
        (with(good.clone(), "warnings", json!(["a store is down"])), Samples::Above(0.5), false, "a store is down"),
        (with(good.clone(), "infos", json!(["PromQL info: x"])), Samples::Above(0.5), true, ""),
        (with(good.clone(), "warnings", json!(["PromQL info: x"])), Samples::Above(0.5), true, ""),
        (
            json!({"status": "error", "errorType": "timeout", "error": "query timed out"}),
            Samples::Empty,
            false,
            "query timed out",
        ),
        (json!({"status": "success"}), Samples::Empty, false, "has no data"),
        (
            json!({"status": "success", "data": {"resultType": "vector", "result": null}}),
            Samples::Empty,
            false,
            "cannot be parsed",
        ),
        (
            json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "x"]}]}}),
            Samples::NotEmpty,
            false,
            "has the invalid value \"x\"",
        ),
        (json!([]), Samples::Empty, false, "cannot be parsed"),
        (json!({}), Samples::Empty, false, "cannot be parsed"),
    ] {
        let site = site(200, "", &answer.to_string()).await;
        let probe = expecting(expect, site.url("/prefix"), PATIENT);
        let reading = check(&probe).await;
        assert_eq!(reading.passed, passes, "{answer} with {expect}: {reading:?}");
        assert!(reading.detail.contains(word), "{answer} with {expect}: {word:?} is not in {reading:?}");
        assert!(site.asked().concat().starts_with("GET /prefix/api/v1/query?query=up&timeout=10000ms HTTP"));
    }
    let many: Vec<_> = (0..1_000).map(|_| sample("0")).collect();
    let reading = check(&promql(site(200, "", &vector(json!(many)).to_string()).await.url("/"), PATIENT)).await;
    assert_eq!(reading.evidence["failing_samples"].as_array().map(Vec::len), Some(5));
    assert!(reading.detail.starts_with("1000 of 1000 samples"), "{reading:?}");
    let refused = json!({"status": "error", "errorType": "bad_data", "error": "parse error at char 3"}).to_string();
    let reading = check(&promql(site(400, "", &refused).await.url("/"), PATIENT)).await;
    assert!(!reading.passed && reading.detail.contains("answered 400: parse error at char 3"), "{reading:?}");
}

#[tokio::test]
async fn only_active_alerts_that_are_not_ignored_fail() {
    let alert = |name: &str, state: &str| json!({"labels": {"alertname": name}, "fingerprint": "f", "startsAt": "t", "status": {"state": state}});
    for (answer, passes, names) in [
        (json!([]), true, json!(null)),
        (json!([alert("Watchdog", "active"), alert("B", "suppressed")]), true, json!(null)),
        (json!([alert("B", "active"), alert("A", "active"), alert("A", "active")]), false, json!(["A", "B"])),
        (json!({}), false, json!(null)),
        (json!([{"labels": {}}]), false, json!(null)),
    ] {
        let site = site(200, "", &answer.to_string()).await;
        let reading = check(&alerts(site.url("/am/"), PATIENT)).await;
        assert_eq!(reading.passed, passes, "{answer}: {reading:?}");
        assert_eq!(reading.evidence.get("alerts").cloned().unwrap_or_default(), names, "{reading:?}");
        let asked = site.asked().concat();
        assert!(asked.starts_with("GET /am/api/v2/alerts?active=true&silenced=false&inhibited=false"), "{asked}");
        assert!(asked.contains("&filter=severity%3D%22critical%22 HTTP"), "{asked}");
    }
    let many: Vec<_> = (0..1_000).map(|n| alert(&format!("A{n}"), "active")).collect();
    let reading = check(&alerts(site(200, "", &json!(many).to_string()).await.url("/"), PATIENT)).await;
    assert_eq!(reading.evidence["alerts"].as_array().map(Vec::len), Some(10));
    assert!(reading.detail.starts_with("1000 active alerts") && reading.detail.ends_with(", …"), "{reading:?}");
}

/// Repeats everything that it received, wherever a probe might show it.
async fn parrot() -> super::fixture::Site {
    answering(|head| {
        let said: Vec<_> = head.lines().filter(|line| line.contains("anary") || line.contains("Basic")).collect();
        let said = said.join(" ");
        let body = if head.contains("api/v1") {
            json!({"status": "error", "error": said}).to_string()
        } else if head.contains("odd/api/v2") {
            // An error about it would quote it.
            json!(said).to_string()
        } else if head.contains("api/v2") {
            json!([{"labels": {"alertname": said}, "fingerprint": "f", "startsAt": "t", "status": {"state": "active"}}])
                .to_string()
        } else {
            said.clone()
        };
        answer(200, &format!("Location: /x?{}\r\n", said.len()), &body)
    })
    .await
}

#[tokio::test]
async fn no_secret_is_ever_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let site = parrot().await;
    let key = ("X-Key".to_owned(), file("key", "canary\"quoted\n"));
    let bearer = Credentials {
        header_files: [key.clone()].into(),
        ..Credentials::bearer(Some(file("token", "canary-token\n")))
    };
    let user = User { username: "probe".to_owned(), password_file: file("pw", "canary-pw") };
    let basic = Credentials { basic_auth: Some(user), ..Credentials::default() };
    let headers = Headers([("X-A".to_owned(), "canary-plain".to_owned())].into());
    let plain = Credentials { headers, ..Credentials::default() };
    let encoded = "cHJvYmU6Y2FuYXJ5LXB3";
    for (credentials, sent) in [(bearer, "Bearer canary-token"), (basic, encoded), (plain, "canary-plain")] {
        let url = site.url("/");
        let mut http = with!(http(url.clone(), PATIENT), credentials);
        http.expect_body = Some(Pattern::parse("^$").expect("valid"));
        let promql: PromqlGate = read(json!({ "url": url.as_str(), "query": "up" }));
        let promql = tried!(with!(promql, credentials), PATIENT);
        let alerts: AlertmanagerGate = read(json!({ "url": url.as_str(), "matchers": ["a=b"] }));
        let alerts = tried!(with!(alerts, credentials), PATIENT);
        let odd = AlertmanagerGate { url: site.url("/odd").as_str().parse().ok(), ..alerts.clone() };
        let mut shown = vec![format!("{http:?} {promql:?} {alerts:?}")];
        let probes: [Arc<dyn GateProbe>; 4] = [
            Arc::new(HttpProbe::new(http).expect("usable")),
            Arc::new(PromqlProbe::new(promql).expect("usable")),
            Arc::new(AlertmanagerProbe::new(alerts).expect("usable")),
            Arc::new(AlertmanagerProbe::new(odd).expect("usable")),
        ];
        for probe in probes {
            let reading = check(probe.as_ref()).await;
            assert!(!reading.passed && format!("{reading:?}").contains("***"), "nothing was repeated: {reading:?}");
            let evidence = serde_json::to_string(&reading.evidence).expect("JSON");
            shown.extend([format!("{reading:?}"), reading.detail, evidence]);
        }
        assert!(site.asked().concat().contains(sent), "{sent} was not sent");
        let shown = shown.join(" ");
        assert!(!shown.contains("anary") && !shown.contains(encoded), "a secret is in {shown}");
    }
    // Nor in the errors about the files that hold them.
    for text in ["canary\nsecond line", "canary\u{1}"] {
        let mut check = http(site.url("/"), PATIENT);
        check.bearer_token_file = Some(file("bad", text));
        let error = HttpProbe::new(check).expect_err("no header");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    let key_file = file("bad.key", "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n");
    let pki = pki(dir.path());
    let tls = ClientTls { cert_file: Some(pki.client().cert.clone()), key_file: Some(key_file), ..trusting(&pki) };
    let error = HttpProbe::new(secure(site.address, tls)).expect_err("no key");
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
}

#[tokio::test]
async fn a_url_in_a_file_is_read_for_each_attempt_and_neither_it_nor_a_bad_one_is_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("gate-url");
    let site = parrot().await;
    let write = |secret: &str| std::fs::write(&path, site.url(secret).as_str()).expect("written");
    write("/canary-before-the-first-check");
    let http: HttpGate = read(json!({ "url_file": path, "expect_body": "^$" }));
    let promql: PromqlGate = read(json!({ "url_file": path, "query": "up" }));
    let alerts: AlertmanagerGate = read(json!({ "url_file": path, "matchers": ["a=b"] }));
    let probes: [Arc<dyn GateProbe>; 3] = [
        Arc::new(HttpProbe::new(tried!(http.clone(), PATIENT)).expect("usable")),
        Arc::new(PromqlProbe::new(tried!(promql, PATIENT)).expect("usable")),
        Arc::new(AlertmanagerProbe::new(tried!(alerts, PATIENT)).expect("usable")),
    ];
    let mut shown = Vec::new();
    for probe in &probes {
        for secret in ["/canary-one-of-a-gate/", "/canary-two-of-a-gate/"] {
            write(secret);
            let reading = check(probe.as_ref()).await;
            let last = site.asked().pop().expect("it was asked");
            assert!(last.starts_with(&format!("GET {secret}")), "{last}");
            assert!(!reading.passed && format!("{reading:?}").contains("***"), "nothing was repeated: {reading:?}");
            shown.push(format!("{reading:?} {}", serde_json::to_string(&reading.evidence).expect("JSON")));
        }
    }
    std::fs::write(&path, "canary: no URL").expect("written");
    let reading = check(probes[0].as_ref()).await;
    assert!(reading.detail.contains("cannot read the URL in") && reading.detail.contains("gate-url"), "{reading:?}");
    let error = HttpProbe::new(http).expect_err("no URL");
    shown.extend([format!("{reading:?}"), format!("{error} {error:?}")]);
    let shown = shown.join(" ");
    assert!(!shown.contains("canary"), "a secret is in {shown}");
}

#[tokio::test]
async fn a_secret_is_read_again_at_each_check() {
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    std::fs::write(&token, "first").expect("written");
    let site = site(200, "", "ready").await;
    let mut settings = http(site.url("/"), PATIENT);
    settings.bearer_token_file = Some(token.clone());
    let probe = HttpProbe::new(settings).expect("usable");
    assert!(check(&probe).await.passed);
    std::fs::write(&token, "second").expect("written");
    assert!(check(&probe).await.passed);
    std::fs::remove_file(&token).expect("removed");
    let reading = check(&probe).await;
    assert!(!reading.passed && reading.detail.contains("cannot read the token file"), "{reading:?}");
    let asked = site.asked();
    assert_eq!(asked.len(), 2, "asked without its token");
    assert!(asked[0].contains("Bearer first") && asked[1].contains("Bearer second"), "{asked:?}");
}
