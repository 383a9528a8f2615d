//! A journal that cannot be written, or is not one: the sender gets a 503, so that it tries again, and no member is
//! touched.

use std::process::Command;

use testkit::{EtcdSpec, EtcdVersion, SmallDisk, Transport, is_inside};

use crate::{
    faults::{self, received},
    rig::{MIB, MINUTE, Rig, TOKEN, binary, ended_run, firing},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_answers_503_touches_no_member_and_works_again_when_there_is_room() {
    faults::inside("journal::inside_full_then_read_only").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "in namespaces of its own, by the test above"]
async fn inside_full_then_read_only() {
    if !is_inside() {
        return;
    }
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).transport(Transport::Plain)).await;
    rig.fragment().await;
    let disk = SmallDisk::mount(&rig.path("journal"), 8 * MIB).unwrap();
    let defragd = rig.serve(&["--mode=enforce"]).await;

    // SQLite has some pages in hand: small writes may still fit, so the disk is full to the last byte.
    disk.fill(0).unwrap();
    for _ in 0..2 {
        let answer = defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.body.contains("journal") && answer.body.contains("full"), "{}", answer.body);
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(received(&rig.cluster), [0, 0, 0]);
    let metrics = defragd.metrics().await.unwrap();
    assert_eq!(metrics.count("defragd_webhook_requests_total", &[("code", "503")]), Some(2));

    disk.clear().unwrap();
    // What Alertmanager does after a 503.
    assert_eq!(defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap().status, 202);
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "succeeded");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);

    // A start that cannot write does not begin to serve.
    assert!(defragd.terminate(MINUTE).await.unwrap().success());
    disk.set_read_only(true).unwrap();
    cannot_start(&rig, &rig.path("journal").display().to_string());
}

fn cannot_start(rig: &Rig, names: &str) {
    let mut args = vec!["serve".to_owned(), "--web.listen-address=127.0.0.1:0".to_owned()];
    args.extend(rig.flags());
    let output = Command::new(binary()).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("journal") && error.contains(names), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_named_and_nothing_is_served() {
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).transport(Transport::Plain)).await;
    let file = rig.path("journal/journal.db");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "not a database, and longer than a header of one hundred bytes ".repeat(100)).unwrap();
    cannot_start(&rig, &file.display().to_string());
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("not a database"), "it was left as it is");
}
