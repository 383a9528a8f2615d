//! Members that send a snapshot: a defragmentation could not end before it, and the member would serve no client.

use testkit::{EtcdVersion, OpenSnapshot, on_each_version, overwrite, until};

use crate::{
    faults::received,
    rig::{MIB, MINUTE, Rig, TOKEN, ended_run, firing},
};

on_each_version! { a_member_that_sends_a_snapshot_comes_when_it_ends_on _ => waits_for_the_end }

async fn waits_for_the_end(version: EtcdVersion) {
    let rig = Rig::steady(version).await;
    let leader = rig.cluster.leader().await.unwrap();
    let followers: Vec<_> = (0..3).filter(|index| *index != leader).collect();
    let snapshot = OpenSnapshot::of(&rig.cluster, followers[1]).await.unwrap();
    let name = rig.cluster.member(followers[1]).name();

    let wait = "--on-open-snapshot=wait";
    let status = String::from_utf8(rig.command("status", &["-o", "json"]).await.stdout).unwrap();
    assert_eq!(status.matches("\"open_snapshots\": 1").count(), 1, "{status}");
    let plan = String::from_utf8(rig.command("plan", &[wait, "-o", "json"]).await.stdout).unwrap();
    assert!(plan.contains("\"code\": \"snapshot_open\""), "{plan}");

    let defragd = rig.serve(&["--mode=enforce", wait]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    defragd.logs("code=snapshot_open", MINUTE).await.unwrap();
    let mut only_the_other = vec![0; 3];
    only_the_other[followers[0]] = 1;
    assert_eq!(received(&rig.cluster), only_the_other, "the other follower goes first, and the leader last");
    // The line is written before what scrapes read.
    until("the metrics to say so", MINUTE, || async {
        let waiting = [("etcd_cluster", "demo"), ("reason", "snapshot_open")];
        let value = defragd.metrics().await?.value("defragd_cluster_waiting", &waiting);
        anyhow::ensure!(value == Some(1.0), "{value:?}");
        Ok(())
    })
    .await
    .unwrap();

    drop(snapshot);
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    let order: Vec<_> = run["members"].as_array().unwrap().iter().map(|member| member["member"].as_str()).collect();
    let expected = [followers[0], followers[1], leader].map(|index| Some(rig.cluster.member(index).name()));
    assert_eq!(order, expected, "{name} came when its snapshot had ended");
}

/// So they are not among what a defragmentation expects to gain, and a snapshot explains no defragmentation without gain.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_a_snapshot_holds_count_as_in_use_until_it_ends() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let leader = rig.cluster.leader().await.unwrap();
    let follower = (leader + 1) % 3;
    let in_use = |index| {
        let rig = &rig;
        async move {
            // What is in use is counted at a commit.
            rig.cluster.client(index).await?.put("commit", "", None).await?;
            rig.cluster.status(index).await.map(|status| status.in_use)
        }
    };
    let snapshot = OpenSnapshot::of(&rig.cluster, follower).await.unwrap();
    // All live data is written again: the compaction frees the pages that the snapshot reads.
    overwrite(&rig.cluster, MIB, 8 * MIB).await.unwrap();
    let mut client = rig.cluster.client(leader).await.unwrap();
    let revision = client.put("last", "", None).await.unwrap().header().unwrap().revision();
    client.compact(revision, None).await.unwrap();
    until("the pages to be free where nobody reads them", MINUTE, || async {
        let (free, held) = (in_use(leader).await?, in_use(follower).await?);
        anyhow::ensure!(free + 4 * MIB < held, "{free} in use there, {held} where the snapshot is open");
        Ok(())
    })
    .await
    .unwrap();
    drop(snapshot);
    until("the pages to be free everywhere", MINUTE, || async {
        let (one, other) = (in_use(leader).await?, in_use(follower).await?);
        anyhow::ensure!(one.abs_diff(other) < MIB, "{one} and {other} in use");
        Ok(())
    })
    .await
    .unwrap();
}
