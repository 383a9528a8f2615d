//! Mistakes with TLS: what is wrong and what to change, in the words that the operator used.

use std::path::Path;

use testkit::{EtcdSpec, EtcdVersion, Identity, Pki, Port, Transport};

use crate::{
    faults::versions,
    rig::{Rig, binary},
};

/// One member that serves without TLS, and at a second address with this certificate. Returns both URLs.
async fn served(version: EtcdVersion, server: &Identity, extra: &[&str]) -> (Rig, String, String) {
    let mut port = Port::reserve().unwrap();
    let url = format!("https://{}", port.address());
    let spec = EtcdSpec::new(version).members(1).transport(Transport::Plain);
    port.release();
    let spec = spec
        .listens_also(&url)
        .arg(&format!("--cert-file={}", server.cert.display()))
        .arg(&format!("--key-file={}", server.key.display()));
    let rig = Rig::with(extra.iter().fold(spec, |spec, arg| spec.arg(arg))).await;
    let plain = rig.cluster.endpoints()[0].clone();
    (rig, plain, url)
}

/// What `defragd status` answers to these flags, which must fail.
async fn refused(args: &[String]) -> String {
    let output =
        tokio::process::Command::new(binary()).arg("status").args(args).kill_on_drop(true).output().await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {err}");
    err
}

fn flag(name: &str, value: impl AsRef<Path>) -> String {
    format!("--{name}={}", value.as_ref().display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_foreign_client_certificate_is_named_with_the_flags_or_keys_to_set() {
    for version in versions() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(&dir.path().join("one")).unwrap();
        let other = Pki::create(&dir.path().join("two")).unwrap();
        let trusted = format!("--trusted-ca-file={}", pki.ca().display());
        let (_rig, _, url) = served(version, pki.server(), &["--client-cert-auth", &trusted]).await;
        let base = [flag("endpoints", &url), flag("cacert", pki.ca())];
        // The alert and the end of the connection race: it must be known either way.
        for _ in 0..5 {
            let err = refused(&base).await;
            assert!(
                err.contains("the server requires a client certificate: pass --cert and --key"),
                "{version}: {err}"
            );
        }

        let file = dir.path().join("config.yaml");
        let ca = pki.ca().display();
        let yaml = format!("clusters: [{{name: a, endpoints: ['{url}'], tls: {{ca_file: '{ca}'}}}}]");
        std::fs::write(&file, yaml).unwrap();
        let err = refused(&[flag("config", &file)]).await;
        assert!(err.contains("a client certificate: set tls.cert_file and tls.key_file"), "{version}: {err}");
        assert!(!err.contains("--cert"), "{version}: {err}");

        let identity = [flag("cert", &other.client().cert), flag("key", &other.client().key)];
        let err = refused(&[&base[..], &identity[..]].concat()).await;
        assert!(err.contains("the server rejected the client certificate in --cert"), "{version}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_scheme_is_named_in_both_directions() {
    for version in versions() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(dir.path()).unwrap();
        let (_rig, plain, url) = served(version, pki.server(), &[]).await;
        let err = refused(&[flag("endpoints", url.replace("https", "http"))]).await;
        assert!(
            err.contains("the server uses TLS: write https:// in --endpoints, and pass --cacert"),
            "{version}: {err}"
        );
        let err = refused(&[flag("endpoints", plain.replace("http", "https")), flag("cacert", pki.ca())]).await;
        assert!(err.contains("the server does not use TLS: write http:// in --endpoints"), "{version}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_certificate_that_is_not_accepted_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::create(&dir.path().join("one")).unwrap();
    let other = Pki::create(&dir.path().join("two")).unwrap();
    let (_rig, _, url) = served(EtcdVersion::V3_5, pki.server(), &[]).await;
    let err = refused(&[flag("endpoints", &url), flag("cacert", other.ca())]).await;
    assert!(err.contains("not signed by a CA in --cacert: add the server's CA to that file"), "{err}");
    let err = refused(&[flag("endpoints", &url)]).await;
    assert!(err.contains("that this machine does not trust: pass the CA's certificate with --cacert"), "{err}");

    for (server, expected) in [
        (pki.expired_server().unwrap(), "the server's certificate expired at 2000-01-01 00:00 UTC: renew it"),
        (pki.server_for("etcd.example").unwrap(), "the server's certificate is for other names"),
        (pki.version_1_server().unwrap(), "the server's certificate is X.509 version 1, which is not supported"),
    ] {
        let (_rig, _, url) = served(EtcdVersion::V3_5, &server, &[]).await;
        let err = refused(&[flag("endpoints", &url), flag("cacert", pki.ca())]).await;
        assert!(err.contains(expected), "{err}");
    }
}
