//! The probes against real servers: good ones, hostile ones, and ones that repeat what they received.

#[path = "gates_tests/answers.rs"]
mod answers;
#[path = "gates_tests/secrets.rs"]
mod secrets;

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

/// One that must fail, on a machine on which the server is late.
fn watchful(address: SocketAddr, tls: Option<ClientTls>) -> TcpProbe {
    tcp(address, tls, PATIENT).watching(PATIENT.timeout)
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
        // Its limit, and what a busy machine takes; a server that is waited for to its end takes longer.
        let limit = IMPATIENT.limit() + Duration::from_secs(30);
        assert!(began.elapsed() < limit, "{what} after {:?}", began.elapsed());
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
        let tcp = if passes { tcp(address, Some(tls.clone()), PATIENT) } else { watchful(address, Some(tls.clone())) };
        let tcp = check(&tcp).await;
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
        let reading = check(&watchful(hostile(manner).await, None)).await;
        assert!(!reading.passed && reading.detail.contains(expected), "{manner}: {reading:?}");
    }
    let limit = Tries { timeout: Duration::from_millis(200), ..IMPATIENT };
    let reading =
        check(&tcp(silent, Some(ClientTls { insecure_skip_verify: true, ..ClientTls::default() }), limit)).await;
    assert!(!reading.passed && reading.detail.contains("not finished within 200ms"), "{reading:?}");
}
