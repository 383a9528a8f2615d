use super::*;
use crate::{
    app::{
        cluster::tests::{cluster_in, shared},
        fake::{FakeEtcd, FakeJournal},
    },
    core::{cluster::MemberId, policy::Policy},
};

fn fleet(names: &[&str]) -> Arc<App<FakeEtcd, FakeJournal>> {
    let world = shared(1);
    let clusters = names.iter().map(|name| cluster_in(&world, name, Policy::default())).collect();
    Arc::new(App::new(clusters, world))
}

fn age(app: &App<FakeEtcd, FakeJournal>, cluster: &str) -> Option<Duration> {
    app.view(cluster).expect("configured").observation.map(|seen| seen.age)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_visitors_cause_one_look() {
    let app = fleet(&["a"]);
    let shown = ["a".to_owned()];
    let visits = (0..1_000).map(|_| app.refresh(&shown));
    join_all(visits).await;
    assert_eq!(app.fleet().all()[0].target.etcd().times_listed(), 1);
    tokio::time::advance(FRESH_FOR / 2).await;
    app.refresh(&shown).await;
    assert_eq!(app.fleet().all()[0].target.etcd().times_listed(), 1, "it is fresh enough");
    tokio::time::advance(FRESH_FOR).await;
    app.refresh(&shown).await;
    assert_eq!(app.fleet().all()[0].target.etcd().times_listed(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_scrape_serves_the_page_too() {
    let app = fleet(&["a"]);
    app.fleet().all()[0].sample(Duration::from_secs(5)).await;
    app.refresh(&["a".to_owned()]).await;
    assert_eq!(app.fleet().all()[0].target.etcd().times_listed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_hangs_holds_no_page_up_and_is_shown_with_its_age() {
    let app = fleet(&["a", "b"]);
    app.refresh(&["a".to_owned()]).await;
    for id in 1..=3 {
        app.fleet().all()[0].target.etcd().hang(id);
    }
    tokio::time::advance(FRESH_FOR * 2).await;
    let begun = Instant::now();
    app.refresh(&["a".to_owned()]).await;
    assert!(begun.elapsed() <= PATIENCE + Duration::from_millis(10), "{:?}", begun.elapsed());
    assert!(age(&app, "a").is_some_and(|age| age >= FRESH_FOR * 2));
    tokio::time::sleep(OBSERVE_BUDGET * 2).await;
    let seen = app.view("a").expect("configured").observation.expect("looked at");
    assert!(seen.error.is_some(), "now it is known to be away");
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_the_fleet_is_observed_once_a_minute_while_the_page_is_viewed() {
    let app = fleet(&["a", "b"]);
    for _ in 0..4 {
        app.refresh(&["a".to_owned()]).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(app.fleet().all()[1].target.etcd().times_listed(), 1);
    tokio::time::sleep(SWEEP_AFTER * 3).await;
    assert_eq!(app.fleet().all()[1].target.etcd().times_listed(), 1, "nobody looks");
    app.refresh(&["a".to_owned()]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(app.fleet().all()[1].target.etcd().times_listed(), 2);
}

#[tokio::test(start_paused = true)]
async fn charts_have_points_although_nothing_scrapes_and_the_page_is_not_viewed() {
    let app = fleet(&["a"]);
    let charts = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.keep_charts().await }
    });
    tokio::time::sleep(Duration::from_hours(2)).await;
    charts.abort();
    let sizes = app.view("a").expect("configured").sizes;
    let points = sizes.of(MemberId(2)).len();
    assert!((10..=13).contains(&points), "one every ten minutes: {points}");
}
