//! Compaction before a run, for clusters that nothing else compacts.

use testkit::EtcdVersion;

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_nobody_compacts_is_compacted_first_when_the_policy_says_so() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    let mut client = rig.cluster.client(0).await.unwrap();
    for number in 0..300_u32 {
        client.put(format!("key/{}", number % 10), vec![b'x'; 100_000], None).await.unwrap();
    }
    let pki = rig.cluster.pki().unwrap();
    let config = |compaction: &str| {
        let path = rig.path("config.yaml");
        let (ca, cert, key) = (pki.ca(), &pki.client().cert, &pki.client().key);
        let text = format!(
            "clusters:\n- name: demo\n  endpoints: ['{}']\n  tls: {{ca_file: {}, cert_file: {}, key_file: {}}}\n  policy:\n    \
             mode: enforce\n    min_reclaimable: 4MiB\n    pause_between_members: 1s\n{compaction}",
            rig.cluster.endpoints()[0],
            ca.display(),
            cert.display(),
            key.display()
        );
        std::fs::write(&path, text).unwrap();
        path
    };
    let run = |path: std::path::PathBuf| {
        let data = format!("--data-dir={}", rig.path("journal").display());
        let output =
            std::process::Command::new(crate::rig::binary()).arg("run").arg("--config").arg(path).arg(data).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };

    // Without it nothing can be gained: every old revision is in use.
    let (code, text) = run(config(""));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("Nothing to do"), "{text}");
    assert_eq!(rig.defrags().await, [0, 0, 0]);

    // An idle etcd counts its freed pages at its next commit only, so there must be some life in the cluster.
    let alive = tokio::spawn({
        let mut client = rig.cluster.client(0).await.unwrap();
        async move {
            loop {
                let _ = client.put("alive", "x", None).await;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    });
    let path = config("    compaction: {keep_revisions: 10}\n");
    let (code, text) = tokio::task::block_in_place(|| run(path));
    alive.abort();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("compacting up to revision") && text.contains("Succeeded"), "{text}");
    assert_eq!(rig.defrags().await, [1, 1, 1], "{text}");
    for status in rig.cluster.statuses().await.unwrap() {
        assert!(status.size < 10 << 20, "{} bytes are left", status.size);
    }
}
