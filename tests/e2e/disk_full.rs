//! A disk too small for the copy that a defrag makes: the run ends with that reason, and nothing is tried again.

use testkit::{EtcdSpec, EtcdVersion, Writer, is_inside, on_each_version};

use crate::{
    faults::{self, received, serves},
    rig::{MIB, Rig, TOKEN, ended_run, firing},
};

/// Room for the database while it grows to 40 MiB.
const DISK: u64 = 120 * MIB;
/// Far less than the 8 MiB of the copy, and something for the member's own small files.
const LEFT: u64 = MIB;

on_each_version! { a_full_disk_ends_the_run_and_is_never_tried_again_on _ => in_namespaces }

async fn in_namespaces(version: EtcdVersion) {
    faults::inside(&format!("disk_full::inside_{}", version.as_str().replace('.', "_"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_writes_ends_the_run_on_3_5_though_the_member_dies_of_it() {
    faults::inside("disk_full::inside_3_5_under_writes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_writes_ends_the_run_on_3_6() {
    faults::inside("disk_full::inside_3_6_under_writes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_writes_ends_the_run_on_3_7() {
    faults::inside("disk_full::inside_3_7_under_writes").await;
}

on_each_version! {
    #[ignore = "in namespaces of its own, by the test above"]
    [3_5 3_6 3_7] inside _ under_writes => |version| disk_full(version, Load::Writes)
}

on_each_version! {
    #[ignore = "in namespaces of its own, by the test above"]
    inside _ => |version| disk_full(version, Load::None)
}

/// What the cluster has to do meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    None,
    Writes,
}

async fn disk_full(version: EtcdVersion, load: Load) {
    if !is_inside() {
        return;
    }
    // Any member can become the leader; the one with the small disk must not, so that it is the first.
    let small = 0;
    let rig = Rig::with(EtcdSpec::new(version).small_disk(small, DISK)).await;
    rig.fragment().await;
    rig.cluster.move_leader(1).await.unwrap();
    rig.cluster.member(small).fill_disk(LEFT).unwrap();
    let early = match load {
        Load::Writes => Some(Writer::start(&rig.cluster).await.unwrap()),
        Load::None => None,
    };
    let defragd = rig.serve(&["--mode=enforce", "--cooldown=0s"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "failed", "{run}");
    // Before 3.4.35 and 3.5.17 the first write after the failure panics the member (#18810). Under load that
    // comes before the answer is sent, so the cause cannot be known.
    let survived = rig.cluster.status(small).await.is_ok();
    let reason = run["reason"]["code"].as_str().unwrap();
    let died_first = load == Load::Writes && !survived && reason == "connection_lost";
    assert!(died_first || reason == "disk_full", "{run}");
    assert_eq!(run["reason"]["member"], rig.cluster.member(small).name());
    eprintln!("etcd {version} says: {}", run["reason"]["detail"]);
    let metrics = defragd.metrics().await.unwrap();
    let stopped = metrics.count("defragd_decisions_total", &[("decision", "stop"), ("reason", reason)]);
    assert_eq!(stopped, Some(1));
    assert_eq!(received(&rig.cluster), [1, 0, 0], "it is tried once, and no other member is touched");
    // A panic may come before the line about the failure is out, too.
    let logged = rig.cluster.member(small).defrag_log().unwrap().failed;
    assert!(logged == 1 || died_first, "{logged} failures in its log");

    // Whatever became of the member, the others serve, and nothing is tried again.
    let writer = match early {
        Some(writer) => writer,
        None => Writer::start(&rig.cluster).await.unwrap(),
    };
    serves(&writer).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    serves(&writer).await;
    assert_eq!(received(&rig.cluster), [1, 0, 0], "it is never tried again");
    let survived = rig.cluster.status(small).await.is_ok();
    eprintln!("etcd {version}: the member with the full disk {}", if survived { "lives on" } else { "is dead" });

    // A person makes room and starts it again.
    rig.cluster.member(small).clear_disk().unwrap();
    rig.cluster.restart(small).await.unwrap();
    rig.cluster.ready().await.unwrap();
    // Until an operator resumes, defragd assumes that the cause remains: it handles the other members and leaves this one alone.
    let run = faults::fires_again(&defragd, 2).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    faults::resume(&defragd).await;
    let run = faults::fires_again(&defragd, 3).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    rig.assert_tight().await;
    faults::reads_back(writer, &rig.cluster).await;
}
