//! Secrets that probes send: read again for each check, and never shown.

use super::*;

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
