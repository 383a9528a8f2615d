//! Members of different minor versions, and enabled downgrades: nothing is touched until that is over, except in a
//! cluster without space.

use etcd_client::{DowngradeInfo, DowngradeOptions};
use serde_json::Value;
use testkit::{EtcdSpec, EtcdVersion, exhaust_quota, until};

use crate::{
    faults::{self, received},
    rig::{MIB, MINUTE, Rig, TOKEN, ended_run, firing},
};

const BEFORE_AND_AFTER: [EtcdVersion; 2] = [EtcdVersion::V3_5, EtcdVersion::V3_6];

/// The first of three members runs the next version already; none if that is not here.
async fn half_upgraded(spec: impl Fn(EtcdSpec) -> EtcdSpec) -> Option<Rig> {
    let [before, after] = BEFORE_AND_AFTER;
    if !faults::versions().contains(&after) {
        testkit::skipped(format_args!("no etcd {after} here, or DEFRAGD_ETCD selects another line"));
        return None;
    }
    Some(Rig::with(spec(EtcdSpec::new(before).mixed(&[after, before, before]))).await)
}

async fn refused(rig: &Rig) -> Value {
    let defragd = rig.serve(&["--mode=enforce"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "refused", "{run}");
    assert_eq!(run["reason"]["code"], "upgrade_in_progress", "{run}");
    assert_eq!(received(&rig.cluster), [0, 0, 0], "a member was touched");
    run
}

async fn rolled(rig: &Rig) {
    let output = rig.command("run", &[]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(received(&rig.cluster), [1, 1, 1], "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_upgraded_cluster_is_left_alone_until_all_members_run_one_version() {
    let Some(rig) = half_upgraded(|spec| spec).await else { return };
    rig.fragment().await;
    let run = refused(&rig).await;
    let detail = run["reason"]["detail"].as_str().unwrap();
    assert!(detail.contains("etcd-1 runs 3.6.") && detail.contains("etcd-2 runs 3.5."), "{detail}");
    let plan = rig.command("plan", &[]).await;
    let text = String::from_utf8(plan.stdout).unwrap();
    assert!(text.contains("etcd-1 runs 3.6."), "{text}");
    for index in [1, 2] {
        rig.cluster.upgrade(index, &rig.tools, BEFORE_AND_AFTER[1]).await.unwrap();
    }
    rolled(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_upgraded_cluster_without_space_takes_writes_again() {
    let Some(rig) = half_upgraded(|spec| spec.quota_bytes(48 * MIB)).await else { return };
    exhaust_quota(&rig.cluster, 8 * MIB).await.unwrap();
    let defragd = rig.serve(&["--mode=enforce"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    assert_eq!(rig.cluster.alarms().await.unwrap(), []);
    rig.cluster.client(0).await.unwrap().put("after", "x", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_a_downgrade_enabled_is_left_alone_until_it_is_cancelled() {
    let [before, after] = [EtcdVersion::V3_6, EtcdVersion::V3_7];
    if !faults::versions().contains(&after) {
        testkit::skipped(format_args!("no etcd {after} here, or DEFRAGD_ETCD selects another line"));
        return;
    }
    let rig = Rig::fragmented(after).await;
    let client = rig.cluster.client(0).await.unwrap();
    // Before the members have agreed on the cluster's version it is refused.
    until("the downgrade to be enabled", MINUTE, || async {
        let to = format!("{before}.0");
        rig.cluster.client(0).await?.maintenance_client().downgrade(DowngradeOptions::Enable(to)).await?;
        Ok(())
    })
    .await
    .unwrap();
    let run = refused(&rig).await;
    let detail = run["reason"]["detail"].as_str().unwrap();
    assert!(detail.contains("downgrade to 3.6.0"), "{detail}");
    client.maintenance_client().downgrade(DowngradeOptions::Cancel).await.unwrap();
    until("all members to hear of it", MINUTE, || async {
        for index in 0..rig.cluster.len() {
            let status = rig.cluster.client(index).await?.maintenance_client().status().await?;
            let enabled = status.downgrade_info().is_some_and(DowngradeInfo::enabled);
            anyhow::ensure!(!enabled, "member {index} has not");
        }
        Ok(())
    })
    .await
    .unwrap();
    rolled(&rig).await;
}
