//! `--web.config.file` against the running program, key by key, from a client's side; that changed files are loaded
//! without a restart and broken ones are not; content negotiation of `/metrics`; `/-/reload`; and what the port withstands.
//! There is no etcd.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::{Certificate, Client, ClientBuilder, Identity, StatusCode, tls};
use rustls::{
    CipherSuite, ClientConfig, NamedGroup, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use tempfile::TempDir;
use testkit::{Defragd, Pki, Prometheus, Tools, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Long for anything here, also on half a processor.
const MINUTE: Duration = Duration::from_mins(1);
const TOKEN: &str = "0123456789abcdef-test-token";
const ADMIN: &str = "0123456789abcdef-admin-token";

/// Of `correct horse`, at the lowest cost.
fn hash() -> String {
    bcrypt::hash("correct horse", 4).unwrap()
}

/// A folder with certificates, tokens and a web configuration, and the program on them.
struct Site {
    dir: TempDir,
    pki: Pki,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(&dir.path().join("pki")).unwrap();
        fs::write(dir.path().join("token"), TOKEN).unwrap();
        fs::write(dir.path().join("admin"), ADMIN).unwrap();
        Self { dir, pki }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// With the server's certificate and these lines under `tls_server_config`.
    fn tls(lines: &str) -> String {
        let own = ["tls_server_config:", "cert_file: pki/server.crt", "key_file: pki/server.key"];
        own.into_iter().chain(lines.lines()).collect::<Vec<_>>().join("\n  ") + "\n"
    }

    fn write(&self, config: &str) {
        fs::write(self.path("web.yml"), config).unwrap();
    }

    async fn try_start(&self, config: &str, extra: &[&str]) -> Result<Defragd> {
        self.write(config);
        let mut args = Vec::new();
        if !extra.iter().any(|flag| flag.starts_with("--config=")) {
            args.extend(["--endpoints=http://127.0.0.1:1".to_owned(), "--cluster-name=demo".to_owned()]);
        }
        args.extend([
            format!("--web.config.file={}", self.path("web.yml")),
            format!("--data-dir={}", self.path("journal")),
        ]);
        args.extend(extra.iter().map(|flag| (*flag).to_owned()));
        Defragd::start(Path::new(env!("CARGO_BIN_EXE_defragd")), &args, self.dir.path().join("defragd.log").as_path())
            .await
    }

    async fn start(&self, config: &str, extra: &[&str]) -> Defragd {
        self.try_start(config, extra).await.unwrap()
    }

    /// Trusts the CA; every request is a new connection.
    fn client(&self) -> ClientBuilder {
        let ca = Certificate::from_pem(&fs::read(self.pki.ca()).unwrap()).unwrap();
        let _ = aws_lc_rs::default_provider().install_default();
        Client::builder().tls_certs_only([ca]).pool_max_idle_per_host(0).timeout(MINUTE)
    }

    fn identity(identity: &testkit::Identity) -> Identity {
        Identity::from_pem(identity.pem().unwrap().as_bytes()).unwrap()
    }
}

async fn status(client: &Client, url: &str) -> Option<StatusCode> {
    client.get(url).send().await.ok().map(|answer| answer.status())
}

fn https(defragd: &Defragd, path: &str) -> String {
    format!("https://{}{path}", defragd.target())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_of_client_authentication_lets_in_whom_it_says() {
    let site = Site::new();
    let stranger = Pki::create(&site.dir.path().join("other")).unwrap();
    let anonymous = site.client().build().unwrap();
    let known = site.client().identity(Site::identity(site.pki.client())).build().unwrap();
    let unknown = site.client().identity(Site::identity(stranger.client())).build().unwrap();
    let ca = "client_ca_file: pki/ca.crt";
    for (lines, expected) in [
        (String::new(), [true, true, true]),
        ("client_auth_type: NoClientCert".to_owned(), [true, true, true]),
        ("client_auth_type: RequestClientCert".to_owned(), [true, true, true]),
        ("client_auth_type: RequireAnyClientCert".to_owned(), [false, true, true]),
        (format!("client_auth_type: VerifyClientCertIfGiven\n{ca}"), [true, true, false]),
        (format!("client_auth_type: RequireAndVerifyClientCert\n{ca}"), [false, true, false]),
        (
            format!("client_auth_type: RequireAndVerifyClientCert\n{ca}\nclient_allowed_sans: [localhost]"),
            [false, true, false],
        ),
        (
            format!("client_auth_type: RequireAndVerifyClientCert\n{ca}\nclient_allowed_sans: [a, 127.0.0.1]"),
            [false, true, false],
        ),
        (
            format!("client_auth_type: RequireAndVerifyClientCert\n{ca}\nclient_allowed_sans: [other]"),
            [false, false, false],
        ),
        ("client_auth_type: RequireAnyClientCert\nclient_allowed_sans: [other]".to_owned(), [false, false, false]),
    ] {
        let defragd = site.start(&Site::tls(&lines), &[]).await;
        let url = https(&defragd, "/-/healthy");
        let mut let_in = [false; 3];
        for (client, entered) in [&anonymous, &known, &unknown].into_iter().zip(&mut let_in) {
            *entered = status(client, &url).await == Some(StatusCode::OK);
        }
        assert_eq!(let_in, expected, "{lines}: nobody's, the CA's and a stranger's certificate");
        assert!(
            status(&anonymous, &format!("{}/-/healthy", defragd.url())).await != Some(StatusCode::OK),
            "plain HTTP"
        );
        defragd.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_s_certificate_that_is_its_own_authority_is_taken_if_it_is_in_the_client_ca() {
    let site = Site::new();
    let dir = site.dir.path().join("pki");
    let [own, other] = ["own", "other"].map(|name| Pki::self_signed(&dir, name, |_| {}).unwrap());
    let old =
        |params: &mut testkit::rcgen::CertificateParams| params.not_after = testkit::rcgen::date_time_ymd(2000, 1, 1);
    let expired = Pki::self_signed(&dir, "expired", old).unwrap();
    let both = fs::read_to_string(&own.cert).unwrap() + &fs::read_to_string(&expired.cert).unwrap();
    fs::write(dir.join("clients.crt"), both).unwrap();
    let lines = "client_auth_type: RequireAndVerifyClientCert\nclient_ca_file: pki/clients.crt";
    let defragd = site.start(&Site::tls(lines), &[]).await;
    for (identity, enters) in [(&own, true), (&other, false), (&expired, false)] {
        let client = site.client().identity(Site::identity(identity)).build().unwrap();
        let entered = status(&client, &https(&defragd, "/-/healthy")).await == Some(StatusCode::OK);
        assert_eq!(entered, enters, "{}", identity.cert.display());
    }
}

/// TLS with these suites and groups, all where empty, and these protocols.
async fn connect(
    site: &Site,
    defragd: &Defragd,
    suites: &[CipherSuite],
    groups: &[NamedGroup],
    alpn: &[&str],
) -> Option<TlsStream<TcpStream>> {
    let mut provider = aws_lc_rs::default_provider();
    if !suites.is_empty() {
        let all = provider.cipher_suites.clone();
        let find = |wanted: &CipherSuite| *all.iter().find(|suite| suite.suite() == *wanted).unwrap();
        provider.cipher_suites = suites.iter().map(find).collect();
    }
    if !groups.is_empty() {
        provider.kx_groups.retain(|group| groups.contains(&group.name()));
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(site.pki.ca()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(defragd.target()).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.ok()
}

/// What such a handshake agrees on.
async fn shake(
    site: &Site,
    defragd: &Defragd,
    suites: &[CipherSuite],
    groups: &[NamedGroup],
) -> Option<(CipherSuite, Option<String>)> {
    let stream = connect(site, defragd, suites, groups, &["h2", "http/1.1"]).await?;
    let connection = stream.get_ref().1;
    let alpn = connection.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap());
    Some((connection.negotiated_cipher_suite().unwrap().suite(), alpn))
}

/// What HTTP/2 answers.
async fn http2(site: &Site, defragd: &Defragd, path: &str) -> StatusCode {
    let stream = connect(site, defragd, &[], &[], &["h2"]).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get(https(defragd, path)).body(axum::body::Body::empty()).unwrap();
    sender.send_request(request).await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_suites_curves_and_http2_are_what_the_file_says() {
    use CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 as AES_128, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 as AES_256,
        TLS13_AES_128_GCM_SHA256 as NEW_128, TLS13_AES_256_GCM_SHA384 as NEW_256,
    };
    let site = Site::new();
    let (tls12, tls13) = (
        site.client().tls_version_max(tls::Version::TLS_1_2).build().unwrap(),
        site.client().tls_version_min(tls::Version::TLS_1_3).build().unwrap(),
    );

    let defragd = site.start(&Site::tls("min_version: TLS13"), &[]).await;
    let url = https(&defragd, "/-/healthy");
    assert_eq!([status(&tls12, &url).await, status(&tls13, &url).await], [None, Some(StatusCode::OK)]);
    assert_eq!(shake(&site, &defragd, &[], &[]).await.unwrap().1.as_deref(), Some("h2"), "the default");
    defragd.kill().await.unwrap();

    let config = Site::tls(
        "max_version: TLS12\ncipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]",
    );
    let defragd = site.start(&format!("{config}http_server_config: {{http2: false}}\n"), &[]).await;
    let url = https(&defragd, "/-/healthy");
    assert_eq!([status(&tls12, &url).await, status(&tls13, &url).await], [Some(StatusCode::OK), None]);
    let (suite, alpn) = shake(&site, &defragd, &[AES_128, AES_256], &[]).await.unwrap();
    assert_eq!((suite, alpn.as_deref()), (AES_256, Some("http/1.1")), "the server's order");
    defragd.kill().await.unwrap();

    let defragd = site.start(&format!("{config}  prefer_server_cipher_suites: false\n"), &[]).await;
    assert_eq!(shake(&site, &defragd, &[AES_128, AES_256], &[]).await.unwrap().0, AES_128, "the client's order");
    defragd.kill().await.unwrap();

    let config = Site::tls("cipher_suites: [TLS_AES_256_GCM_SHA384]\ncurve_preferences: [CurveP384]");
    let defragd = site.start(&config, &[]).await;
    assert_eq!(shake(&site, &defragd, &[NEW_128, NEW_256], &[]).await.unwrap().0, NEW_256);
    assert!(shake(&site, &defragd, &[NEW_128], &[]).await.is_none(), "a suite that is not named");
    assert!(shake(&site, &defragd, &[], &[NamedGroup::X25519]).await.is_none(), "a curve that is not named");
    assert!(shake(&site, &defragd, &[], &[NamedGroup::secp384r1]).await.is_some());
    assert_eq!(http2(&site, &defragd, "/-/healthy").await, StatusCode::OK);
}

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
    let tokens = [
        format!("--web.bearer-token-file={}", site.path("token")),
        format!("--web.admin-token-file={}", site.path("admin")),
    ];
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
    assert_eq!(post(resume).bearer_auth(TOKEN).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(
        post(resume).basic_auth("ann", Some("correct horse")).send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(post(resume).bearer_auth(ADMIN).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(post("/api/v1/alerts").bearer_auth(ADMIN).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    // Twelve came in.
    let refused = post("/api/v1/alerts").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "the twelfth: no notification");
    let refused = with("correct horse", "/metrics").await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after") && refused.headers()["x-frame-options"] == "deny");
    let log = defragd.log().unwrap();
    assert!(
        !log.contains("horse") && !log.contains("$2y$") && !log.contains("PRIVATE") && !log.contains(TOKEN),
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
    let post = || Client::new().post(&resume).header("content-type", "application/json").body("{}");
    let _ = aws_lc_rs::default_provider().install_default();
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
async fn renewed_certificates_and_passwords_are_taken_up_and_broken_ones_are_not() {
    let site = Site::new();
    // As Kubernetes mounts a Secret: names that lead through a link which is swapped.
    let volume = site.dir.path().join("volume");
    let fill = |name: &str, pki: &Pki| {
        let dir = volume.join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::copy(&pki.server().cert, dir.join("tls.crt")).unwrap();
        fs::copy(&pki.server().key, dir.join("tls.key")).unwrap();
    };
    let swap = |to: &str| {
        symlink(to, volume.join("..next")).unwrap();
        fs::rename(volume.join("..next"), volume.join("..data")).unwrap();
    };
    fill("..1", &site.pki);
    swap("..1");
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), volume.join(name)).unwrap();
    }
    let hash = hash();
    let config = |user: &str| {
        format!(
            "tls_server_config:\n  cert_file: volume/tls.crt\n  key_file: volume/tls.key\nbasic_auth_users:\n  {user}: {hash}\n"
        )
    };
    let defragd = site.start(&config("ann"), &[]).await;
    let next = Pki::create(&site.dir.path().join("next")).unwrap();
    let (old_client, new_client) = (site.client().build().unwrap(), {
        let ca = Certificate::from_pem(&fs::read(next.ca()).unwrap()).unwrap();
        Client::builder().tls_certs_only([ca]).pool_max_idle_per_host(0).build().unwrap()
    });
    let url = https(&defragd, "/metrics");
    let ask = async |client: &Client, user: &str| -> Result<(StatusCode, String)> {
        let answer = client.get(&url).basic_auth(user, Some("correct horse")).send().await?;
        Ok((answer.status(), answer.text().await?))
    };
    let gauge = |page: &str, value: u8| page.contains(&format!("defragd_web_config_last_reload_successful {value}\n"));
    let (code, page) = ask(&old_client, "ann").await.unwrap();
    assert!(code == StatusCode::OK && gauge(&page, 1));

    fill("..2", &next);
    swap("..2");
    until("the renewed certificate to be shown", MINUTE, || async { ask(&new_client, "ann").await }).await.unwrap();
    assert!(ask(&old_client, "ann").await.is_err(), "the old certificate is gone");

    // A key that does not belong to the certificate, then half a configuration, then one without passwords.
    fill("..3", &next);
    fs::copy(&site.pki.server().key, volume.join("..3/tls.key")).unwrap();
    swap("..3");
    let broken = |what: &'static str| {
        until(what, MINUTE, || async {
            let (code, page) = ask(&new_client, "ann").await?;
            ensure!(code == StatusCode::OK && gauge(&page, 0), "not seen yet");
            Ok(())
        })
    };
    let whole = |user: &'static str| {
        let (ask, new_client, gauge) = (&ask, &new_client, &gauge);
        until("the whole configuration to be loaded", MINUTE, move || async move {
            let (code, page) = ask(new_client, user).await?;
            ensure!(code == StatusCode::OK && gauge(&page, 1), "not seen yet");
            Ok(())
        })
    };
    broken("the wrong key to be refused").await.unwrap();
    swap("..2");
    whole("ann").await.unwrap();
    site.write("basic_auth_users: {");
    broken("half a file to be refused").await.unwrap();
    site.write(&config("bob"));
    whole("bob").await.unwrap();
    assert_eq!(ask(&new_client, "ann").await.unwrap().0, StatusCode::UNAUTHORIZED, "who is no user any more");
    site.write("");
    until("an empty file to be refused", MINUTE, || async {
        let (code, page) = ask(&new_client, "bob").await?;
        ensure!(code == StatusCode::OK && gauge(&page, 0), "not seen yet");
        Ok(())
    })
    .await
    .unwrap();
    let log = defragd.log().unwrap();
    assert!(log.contains("tls_server_config.key: does not belong to the certificate"), "{log}");
    assert!(log.contains("tls_server_config was removed: to run without it, restart defragd"), "{log}");
}

#[test]
fn a_bad_web_configuration_is_found_before_a_start() {
    let site = Site::new();
    let config = site.path("config.yml");
    fs::write(&config, "clusters: [{name: demo, endpoints: ['http://127.0.0.1:1']}]").unwrap();
    let check = |web: &str, extra: &[&str]| {
        site.write(web);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_defragd"));
        let output = command.args(["check-config", &config, "--web.config.file", &site.path("web.yml")]).args(extra);
        let output = output.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(&Site::tls(""), &[]), (Some(0), String::new()));
    let (code, said) = check("tls_server_config: {cert_file: none.crt, key_file: web.yml}", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("tls_server_config.cert_file: cannot read"), "{said}");
    assert!(said.contains("tls_server_config.key_file: contains no private key in PEM format"), "{said}");
    assert_eq!(check("tls_server_config: {cert_file: none.crt, key_file: web.yml}", &["--syntax-only"]).0, Some(0));
    assert_eq!(check("tls_server_config: {cert_file: none.crt}", &["--syntax-only"]).0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_and_curl_scrape_over_tls_with_a_password() {
    let site = Site::new();
    let defragd = site.start(&format!("{}basic_auth_users:\n  ann: {}\n", Site::tls(""), hash()), &[]).await;
    fs::write(site.path("password"), "correct horse").unwrap();
    let tools = Tools::find().unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: defragd\n  scheme: https\n  \
         tls_config: {{ca_file: {}}}\n  basic_auth: {{username: ann, password_file: {}}}\n  static_configs: [{{targets: ['{}']}}]\n",
        site.pki.ca().display(),
        site.path("password"),
        defragd.target()
    );
    let programs = [Some(tools.prometheus()), tools.prometheus_3()];
    if programs[1].is_none() {
        println!("SKIPPED Prometheus 3: not here");
    }
    for program in programs.into_iter().flatten() {
        let log = site.dir.path().join("prometheus.log");
        let prometheus = Prometheus::start_program(&program, &config, &log).await.unwrap();
        until("Prometheus to have scraped", MINUTE, || async {
            let (up, build) = (prometheus.query("up == 1").await?, prometheus.query("defragd_build_info").await?);
            ensure!(up.len() == 1 && build.len() == 1, "{up:?} {build:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    let curl = |password: &str| {
        std::process::Command::new("curl")
            .args(["--silent", "--fail", "--compressed", "--cacert"])
            .arg(site.pki.ca())
            .args([
                "--user",
                &format!("ann:{password}"),
                "--write-out",
                "%{http_version}",
                &https(&defragd, "/metrics"),
            ])
            .output()
    };
    let Ok(answer) = curl("correct horse") else { return println!("SKIPPED the rest: no curl here") };
    let page = String::from_utf8(answer.stdout).unwrap();
    assert!(answer.status.success() && page.contains("defragd_build_info"), "{page}");
    assert!(!curl("wrong horse").unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_compression_and_the_limit_of_scrapes_are_as_in_other_exporters() {
    let site = Site::new();
    // An etcd that takes connections and never answers: a scrape of it lasts as long as its timeout, or until that etcd
    // is gone.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoints = format!("--endpoints=http://{}", mute.local_addr().unwrap());
    let config = site.path("config.yml");
    fs::write(
        &config,
        format!("clusters: [{{name: demo, endpoints: ['{}']}}]", endpoints.trim_start_matches("--endpoints=")),
    )
    .unwrap();
    let flags = [
        format!("--config={config}"),
        "--web.max-requests=2".to_owned(),
        "--web.route-prefix=/inside".to_owned(),
        "--web.external-url=https://proxy.example/outside/".to_owned(),
    ];
    let defragd = site.start("", &flags.each_ref().map(String::as_str)).await;
    let _ = aws_lc_rs::default_provider().install_default();
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let url = |path: &str| format!("{}{path}", defragd.url());

    let to = client.get(url("/")).send().await.unwrap();
    assert_eq!((to.status().as_u16(), &to.headers()["location"]), (307, &"/outside/".parse().unwrap()));
    let landing = client.get(url("/inside/")).send().await.unwrap().text().await.unwrap();
    for link in ["metrics", "api/v1/clusters", "api/v1/runs", "config", "-/healthy", "-/ready"] {
        assert!(landing.contains(&format!("href=\"/outside/{link}\"")), "{landing}");
        let head = client.head(url(&format!("/inside/{link}"))).header("x-prometheus-scrape-timeout-seconds", "0.2");
        assert_eq!(head.send().await.unwrap().status(), StatusCode::OK, "{link}");
    }
    assert_eq!(status(&client, &url("/metrics")).await, Some(StatusCode::NOT_FOUND));

    let scrape = |seconds: &'static str| {
        let request = client.get(url("/inside/metrics")).header("x-prometheus-scrape-timeout-seconds", seconds);
        request.header("accept-encoding", "gzip").send()
    };
    let compressed = scrape("0.2").await.unwrap();
    assert_eq!(
        (compressed.status(), &compressed.headers()["content-encoding"]),
        (StatusCode::OK, &"gzip".parse().unwrap())
    );
    let compressed = compressed.bytes().await.unwrap();
    let mut page = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&compressed[..]), &mut page).unwrap();
    assert!(page.contains("defragd_cluster_up{etcd_cluster=\"demo\"} 0"), "{page}");

    let mut together = JoinSet::new();
    for _ in 0..5 {
        together.spawn(scrape("120"));
    }
    let mut next = async || {
        let next = timeout(MINUTE, together.join_next()).await.expect("more are under way than there may be");
        next.unwrap().unwrap().unwrap().status()
    };
    for _ in 0..3 {
        assert_eq!(next().await, StatusCode::SERVICE_UNAVAILABLE, "two last, so there is no place for the others");
    }
    drop(mute);
    for _ in 0..2 {
        assert_eq!(next().await, StatusCode::OK);
    }
    assert_eq!(scrape("0.2").await.unwrap().status(), StatusCode::OK, "and afterwards");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_configuration_is_taken_over_by_signal_or_request_and_a_bad_one_is_not() {
    let site = Site::new();
    let path = site.path("config.yml");
    let write = |policy: &str| {
        fs::write(
            &path,
            format!("clusters: [{{name: demo, endpoints: ['http://127.0.0.1:1'], policy: {{{policy}}}}}]"),
        )
        .unwrap();
    };
    write("mode: observe");
    let tokens = [format!("--web.bearer-token-file={}", site.path("token")), format!("--config={path}")];
    let defragd = site.start("", &tokens.each_ref().map(String::as_str)).await;
    let mode =
        async || defragd.json("/api/v1/clusters").await.unwrap()["clusters"][0]["mode"].as_str().unwrap().to_owned();
    let gauge = async |name: &str| defragd.metrics().await.unwrap().value(&format!("defragd_config_last_{name}"), &[]);
    let started = gauge("reload_success_timestamp_seconds").await.unwrap();
    assert!(started > 1.7e9 && gauge("reload_successful").await == Some(1.0));

    write("mode: approve");
    assert_eq!(defragd.get("/-/reload").await.unwrap().status, 405);
    assert_eq!(defragd.post("/-/reload", "", None).await.unwrap().status, 401);
    assert_eq!(mode().await, "observe");
    let gate = "{name: site, http: {url: 'http://127.0.0.1:1', headers: {X-Key: s3cret}}}";
    let good = fs::read_to_string(&path).unwrap().replace("}}]", &format!("}}, gates: [{gate}]}}]"));
    fs::write(&path, good).unwrap();
    assert_eq!(defragd.post("/-/reload", "", Some(TOKEN)).await.unwrap().status, 200);
    assert_eq!(mode().await, "approve");
    let shown = defragd.json("/config").await.unwrap();
    assert_eq!(shown["clusters"][0]["policy"], serde_json::json!({"mode": "approve"}), "{shown}");
    assert_eq!(shown["clusters"][0]["gates"][0]["http"]["headers"]["X-Key"], "***", "{shown}");
    assert!(!shown.to_string().contains("s3cret"), "{shown}");

    write("mode: enforc, min_fragmentation_ratio: 2");
    let refused = defragd.post("/-/reload", "", Some(TOKEN)).await.unwrap();
    assert!(refused.status == 500 && refused.body.contains("enforc"), "{}", refused.body);
    assert_eq!(gauge("reload_successful").await, Some(0.0));
    let then = gauge("reload_success_timestamp_seconds").await.unwrap();
    assert!(then > started, "it is the time of the last good one");
    assert_eq!(mode().await, "approve");

    write("mode: enforce");
    defragd.signal_hup().unwrap();
    until("the signal to be followed", MINUTE, || async {
        ensure!(mode().await == "enforce" && gauge("reload_successful").await == Some(1.0), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    defragd.ensure_running().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_slow_and_lying_clients_keep_nobody_out() {
    let site = Site::new();
    let defragd = site.start("", &[]).await;
    let status_of = |name: &str| {
        let text = fs::read_to_string(format!("/proc/{}/status", defragd.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", defragd.pid())).unwrap().count();
    let before = status_of("VmRSS:");
    // A connection that was kept would be the first to give way, maybe just when the next request is sent on it.
    let client = Client::builder().pool_max_idle_per_host(0).timeout(MINUTE).build().unwrap();
    let healthy = format!("{}/-/healthy", defragd.url());
    let mut crowd = Vec::new();
    for number in 0..10_000 {
        let mut stream = TcpStream::connect(defragd.target()).await.unwrap();
        // Every second one begins a request and does not end it.
        if number % 2 == 0 {
            let _ = stream.write_all(b"POST /api/v1/alerts HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
        }
        crowd.push(stream);
        if crowd.len() > 900 {
            // This process has file descriptors for this many only; a client dropped here was dropped by defragd before.
            crowd.drain(..300);
        }
        if number % 1000 == 999 {
            assert_eq!(status(&client, &healthy).await, Some(StatusCode::OK), "after {number}");
            // A client that was just evicted is closed when its task next runs, which may be a moment later.
            until("connections to be closed", MINUTE, || async {
                ensure!(descriptors() < 600, "{} descriptors", descriptors());
                Ok(())
            })
            .await
            .unwrap();
        }
    }
    let grown = status_of("VmRSS:").saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");

    let cases = [
        ("long headers", format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)), "431"),
        ("many headers", format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: x\r\n".repeat(500)), "431"),
        ("a long path", format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(32 << 10)), "404"),
        ("a request that never ends", "GET /-/healthy HT".to_owned(), ""),
        ("no HTTP", "\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
        ("HTTP/2 in the clear", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
        (
            "a body that never comes",
            "POST /api/v1/alerts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
                .to_owned(),
            "408",
        ),
        (
            "a length that lies",
            "POST /api/v1/alerts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: -1\r\n\r\n{"
                .to_owned(),
            "400",
        ),
    ];
    let mut asked = Vec::new();
    for (what, bytes, expected) in cases {
        let target = defragd.target().to_owned();
        asked.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(target).await.unwrap();
            let _ = stream.write_all(bytes.as_bytes()).await;
            let mut answer = vec![0; 64];
            let read = timeout(MINUTE, stream.read(&mut answer)).await;
            let read = read.unwrap_or_else(|_| panic!("{what}: no answer and no end")).unwrap_or(0);
            let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
            // A client that is still sending when the response comes may not see it.
            let unseen = read == 0 && (expected.is_empty() || what == "long headers");
            assert!(unseen || (!expected.is_empty() && answer.contains(expected)), "{what}: {answer}");
        }));
    }
    for case in asked {
        case.await.unwrap();
        assert_eq!(status(&client, &healthy).await, Some(StatusCode::OK));
    }
    defragd.ensure_running().unwrap();
    assert!(!defragd.log().unwrap().contains("panicked"));
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
        let program = env!("CARGO_BIN_EXE_defragd");
        let output = tokio::process::Command::new(program).arg("health").args(args).output().await.unwrap();
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
