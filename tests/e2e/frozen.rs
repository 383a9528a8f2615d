//! Members that freeze (SIGSTOP: connections stay open, nothing answers) or die, before a run and in the
//! middle of their own defrag. The run waits or stops; the rest of the cluster serves.

use std::time::Duration;

use defragd::core::version::dies_of_a_full_disk;
use serde_json::Value;
use testkit::{DefragWatch, EtcdVersion, Writer};

use crate::{
    faults::{self, received, serves, still_under_way},
    rig::{MINUTE, Rig, TOKEN, ended_run, firing, first_defragmented},
};

/// Which member a fault befalls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Follower,
    Leader,
}

impl Role {
    async fn of(self, rig: &Rig) -> usize {
        let leader = rig.cluster.leader().await.unwrap();
        if self == Self::Leader { leader } else { (leader + 1) % 3 }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_frozen_before_the_run_refuses_it() {
    frozen_before(EtcdVersion::V3_4, Role::Follower).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_frozen_before_the_run_refuses_it() {
    frozen_before(EtcdVersion::V3_5, Role::Leader).await;
}

async fn frozen_before(version: EtcdVersion, role: Role) {
    let rig = Rig::fragmented(version).await;
    let writer = Writer::start(&rig.cluster).await.unwrap();
    let defragd = rig.serve(&["--mode=enforce"]).await;
    let frozen = role.of(&rig).await;
    rig.cluster.pause(frozen).unwrap();
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "refused", "{run}");
    assert_eq!(run["reason"]["code"], "member_unreachable", "{run}");
    assert_eq!(run["reason"]["member"], rig.cluster.member(frozen).name());
    assert_eq!(received(&rig.cluster), [0, 0, 0], "a member was touched");
    serves(&writer).await;
    rig.cluster.resume(frozen).unwrap();
    rig.cluster.ready().await.unwrap();
    faults::reads_back(writer, &rig.cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_freezes_between_two_others_stops_the_run() {
    let rig = Rig::fragmented(faults::newest()).await;
    let leader = rig.cluster.leader().await.unwrap();
    let writer = Writer::start(&rig.cluster).await.unwrap();
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    // Far longer than an election takes, also on a busy machine: the run ends for the frozen member. The pause, which
    // does not come to its end, is longer than it takes to freeze that one.
    let defragd = rig.serve(&["--mode=enforce", "--pause-between-members=1m", "--recovery-timeout=20s"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let first = first_defragmented(&watch, &defragd).await;
    // The leader, so that there is an election as well.
    rig.cluster.pause(leader).unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "failed", "{run}");
    assert_eq!(run["reason"]["code"], "not_recovered", "{run}");
    let detail = run["reason"]["detail"].as_str().unwrap();
    assert!(detail.contains(rig.cluster.member(leader).name()), "{detail}");
    assert_eq!(only(first), received(&rig.cluster), "only the first member was touched");
    serves(&writer).await;
    rig.cluster.resume(leader).unwrap();
    rig.cluster.ready().await.unwrap();
    faults::reads_back(writer, &rig.cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_freezes_while_it_defragments_is_waited_for_and_ends_the_run() {
    let (run, touched, frozen, _) = frozen_in_its_defrag(EtcdVersion::V3_5, Role::Follower).await;
    assert_eq!(touched, only(frozen), "only the frozen member was touched: {run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_freezes_while_it_defragments_is_waited_for_and_ends_the_run() {
    let (run, touched, ..) = frozen_in_its_defrag(EtcdVersion::V3_4, Role::Leader).await;
    assert_eq!(touched, [1, 1, 1], "each once, the leader last: {run}");
}

/// Gives the run, how many Defragments each member got, the frozen one and the leader of the beginning.
async fn frozen_in_its_defrag(version: EtcdVersion, role: Role) -> (Value, Vec<usize>, usize, usize) {
    let rig = Rig::fragmented(version).await;
    let leader = rig.cluster.leader().await.unwrap();
    let writer = Writer::start(&rig.cluster).await.unwrap();
    let held = faults::hold(&rig).await;
    if role == Role::Leader {
        (0..3).filter(|index| *index != leader).for_each(|follower| held.release(follower));
    }
    // A member that hangs is followed for six deadlines: for longer than the steps below take on a busy machine.
    let defragd = rig.serve(&["--mode=enforce", "--defrag-deadline=10s", "--recovery-timeout=10s"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let frozen = match role {
        Role::Follower => faults::defragmenting(&rig.cluster).await,
        Role::Leader => {
            faults::is_defragmenting(&rig.cluster, leader).await;
            leader
        }
    };
    rig.cluster.pause(frozen).unwrap();
    assert!(rig.cluster.member(frozen).has_defrag_file(), "it was over before it froze");
    let before = received(&rig.cluster);
    // Past the deadline and on, but not for the six deadlines for which it is followed: the member may be
    // defragmenting, so nothing else begins and nothing ends.
    defragd.logs("code=deadline_exceeded", MINUTE).await.unwrap();
    still_under_way(&defragd, 1, Duration::from_secs(5)).await;
    assert_eq!(received(&rig.cluster), before, "something was sent meanwhile");
    serves(&writer).await;
    rig.cluster.resume(frozen).unwrap();
    drop(held);
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "failed", "{run}");
    assert_eq!(run["reason"]["code"], "deadline_exceeded", "{run}");
    assert_eq!(run["reason"]["member"], rig.cluster.member(frozen).name());
    assert_eq!(rig.cluster.defrags_done(frozen).await.unwrap(), 1, "it was followed to its end");
    let touched = received(&rig.cluster);
    assert_eq!(touched, before);
    rig.cluster.ready().await.unwrap();
    faults::reads_back(writer, &rig.cluster).await;
    (run, touched, frozen, leader)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_3_4_that_is_killed_while_it_defragments_stops_the_run_and_comes_back_whole() {
    killed_in_its_defrag(EtcdVersion::V3_4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_3_5_that_is_killed_while_it_defragments_stops_the_run_and_comes_back_whole() {
    killed_in_its_defrag(EtcdVersion::V3_5).await;
}

async fn killed_in_its_defrag(version: EtcdVersion) {
    let rig = Rig::fragmented(version).await;
    let writer = Writer::start(&rig.cluster).await.unwrap();
    let held = faults::hold(&rig).await;
    // So long is the dead member waited for; longer than one slow answer takes in the later runs.
    let flags = ["--mode=enforce", "--recovery-timeout=10s", "--cooldown=0s"];
    let defragd = rig.serve(&flags).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let dead = faults::defragmenting(&rig.cluster).await;
    rig.cluster.kill(dead).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "failed", "{run}");
    assert_eq!(run["reason"]["code"], "connection_lost", "{run}");
    assert_eq!(run["reason"]["member"], rig.cluster.member(dead).name());
    assert_eq!(received(&rig.cluster), only(dead), "only the dead member was touched");
    serves(&writer).await;

    // It comes back with what it had. Older versions die so of a full disk, which would kill it again and again:
    // automation deals with the others, and leaves this one to a person.
    drop(held);
    rig.cluster.restart(dead).await.unwrap();
    rig.cluster.ready().await.unwrap();
    let run = faults::fires_again(&defragd, 2).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    if !dies_of_a_full_disk(&rig.cluster.status(dead).await.unwrap().version) {
        assert_eq!(rig.defrags().await, [1, 1, 1]);
        rig.assert_tight().await;
        return faults::reads_back(writer, &rig.cluster).await;
    }
    assert_eq!(received(&rig.cluster), [1, 1, 1], "the dead one was not tried again");
    let metrics = defragd.metrics().await.unwrap();
    let skipped = metrics.count("defragd_decisions_total", &[("decision", "skip"), ("reason", "needs_operator")]);
    assert_eq!(skipped, Some(1));
    faults::resume(&defragd).await;
    let run = faults::fires_again(&defragd, 3).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    rig.assert_tight().await;
    faults::reads_back(writer, &rig.cluster).await;
}

fn only(member: usize) -> Vec<usize> {
    (0..3).map(|index| usize::from(index == member)).collect()
}
