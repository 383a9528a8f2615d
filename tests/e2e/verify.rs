//! The members' data, compared after a run: equal, and with one member's changed underneath.

use serde_json::{Value, json};
use testkit::{EtcdVersion, until};

use crate::{
    faults,
    rig::{MINUTE, Rig, TOKEN, binary, ended_run, firing, notification},
};

/// As it lies in the file; nothing else is like it.
const VALUE: &[u8] = b"0123456789-what-the-members-agree-on-0123456789";

#[tokio::test(flavor = "multi_thread")]
async fn equal_members_are_found_equal_on_3_4() {
    are_equal(EtcdVersion::V3_4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_members_are_found_equal_on_the_newest() {
    are_equal(faults::newest()).await;
}

async fn are_equal(version: EtcdVersion) {
    let rig = Rig::fragmented(version).await;
    let run = rig.command("run", &["--verify=hash"]).await;
    let (out, err) = (text(&run.stdout), text(&run.stderr));
    assert_eq!(run.status.code(), Some(0), "{out}{err}");
    assert!(out.contains("Succeeded.") && err.contains("the data of all 3 voters is the same"), "{out}{err}");
    let story = show(&rig, 1);
    assert!(story.contains("the data of all 3 voters is the same at revision"), "{story}");
    // Off by default.
    rig.fragment().await;
    let run = rig.command("run", &[]).await;
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert!(!show(&rig, 2).contains("data of all"), "{}", show(&rig, 2));
}

/// At a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_other_data_is_found_on_3_4() {
    let rig = Rig::fragmented(EtcdVersion::V3_4).await;
    let odd = change_one_underneath(&rig).await;
    let run = rig.command("run", &["--verify=hash", "-o", "json"]).await;
    assert_eq!(run.status.code(), Some(1), "{}", text(&run.stderr));
    let result: Value = serde_json::from_slice(&run.stdout).unwrap();
    is_mismatch(&result["run"], &odd);
    assert_eq!(rig.defrags().await, [1, 1, 1]);

    // Another one is refused until a person resumes.
    rig.fragment().await;
    let run = rig.command("run", &["-o", "json"]).await;
    assert_eq!(run.status.code(), Some(3), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("defragd resume --cluster etcd --data-dir"), "{}", text(&run.stderr));
    let result: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(result["run"]["reason"]["code"], "hash_mismatch", "{result}");
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    let journal = format!("--data-dir={}", rig.path("journal").display());
    let resumed = std::process::Command::new(binary()).args(["resume", "--cluster=etcd", &journal]).output().unwrap();
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    let run = rig.command("run", &[]).await;
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert_eq!(rig.defrags().await, [2, 2, 2]);
}

/// Under automation: nothing is started until a person resumes, whatever fires and however often defragd is started.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_other_data_is_found_and_ends_automation_on_the_newest() {
    let rig = Rig::fragmented(faults::newest()).await;
    let odd = change_one_underneath(&rig).await;
    let flags = ["--mode=enforce", "--verify=hash", "--cooldown=0s"];
    let defragd = rig.serve(&flags).await;
    assert_eq!(mismatch(&defragd).await, Some(0.0));
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    is_mismatch(&run, &odd);
    // The worker reads it from the journal, a moment after the end of the run is there.
    until("the metrics to say so", MINUTE, || async {
        let now = mismatch(&defragd).await;
        anyhow::ensure!(now == Some(1.0), "{now:?}");
        Ok(())
    })
    .await
    .unwrap();
    let counted = [("etcd_cluster", "demo"), ("outcome", "mismatched"), ("trigger", "alert")];
    let counted = defragd.metrics().await.unwrap().require("defragd_runs_total", &counted).unwrap();
    assert!((counted - 1.0).abs() < 0.1, "{counted}");

    rig.fragment().await;
    let alert = notification("firing", &[("alertname", "EtcdFragmentationHigh"), ("etcd_cluster", "demo")], "f2");
    defragd.post_alerts(&alert, Some(TOKEN)).await.unwrap();
    // Not by the log, which has the code since the end of the run.
    until("the request to wait", MINUTE, || async {
        let cluster = defragd.json("/api/v1/clusters").await?["clusters"][0].clone();
        anyhow::ensure!(cluster["waiting_for"]["code"] == "hash_mismatch", "{cluster}");
        Ok(())
    })
    .await
    .unwrap();
    let refused = defragd.post("/api/v1/clusters/demo/run", r#"{"by": "ann"}"#, Some(TOKEN)).await.unwrap();
    assert!(refused.status == 409 && refused.body.contains("hash_mismatch"), "{refused:?}");
    defragd.kill().await.unwrap();
    drop(defragd);

    let defragd = rig.serve(&flags).await;
    assert_eq!(mismatch(&defragd).await, Some(1.0), "after a restart");
    until("the request to wait again", MINUTE, || async {
        let cluster = defragd.json("/api/v1/clusters").await?["clusters"][0].clone();
        anyhow::ensure!(cluster["waiting_for"].to_string().contains("hash_mismatch"), "{cluster}");
        anyhow::ensure!(cluster["hash_mismatch"].to_string().contains(&odd), "{cluster}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    let resumed = defragd.post("/api/v1/clusters/demo/resume", json!({"by": "ann"}).to_string(), Some(TOKEN)).await;
    assert!(resumed.unwrap().status < 300);
    // The member was not replaced: it is found once more.
    is_mismatch(&ended_run(&defragd, 2).await, &odd);
    assert_eq!(rig.defrags().await, [2, 2, 2]);
}

/// Gives the member's name.
pub(crate) async fn change_one_underneath(rig: &Rig) -> String {
    rig.cluster.client(0).await.unwrap().put("agreed", VALUE, None).await.unwrap();
    let follower = (rig.cluster.leader().await.unwrap() + 1) % 3;
    // Its last write is in its file when it has ended, not only in its log.
    until("the value to be at the member", MINUTE, || async {
        let read = etcd_client::GetOptions::new().with_serializable();
        let found = rig.cluster.client(follower).await?.get("agreed", Some(read)).await?;
        anyhow::ensure!(found.kvs().first().is_some_and(|pair| pair.value() == VALUE), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    rig.cluster.stop(follower).await.unwrap();
    let member = rig.cluster.member(follower);
    let mut other = VALUE.to_vec();
    other[0] = b'9';
    assert!(member.corrupt(VALUE, &other).unwrap() > 0, "the value is not in its file");
    rig.cluster.restart(follower).await.unwrap();
    member.name().to_owned()
}

fn is_mismatch(run: &Value, odd: &str) {
    assert_eq!(run["outcome"], "mismatched", "{run}");
    assert_eq!(run["reason"]["code"], "hash_mismatch", "{run}");
    let hashes = run["verification"]["hashes"].as_array().unwrap();
    let of = |name: &str| hashes.iter().find(|one| one["member"] == name).unwrap()["hash"].clone();
    let others: Vec<_> = hashes.iter().filter(|one| one["member"] != odd).map(|one| one["hash"].clone()).collect();
    assert!(others.len() == 2 && others[0] == others[1] && others[0] != of(odd), "{odd}: {hashes:?}");
}

async fn mismatch(defragd: &testkit::Defragd) -> Option<f64> {
    let labels = [("etcd_cluster", "demo")];
    defragd.metrics().await.unwrap().require("defragd_cluster_hash_mismatch", &labels).ok()
}

fn show(rig: &Rig, run: u32) -> String {
    let journal = format!("--data-dir={}", rig.path("journal").display());
    let shown =
        std::process::Command::new(binary()).args(["runs", "show", &run.to_string(), &journal]).output().unwrap();
    text(&shown.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
