//! A member on another machine (a network namespace) whose cables are pulled: only the one to the other members,
//! after which `Status` answers as if nothing were wrong, or both.

use testkit::{Cable, EtcdSpec, EtcdVersion, Island, Transport, Writer, is_inside};

use crate::{
    faults::{self, defragmenting, hold, received, serves},
    rig::{Rig, TOKEN, ended_run, firing},
};

/// The member on the island.
const FAR: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_cut_off_from_its_peers_refuses_the_run_though_its_status_answers() {
    faults::inside("partition::inside_peers_cut_before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_from_its_peers_refuses_the_run_though_its_status_answers() {
    faults::inside("partition::inside_leader_cut_before").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_cut_off_from_everybody_in_the_run_stops_it() {
    faults::inside("partition::inside_all_cut_in_the_run").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "in namespaces of its own, by the test above"]
async fn inside_peers_cut_before() {
    if is_inside() {
        cut_before(EtcdVersion::V3_5, 0, &["read_failed", "no_leader"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "in namespaces of its own, by the test above"]
async fn inside_leader_cut_before() {
    if is_inside() {
        cut_before(EtcdVersion::V3_4, FAR, &["read_failed", "no_leader", "leader_disagreement"]).await;
    }
}

async fn cut_before(version: EtcdVersion, leader: usize, reasons: &[&str]) {
    let (rig, island) = rig_with_island(version).await;
    rig.cluster.move_leader(leader).await.unwrap();
    let writer = Writer::start(&rig.cluster).await.unwrap();
    let defragd = rig.serve(&["--mode=enforce"]).await;
    island.cut(Cable::Peers).unwrap();
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "refused", "{run}");
    let reason = run["reason"]["code"].as_str().unwrap();
    assert!(reasons.contains(&reason), "{run}");
    eprintln!("etcd {version}, leader {leader}: {}", run["reason"]);
    rig.cluster.status(FAR).await.expect("its Status answers");
    assert_eq!(received(&rig.cluster), [0, 0, 0], "a member was touched");
    serves(&writer).await;
    island.repair(Cable::Peers).unwrap();
    rig.cluster.ready().await.unwrap();
    faults::reads_back(writer, &rig.cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "in namespaces of its own, by the test above"]
async fn inside_all_cut_in_the_run() {
    if !is_inside() {
        return;
    }
    let (rig, island) = rig_with_island(faults::newest()).await;
    // As the leader it is last, so the cut comes before its turn, and causes an election.
    rig.cluster.move_leader(FAR).await.unwrap();
    // The first one is held until the cables are out: no other can be begun before.
    let held = hold(&rig).await;
    let writer = Writer::start(&rig.cluster).await.unwrap();
    let defragd = rig.serve(&["--mode=enforce", "--recovery-timeout=15s"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let first = defragmenting(&rig.cluster).await;
    island.cut(Cable::Clients).unwrap();
    island.cut(Cable::Peers).unwrap();
    held.release(first);
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "failed", "{run}");
    assert_eq!(run["reason"]["code"], "not_recovered", "{run}");
    assert!(run["reason"]["detail"].as_str().unwrap().contains(rig.cluster.member(FAR).name()), "{run}");
    eprintln!("all cut: {}", run["reason"]);
    let expected: Vec<_> = (0..3).map(|index| usize::from(index == first)).collect();
    assert_eq!(received(&rig.cluster), expected, "only the first member was touched");
    serves(&writer).await;
    island.repair(Cable::Clients).unwrap();
    island.repair(Cable::Peers).unwrap();
    rig.cluster.ready().await.unwrap();
    assert_eq!(received(&rig.cluster), expected, "nothing was sent late");
    faults::reads_back(writer, &rig.cluster).await;
}

async fn rig_with_island(version: EtcdVersion) -> (Rig, Island) {
    let island = Island::create().await.unwrap();
    let hosts = [island.here(), island.here(), island.there()];
    // Certificates are for loopback only; what is tested here is the network.
    let spec = EtcdSpec::new(version).transport(Transport::Plain).hosts(&hosts);
    let rig = Rig::with(spec).await;
    rig.fragment().await;
    (rig, island)
}
