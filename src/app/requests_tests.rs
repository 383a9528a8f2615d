#[path = "requests_tests/operators.rs"]
mod operators;

use std::time::Duration;

use tokio::time::sleep;

use super::*;
use crate::{
    app::cluster::{
        stop_channel,
        tests::{TestCluster, cluster_in, key, label, outcomes, serve_for, shared, waiting_for},
    },
    core::{
        policy::{Mode, Policy},
        window::{Schedule, Window},
    },
};

const MINUTE: Duration = Duration::from_mins(1);

fn enforcing() -> Policy {
    Policy { mode: Mode::Enforce, ..Policy::default() }
}

/// Open every day from 02:00 UTC to this time; the tests begin at midnight.
fn windowed(end: (i8, i8)) -> Policy {
    let start = jiff::civil::time(2, 0, 0, 0);
    let end = jiff::civil::time(end.0, end.1, 0, 0);
    let window = Window { days: Vec::new(), start, end, timezone: jiff::tz::TimeZone::UTC };
    Policy { windows: Schedule(vec![window]), ..enforcing() }
}

fn pause(lasts: Option<Duration>) -> Command {
    Command::Pause { reason: "upgrade".to_owned(), lasts }
}

fn resume() -> Command {
    Command::Resume { reason: "done".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_request_outside_the_window_waits_for_it_over_a_restart() {
    let world = shared(1);
    let first = cluster_in(&world, "a", windowed((5, 0)));
    assert_eq!(label(&first.request(key("1")).await.expect("taken")).0, "accepted");
    serve_for(&first, 30 * MINUTE).await;
    assert_eq!(waiting_for(&first), Some("outside_window"));
    assert!(first.target.etcd().order().is_empty());

    let second = cluster_in(&world, "a", windowed((5, 0)));
    let view = world.journal.open_runs().await.expect("read").remove(0);
    second.requeue(view.id, view.request).await.expect("resumed");
    serve_for(&second, 89 * MINUTE).await;
    assert!(second.target.etcd().order().is_empty(), "01:59");
    serve_for(&second, 10 * MINUTE).await;
    assert_eq!(second.target.etcd().order(), [3, 2, 1]);
    assert_eq!(outcomes(&world).await, [("succeeded", "")]);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_while_the_journal_is_read_is_served() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    let asked = async {
        sleep(MINUTE).await;
        world.journal.slow(Duration::from_secs(1));
        let request = cluster.request(key("1"));
        let woken = async {
            // Read until 2 s from now, as it was 1 s from now; the request is there in between.
            sleep(Duration::from_millis(500)).await;
            cluster.requests.wake.notify_one();
        };
        assert_eq!(label(&tokio::join!(request, woken).0.expect("taken")).0, "accepted");
    };
    tokio::join!(asked, serve_for(&cluster, 10 * MINUTE));
    assert_eq!(outcomes(&world).await, [("succeeded", "")]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_window_ends_the_run_after_the_current_member() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", windowed((2, 1)));
    cluster.target.etcd().take(Duration::from_secs(45));
    cluster.request(key("1")).await.expect("taken");
    serve_for(&cluster, 180 * MINUTE).await;
    assert_eq!(cluster.target.etcd().order(), [3, 2], "the second was in progress at 02:01 and was finished");
    assert_eq!(outcomes(&world).await, [("stopped", "window_closed"), ("open", "")]);
    assert_eq!(waiting_for(&cluster), Some("outside_window"), "what is left waits for the next window");
    serve_for(&cluster, 24 * 60 * MINUTE).await;
    assert_eq!(cluster.target.etcd().order(), [3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_emergency_does_not_wait_for_the_window_if_its_owner_says_so() {
    for (emergency, expected) in [(false, "open"), (true, "succeeded")] {
        let world = shared(1);
        let cluster = cluster_in(&world, "a", Policy { emergency, ..windowed((5, 0)) });
        cluster.target.etcd().arm_no_space();
        cluster.request(key("1")).await.expect("taken");
        serve_for(&cluster, 30 * MINUTE).await;
        assert_eq!(outcomes(&world).await[0].0, expected, "emergency: {emergency}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_requests_until_an_operator_resumes_or_its_time_is_over() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    cluster.command("ann".to_owned(), pause(None)).await.expect("paused");
    assert_eq!(label(&cluster.request(key("1")).await.expect("taken")).0, "accepted");
    serve_for(&cluster, 600 * MINUTE).await;
    assert_eq!(waiting_for(&cluster), Some("paused"));
    assert!(cluster.summary().paused.is_some_and(|reason| reason.to_string().contains("paused by ann: upgrade")));
    cluster.command("ann".to_owned(), resume()).await.expect("resumed");
    serve_for(&cluster, 10 * MINUTE).await;
    assert_eq!(outcomes(&world).await, [("succeeded", "")]);

    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    cluster.command("ann".to_owned(), pause(Some(120 * MINUTE))).await.expect("paused");
    cluster.request(key("1")).await.expect("taken");
    serve_for(&cluster, 119 * MINUTE).await;
    assert_eq!(outcomes(&world).await, [("open", "")]);
    serve_for(&cluster, 10 * MINUTE).await;
    assert_eq!(outcomes(&world).await, [("succeeded", "")]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_a_run_before_its_next_member() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    cluster.request(key("1")).await.expect("taken");
    work_and_meanwhile(&cluster, async {
        cluster.command("ann".to_owned(), pause(None)).await.expect("paused");
        sleep(10 * MINUTE).await;
    })
    .await;
    assert_eq!(cluster.target.etcd().order(), [3]);
    assert_eq!(outcomes(&world).await, [("stopped", "paused"), ("open", "")]);
    assert_eq!(waiting_for(&cluster), Some("paused"));
    cluster.command("ann".to_owned(), resume()).await.expect("resumed");
    serve_for(&cluster, 10 * MINUTE).await;
    assert_eq!(cluster.target.etcd().order(), [3, 2, 1], "the rest follows without a new request");
    assert_eq!(outcomes(&world).await, [("stopped", "paused"), ("succeeded", "")]);
}

#[tokio::test(start_paused = true)]
async fn a_resolved_alert_cancels_a_request_that_waits_for_nothing_else() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", windowed((5, 0)));
    cluster.request(key("1")).await.expect("taken");
    assert_eq!(label(&cluster.request(key("2")).await.expect("taken")), ("duplicate", "already_requested"));
    assert_eq!(cluster.resolve(key("1")).await.expect("taken"), None, "the other alert still fires");
    serve_for(&cluster, MINUTE).await;
    assert!(cluster.resolve(key("2")).await.expect("taken").is_some());
    assert_eq!(cluster.resolve(key("2")).await.expect("taken"), None);
    serve_for(&cluster, 300 * MINUTE).await;
    assert!(cluster.target.etcd().order().is_empty());
    assert_eq!(outcomes(&world).await, [("stopped", "resolved")]);
}

#[tokio::test(start_paused = true)]
async fn a_resolved_alert_does_not_stop_a_run_in_progress() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    cluster.request(key("1")).await.expect("taken");
    work_and_meanwhile(&cluster, async {
        assert_eq!(cluster.resolve(key("1")).await.expect("taken"), None);
        sleep(10 * MINUTE).await;
    })
    .await;
    assert_eq!(outcomes(&world).await, [("succeeded", "")]);
}

/// Serves until `act` has ended, which begins when the first member is defragmented.
async fn work_and_meanwhile(cluster: &TestCluster, act: impl Future<Output = ()>) {
    let (_stop, stopped) = stop_channel();
    tokio::select! {
        () = cluster.work(stopped) => {}
        () = async {
            while cluster.target.etcd().order().is_empty() {
                sleep(Duration::from_millis(100)).await;
            }
            act.await;
        } => {}
    }
}

fn cancel() -> Command {
    Command::Cancel { reason: "not tonight".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_or_is_to_be_tried_again_ends_when_it_is_cancelled() {
    for refused_first in [false, true] {
        let world = shared(1);
        let cluster = cluster_in(&world, "a", if refused_first { enforcing() } else { windowed((5, 0)) });
        cluster.target.etcd().hang(2);
        let nothing = cluster.command("ann".to_owned(), cancel()).await.expect_err("nothing stands");
        assert_eq!(nothing.to_string(), "cluster a has no open request: there is nothing to cancel");
        cluster.request(key("1")).await.expect("taken");
        serve_for(&cluster, MINUTE / 2).await;
        cluster.command("ann".to_owned(), cancel()).await.expect("cancelled");
        cluster.target.etcd().recover(2);
        serve_for(&cluster, 24 * 60 * MINUTE).await;
        assert!(cluster.target.etcd().order().is_empty());
        let ended = if refused_first { ("refused", "member_unreachable") } else { ("stopped", "cancelled") };
        assert_eq!(outcomes(&world).await, [ended]);
        assert_eq!(cluster.summary().retry_at, None);
        // An alert that still fires requests again.
        assert_eq!(label(&cluster.request(key("1")).await.expect("taken")).0, "accepted");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_requests_right_after_a_cancellation_is_done() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", windowed((5, 0)));
    cluster.request(key("1")).await.expect("taken");
    serve_for(&cluster, MINUTE / 2).await;
    cluster.command("ann".to_owned(), cancel()).await.expect("cancelled");
    // The worker has not ended it yet.
    cluster.command("bob".to_owned(), Command::Run { members: Vec::new() }).await.expect("taken");
    serve_for(&cluster, 3 * 60 * MINUTE).await;
    assert_eq!(cluster.target.etcd().order(), [3, 2, 1]);
    assert_eq!(outcomes(&world).await, [("succeeded", "")]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_in_progress_ends_after_the_current_member() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    cluster.request(key("1")).await.expect("taken");
    work_and_meanwhile(&cluster, async {
        cluster.command("ann".to_owned(), cancel()).await.expect("cancelled");
        sleep(24 * 60 * MINUTE).await;
    })
    .await;
    assert_eq!(cluster.target.etcd().order(), [3]);
    assert_eq!(outcomes(&world).await, [("stopped", "cancelled")]);
    let run = &world.journal.runs(1).await.expect("read")[0];
    assert_eq!(
        run.outcome.as_ref().and_then(Outcome::reason).map(ToString::to_string).as_deref(),
        Some("cancelled by ann: not tonight")
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_run_is_tried_again_with_new_requests_until_it_succeeds() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    cluster.target.etcd().hang(2);
    cluster.request(key("1")).await.expect("taken");
    serve_for(&cluster, 4 * MINUTE).await;
    assert_eq!(outcomes(&world).await, [("refused", "member_unreachable"); 2], "at once, and after a minute");
    let repeated = cluster.request(key("1")).await.expect("taken");
    assert_eq!(label(&repeated), ("duplicate", "retry_pending"));
    assert!(cluster.summary().retry_at.is_some());
    cluster.target.etcd().recover(2);
    // The next process knows the same.
    let next = cluster_in(&world, "a", enforcing());
    serve_for(&next, 10 * MINUTE).await;
    assert_eq!(outcomes(&world).await.last(), Some(&("succeeded", "")));
    let runs = world.journal.runs(10).await.expect("read");
    assert_eq!(runs.iter().map(|run| run.request.trigger.label()).collect::<Vec<_>>(), ["alert", "retry", "retry"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_run_is_not_tried_again_once_its_alert_is_resolved() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", enforcing());
    cluster.target.etcd().hang(2);
    cluster.request(key("1")).await.expect("taken");
    serve_for(&cluster, Duration::from_secs(45)).await;
    assert_eq!(outcomes(&world).await.len(), 1);
    cluster.resolve(key("1")).await.expect("taken");
    serve_for(&cluster, 120 * MINUTE).await;
    assert_eq!(outcomes(&world).await, [("refused", "member_unreachable")]);
    assert_eq!(cluster.summary().retry_at, None);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_prevents_runs_until_an_operator_resumes() {
    let world = shared(1);
    let policy = Policy { cooldown: Duration::ZERO, max_runs_per_day: 9, breaker_failures: 1, ..enforcing() };
    let cluster = cluster_in(&world, "a", Policy { defrag_deadline: Duration::from_secs(1), ..policy });
    cluster.target.etcd().take(Duration::from_secs(10));
    cluster.request(key("1")).await.expect("taken");
    let server_ends = async {
        sleep(Duration::from_secs(20)).await;
        cluster.target.etcd().set_busy(3, false);
    };
    tokio::join!(serve_for(&cluster, 10 * MINUTE), server_ends);
    assert_eq!(outcomes(&world).await, [("failed", "deadline_exceeded"), ("open", "")]);
    assert_eq!(waiting_for(&cluster), Some("breaker_open"), "the request stands, and needs an operator");
    assert_eq!(label(&cluster.request(key("2")).await.expect("taken")), ("duplicate", "already_requested"));
    let refused = cluster.command("ann".to_owned(), Command::Run { members: Vec::new() }).await.expect_err("refused");
    assert!(refused.to_string().contains("defragd resume"), "{refused}");
    assert!(cluster.sample(MINUTE).await.admission.expect("it is looked after").breaker_open);
    sleep(Duration::from_secs(1)).await;
    cluster.command("ann".to_owned(), resume()).await.expect("resumed");
    cluster.target.etcd().take(Duration::from_millis(1));
    serve_for(&cluster, 10 * MINUTE).await;
    assert_eq!(outcomes(&world).await.last(), Some(&("succeeded", "")));
}

#[tokio::test(start_paused = true)]
async fn no_more_clusters_than_allowed_have_a_run_at_once() {
    for (slots, expected) in [(1, 1), (2, 2)] {
        let world = shared(slots);
        let clusters = ["a", "b", "c"].map(|name| cluster_in(&world, name, enforcing()));
        for cluster in &clusters {
            cluster.request(key("1")).await.expect("taken");
        }
        let (_stop, stopped) = stop_channel();
        let work = futures_util::future::join_all(clusters.iter().map(|cluster| cluster.work(stopped.clone())));
        let mut most = 0;
        let watch = async {
            for _ in 0..6_000 {
                most = most.max(clusters.iter().filter(|cluster| cluster.summary().active_run.is_some()).count());
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            _ = work => {}
            () = watch => {}
        }
        assert_eq!(most, expected);
        assert_eq!(outcomes(&world).await, [("succeeded", ""); 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_waits_for_a_snapshot_leaves_the_slot_to_others_and_continues_when_it_ends() {
    let world = shared(1);
    let (backed_up, other) = (cluster_in(&world, "a", enforcing()), cluster_in(&world, "b", enforcing()));
    backed_up.target.etcd().send_snapshots(true);
    assert_eq!(label(&backed_up.request(key("1")).await.expect("taken")).0, "accepted");
    serve_for(&backed_up, 30 * MINUTE).await;
    assert_eq!(waiting_for(&backed_up), Some("snapshot_open"));
    assert_eq!(outcomes(&world).await, [("stopped", "snapshot_open"), ("open", "")], "one run, and one that waits");
    assert_eq!(world.slots.available_permits(), 1);
    assert_eq!(label(&other.request(key("2")).await.expect("taken")).0, "accepted");
    serve_for(&other, MINUTE).await;
    assert_eq!(other.target.etcd().order(), [3, 2, 1]);
    backed_up.target.etcd().send_snapshots(false);
    serve_for(&backed_up, 3 * MINUTE).await;
    assert_eq!(backed_up.target.etcd().order(), [3, 2, 1]);
}
