//! What operators request and approve, and what alerts add to it.

use super::*;
use crate::app::{cluster::Shared, fake::FakeJournal};

#[tokio::test(start_paused = true)]
async fn an_operators_run_skips_the_cooldown_and_is_recorded_with_their_name() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    cluster.request(key("1")).await.expect("taken");
    serve_for(&cluster, 10 * MINUTE).await;
    assert_eq!(label(&cluster.request(key("2")).await.expect("taken")), ("accepted", "none"));
    let run =
        cluster.command("ann".to_owned(), Command::Run { members: Vec::new() }).await.expect("taken").expect("a run");
    let again =
        cluster.command("bob".to_owned(), Command::Run { members: Vec::new() }).await.expect_err("one is enough");
    assert!(matches!(again, CommandError::Refused(Reason::AlreadyRequested)));
    let some = Command::Run { members: vec!["etcd-1".to_owned()] };
    let some = cluster.command("bob".to_owned(), some).await.expect_err("another run waits").to_string();
    assert!(some.contains(&format!("run {run} of this cluster is waiting")), "{some}");
    assert!(some.contains("`defragd cancel --cluster NAME`, then the same command again"), "{some}");
    serve_for(&cluster, 10 * MINUTE).await;
    let view = world.journal.run(run).await.expect("read").expect("there");
    assert_eq!(view.approved.map(|approval| approval.by), Some("ann".to_owned()));
    assert_eq!(view.outcome, Some(Outcome::NothingToDo));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_run_that_an_operator_requests_too_does_not_depend_on_its_alerts() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", windowed((5, 0)));
    cluster.request(key("1")).await.expect("taken");
    let all = || Command::Run { members: Vec::new() };
    let run = cluster.command("ann".to_owned(), all()).await.expect("taken").expect("a run");
    let again = cluster.command("bob".to_owned(), all()).await.expect_err("one is enough");
    assert!(matches!(again, CommandError::Refused(Reason::AlreadyRequested)));
    assert_eq!(cluster.resolve(key("1")).await.expect("taken"), None);
    serve_for(&cluster, 130 * MINUTE).await;
    assert_eq!(cluster.target.etcd().order(), [3, 2, 1]);
    let view = world.journal.run(run).await.expect("read").expect("there");
    assert_eq!((view.request.trigger, view.outcome), (Trigger::Manual, Some(Outcome::Succeeded)));
}

#[tokio::test(start_paused = true)]
async fn a_run_of_one_member_leaves_an_alert_that_joins_it_standing() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    let members = vec!["etcd-2".to_owned()];
    cluster.command("ann".to_owned(), Command::Run { members }).await.expect("taken").expect("a run");
    assert_eq!(label(&cluster.request(key("1")).await.expect("taken")), ("duplicate", "already_requested"));
    serve_for(&cluster, 10 * MINUTE).await;
    assert_eq!(cluster.target.etcd().order(), [2]);
    serve_for(&cluster, 400 * MINUTE).await;
    assert_eq!(cluster.target.etcd().order(), [2, 3, 1], "after the cooldown");
    assert_eq!(outcomes(&world).await, [("succeeded", ""), ("succeeded", "")]);
}

/// In mode approve, with a run that waits for the end of a backup: after a minute it ends, and the next one begins a
/// minute later.
fn backed_up(world: &Arc<Shared<FakeJournal>>) -> Arc<TestCluster> {
    let cluster = cluster_in(world, "a", Policy { mode: Mode::Approve, ..Policy::default() });
    cluster.target.etcd().send_snapshots(true);
    cluster
}

/// Between the two runs, another alert comes, and the backup ends.
async fn joined_between_attempts(cluster: &Arc<TestCluster>, alert: &str) {
    serve_for(cluster, MINUTE + MINUTE / 2).await;
    assert!(cluster.summary().retry_at.is_some());
    assert_eq!(label(&cluster.request(key(alert)).await.expect("taken")).0, "accepted");
    cluster.target.etcd().send_snapshots(false);
    serve_for(cluster, 10 * MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_between_two_attempts_joins_an_operators_request_which_keeps_its_members_and_its_approval() {
    let world = shared(1);
    let cluster = backed_up(&world);
    let members = vec!["etcd-2".to_owned()];
    cluster.command("ann".to_owned(), Command::Run { members: members.clone() }).await.expect("taken");
    joined_between_attempts(&cluster, "1").await;
    assert_eq!(cluster.target.etcd().order(), [2]);
    let runs = world.journal.runs(10).await.expect("read");
    assert_eq!((runs[1].request.trigger, &runs[1].request.members), (Trigger::Manual, &members));
    assert_eq!(runs[1].approved.as_ref().map(|approval| approval.by.as_str()), Some("ann"));
    assert_eq!(outcomes(&world).await, [("stopped", "snapshot_open"), ("succeeded", ""), ("open", "")]);
    assert_eq!(waiting_for(&cluster), Some("awaiting_approval"), "nobody has approved what else the alert wants");
    cluster.approve(runs[2].id, "bob".to_owned()).await.expect("approved");
    serve_for(&cluster, 10 * MINUTE).await;
    assert_eq!(cluster.target.etcd().order(), [2, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_alert_between_two_attempts_joins_an_approved_request() {
    let world = shared(1);
    let cluster = backed_up(&world);
    let AlertDecision::Accepted { run, .. } = cluster.request(key("1")).await.expect("taken") else { panic!() };
    cluster.approve(run, "ann".to_owned()).await.expect("approved");
    joined_between_attempts(&cluster, "2").await;
    assert_eq!(cluster.target.etcd().order(), [3, 2, 1]);
    assert_eq!(outcomes(&world).await, [("stopped", "snapshot_open"), ("succeeded", "")]);
}
