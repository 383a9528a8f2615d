//! etcd's own users: with a root-role user all works, without one the reason says what is missing.

use testkit::EtcdVersion;

use crate::rig::Rig;

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
    assert!(text.contains("permission denied") && text.contains("root role"), "{text}");
    assert_eq!(rig.defrags().await, [0, 0, 0]);

    let wrong = rig.command("run", &["--user=root", &file(&plain)]).await;
    let text = String::from_utf8_lossy(&wrong.stdout).into_owned() + &String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(3), "{text}");
    assert!(text.contains("authentication failed") && text.contains("refuses the credentials"), "{text}");
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
