use tokio::time::sleep;

use super::*;
use crate::{
    app::fake::{FakeEtcd, FakeJournal},
    core::{
        alert::Selector,
        policy::{Mode, Policy},
    },
    ports::clock::SystemClock,
};

fn cluster(policy: Policy) -> Arc<Cluster<FakeEtcd, FakeJournal>> {
    let settings = ClusterSettings {
        name: "a".to_owned(),
        endpoints: Vec::new(),
        ca_file: None,
        identity_files: None,
        user: None,
        selector: Selector { cluster: "a".to_owned(), any_of: Vec::new() },
        policy,
    };
    let shared = Shared {
        journal: FakeJournal::default(),
        counters: Counters::new(["a"]),
        clock: Arc::new(SystemClock),
        claims: Claims::default(),
    };
    Arc::new(Cluster::new(settings, FakeEtcd::new(3), Arc::new(shared)))
}

fn enforcing() -> Arc<Cluster<FakeEtcd, FakeJournal>> {
    cluster(Policy { mode: Mode::Enforce, ..Policy::default() })
}

fn key(text: &str) -> Vec<AlertKey> {
    vec![AlertKey { fingerprint: text.to_owned(), starts_at: "t".to_owned() }]
}

/// Lets the worker serve for a virtual hour.
async fn serve(cluster: &Cluster<FakeEtcd, FakeJournal>) {
    let (_stop, stopped) = stop_channel();
    tokio::select! {
        () = cluster.work(stopped) => {}
        () = sleep(Duration::from_hours(1)) => {}
    }
}

fn label(decision: &AlertDecision) -> (&'static str, &'static str) {
    decision.labels()
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_accepted_once_served_and_followed_by_a_cooldown() {
    let cluster = enforcing();
    assert_eq!(label(&cluster.request(key("1")).await.expect("taken")), ("accepted", "none"));
    assert_eq!(label(&cluster.request(key("1")).await.expect("taken")), ("duplicate", "duplicate_alert"));
    assert_eq!(label(&cluster.request(key("2")).await.expect("taken")), ("duplicate", "already_requested"));
    serve(&cluster).await;
    assert_eq!(cluster.etcd.order(), [2, 3, 1]);
    assert_eq!(label(&cluster.request(key("1")).await.expect("taken")), ("duplicate", "duplicate_alert"));
    assert_eq!(label(&cluster.request(key("3")).await.expect("taken")), ("ignored", "cooldown"));
    let runs = cluster.shared.journal.runs(10).await.expect("read");
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].outcome, Some(Outcome::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_journal_does_not_take_is_not_accepted() {
    let cluster = enforcing();
    cluster.shared.journal.break_down();
    assert!(cluster.request(key("1")).await.is_err());
    serve(&cluster).await;
    assert!(cluster.etcd.order().is_empty());
}

#[tokio::test(start_paused = true)]
async fn observe_mode_ends_in_an_outcome_and_needs_no_cooldown() {
    let cluster = cluster(Policy::default());
    cluster.request(key("1")).await.expect("taken");
    serve(&cluster).await;
    assert!(cluster.etcd.order().is_empty());
    assert_eq!(cluster.summary().cooldown_until, None);
    let runs = cluster.shared.journal.runs(10).await.expect("read");
    assert_eq!(runs[0].outcome.as_ref().map(Outcome::label), Some("observed"));
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_is_remembered_over_a_restart() {
    let first = enforcing();
    first.request(key("1")).await.expect("taken");
    serve(&first).await;
    let mut runs = first.shared.journal.runs(10).await.expect("read");
    runs[0].finished_at = Some(Timestamp::now());
    let second = enforcing();
    second.remember(&runs);
    assert_eq!(label(&second.request(key("2")).await.expect("taken")), ("ignored", "cooldown"));
    let sample = second.sample(Duration::from_secs(5)).await;
    assert!(sample.members.iter().all(|member| member.last_defrag.is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_a_waiting_request_for_the_next_start() {
    let cluster = enforcing();
    cluster.request(key("1")).await.expect("taken");
    let (stop, stopped) = stop_channel();
    stop.send(Some(Reason::ShuttingDown)).expect("heard");
    cluster.work(stopped).await;
    assert!(cluster.etcd.order().is_empty());
    assert_eq!(cluster.shared.journal.open_runs().await.expect("read").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_goes_away_in_the_middle_leaves_no_request_that_nobody_serves() {
    let cluster = enforcing();
    // Polled once and dropped, as hyper drops a handler whose client is gone.
    let mut asking = Box::pin(cluster.request(key("1")));
    assert!(futures_util::poll!(&mut asking).is_pending());
    drop(asking);
    serve(&cluster).await;
    let runs = cluster.shared.journal.runs(10).await.expect("read");
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].outcome, Some(Outcome::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn several_open_requests_of_one_cluster_all_end_and_are_served_once() {
    let cluster = enforcing();
    for fingerprint in ["1", "2"] {
        let request = Request { cluster: "a".to_owned(), trigger: Trigger::Alert, alerts: key(fingerprint) };
        let run = cluster.shared.journal.accept(request.clone()).await.expect("taken");
        cluster.requeue(run, request).await.expect("taken up");
    }
    serve(&cluster).await;
    assert_eq!(cluster.etcd.order(), [2, 3, 1]);
    let runs = cluster.shared.journal.runs(10).await.expect("read");
    let outcomes: Vec<_> = runs.iter().filter_map(|run| Some(run.outcome.as_ref()?.label())).collect();
    assert_eq!(outcomes, ["succeeded", "stopped"]);
}
