//! What the tests of faults share.

use std::{process::Command, time::Duration};

use serde_json::Value;
use testkit::{DefragLog, Defragd, EtcdCluster, EtcdVersion, HeldDefrags, Tools, Writer, until};

use crate::rig::{MINUTE, Rig, TOKEN, binary, ended_run, firing};

/// The etcd lines that are here, with a word about one that is not.
pub(crate) fn versions() -> Vec<EtcdVersion> {
    let versions = Tools::find().unwrap().etcd_versions();
    if EtcdVersion::wanted().is_none() && versions.len() < EtcdVersion::ALL.len() {
        testkit::skipped("no etcd 3.6 or 3.7 here; tests/testkit/tools builds them where there is Go");
    }
    versions
}

/// The newest etcd line that is here.
pub(crate) fn newest() -> EtcdVersion {
    *versions().last().unwrap()
}

/// Each member's defrags according to its log.
pub(crate) fn logs(cluster: &EtcdCluster) -> Vec<DefragLog> {
    cluster.members().iter().map(|member| member.defrag_log().unwrap()).collect()
}

/// How many Defragment requests each member has received, by its own log.
pub(crate) fn received(cluster: &EtcdCluster) -> Vec<usize> {
    logs(cluster).iter().map(|log| log.started).collect()
}

/// The journal as `defragd runs` shows it, newest first; also while a defragd serves.
pub(crate) fn journal(rig: &Rig) -> Vec<Value> {
    let dir = format!("--data-dir={}", rig.path("journal").display());
    let output = Command::new(binary()).args(["runs", &dir, "--limit=100000", "-o", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let runs: Value = serde_json::from_slice(&output.stdout).unwrap();
    runs["runs"].as_array().unwrap().clone()
}

/// Holds the defragmentations of all members from now on.
pub(crate) async fn hold(rig: &Rig) -> HeldDefrags {
    HeldDefrags::start(&rig.cluster).await.unwrap()
}

/// Waits until a member is in the middle of a defrag, and gives which.
pub(crate) async fn defragmenting(cluster: &EtcdCluster) -> usize {
    until("a defrag to be under way", MINUTE, || async {
        let busy = (0..cluster.len()).find(|index| cluster.member(*index).has_defrag_file());
        busy.ok_or_else(|| anyhow::anyhow!("none is"))
    })
    .await
    .unwrap()
}

/// Waits until this member is in the middle of a defrag.
pub(crate) async fn is_defragmenting(cluster: &EtcdCluster, index: usize) {
    until("the member's defrag to be under way", MINUTE, || async {
        anyhow::ensure!(cluster.member(index).has_defrag_file(), "it is not");
        Ok(())
    })
    .await
    .unwrap();
}

/// Writes are acknowledged from now on: the rest of the cluster serves.
pub(crate) async fn serves(writer: &Writer) {
    let before = writer.report().acked;
    until("writes to be acknowledged", MINUTE, || async {
        let now = writer.report().acked;
        anyhow::ensure!(now >= before + 20, "{} more", now - before);
        Ok(())
    })
    .await
    .unwrap();
}

/// Ends the load; every key that was acknowledged reads back.
pub(crate) async fn reads_back(mut writer: Writer, cluster: &EtcdCluster) {
    let report = writer.stop().await.unwrap();
    eprintln!("the load: {report:?}");
    assert_eq!(writer.verify(cluster).await.unwrap(), report.acked);
}

/// The run is still under way after this time.
pub(crate) async fn still_under_way(defragd: &Defragd, id: i64, time: Duration) {
    tokio::time::sleep(time).await;
    let run = defragd.json(&format!("/api/v1/runs/{id}")).await.unwrap();
    assert!(run["outcome"].is_null(), "it ended early: {run}");
}

/// The alert fires again, and the run with this number serves it.
pub(crate) async fn fires_again(defragd: &Defragd, id: i64) -> Value {
    let mut again = firing();
    again["alerts"][0]["startsAt"] = format!("2026-11-23T11:00:00.{id:03}Z").into();
    defragd.post_alerts(&again, Some(TOKEN)).await.unwrap();
    ended_run(defragd, id).await
}

/// An operator confirms that the cause is fixed.
pub(crate) async fn resume(defragd: &Defragd) {
    let answer = defragd.post("/api/v1/clusters/demo/resume", r#"{"by": "ann"}"#, Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Runs a test in its own namespaces, or says why that is not possible here.
pub(crate) async fn inside(test: &str) {
    if let Some(why) = testkit::in_namespaces(test).await.unwrap() {
        testkit::skipped(why);
    }
}
