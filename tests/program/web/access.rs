//! Who is let in: passwords, tokens, client certificates and the rate limit; and the health command, which must get in.

use std::{fs, path::Path};

use reqwest::StatusCode;
use testkit::{Home, Pki, wrap};

use super::{Site, hash, https, status};
use crate::rig::{binary, client};

#[tokio::test(flavor = "multi_thread")]
async fn inline_certificates_passwords_headers_and_the_rate_limit_hold_on_every_path() {
    let site = Site::new();
    let indented = |path: &Path| fs::read_to_string(path).unwrap().replace('\n', "\n    ");
    let hash = hash();
    let config = format!(
        "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\nhttp_server_config:\n  headers:\n    X-Frame-Options: deny\n\
         basic_auth_users:\n  ann: {hash}\nrate_limit:\n  interval: 1h\n  burst: 12\n",
        indented(&site.pki.server().cert),
        indented(&site.pki.server().key),
    );
    let tokens = site.home.token_flags();
    // Also off loopback; here all addresses are tried through one of them.
    let defragd = site.start(&config, &[&tokens[0], &tokens[1], "--web.listen-address=127.0.0.1:0"]).await;
    let client = site.client().build().unwrap();
    let paths = ["/", "/metrics", "/-/healthy", "/api/v1/runs", "/nothing-here"];
    for path in paths {
        let answer = client.get(https(&defragd, path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic"), "{path}");
        assert_eq!(answer.headers()["x-frame-options"], "deny", "{path}");
    }
    let with =
        |password: &'static str, path: &str| client.get(https(&defragd, path)).basic_auth("ann", Some(password)).send();
    assert_eq!(with("wrong horse", "/metrics").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let page = with("correct horse", "/metrics").await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);

    // A token is enough if a password is required; each token allows its own action, and the password allows neither.
    let post = |path: &str| client.post(https(&defragd, path)).header("content-type", "application/json").body("{}");
    let resume = "/api/v1/clusters/demo/resume";
    assert_eq!(post(resume).bearer_auth(Home::TOKEN).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(
        post(resume).basic_auth("ann", Some("correct horse")).send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(post(resume).bearer_auth(Home::ADMIN).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(post("/api/v1/alerts").bearer_auth(Home::ADMIN).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    // Twelve came in.
    let refused = post("/api/v1/alerts").bearer_auth(Home::TOKEN).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "the twelfth: no notification");
    let refused = with("correct horse", "/metrics").await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after") && refused.headers()["x-frame-options"] == "deny");
    let log = defragd.log().unwrap();
    assert!(
        !log.contains("horse") && !log.contains("$2y$") && !log.contains("PRIVATE") && !log.contains(Home::TOKEN),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_or_a_client_certificate_is_enough_off_loopback_and_nothing_is_not() {
    let site = Site::new();
    let everywhere = "--web.listen-address=0.0.0.0:0";
    let refused = site.try_start(&Site::tls(""), &[everywhere]).await.unwrap_err();
    assert!(format!("{refused:#}").contains("the webhook would be open to the network"), "{refused:#}");
    let given = Site::tls("client_auth_type: VerifyClientCertIfGiven\nclient_ca_file: pki/ca.crt");
    assert!(site.try_start(&given, &[everywhere]).await.is_err(), "who shows none comes in");

    let hash = hash();
    let users = format!("basic_auth_users:\n  ann: {hash}\n");
    let defragd = site.start(&users, &[everywhere]).await;
    let port = defragd.target().rsplit_once(':').unwrap().1;
    let resume = format!("http://127.0.0.1:{port}/api/v1/clusters/demo/resume");
    let client = client(None).build().unwrap();
    let post = || client.post(&resume).header("content-type", "application/json").body("{}");
    assert_eq!(post().send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(post().basic_auth("ann", Some("correct horse")).send().await.unwrap().status(), StatusCode::OK);
    defragd.kill().await.unwrap();

    let verified = Site::tls("client_auth_type: RequireAndVerifyClientCert\nclient_ca_file: pki/ca.crt");
    let defragd = site.start(&verified, &[everywhere]).await;
    let port = defragd.target().rsplit_once(':').unwrap().1.to_owned();
    let known = site.client().identity(Site::identity(site.pki.client())).build().unwrap();
    let resume = format!("https://127.0.0.1:{port}/api/v1/clusters/demo/resume");
    let answer = known.post(&resume).header("content-type", "application/json").body("{}").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_client_ca_the_system_s_authorities_verify_clients_but_identify_none() {
    let mut site = Site::new();
    let stranger = Pki::create(&site.home.path("other")).unwrap();
    // A machine whose only authority is that of these tests.
    let program = site.home.path("on-a-machine");
    wrap(binary(), &format!("SSL_CERT_FILE={}", site.path("pki/ca.crt")), &program).unwrap();
    site.home.run(&program);
    let known = site.client().identity(Site::identity(site.pki.client())).build().unwrap();
    let unknown = site.client().identity(Site::identity(stranger.client())).build().unwrap();
    let anonymous = site.client().build().unwrap();
    for (kind, expected) in
        [("RequireAndVerifyClientCert", [true, false, false]), ("VerifyClientCertIfGiven", [true, false, true])]
    {
        let defragd = site.start(&Site::tls(&format!("client_auth_type: {kind}")), &[]).await;
        let mut let_in = [false; 3];
        for (client, entered) in [&known, &unknown, &anonymous].into_iter().zip(&mut let_in) {
            *entered = status(client, &https(&defragd, "/-/healthy")).await == Some(StatusCode::OK);
        }
        assert_eq!(let_in, expected, "{kind}: the system's, a stranger's and nobody's certificate");
        assert!(defragd.log().unwrap().contains("client_ca_file"), "a warning");
        defragd.kill().await.unwrap();
    }
    // Such an authority signs for everybody.
    let everywhere = "--web.listen-address=0.0.0.0:0";
    let verified = Site::tls("client_auth_type: RequireAndVerifyClientCert");
    let refused = site.try_start(&verified, &[everywhere]).await.unwrap_err();
    assert!(format!("{refused:#}").contains("the webhook would be open to the network"), "{refused:#}");
    let named = format!("{verified}  client_allowed_sans: [localhost]\n");
    site.start(&named, &[everywhere]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_without_a_burst_refuses_every_request() {
    let site = Site::new();
    let client = client(None).build().unwrap();
    for config in ["rate_limit: {interval: 1ms, burst: 0}", "rate_limit: {interval: 1ms}"] {
        let defragd = site.start(config, &[]).await;
        for _ in 0..3 {
            let answered = status(&client, &format!("{}/-/healthy", defragd.url())).await;
            assert_eq!(answered, Some(StatusCode::TOO_MANY_REQUESTS), "{config}");
        }
        assert!(defragd.log().unwrap().contains("rate_limit.burst is 0"), "a warning");
        defragd.kill().await.unwrap();
    }
    let defragd = site.start("rate_limit: {interval: 0s, burst: 0}", &[]).await;
    assert_eq!(status(&client, &format!("{}/-/healthy", defragd.url())).await, Some(StatusCode::OK), "no limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_command_shows_what_the_web_configuration_asks_for_and_ends_with_what_it_heard() {
    let site = Site::new();
    let defragd = site.start(&format!("{}basic_auth_users:\n  ann: {}\n", Site::tls(""), hash()), &[]).await;
    fs::write(site.path("password"), "correct horse").unwrap();
    fs::write(site.path("wrong"), "wrong horse").unwrap();
    let url = format!("--url={}", https(&defragd, ""));
    let (ca, user) = (format!("--server-ca-file={}", site.pki.ca().display()), "--user=ann".to_owned());
    let password = |file: &str| format!("--password-file={}", site.path(file));
    let health = async |args: &[&String]| {
        let mut command = tokio::process::Command::new(binary());
        // Its own limit is three seconds, in which a busy machine need not answer.
        let output = command.args(["health", "--timeout=1m"]).args(args).output().await.unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code().unwrap(), said)
    };
    let ready = "--ready".to_owned();
    assert_eq!(health(&[&url, &ca, &user, &password("password")]).await, (0, "defragd is healthy\n".to_owned()));
    assert_eq!(health(&[&url, &ca, &user, &password("password"), &ready]).await, (0, "defragd is ready\n".to_owned()));
    let nobody = "--url=http://127.0.0.1:1".to_owned();
    for (args, code, says) in [
        (vec![&url, &ca], 1, "answered 401"),
        (vec![&url, &ca, &user, &password("wrong")], 1, "answered 401"),
        (vec![&url], 1, "certificate"),
        (vec![&nobody], 1, "cannot reach"),
        (vec![&"--url=ftp://x".to_owned()], 2, "--url"),
    ] {
        let (ended, said) = health(&args).await;
        assert!(ended == code && said.contains(says) && !said.contains("horse"), "{args:?}: {ended} {said}");
    }
    defragd.kill().await.unwrap();
    assert_eq!(health(&[&url, &ca, &user, &password("password")]).await.0, 1);
}
