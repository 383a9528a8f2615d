use std::{sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use tokio::time::sleep;

use crate::{
    app::{
        cluster::{
            Cluster, ClusterChange, Shared, stop_channel,
            tests::{cluster_in, key, shared},
        },
        fake::{FakeEtcd, FakeJournal},
    },
    core::{
        history::{Outcome, RunView, Trigger},
        policy::{Mode, Policy},
        schedule::{Line, Timetable},
        window::{Schedule, Window},
    },
    ports::{journal::Journal, service::Command},
};

type TestCluster = Cluster<FakeEtcd, FakeJournal>;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The tests begin on Monday, 2026-11-23, at midnight UTC.
fn scheduled(text: &str) -> Policy {
    let line = Line::parse(text, TimeZone::UTC).expect("a line");
    Policy { mode: Mode::Enforce, schedule: Timetable(vec![line]), ..Policy::default() }
}

async fn live(cluster: &Arc<TestCluster>, time: Duration) {
    let (_stop, stopped) = stop_channel();
    tokio::select! {
        () = cluster.work(stopped) => {}
        never = cluster.keep_schedule() => match never {},
        () = sleep(time) => {}
    }
}

async fn runs(world: &Arc<Shared<FakeJournal>>) -> Vec<RunView> {
    world.journal.runs(100).await.expect("read")
}

/// What requested the runs, and how they ended.
async fn outcomes(world: &Arc<Shared<FakeJournal>>) -> Vec<(Trigger, &'static str)> {
    let outcome = |run: &RunView| (run.request.trigger, run.outcome.as_ref().map_or("open", Outcome::label));
    runs(world).await.iter().map(outcome).collect()
}

#[tokio::test(start_paused = true)]
async fn a_due_time_requests_a_run_without_an_alert_and_nothing_where_nothing_is_needed() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", scheduled("0 3 * * *"));
    assert_eq!(cluster.summary().next_scheduled, "2026-11-23T03:00:00Z".parse().ok());
    live(&cluster, 179 * MINUTE).await;
    assert_eq!(outcomes(&world).await, []);
    live(&cluster, HOUR).await;
    assert_eq!(outcomes(&world).await, [(Trigger::Schedule, "succeeded")]);
    assert_eq!(cluster.target.etcd().order(), [3, 2, 1]);
    assert_eq!(cluster.summary().next_scheduled, "2026-11-24T03:00:00Z".parse().ok());
    live(&cluster, 24 * HOUR).await;
    let expected = [(Trigger::Schedule, "succeeded"), (Trigger::Schedule, "nothing_to_do")];
    assert_eq!(outcomes(&world).await, expected);
    let due = runs(&world).await[1].request.alerts[0].due();
    assert_eq!(due, "2026-11-24T03:00:00Z".parse().ok());
}

#[tokio::test(start_paused = true)]
async fn it_joins_the_request_that_stands_and_stands_when_the_alert_is_resolved() {
    let world = shared(1);
    let start = jiff::civil::time(4, 0, 0, 0);
    let window = Window { days: Vec::new(), start, end: jiff::civil::time(8, 0, 0, 0), timezone: TimeZone::UTC };
    let policy = Policy { windows: Schedule(vec![window]), ..scheduled("*/30 3 * * *") };
    let cluster = cluster_in(&world, "a", policy);
    cluster.request(key("1")).await.expect("taken");
    live(&cluster, 3 * HOUR + 45 * MINUTE).await;
    let all = runs(&world).await;
    assert_eq!((all.len(), all[0].request.alerts.len()), (1, 2), "the second due time joined with the first: {all:?}");
    assert_eq!(cluster.resolve(key("1")).await.expect("taken"), None, "the schedule still wants it");
    live(&cluster, HOUR).await;
    assert_eq!(outcomes(&world).await, [(Trigger::Alert, "succeeded")]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_tried_again_and_later_due_times_join_it() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", scheduled("*/2 3-4 * * *"));
    cluster.target.etcd().hang(2);
    live(&cluster, 3 * HOUR + 50 * MINUTE).await;
    let all = outcomes(&world).await;
    assert!((2..=5).contains(&all.len()), "after 1, 5 and 15 minutes: {all:?}");
    assert_eq!(all[0], (Trigger::Schedule, "refused"));
    assert!(all[1..].iter().all(|(trigger, _)| *trigger == Trigger::Retry), "{all:?}");
    // What joined it is withdrawn with it; the next time is another.
    cluster.command("ann".to_owned(), Command::Cancel { reason: "not tonight".to_owned() }).await.expect("cancelled");
    let before = runs(&world).await.len();
    live(&cluster, MINUTE).await;
    assert_eq!(runs(&world).await.len(), before);
    live(&cluster, 3 * MINUTE).await;
    assert_eq!(outcomes(&world).await[before].0, Trigger::Schedule);
}

#[tokio::test(start_paused = true)]
async fn a_restart_at_the_due_time_runs_once() {
    let world = shared(1);
    for _ in 0..8 {
        let cluster = cluster_in(&world, "a", scheduled("0 3 * * *"));
        for open in world.journal.open_runs().await.expect("read") {
            cluster.requeue(open.id, open.request).await.expect("taken");
        }
        live(&cluster, 3 * HOUR / 7).await;
    }
    assert_eq!(outcomes(&world).await, [(Trigger::Schedule, "succeeded")]);
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_caught_up_within_an_hour_and_once() {
    for (down, caught_up) in [(70 * MINUTE, true), (3 * HOUR, false)] {
        let world = shared(1);
        // Each is due while nothing runs.
        let policy = || scheduled("*/20 1 * * *");
        live(&cluster_in(&world, "a", policy()), 59 * MINUTE).await;
        sleep(down).await;
        live(&cluster_in(&world, "a", policy()), 20 * HOUR).await;
        let expected: &[_] = if caught_up { &[(Trigger::Schedule, "succeeded")] } else { &[] };
        assert_eq!(outcomes(&world).await, expected, "down for {down:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_is_new_or_changed_begins_with_its_next_time() {
    let world = shared(1);
    sleep(3 * HOUR + 10 * MINUTE).await;
    let cluster = cluster_in(&world, "a", scheduled("0 3 * * *"));
    live(&cluster, 10 * MINUTE).await;
    assert_eq!(outcomes(&world).await, [], "03:00 was before it was there");
    let change = |text: &str| {
        let mut settings = (*cluster.settings()).clone();
        settings.policy = scheduled(text);
        cluster.follow(ClusterChange { settings, gates: Vec::new(), etcd: None });
    };
    let reload = async {
        sleep(MINUTE).await;
        change("10 3 * * *");
        sleep(10 * MINUTE).await;
        assert_eq!(outcomes(&world).await, [], "03:10 was before the reload");
        change("35 3 * * *");
        sleep(HOUR).await;
    };
    tokio::select! {
        () = live(&cluster, 5 * HOUR) => unreachable!("it lives for longer"),
        () = reload => {}
    }
    assert_eq!(outcomes(&world).await, [(Trigger::Schedule, "succeeded")]);
    assert_eq!(runs(&world).await[0].request.alerts[0].due(), "2026-11-23T03:35:00Z".parse().ok());
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_failed_is_tried_again() {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", scheduled("0 3 * * *"));
    live(&cluster, 2 * HOUR).await;
    world.journal.break_down();
    live(&cluster, HOUR + 5 * MINUTE).await;
    assert_eq!(outcomes(&world).await, []);
    world.journal.recover();
    live(&cluster, HOUR).await;
    assert_eq!(outcomes(&world).await, [(Trigger::Schedule, "succeeded")]);
}
