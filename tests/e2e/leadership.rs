//! Leadership that moves during a run.

use std::time::Duration;

use testkit::{DefragWatch, EtcdVersion};

use crate::rig::{MIB, Rig, TOKEN, ended_run, firing, first_defragmented, members_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hands_over_is_a_follower_from_then_on_and_the_new_one_is_last() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let old = rig.cluster.leader().await.unwrap();
    let followers: Vec<_> = (0..3).filter(|index| *index != old).collect();
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    // A long pause leaves time to move leadership between the first follower and the next step.
    let defragd = rig.serve(&["--mode=enforce", "--pause-between-members=4s"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();

    let first = first_defragmented(&watch, &defragd).await;
    assert!(followers.contains(&first), "a follower is first");
    let new = *followers.iter().find(|index| **index != first).unwrap();
    rig.cluster.move_leader(new).await.unwrap();

    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let timeline = watch.stop().await;
    assert_eq!(timeline.order(), [first, old, new], "the new leader last, by the servers' metrics");
    assert_eq!(timeline.max_in_flight(), 1);
    let names = [first, old, new].map(|index| rig.cluster.member(index).name().to_owned());
    assert_eq!(members_of(&run), names);
    assert_eq!(run["members"][2]["is_leader"], true);
    assert_eq!(run["members"][1]["is_leader"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_6_leadership_goes_to_a_voter_that_the_rule_spares() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let leader = rig.cluster.leader().await.unwrap();
    for follower in (0..3).filter(|index| *index != leader) {
        rig.cluster.defragment(follower).await.unwrap();
    }
    // Only the leader meets it.
    let rule = format!("--rule=dbSizeFree > {}", 16 * MIB);
    let run = rig.command("run", &["--leader=last-after-transfer", &rule, "-o", "json"]).await;
    let progress = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{progress}");
    let run: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(members_of(&run["run"]), [rig.cluster.member(leader).name()], "{run}");
    assert_eq!(run["run"]["members"][0]["is_leader"], false, "{run}");
    rig.assert_tight().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_last_after_transfer_nobody_is_defragmented_as_the_leader() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let old = rig.cluster.leader().await.unwrap();
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let run = rig.command("run", &["--leader=last-after-transfer", "-o", "json"]).await;
    let progress = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{progress}");
    assert!(progress.contains("handing leadership to"), "{progress}");

    let order = watch.stop().await.order();
    assert_eq!(order.len(), 3, "{order:?}");
    assert_eq!(order.last(), Some(&old), "the old leader is last, as a follower");
    let new = rig.cluster.leader().await.unwrap();
    assert_ne!(new, old);
    let run: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(run["run"]["members"].as_array().unwrap().iter().all(|member| member["is_leader"] == false), "{run}");
    assert_eq!(run["run"]["steps"][0]["step"], "move_leader");
    assert_eq!(run["run"]["steps"][0]["member"], rig.cluster.member(new).name());
    rig.assert_tight().await;
}
