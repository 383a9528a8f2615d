//! Two replicas, and a defrag of etcd's leader that outlasts the lock's TTL: the lock may be kept or lost over it,
//! but no replica starts another member meanwhile, and the next holder continues the run.

use std::time::Duration;

use serde_json::Value;
use testkit::{DefragWatch, EtcdSpec, EtcdVersion, Transport, Writer, fragment, until};

use crate::{
    faults::{self, hold, logs, received},
    replicas::{Replica, TTL},
    rig::{MIB, MINUTE, Rig},
};

/// The two tests differ in what becomes of the holder.
#[derive(PartialEq, Eq)]
enum Holder {
    Lives,
    IsKilled,
}

const IN_USE: u64 = 48 * MIB;
/// How long the leader's defragmentation is held.
const HELD: Duration = TTL.saturating_add(Duration::from_secs(6));

/// Served by this replica or the other one.
fn is_served(ended: &Value) -> bool {
    ended["reason"]["code"] == "forwarded" || ended["outcome"] == "succeeded" || ended["outcome"] == "nothing_to_do"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaders_defrag_that_outlasts_the_ttl_is_one_defrag() {
    outlasts(Holder::Lives).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_killed_in_a_leaders_defrag_that_outlasts_the_ttl_is_succeeded_after_it() {
    outlasts(Holder::IsKilled).await;
}

async fn outlasts(fate: Holder) {
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).transport(Transport::Plain)).await;
    fragment(&rig.cluster, 3 * IN_USE, IN_USE).await.unwrap();
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let writer = Writer::start(&rig.cluster).await.unwrap();
    let one = Replica::start(&rig, "one").await;
    one.holds().await;
    let two = Replica::start(&rig, "two").await;
    two.follows("one").await;
    let leader = rig.cluster.leader().await.unwrap();
    let held = hold(&rig).await;
    (0..3).filter(|index| *index != leader).for_each(|follower| held.release(follower));
    let (first, second) = (one.post(1).await, two.post(1).await);
    Replica::first_defrag(&rig, |index| index == leader).await;
    if fate == Holder::IsKilled {
        one.defragd.kill().await.unwrap();
    }
    tokio::time::sleep(HELD).await;
    drop(held);
    let mut lost = false;
    until("the leader's defrag to end", MINUTE * 3, || async {
        anyhow::ensure!(!rig.cluster.member(leader).has_defrag_file(), "it is under way");
        Ok(())
    })
    .await
    .unwrap();
    if fate == Holder::Lives {
        let ended = one.ended(first).await;
        lost = ended["reason"]["code"] == "lock_lost";
        assert!(lost || ended["outcome"] == "succeeded", "{ended}");
    }
    let ended = two.ended(second).await;
    eprintln!("the lock was lost: {lost}; the request at the follower: {ended}");
    // It waited for the defrag as long as for any recovery (20 s here), and then logged that.
    let waited = ended["outcome"] == "refused" && ended["reason"]["code"] == "defrag_in_flight";
    assert!(waited || is_served(&ended), "{ended}");
    let again = two.ended(two.post(2).await).await;
    assert!(is_served(&again), "{again}");
    let took = until("the leader's metrics to count its defrag", MINUTE, || async {
        let timeline = watch.timeline();
        let defrag = timeline.finished().iter().find(|defrag| defrag.member == leader);
        defrag.map(|defrag| defrag.took).ok_or_else(|| anyhow::anyhow!("not yet"))
    })
    .await
    .unwrap();
    let timeline = watch.stop().await;
    eprintln!("the leader's defrag took {:.1} s", took.as_secs_f64());
    assert!(took > TTL + Duration::from_secs(1), "{took:?}");
    assert_eq!(timeline.max_in_flight(), 1);
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    assert!(logs(&rig.cluster).iter().all(|log| log.most_at_once == 1));
    rig.assert_tight().await;
    faults::reads_back(writer, &rig.cluster).await;
}
