//! etcd's own users: with the role root everything works, without it the reason says what is missing.

use std::{path::PathBuf, process::Output};

use defragd::core::version::{Caller, ReadRpc, Version};
use strum::IntoEnumIterator;
use testkit::{EtcdSpec, EtcdVersion, Identity, Transport, until};

use crate::{
    faults::versions,
    rig::{MINUTE, Rig},
};

/// One member that always needs a defragmentation, with the users `root` and `plain`, who may read and write all.
async fn guarded(version: EtcdVersion, transport: Transport) -> Rig {
    let rig = Rig::with(EtcdSpec::new(version).members(1).transport(transport)).await;
    rig.cluster.enable_auth("s3cret-of-root").await.unwrap();
    rig.cluster.add_plain_user("plain", "s3cret-of-plain").await.unwrap();
    for user in ["root", "plain"] {
        std::fs::write(rig.path(user), format!("s3cret-of-{user}\n")).unwrap();
    }
    rig
}

/// `--user` with the password of another, or the same.
fn login(rig: &Rig, user: &str, password_of: &str) -> Vec<String> {
    vec![format!("--user={user}"), format!("--password-file={}", rig.path(password_of).display())]
}

async fn said(rig: &Rig, command: &str, flags: &[String]) -> (Option<i32>, String) {
    let mut all: Vec<&str> = flags.iter().map(String::as_str).collect();
    if command != "status" {
        all.extend(["--allow-without-quorum-slack", "--rule=true"]);
    }
    let Output { status, stdout, stderr } = rig.command(command, &all).await;
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_release_s_denial_names_the_rpc_the_user_and_what_to_grant() {
    for version in versions() {
        let rig = guarded(version, Transport::Plain).await;
        let nobody = |rpc: &str| format!("{rpc} was denied to a client without a user");

        // Who may look differs, who may defragment does not.
        let caller = |rpc: ReadRpc, reported: &str| rpc.caller(Version::parse(reported).unwrap());
        let reported = rig.cluster.status(0).await.unwrap().version;
        let looks = caller(ReadRpc::MemberList, &reported) == Caller::Anyone;
        let (code, text) = said(&rig, "status", &[]).await;
        assert_eq!(code, Some(i32::from(!looks)), "{version}: {text}");
        assert!(looks || text.contains(&nobody("MemberList")), "{version}: {text}");
        let (code, text) = said(&rig, "run", &[]).await;
        assert_ne!(code, Some(0), "{version}: {text}");
        let denied = text.contains(&nobody(if looks { "a linearizable Range" } else { "MemberList" }));
        assert!(denied && text.contains("pass --user with a user that has the root role"), "{version}: {text}");

        for (user, password_of) in [("root", "plain"), ("nobody", "root")] {
            let (code, text) = said(&rig, "status", &login(&rig, user, password_of)).await;
            assert_eq!(code, Some(1), "{version}: {text}");
            assert!(text.contains(&format!("etcd rejected the login of user {user:?}")), "{version}: {text}");
            assert!(text.contains("the password is wrong, or there is no such user"), "{version}: {text}");
            let (code, text) = said(&rig, "plan", &login(&rig, user, password_of)).await;
            assert!(code != Some(0) && text.contains("login"), "{version}: {text}");
        }

        let (code, text) = said(&rig, "status", &login(&rig, "plain", "plain")).await;
        let user_looks = ReadRpc::iter().all(|rpc| caller(rpc, &reported) <= Caller::User);
        assert_eq!(code, Some(i32::from(!user_looks)), "{version}: {text}");
        let (code, text) = said(&rig, "run", &login(&rig, "plain", "plain")).await;
        assert_ne!(code, Some(0), "{version}: {text}");
        assert!(text.contains("Defragment was denied to user \"plain\""), "{version}: {text}");
        assert!(text.contains("etcdctl user grant-role plain root"), "{version}: {text}");
        assert_eq!(rig.defrags().await, [0], "{version}");

        let (code, text) = said(&rig, "run", &login(&rig, "root", "root")).await;
        assert!(code == Some(0) && text.contains("Succeeded"), "{version}: {text}");
        assert_eq!(rig.defrags().await, [1], "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_common_name_of_the_certificate_is_the_user() {
    for version in versions() {
        let rig = guarded(version, Transport::Tls).await;
        let as_user = |Identity { cert, key }: Identity| {
            let flag = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
            vec![flag("cert", cert), flag("key", key)]
        };
        let pki = rig.cluster.pki().unwrap();
        let (code, text) = said(&rig, "run", &as_user(pki.client_named("plain").unwrap())).await;
        assert_ne!(code, Some(0), "{version}: {text}");
        let words = "Defragment was denied to user \"plain\" (the common name of the client certificate)";
        assert!(text.contains(words), "{version}: {text}");
        let (code, text) = said(&rig, "run", &as_user(pki.client_named("root").unwrap())).await;
        assert!(code == Some(0) && text.contains("Succeeded"), "{version}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_in_the_metrics_and_once_in_the_log_and_over_when_the_password_is_right() {
    let rig = guarded(EtcdVersion::V3_5, Transport::Plain).await;
    let wrong = login(&rig, "root", "plain");
    let defragd = rig.serve(&[&wrong[0], &wrong[1], "--exporter-only"]).await;
    for _ in 0..3 {
        let metrics = defragd.metrics().await.unwrap();
        let reason = [("etcd_cluster", "demo"), ("reason", "login_refused")];
        assert_eq!(metrics.value("defragd_cluster_error", &reason), Some(1.0), "{}", metrics.text());
        assert_eq!(metrics.value("defragd_cluster_up", &[("etcd_cluster", "demo")]), Some(0.0));
    }
    let log = defragd.log().unwrap();
    assert_eq!(log.matches("the password is wrong, or there is no such user").count(), 1, "{log}");
    let page = defragd.get("/").await.unwrap().body;
    assert!(page.contains("demo</span> rejects the credentials"), "{page}");
    assert_eq!(page.matches("the password is wrong, or there is no such user").count(), 1, "{page}");
    assert!(page.contains("What to do: Check the user and the password file"), "{page}");
    // The user's, not the file's, changes: nothing has to be read again, and the next login is a minute later.
    rig.cluster.client(0).await.unwrap().user_change_password("root", "s3cret-of-plain").await.unwrap();
    until("the login to succeed", 3 * MINUTE, || async {
        let up = defragd.metrics().await?.value("defragd_cluster_up", &[("etcd_cluster", "demo")]);
        anyhow::ensure!(up == Some(1.0), "it is {up:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(!defragd.metrics().await.unwrap().text().contains("defragd_cluster_error{"));
    assert!(!defragd.log().unwrap().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_user_from_a_file_rolls_a_cluster_with_authentication() {
    // Without client certificates, so that the user is not taken from the certificate's name.
    let spec = testkit::EtcdSpec::new(EtcdVersion::V3_5).transport(testkit::Transport::Plain);
    let rig = Rig::with(spec).await;
    rig.fragment().await;
    rig.cluster.enable_auth("s3cret-of-root").await.unwrap();
    rig.cluster.add_plain_user("plain", "s3cret-of-plain").await.unwrap();
    let (root, plain) = (rig.path("root"), rig.path("plain"));
    std::fs::write(&root, "s3cret-of-root\n").unwrap();
    std::fs::write(&plain, "s3cret-of-plain\n").unwrap();
    let file = |path: &std::path::Path| format!("--password-file={}", path.display());

    let refused = rig.command("run", &["--user=plain", &file(&plain)]).await;
    let text = String::from_utf8_lossy(&refused.stdout).into_owned() + &String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{text}");
    assert!(text.contains("permission denied") && text.contains("the root role"), "{text}");
    assert_eq!(rig.defrags().await, [0, 0, 0]);

    let wrong = rig.command("run", &["--user=root", &file(&plain)]).await;
    let text = String::from_utf8_lossy(&wrong.stdout).into_owned() + &String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(3), "{text}");
    assert!(text.contains("authentication failed") && text.contains("rejected the credentials: "), "{text}");
    assert!(!text.contains("s3cret"), "{text}");

    let done = rig.command("run", &["--user=root", &file(&root)]).await;
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{text}");
    assert!(text.contains("Succeeded"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_user_does_not_blind_defragd_while_authentication_is_off() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    let password = rig.path("password");
    std::fs::write(&password, "whatever").unwrap();
    let file = format!("--password-file={}", password.display());
    let status = rig.command("status", &["--user=root", &file]).await;
    assert_eq!(status.status.code(), Some(0), "{}", String::from_utf8_lossy(&status.stderr));
}
