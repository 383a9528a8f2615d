//! `tls_server_config`: client certificates, versions, cipher suites, curves and HTTP/2.

use std::{fs, sync::Arc};

use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::{StatusCode, tls};
use rustls::{CipherSuite, ClientConfig, NamedGroup, crypto::aws_lc_rs};
use testkit::{Defragd, Pki};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Site, https, status};
use crate::rig::roots;

#[tokio::test(flavor = "multi_thread")]
async fn each_way_of_client_authentication_lets_in_whom_it_says() {
    let site = Site::new();
    let stranger = Pki::create(&site.home.path("other")).unwrap();
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
    let dir = site.home.path("pki");
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
pub(super) async fn connect(
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
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(&site.pki))
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
