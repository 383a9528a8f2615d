use std::time::Duration;

use tokio::time::sleep;

use crate::{
    app::cluster::tests::{cluster_in, key, label, outcomes, serve_for, shared},
    core::{
        history::Entry,
        policy::{Mode, Policy},
    },
};

const TWO_MINUTES: Duration = Duration::from_mins(2);

fn enforcing() -> Policy {
    Policy { mode: Mode::Enforce, ..Policy::default() }
}

#[tokio::test(start_paused = true)]
async fn at_no_moment_is_an_open_request_unknown() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    cluster.target.etcd().hang(2);
    world.journal.slow(Duration::from_secs(1));
    cluster.request(key("1")).await.expect("taken");
    let looks = async {
        for tenth in 0..1200 {
            sleep(Duration::from_millis(100)).await;
            assert!(cluster.summary().request.is_some(), "after {tenth} tenths of a second");
        }
    };
    tokio::join!(looks, serve_for(&cluster, TWO_MINUTES));
    assert_eq!(outcomes(&world).await[0], ("refused", "member_unreachable"));
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_comes_while_its_run_ends_is_not_lost() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    cluster.request(key("1")).await.expect("taken");
    let asks = async {
        while !matches!(world.journal.entries().last(), Some(Entry::Finished(_))) {
            sleep(Duration::from_millis(10)).await;
        }
        // The worker reads the end of its run.
        assert!(cluster.summary().active_run.is_some());
        label(&cluster.request(key("2")).await.expect("taken")).0
    };
    world.journal.slow(Duration::from_secs(1));
    let (decision, ()) = tokio::join!(asks, serve_for(&cluster, TWO_MINUTES));
    assert_eq!(decision, "accepted");
    assert_eq!(outcomes(&world).await, [("succeeded", ""), ("nothing_to_do", "")]);
}
