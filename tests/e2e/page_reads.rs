//! Which metrics pages a run reads, by etcd's own count of requests for its page; and that it still finds another
//! tool's defragmentation on any member.

use testkit::{EtcdVersion, HeldDefrags, on_each_version, until};

use crate::rig::{MINUTE, Rig};

on_each_version! { pages_of _ are_read_before_each_member_and_not_while_it_recovers => pages_of_a_roll }

async fn pages_of_a_roll(version: EtcdVersion) {
    let rig = Rig::fragmented(version).await;
    let mut before = Vec::new();
    for index in 0..3 {
        before.push(requests(&rig, index).await);
    }
    // Between two members, one observation a second.
    let ended = rig.command("run", &["--mode=enforce", "--pause-between-members=3s"]).await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    let mut seldom = 0;
    for (index, (pages_before, statuses_before)) in before.into_iter().enumerate() {
        let (pages, statuses) = requests(&rig, index).await;
        // The test has read two: a page is counted when it has been made.
        let (read, asked) = (pages - pages_before - 2, statuses - statuses_before);
        assert!(read >= 4, "before the first choice and right before each of three members: {read} of {asked}");
        seldom += u32::from(read + 3 <= asked);
    }
    // The pages of the two that come first are not needed once they are done.
    assert!(seldom >= 1, "every page is read in nearly every observation");
}

on_each_version! { [3_4 3_7] another_tools_defragmentation_is_found_on_each_member_of _ => found_on_each }

async fn found_on_each(version: EtcdVersion) {
    let rig = Rig::fragmented(version).await;
    let held = HeldDefrags::start(&rig.cluster).await.unwrap();
    for index in 0..3 {
        let (foreign, ()) = tokio::join!(rig.cluster.defragment(index), async {
            until("the other tool's defragmentation to begin", MINUTE, || async {
                anyhow::ensure!(rig.cluster.defrag_inflight(index).await?, "not yet");
                Ok(())
            })
            .await
            .unwrap();
            let ended = rig.command("run", &["--mode=enforce"]).await;
            let text = String::from_utf8_lossy(&ended.stderr).into_owned() + &String::from_utf8_lossy(&ended.stdout);
            let name = rig.cluster.member(index).name();
            assert!(text.contains(&format!("member {name} is being defragmented already")), "{text}");
            assert!(!ended.status.success(), "{text}");
            held.release(index);
        });
        foreign.unwrap();
    }
    assert_eq!(rig.defrags().await, [1, 1, 1], "none but the other tool's");
}

/// How often the member was asked for its metrics page and for its `Status`.
async fn requests(rig: &Rig, index: usize) -> (u64, u64) {
    let page = rig.cluster.metrics(index).await.unwrap();
    let pages = page.count("promhttp_metric_handler_requests_total", &[("code", "200")]);
    (pages.unwrap(), page.count("grpc_server_started_total", &[("grpc_method", "Status")]).unwrap_or(0))
}
