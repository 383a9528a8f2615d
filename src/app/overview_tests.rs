use super::*;
use crate::{
    app::{
        cluster::{
            stop_channel,
            tests::{cluster_in, key, shared},
        },
        fake::{FakeEtcd, FakeJournal},
    },
    core::{cluster::MemberId, policy::Policy},
    ports::service::Service,
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

/// A scrape of this long that has just begun: cluster "a" hangs.
async fn scraping(app: &Arc<App<FakeEtcd, FakeJournal>>, budget: Duration) -> tokio::task::JoinHandle<()> {
    for id in 1..=3 {
        app.fleet().all()[0].target.etcd().hang(id);
    }
    let app = Arc::clone(app);
    let scrape = tokio::spawn(async move {
        app.scrape(budget, &mut String::new()).await.expect("metrics");
    });
    tokio::task::yield_now().await;
    scrape
}

#[tokio::test(start_paused = true)]
async fn right_after_the_start_no_cluster_is_observed_beside_the_scrape_that_observes_it() {
    let app = fleet(&["a"]);
    let cluster = Arc::clone(&app.fleet().all()[0]);
    let scrape = scraping(&app, Duration::from_secs(1)).await;
    let at_start = tokio::spawn(async move { cluster.observe_at_start().await });
    scrape.await.expect("scraped");
    tokio::time::sleep(OBSERVE_BUDGET).await;
    assert_eq!(app.fleet().all()[0].target.etcd().times_listed(), 1);
    at_start.abort();
}

#[tokio::test(start_paused = true)]
async fn right_after_the_start_the_journal_is_read_for_alerts_and_after_a_scrape_for_the_rest() {
    let app = fleet(&["a", "b", "c"]);
    for cluster in app.fleet().all() {
        cluster.leave_unread();
    }
    let [_, b, c] = &app.fleet().all()[..] else { panic!("three") };
    let (b, c) = (Arc::clone(b), Arc::clone(c));
    let scrape = scraping(&app, Duration::from_secs(1)).await;
    let (_stop, stopped) = stop_channel();
    let works = tokio::spawn(async move { b.work(stopped).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!app.clusters()[1].journal_read, "the scrape is not over");
    c.request(key("alert")).await.expect("decided at once");
    assert!(app.clusters()[2].journal_read);
    scrape.await.expect("scraped");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(app.clusters()[1].journal_read);
    works.abort();
}

#[tokio::test(start_paused = true)]
async fn a_scrape_of_members_that_hang_does_not_go_first_for_long() {
    let app = fleet(&["a", "b"]);
    let b = Arc::clone(&app.fleet().all()[1]);
    b.leave_unread();
    let begun = Instant::now();
    let _scrape = scraping(&app, Duration::from_secs(9)).await;
    let reads = tokio::spawn(async move { b.read_at_start().await });
    let mut changes = app.changes();
    while !app.clusters()[1].journal_read {
        changes.changed().await.expect("the app is there");
    }
    assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
    reads.abort();
}
