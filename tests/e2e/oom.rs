//! The kernel kills defragd for want of memory in the middle of a run, as in a container with a limit: the next start
//! completes the run, and no member is defragmented twice.

use testkit::{DefragWatch, EtcdSpec, EtcdVersion, MemoryLimit, Transport, until};

use crate::{
    faults::{defragmenting, hold, logs, received},
    rig::{MIB, MINUTE, Rig, TOKEN, ended_run, firing},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_the_oom_killer_ends_is_completed_by_the_next_start() {
    let memory = match MemoryLimit::create(256 * MIB) {
        Ok(memory) => memory,
        Err(why) => return testkit::skipped(format_args!("{why:#}")),
    };
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).transport(Transport::Plain)).await;
    rig.fragment().await;
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let held = hold(&rig).await;
    let flags = ["--mode=enforce", "--cooldown=0s"];
    let defragd = rig.serve(&flags).await;
    memory.add(defragd.pid()).unwrap();
    assert_eq!(defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap().status, 202);
    let busy = defragmenting(&rig.cluster).await;
    tokio::task::block_in_place(|| memory.exhaust()).unwrap();
    let status = defragd.ended(MINUTE).await.unwrap();
    assert!(!status.success(), "{status}");
    assert!(memory.killed().unwrap() >= 2, "defragd and the process that took the memory");
    drop(defragd);

    let defragd = rig.serve(&flags).await;
    // Only now could it begin another member beside the one that is held.
    until("the next start to have resumed the run", MINUTE, || async {
        let active = defragd.json("/api/v1/clusters").await?["clusters"][0]["active_run"].clone();
        anyhow::ensure!(active == 1, "{active}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(received(&rig.cluster).iter().sum::<usize>(), 1, "member {busy} alone");
    drop(held);
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    assert!(logs(&rig.cluster).iter().all(|log| log.most_at_once == 1));
    assert_eq!(watch.stop().await.max_in_flight(), 1);
    rig.assert_tight().await;
}
