use tokio::time::sleep;

use super::*;
use crate::{
    app::fake::{FakeEtcd, FakeJournal, VirtualClock},
    core::{
        cluster::ClusterId,
        history::{AlertKey, Outcome, Request, RunView, Trigger},
        policy::{Mode, Policy},
    },
    ports::service::AlertDecision,
};

pub(in crate::app) type TestCluster = Cluster<FakeEtcd, FakeJournal>;

pub(in crate::app) fn shared(slots: u32) -> Arc<Shared<FakeJournal>> {
    shared_recorded_at(slots, "2026-11-23T00:00:00Z")
}

/// The same with a journal that begins at this time, by a clock that was wrong.
pub(in crate::app) fn shared_recorded_at(slots: u32, begin: &str) -> Arc<Shared<FakeJournal>> {
    let clock = VirtualClock::starting_at("2026-11-23T00:00:00Z");
    let (journal, counters) = (FakeJournal::timed(VirtualClock::starting_at(begin)), Counters::new(["a"]));
    Arc::new(Shared::new(journal, counters, Arc::new(clock), Notifications::default(), slots))
}

/// A cluster in the world of `shared`; another one of the same name represents the next process.
pub(in crate::app) fn cluster_in(shared: &Arc<Shared<FakeJournal>>, name: &str, policy: Policy) -> Arc<TestCluster> {
    let mut etcd = FakeEtcd::new(3);
    etcd.cluster_id = ClusterId(name.bytes().map(u64::from).sum());
    Arc::new(cluster_of(shared, name, policy, etcd))
}

/// The same over this etcd.
pub(in crate::app) fn cluster_of<E: Etcd>(
    shared: &Arc<Shared<FakeJournal>>,
    name: &str,
    policy: Policy,
    etcd: E,
) -> Cluster<E, FakeJournal> {
    let settings = ClusterSettings { name: name.to_owned(), policy, ..ClusterSettings::default() };
    Cluster::new(settings, etcd, Arc::clone(shared))
}

fn cluster(policy: Policy) -> Arc<TestCluster> {
    cluster_in(&shared(1), "a", policy)
}

fn enforcing() -> Arc<TestCluster> {
    cluster(Policy { mode: Mode::Enforce, ..Policy::default() })
}

pub(in crate::app) fn key(text: &str) -> Vec<AlertKey> {
    vec![AlertKey::new(text.to_owned(), "t")]
}

/// Lets the worker serve for a virtual hour.
async fn serve(cluster: &TestCluster) {
    serve_for(cluster, Duration::from_hours(1)).await;
}

pub(in crate::app) async fn serve_for(cluster: &TestCluster, time: Duration) {
    let (_stop, stopped) = stop_channel();
    tokio::select! {
        () = cluster.work(stopped) => {}
        () = sleep(time) => {}
    }
}

pub(in crate::app) fn label(decision: &AlertDecision) -> (&'static str, &'static str) {
    decision.labels()
}

pub(in crate::app) async fn outcomes(world: &Arc<Shared<FakeJournal>>) -> Vec<(&'static str, &'static str)> {
    let runs = world.journal.runs(100).await.expect("read");
    let outcome = |run: &RunView| {
        let outcome = run.outcome.as_ref()?;
        Some((outcome.label(), outcome.reason().map_or("", Reason::label)))
    };
    runs.iter().map(|run| outcome(run).unwrap_or(("open", ""))).collect()
}

pub(in crate::app) fn waiting_for(cluster: &TestCluster) -> Option<&'static str> {
    cluster.summary().waiting_for.map(|reason| reason.label())
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_accepted_once_served_and_followed_by_a_cooldown() {
    let cluster = enforcing();
    assert_eq!(label(&cluster.request(key("1")).await.expect("taken")), ("accepted", "none"));
    assert_eq!(label(&cluster.request(key("1")).await.expect("taken")), ("duplicate", "duplicate_alert"));
    assert_eq!(label(&cluster.request(key("2")).await.expect("taken")), ("duplicate", "already_requested"));
    serve(&cluster).await;
    assert_eq!(cluster.target.etcd().order(), [3, 2, 1]);
    assert_eq!(label(&cluster.request(key("1")).await.expect("taken")), ("accepted", "none"));
    assert_eq!(label(&cluster.request(key("3")).await.expect("taken")), ("duplicate", "already_requested"));
    serve(&cluster).await;
    let runs = cluster.shared.journal.runs(10).await.expect("read");
    let outcomes: Vec<_> = runs.into_iter().map(|run| run.outcome).collect();
    assert_eq!(outcomes, [Some(Outcome::Succeeded), Some(Outcome::NothingToDo)], "it is measured, in the cooldown too");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_journal_does_not_take_is_not_accepted() {
    let cluster = enforcing();
    cluster.shared.journal.break_down();
    assert!(cluster.request(key("1")).await.is_err());
    serve(&cluster).await;
    assert!(cluster.target.etcd().order().is_empty());
}

#[tokio::test(start_paused = true)]
async fn observe_mode_ends_in_an_outcome_and_needs_no_cooldown() {
    let cluster = cluster(Policy::default());
    cluster.request(key("1")).await.expect("taken");
    serve(&cluster).await;
    assert!(cluster.target.etcd().order().is_empty());
    assert_eq!(cluster.summary().cooldown_until, None);
    let runs = cluster.shared.journal.runs(10).await.expect("read");
    assert_eq!(runs[0].outcome.as_ref().map(Outcome::label), Some("observed"));
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_is_remembered_over_a_restart() {
    let world = shared(1);
    let policy = Policy { mode: Mode::Enforce, ..Policy::default() };
    let first = cluster_in(&world, "a", policy.clone());
    first.request(key("1")).await.expect("taken");
    serve(&first).await;
    let second = cluster_in(&world, "a", policy);
    assert_eq!(label(&second.request(key("2")).await.expect("taken")), ("accepted", "none"));
    serve(&second).await;
    assert_eq!(second.summary().waiting_for.map(|reason| reason.label()), Some("cooldown"));
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
    assert!(cluster.target.etcd().order().is_empty());
    assert_eq!(cluster.shared.journal.open_runs().await.expect("read").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_disconnects_in_the_middle_leaves_no_request_unserved() {
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
        let request =
            Request { cluster: "a".to_owned(), trigger: Trigger::Alert, alerts: key(fingerprint), members: Vec::new() };
        let run = cluster.shared.journal.accept(request.clone()).await.expect("taken");
        cluster.requeue(run, request).await.expect("resumed");
    }
    serve(&cluster).await;
    assert_eq!(cluster.target.etcd().order(), [3, 2, 1]);
    let runs = cluster.shared.journal.runs(10).await.expect("read");
    let outcomes: Vec<_> = runs.iter().filter_map(|run| Some(run.outcome.as_ref()?.label())).collect();
    assert_eq!(outcomes, ["succeeded", "stopped"]);
}
