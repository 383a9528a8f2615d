//! What a reload does to the clusters, their runs and their series.

use futures_util::FutureExt;

use super::*;
use crate::{
    app::{cluster::tests::shared, fake::FakeEtcd},
    config::{ClusterSettings, Settings, schema},
    core::{cluster::ClusterId, history, order::Order, state::ClusterCondition},
    ports::{overview::Overview, service::AlertDecision},
};

fn settings(text: &str) -> Result<Settings, String> {
    Settings::from_text(text).map_err(|error| error.to_string())
}

/// An application of the clusters in this text, which is connected to fakes. The port of the first endpoint is the
/// cluster's id.
fn configured(text: &str) -> Arc<FakeApp> {
    let world = shared(2);
    let connect: Connect<FakeEtcd> = Arc::new(|cluster: &ClusterSettings| {
        let port = cluster.endpoints[0].rsplit(':').next().and_then(|port| port.parse().ok());
        let mut etcd = FakeEtcd::new(3);
        etcd.cluster_id = ClusterId(port.expect("a port"));
        anyhow::ensure!(etcd.cluster_id != ClusterId(666), "cluster {}: cannot read the client key", cluster.name);
        Ok(etcd)
    });
    let of = |settings| {
        let etcd = connect(&settings).expect("a fake");
        Arc::new(Cluster::new(settings, etcd, Arc::clone(&world)))
    };
    let clusters = settings(text).expect("good").clusters.into_iter().map(of).collect();
    Arc::new(App::new(clusters, world).configured(Value::Null, Vec::new(), None, connect))
}

async fn reload(app: &FakeApp, text: &str) -> Result<(), String> {
    app.apply_settings(settings(text)?).await.map(drop)
}

fn names(app: &FakeApp) -> Vec<String> {
    app.clusters().into_iter().map(|cluster| cluster.name).collect()
}

/// Runs all units of the fleet, as `serve` does, until the future ends.
async fn with_units<T>(app: &Arc<FakeApp>, work: impl Future<Output = T>) -> T {
    let mut cluster_tasks = app.fleet().cluster_tasks().expect("the first who asks");
    for cluster in &app.fleet().now().clusters {
        app.fleet().spawn(cluster);
    }
    let mut tasks = tokio::task::JoinSet::new();
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(unit) = cluster_tasks.recv() => drop(tasks.spawn(Box::pin(unit.live(true)))),
            Some(ended) = tasks.join_next() => assert!(app.ended(&ended.expect("no panic")), "a unit ended early"),
        }
    }
}

const A: &str = "{name: a, endpoints: ['http://127.0.0.1:1'], policy: {mode: enforce}}";
const B: &str = "{name: b, endpoints: ['http://127.0.0.1:2'], policy: {mode: enforce}}";

fn file(clusters: &[&str]) -> String {
    format!("clusters: [{}]", clusters.join(", "))
}

#[tokio::test(start_paused = true)]
async fn a_reload_replaces_the_rules_and_a_run_in_progress_keeps_its_own() {
    let app = configured(&file(&[A]));
    let cluster = Arc::clone(&app.fleet().now().clusters[0]);
    cluster.request(Vec::new()).await.expect("accepted");
    let held = cluster.rules();
    let text = "{name: a, endpoints: ['http://127.0.0.1:1'], policy: {mode: observe}, match: [{job: other}]}";
    reload(&app, &file(&[text])).await.expect("good");
    assert_eq!((held.policy.mode, cluster.summary().mode), (Mode::Enforce, Mode::Observe));
    let ignored = app.notify(serde_json::from_value(notification("firing")).expect("one")).await.expect("decided");
    assert!(
        matches!(ignored[0].decision, AlertDecision::Ignored { reason: Reason::UnknownCluster, .. }),
        "{ignored:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reload_takes_over_all_of_it_or_nothing() {
    let app = configured(&file(&[A]));
    let etcd = app.fleet().now().clusters[0].target.etcd();
    let moved = A.replace(":1'", ":9'").replace("enforce", "observe");
    let broken = "{name: c, endpoints: ['http://127.0.0.1:666']}";
    let refused = reload(&app, &file(&[&moved, B, broken])).await.expect_err("c has no key");
    assert_eq!(refused, "cluster c: cannot read the client key");
    assert_eq!(names(&app), ["a"]);
    assert_eq!(app.clusters()[0].mode, Mode::Enforce);
    assert!(Arc::ptr_eq(&etcd, &app.fleet().now().clusters[0].target.etcd()), "it is reached as before");

    app.shared.journal.break_down();
    reload(&app, &file(&[&moved])).await.expect("needs no journal");
    assert!(!Arc::ptr_eq(&etcd, &app.fleet().now().clusters[0].target.etcd()), "its endpoints changed");
}

/// Each key of the file changed.
#[tokio::test(start_paused = true)]
async fn a_reload_refuses_the_keys_that_the_schema_says_need_a_restart_and_no_others() {
    let changed = [
        ("clusters", file(&[A, B])),
        ("lock", file(&[A]) + "\nlock: {kind: etcd}"),
        ("modules", file(&[A]) + "\nmodules: {m: {allowed_targets: [10.0.0.0/8]}}"),
        ("notify", file(&[A]) + "\nnotify: [{name: n, webhook: {url: 'http://127.0.0.1:1'}}]"),
        ("shards", file(&[A]) + "\nshards: {ordinal: 0, total: 2}"),
    ];
    let schema = schema::file();
    let keys = schema["properties"].as_object().expect("keys");
    assert_eq!(keys.keys().collect::<Vec<_>>(), changed.each_ref().map(|(key, _)| *key));
    for (key, text) in &changed {
        let mut app = configured(&file(&[A]));
        Arc::get_mut(&mut app).expect("nobody else has it").lock = Some(LockSettings::default());
        let refused = reload(&app, text).await.err();
        let needs_restart = keys[*key]["x-restart"] == true;
        assert_eq!(refused.is_some_and(|why| why.contains("restart")), needs_restart, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_comes_is_served_and_shown() {
    let app = configured(&file(&[A]));
    with_units(&app, async {
        let page = scrape(&app).await;
        assert!(!page.contains("etcd_cluster=\"b\""));
        reload(&app, &file(&[A, B])).await.expect("good");
        let page = scrape(&app).await;
        for series in
            ["defragd_cluster_up{etcd_cluster=\"b\"} 1", "defragd_reclaimed_bytes_total{etcd_cluster=\"b\"} 0"]
        {
            assert!(page.contains(series), "no {series} in\n{page}");
        }
        app.command("b", "ann".to_owned(), Command::Run { members: Vec::new() }, false).await.expect("taken");
        tokio::time::sleep(Duration::from_mins(10)).await;
        let runs = app.runs(1).await.expect("read");
        assert_eq!(runs[0].outcome.as_ref().map(Outcome::label), Some("succeeded"), "{runs:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_goes_ends_its_run_after_the_member_in_hand_and_its_series_go_with_it() {
    let app = configured(&file(&[A, B]));
    with_units(&app, async {
        let cluster = Arc::clone(&app.fleet().now().clusters[0]);
        cluster.target.etcd().take(Duration::from_mins(5));
        app.command("a", "ann".to_owned(), Command::Run { members: Vec::new() }, false).await.expect("taken");
        while cluster.target.etcd().order().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        reload(&app, &file(&[B])).await.expect("good");
        assert_eq!(names(&app), ["b", "a"], "it is shown until it is at its end");
        assert!(app.clusters()[1].leaving);
        let again = reload(&app, &file(&[A, B])).await.expect_err("its run has not ended");
        assert!(again.contains("cluster a: was removed, but its run has not ended yet"), "{again}");
        let order = app.command("a", "ann".to_owned(), Command::Run { members: Vec::new() }, false).await;
        assert!(matches!(order, Err(CommandError::UnknownCluster(_))), "{order:?}");
        let late = cluster.request(Vec::new()).await.expect("decided");
        assert_eq!(late.labels(), ("ignored", "removed"), "who looked it up before it went");

        tokio::time::sleep(Duration::from_mins(10)).await;
        assert_eq!(cluster.target.etcd().order(), [3], "the member in hand, and no other");
        let run = &app.runs(1).await.expect("read")[0];
        assert_eq!(run.outcome, Some(Outcome::Stopped { reason: Reason::Removed }));
        assert_eq!(names(&app), ["b"]);
        let page = scrape(&app).await;
        assert!(!page.contains("etcd_cluster=\"a\""), "{page}");
        reload(&app, &file(&[A, B])).await.expect("its name is free again");
        assert_eq!(names(&app), ["a", "b"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_just_removed_is_added_again_at_once() {
    let app = configured(&file(&[A, B]));
    with_units(&app, async {
        for _ in 0..3 {
            reload(&app, &file(&[B])).await.expect("good");
            reload(&app, &file(&[A, B])).await.expect("waits for the end of its tasks");
        }
        assert_eq!(names(&app), ["a", "b"]);
        let page = scrape(&app).await;
        assert!(page.contains("defragd_reclaimed_bytes_total{etcd_cluster=\"a\"} 0"), "{page}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_leaves_clusters_alone_that_did_not_change() {
    let app = configured(&file(&[A, B]));
    let rules = || [0, 1].map(|number| app.fleet().now().clusters[number].rules());
    let before = rules();
    reload(&app, &file(&[&A.replace("enforce", "observe"), B])).await.expect("good");
    let after = rules();
    assert_eq!([0, 1].map(|number| Arc::ptr_eq(&before[number], &after[number])), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_with_a_long_past_is_served_before_all_of_it_is_read() {
    let app = configured(&file(&[A, B]));
    let journal = &app.shared.journal;
    let asks = |cluster: &str| history::Request::new(cluster, Trigger::Alert);
    for _ in 0..RUNS_READ_FIRST {
        let run = journal.accept(asks("a")).await.expect("accepted");
        journal.append(run, Entry::Finished(Outcome::NothingToDo)).await.expect("written");
    }
    let open = journal.accept(asks("b")).await.expect("accepted");
    let pause = Order::Pause { by: "ann".to_owned(), reason: "upgrade".to_owned(), until: None };
    journal.order("b", pause).await.expect("written");

    app.recover().await.expect("recovered");
    let series = |cluster: &str, value: u8| format!("defragd_cluster_paused{{etcd_cluster=\"{cluster}\"}} {value}");
    let page = scrape(&app).await;
    assert!(page.contains("defragd_cluster_up{etcd_cluster=\"b\"} 1"), "{page}");
    assert!(page.contains(&series("a", 0)) && !page.contains("paused{etcd_cluster=\"b\"}"), "{page}");
    let is_expected =
        |page: &str, cluster| page.contains(&format!("expected_defrag_seconds{{etcd_cluster=\"{cluster}\""));
    assert!(is_expected(&page, "a") && !is_expected(&page, "b"), "what was measured is not known: {page}");
    let members = app.view("b").expect("configured").status().members;
    assert!(!members.is_empty() && members.iter().all(|member| member.expected_defrag.is_none()), "{members:?}");
    let unread = &app.clusters()[1];
    assert_eq!(unread.state.condition, ClusterCondition::Fragmented, "what was observed is known");
    assert_eq!((unread.journal_read, &unread.request), (false, &None));
    assert_eq!(unread.queued_run, Some(open), "an open run is known from the start");
    with_units(&app, async {
        while !scrape(&app).await.contains(&series("b", 1)) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let read = &app.clusters()[1];
        assert_eq!((read.queued_run, read.journal_read), (Some(open), true), "it is paused");
        assert!(is_expected(&scrape(&app).await, "b"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_only_observed_reads_its_journal_too() {
    let app = configured(&file(&[A]));
    let cluster = Arc::clone(&app.fleet().now().clusters[0]);
    cluster.leave_unread();
    app.fleet().spawn(&cluster);
    let unit = app.fleet().cluster_tasks().expect("the first who asks").recv().await.expect("a unit");
    let _ = tokio::time::timeout(Duration::from_mins(1), unit.live(false)).await;
    assert!(cluster.summary().journal_read);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_needs_a_restart_is_refused_without_waiting_for_a_cluster_to_leave() {
    let app = configured(&file(&[A, B]));
    // No task runs its unit, so it never ends.
    reload(&app, &file(&[B])).await.expect("good");
    let text = format!("{}\nnotify: [{{name: chat, webhook: {{url: 'http://127.0.0.1:1/'}}}}]\n", file(&[A, B]));
    let refused = reload(&app, &text).now_or_never().expect("at once").expect_err("notify");
    assert!(refused.contains("notify: restart defragd to change it"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_ends_with_its_cluster() {
    let app = configured(&file(&[A, B]));
    let waiting = A.replace("enforce", "approve");
    with_units(&app, async {
        reload(&app, &file(&[&waiting, B])).await.expect("good");
        app.notify(serde_json::from_value(notification("firing")).expect("one")).await.expect("accepted");
        tokio::time::sleep(Duration::from_mins(1)).await;
        app.shared.journal.break_down();
        reload(&app, &file(&[B])).await.expect("good");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(names(&app), ["b", "a"], "its end is not written down yet");
        app.shared.journal.recover();
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(names(&app), ["b"]);
        let run = &app.runs(1).await.expect("read")[0];
        assert_eq!(run.outcome, Some(Outcome::Stopped { reason: Reason::Removed }));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_run_in_progress_keeps_its_connections_when_endpoints_or_credentials_change() {
    let app = configured(&file(&[A]));
    with_units(&app, async {
        let cluster = Arc::clone(&app.fleet().now().clusters[0]);
        let old = cluster.target.etcd();
        old.take(Duration::from_mins(1));
        app.command("a", "ann".to_owned(), Command::Run { members: Vec::new() }, false).await.expect("taken");
        while old.order().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        reload(&app, &file(&[&A.replace(":1'", ":9'")])).await.expect("good");
        assert!(!Arc::ptr_eq(&old, &cluster.target.etcd()));
        tokio::time::sleep(Duration::from_mins(20)).await;
        assert_eq!(old.order(), [3, 2, 1], "all of it");
        assert!(cluster.target.etcd().order().is_empty());
        let page = scrape(&app).await;
        assert!(page.contains("defragd_cluster_info{etcd_cluster=\"a\",cluster_id=\"9\"} 1"), "{page}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn entries_that_lead_to_one_cluster_are_reported_while_exporting() {
    let app = configured(&file(&[A, &B.replace(":2'", "1.1:1'").replace("127.0.0", "127.0")]));
    scrape(&app).await;
    let page = scrape(&app).await;
    for cluster in ["a", "b"] {
        let series = format!("defragd_cluster_duplicate{{etcd_cluster=\"{cluster}\"}} 1");
        assert!(page.contains(&series), "no {series} in\n{page}");
    }
    assert_eq!(app.clusters()[0].same_as, ["b"]);
    reload(&app, &file(&[A])).await.expect("good");
    app.ended("b");
    assert!(app.clusters()[0].same_as.is_empty());
}
