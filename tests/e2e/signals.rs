//! SIGTERM, once and twice, and an alert that is resolved, in the middle of a run.

use std::time::Duration;

use testkit::EtcdVersion;

use crate::{
    faults::{self, journal, received},
    rig::{MINUTE, Rig, TOKEN, ended_run, firing, notification},
};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_waits_for_the_member_under_way_starts_no_other_and_is_written_down() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let held = faults::hold(&rig).await;
    let defragd = rig.serve(&["--mode=enforce", "--shutdown-grace=5m"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let first = faults::defragmenting(&rig.cluster).await;
    defragd.signal_term().unwrap();
    defragd.logs("stopping: starting no further member", MINUTE).await.unwrap();
    drop(held);
    let status = defragd.ended(MINUTE).await.unwrap();
    assert!(status.success(), "{status:?}");
    assert_eq!(received(&rig.cluster).iter().sum::<usize>(), 1, "no other member was started");
    assert_eq!(rig.cluster.defrags_done(first).await.unwrap(), 1, "it was waited for");
    let run = &journal(&rig)[0];
    assert_eq!((&run["outcome"], &run["reason"]["code"]), (&"stopped".into(), &"shutting_down".into()), "{run}");
    assert_eq!(run["members"][0]["result"], "defragmented", "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once_and_the_next_start_goes_on_without_a_second_defrag() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let held = faults::hold(&rig).await;
    let defragd = rig.serve(&["--mode=enforce", "--shutdown-grace=5m"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    faults::defragmenting(&rig.cluster).await;
    defragd.signal_term().unwrap();
    // Two signals at once would be one.
    defragd.logs("stopping: starting no further member", MINUTE).await.unwrap();
    // Far less than the grace.
    defragd.terminate(MINUTE).await.unwrap();
    assert!(journal(&rig)[0]["open_intent"]["member"].is_string(), "the member in hand is in the journal");

    let defragd = rig.serve(&["--mode=enforce"]).await;
    faults::still_under_way(&defragd, 1, Duration::from_secs(3)).await;
    assert_eq!(received(&rig.cluster).iter().sum::<usize>(), 1, "nothing is sent while it may be busy");
    drop(held);
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1], "the one in hand had come to its end");
    rig.assert_tight().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_is_resolved_in_the_middle_of_its_run_does_not_end_it() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let held = faults::hold(&rig).await;
    let defragd = rig.serve(&["--mode=enforce"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    faults::defragmenting(&rig.cluster).await;
    let labels = [("alertname", "EtcdFragmentationHigh"), ("etcd_cluster", "demo")];
    let answer = defragd.post_alerts(&notification("resolved", &labels, "f1"), Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    drop(held);
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
}
