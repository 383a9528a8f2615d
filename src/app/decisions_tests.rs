use std::time::Duration;

use tokio::time::sleep;

use super::*;
use crate::{
    app::cluster::tests::{cluster_in, key, label, outcomes, serve_for, shared, waiting_for},
    core::{
        history::AlertKey,
        note::SuccessionNote,
        policy::{Mode, Policy},
        rejection::Rejection,
    },
    ports::service::AlertDecision,
};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn mode_approve_waits_for_approval_and_expires() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", Policy { mode: Mode::Approve, ..Policy::default() });
    let AlertDecision::Accepted { run, .. } = cluster.request(key("1")).await.expect("taken") else { panic!() };
    serve_for(&cluster, 60 * MINUTE).await;
    assert_eq!(waiting_for(&cluster), Some("awaiting_approval"));
    cluster.approve(run, "ann".to_owned()).await.expect("approved");
    serve_for(&cluster, 10 * MINUTE).await;
    assert_eq!(cluster.target.etcd().order(), [3, 2, 1]);
    let again = cluster.approve(run, "ann".to_owned()).await.expect_err("it has ended");
    assert_eq!(again.to_string(), "run 1 is not waiting for approval: it is succeeded");
    let approved = world.journal.run(run).await.expect("read").expect("there").approved;
    assert_eq!(approved.map(|approval| approval.by), Some("ann".to_owned()));

    let world = shared(1);
    let cluster = cluster_in(&world, "a", Policy { mode: Mode::Approve, ..Policy::default() });
    cluster.request(key("1")).await.expect("taken");
    serve_for(&cluster, 25 * 60 * MINUTE).await;
    assert!(cluster.target.etcd().order().is_empty());
    assert_eq!(outcomes(&world).await, [("stopped", "approval_expired")]);
}

#[tokio::test(start_paused = true)]
async fn an_approval_holds_for_the_retries_of_its_run() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", Policy { mode: Mode::Approve, ..Policy::default() });
    cluster.target.etcd().hang(2);
    let AlertDecision::Accepted { run, .. } = cluster.request(key("1")).await.expect("taken") else { panic!() };
    cluster.approve(run, "ann".to_owned()).await.expect("approved");
    serve_for(&cluster, MINUTE).await;
    cluster.target.etcd().recover(2);
    serve_for(&cluster, 10 * MINUTE).await;
    assert_eq!(outcomes(&world).await, [("refused", "member_unreachable"), ("succeeded", "")]);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_lasts_until_the_alert_fires_anew_or_the_cooldown_has_passed() {
    let world = shared(1);
    let policy = Policy { mode: Mode::Approve, cooldown: 60 * MINUTE, ..Policy::default() };
    let cluster = cluster_in(&world, "a", policy);
    let AlertDecision::Accepted { run, .. } = cluster.request(key("1")).await.expect("taken") else { panic!() };
    cluster.reject(run, "ann".to_owned(), "release".to_owned()).await.expect("rejected");
    assert_eq!(outcomes(&world).await, [("stopped", "rejected")]);
    let again = cluster.reject(run, "ann".to_owned(), String::new()).await.expect_err("it has ended");
    assert_eq!(again.to_string(), "run 1 is not waiting for approval: it is stopped");
    // It is sent again every few minutes.
    for _ in 0..5 {
        sleep(5 * MINUTE).await;
        assert_eq!(label(&cluster.request(key("1")).await.expect("taken")), ("duplicate", "rejected"));
    }
    serve_for(&cluster, 10 * MINUTE).await;
    assert_eq!(outcomes(&world).await, [("stopped", "rejected")], "nothing is tried again");
    let anew = vec![AlertKey::new("1".to_owned(), "2027-01-01T00:00:00Z")];
    assert_eq!(label(&cluster.request(anew).await.expect("taken")).0, "accepted");
    let run = cluster.summary().queued_run.expect("it waits");
    cluster.approve(run, "bob".to_owned()).await.expect("approved");
    let late = cluster.reject(run, "ann".to_owned(), String::new()).await.expect_err("it is approved");
    assert!(late.to_string().contains("`defragd cancel` withdraws it"), "{late}");
    serve_for(&cluster, 30 * MINUTE).await;
    assert_eq!(label(&cluster.request(key("1")).await.expect("taken")).0, "accepted", "the cooldown has passed");
    assert_eq!(world.journal.runs(9).await.expect("read").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_another_lock_holder_was_refused_names_no_run_of_this_journal() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", Policy { mode: Mode::Approve, ..Policy::default() });
    let reason = || Reason::Rejected { by: "ann".to_owned(), reason: "release".to_owned(), at: None };
    let mut note = SuccessionNote::default();
    note.rejections.push(Rejection { at: world.clock.now(), reason: reason(), alerts: key("1"), run: None });
    world.journal.inherit("a", note).await.expect("written");
    let answer = async || {
        let decision = cluster.request(key("1")).await.expect("taken");
        assert_eq!(label(&decision), ("duplicate", "rejected"));
        serde_json::to_value(&decision).expect("JSON")
    };
    let first = answer().await;
    assert_eq!(first.get("run"), None, "the journal is empty: {first}");
    assert_eq!(first["reason"]["message"], "rejected by ann: release");
    let AlertDecision::Accepted { run, .. } = cluster.request(key("2")).await.expect("taken") else { panic!() };
    cluster.reject(run, "bob".to_owned(), String::new()).await.expect("rejected");
    assert_eq!(answer().await.get("run"), None, "run 1 was for another alert");
    let own = cluster.request(key("2")).await.expect("taken");
    assert!(matches!(own, AlertDecision::Duplicate { run: Some(RunId(1)), .. }), "{own:?}");
}
