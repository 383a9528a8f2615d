//! Members with self-signed certificates, as `--auto-tls` makes them; and commands without verification.

use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::{EtcdSpec, EtcdVersion, Pki, Port, Transport, until};

use crate::{
    faults::versions,
    rig::{MINUTE, Rig, binary},
};

/// One member that serves TLS with a certificate that it made itself: its address there, and that certificate.
async fn automatic(version: EtcdVersion) -> (Rig, String, PathBuf) {
    let mut port = Port::reserve().unwrap();
    let url = format!("https://{}", port.address());
    let spec = EtcdSpec::new(version).members(1).transport(Transport::Plain);
    port.release();
    let rig = Rig::with(spec.listens_also(&url).publishes_also(&url).arg("--auto-tls")).await;
    let cert = rig.cluster.member(0).data_dir().join("fixtures/client/cert.pem");
    (rig, url, cert)
}

async fn defragd(args: &[&str]) -> (Option<i32>, String, String) {
    let output = tokio::process::Command::new(binary()).args(args).kill_on_drop(true).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn is_authority(cert: &Path) -> bool {
    let pem = std::fs::read(cert).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    pem.parse_x509().unwrap().is_ca()
}

fn cacert(path: &Path) -> String {
    format!("--cacert={}", path.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_auto_tls_is_reached_with_its_certificate_and_with_no_other() {
    for version in versions() {
        let (rig, url, cert) = automatic(version).await;
        let endpoint = format!("--endpoints={url}");
        // Before 3.6 the quota is from the metrics page, which another client asks for, for two seconds and no longer.
        let member = until("the quota", MINUTE, || async {
            let (code, out, err) = defragd(&["status", &endpoint, &cacert(&cert), "-o", "json"]).await;
            anyhow::ensure!(code == Some(0), "{version}: {out}{err}");
            let member = serde_json::from_str::<Value>(&out)?["clusters"][0]["members"][0].clone();
            anyhow::ensure!(member["db_quota_bytes"].is_u64(), "{version}: {member}");
            Ok(member)
        })
        .await
        .unwrap();
        assert_eq!(member["endpoint"], url.as_str(), "{version}: it is not the URL without TLS: {member}");

        let other = Pki::self_signed(rig.dir.path(), "other", |_| {}).unwrap();
        let (code, out, err) = defragd(&["status", &endpoint, &cacert(&other.cert)]).await;
        assert_eq!(code, Some(1), "{version}: {out}{err}");
        assert!(err.contains("invalid peer certificate"), "{version}: {err}");
        // Some releases make one that is signed by itself, and is no authority.
        let hint = err.contains("only if this very certificate is in the CA file");
        assert_eq!(hint, is_authority(&cert), "{version}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_status_and_plan_go_without_verification_and_no_password_goes_with_them() {
    let (rig, url, cert) = automatic(EtcdVersion::V3_5).await;
    let (endpoint, skip) = (format!("--endpoints={url}"), "--insecure-skip-tls-verify");
    let (code, _, err) = defragd(&["status", &endpoint]).await;
    assert_eq!(code, Some(1), "{err}");
    for command in ["status", "plan"] {
        let (code, out, err) = defragd(&[command, &endpoint, skip]).await;
        assert!(out.contains("etcd-1"), "{command}: {code:?} {out}{err}");
        assert!(err.contains("warning: the members' certificates are not verified"), "{command}: {err}");
    }
    for command in ["run", "serve", "gates"] {
        let (code, out, err) = defragd(&[command, &endpoint, skip]).await;
        assert_eq!(code, Some(2), "{command}: {out}{err}");
        assert!(
            err.contains("only works with the read-only commands status and plan") && err.contains("--cacert"),
            "{command}: {err}"
        );
    }
    std::fs::write(rig.path("password"), "s3cret-of-root").unwrap();
    let login = ["--user=root", &format!("--password-file={}", rig.path("password").display())];
    let (code, out, err) = defragd(&["status", &endpoint, skip, login[0], login[1]]).await;
    assert!(code == Some(1) || code == Some(2), "{out}{err}");
    assert!(err.contains("the password would be sent to any server") && !err.contains("s3cret"), "{err}");
    assert!(cert.exists());
}
