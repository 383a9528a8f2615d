//! What the page shows before a decision, and what the forms do.

use std::{sync::Arc, time::Duration};

use testkit::until;

use super::{Site, guarded, open};
use crate::{
    app::cluster::{stop_channel, tests::key},
    core::{
        history::{AlertKey, Entry, Labels, Outcome, Request as Wish, Trigger},
        reason::Reason,
    },
    ports::{journal::Journal, service::Service},
};

#[tokio::test]
async fn until_a_clusters_journal_is_read_the_page_says_so_and_offers_no_action() {
    let site = open();
    let cluster = Arc::clone(&site.app.fleet().all()[0]);
    cluster.leave_unread();
    for path in ["/", "/clusters/a"] {
        let page = site.get(path, "").await.body;
        assert!(page.contains("The journal is still being read"), "{path}: {page}");
        for claim in [
            "not observed yet",
            "No alert is requesting",
            "until an alert requests a run",
            "action=\"/clusters/a/pause\"",
        ] {
            // The filter lists all states.
            assert!(
                !page.replace("<option value=\"not_observed\">not observed yet", "").contains(claim),
                "{claim}: {page}"
            );
        }
    }
    let actions = |page: &str| {
        let (_, rest) = page.split_once("<div id=\"actions\"").expect("the page has actions");
        rest.split_once('>').expect("a whole element").0.contains("data-live")
    };
    assert!(actions(&site.get("/clusters/a", "").await.body), "the script replaces them when the journal is read");
    cluster.ledger().await.expect("read");
    let page = site.get("/clusters/a", "").await.body;
    assert!(!page.contains("journal is still") && page.contains("action=\"/clusters/a/pause\""), "{page}");
    assert!(!actions(&page), "nothing changes while a form is filled in");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_journal_is_still_being_read_does_not_hide_that_it_cannot_write_or_be_reached() {
    for (condition, words) in
        [("no_space", " has no space and accepts no writes</b>"), ("unreachable", " is unreachable</b>")]
    {
        let site = open();
        let cluster = Arc::clone(&site.app.fleet().all()[0]);
        let etcd = cluster.target.etcd();
        if condition == "no_space" {
            etcd.arm_no_space();
        } else {
            (1..=3).for_each(|id| etcd.hang(id));
        }
        cluster.leave_unread();
        // The first page waits only for a moment.
        site.get("/", "").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let page = site.get("/", "").await.body;
        assert!(page.contains(words) && page.contains("the journal is still being read"), "{page}");
        let found = site.get(&format!("/?state={condition}"), "").await.body;
        assert!(found.contains("aria-label=\"Cluster a\""), "{found}");
        let api = site.get("/api/v1/clusters", "").await.body;
        // The cause is there once.
        assert!(condition != "unreachable" || page.matches("no answer within").count() == 1, "{page}");
        let api: serde_json::Value = serde_json::from_str(&api).expect("JSON");
        let summary = &api["clusters"][0];
        assert_eq!((&summary["state"], &summary["journal_read"]), (&condition.into(), &false.into()), "{summary}");
        assert!(summary["problems"][0].is_string() && summary["observed_at"].is_string(), "{summary}");
    }
}

/// Lets the workers act for some virtual time.
async fn work(site: &Site, time: Duration) {
    let cluster = Arc::clone(&site.app.fleet().all()[0]);
    let (_stop, stopped) = stop_channel();
    tokio::select! {
        () = cluster.work(stopped) => {}
        () = tokio::time::sleep(time) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn before_a_decision_the_page_shows_alert_plan_and_leader_and_a_rejection_needs_a_reason() {
    let site = guarded();
    let labels = [("alertname", "EtcdFragmentationHigh"), ("severity", "warning"), ("team", "<b>storage</b>")];
    let labels: Labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let alert = AlertKey::new("f".to_owned(), "2026-11-22T23:31:00Z").described(&labels, "90 % of a is free space");
    site.app.fleet().all()[0].request(vec![alert]).await.expect("accepted");
    work(&site, Duration::from_secs(5)).await;
    let cookie = site.log_in().await;
    for path in ["/", "/clusters/a"] {
        let page = site.get(path, &cookie).await.body;
        assert!(page.contains("waiting for approval") && page.contains("Review and approve run 1"), "{path}: {page}");
        assert!(page.contains("EtcdFragmentationHigh firing since 2026-11-22 23:31 UTC"), "{path}: {page}");
    }
    let page = site.get("/runs/1", &cookie).await;
    for words in [
        "EtcdFragmentationHigh",
        "90 % of a is free space",
        "firing since 2026-11-22 23:31 UTC",
        "team=&lt;b&gt;storage&lt;/b&gt;",
        "<b>3 members</b> to defragment: frees up to <b>2.6\u{a0}GiB</b>",
        "1. etcd-",
        "3. etcd-1",
        "etcd-1 is the leader",
        "Approve run 1",
    ] {
        assert!(page.body.contains(words), "{words}: {}", page.body);
    }
    let form = page.form();
    let refused = site.post("/runs/1/reject", &cookie, &format!("by=ann&reason=+&form={form}")).await;
    assert!(refused.status == 400 && refused.body.contains("Enter a reason for the rejection."), "{}", refused.body);
    let rejected = site.post("/runs/1/reject", &cookie, &format!("by=ann&reason=not+tonight&form={form}")).await;
    assert_eq!(rejected.status, 303, "{}", rejected.body);
    work(&site, Duration::from_secs(5)).await;
    let page = site.get("/runs/1?done=reject", &cookie).await.body;
    assert!(page.contains("The run is rejected.") && page.contains("not tonight"), "{page}");
    assert!(!page.contains("Approve run 1"), "{page}");
}

#[tokio::test]
async fn a_run_is_requested_and_cancelled_and_the_name_is_asked_once() {
    let site = open();
    let first = site.get("/clusters/a", "").await;
    let (cookie, form) = (first.cookie().expect("a cookie"), first.form());
    assert!(first.body.contains("id=\"run-by\"") && !first.body.contains("Recorded as"), "{}", first.body);
    let nameless = site.post("/clusters/a/run", &cookie, &format!("by=&form={form}")).await;
    assert!(nameless.status == 400 && nameless.body.contains("Enter your name"), "{}", nameless.body);
    assert_eq!(site.post("/clusters/a/run", &cookie, &format!("by=Ann+%3C&form={form}")).await.status, 303);
    assert!(site.app.clusters()[0].queued_run.is_some(), "requested");
    let page = site.get("/clusters/a?done=run", &cookie).await.body;
    assert!(page.contains("A run is requested."), "{page}");
    assert!(page.contains("Recorded as <b class=\"foreign\">Ann &lt;</b>"), "{page}");
    assert!(
        page.contains("/clusters/a/cancel") && !page.contains("/clusters/a/run\""),
        "one request at a time: {page}"
    );
    let other = site.get("/clusters/a", "").await.body;
    assert!(!other.contains("Recorded as"), "another browser is another operator");
    assert_eq!(site.post("/clusters/a/cancel", &cookie, &format!("by=Ann&form={form}")).await.status, 303);
    let cancelled = until("the request to be cancelled", Duration::from_mins(1), || async {
        anyhow::ensure!(site.app.clusters()[0].queued_run.is_none(), "it waits");
        Ok(())
    });
    tokio::select! {
        () = work(&site, Duration::from_mins(2)) => panic!("it works on"),
        cancelled = cancelled => cancelled.expect("cancelled"),
    }
}

#[tokio::test]
async fn the_runs_of_a_cluster_are_along_a_line_of_time_and_a_small_fleet_has_no_filters() {
    let site = open();
    let journal = &site.app.fleet().all()[0].shared.journal;
    for outcome in [Outcome::NothingToDo, Outcome::Succeeded] {
        let wish = Wish { cluster: "a".to_owned(), trigger: Trigger::Alert, alerts: key("f"), members: Vec::new() };
        let run = journal.accept(wish).await.expect("accepted");
        journal.append(run, Entry::Finished(outcome)).await.expect("written");
    }
    let page = site.get("/clusters/a", "").await.body;
    let (_, line) = page.split_once("<figure class=\"timeline\">").expect("a timeline");
    for title in ["<title>Run 1: nothing to do</title>", "<title>Run 2: succeeded</title>"] {
        assert!(line.contains(title), "{page}");
    }
    assert!(!site.get("/", "").await.body.contains("role=\"search\""));
}

#[tokio::test]
async fn a_long_error_is_on_a_page_once() {
    let site = open();
    let cluster = Arc::clone(&site.app.fleet().all()[0]);
    let wish = Wish { cluster: "a".to_owned(), trigger: Trigger::Alert, alerts: key("f"), members: Vec::new() };
    let run = cluster.shared.journal.accept(wish).await.expect("accepted");
    let detail = "connection refused, and so on for many more words".to_owned();
    let reason = Reason::ClusterUnreachable { detail: detail.clone() };
    cluster.shared.journal.append(run, Entry::Finished(Outcome::Failed { reason })).await.expect("written");
    cluster.ledger().await.expect("read");
    for path in ["/", "/clusters/a"] {
        let page = site.get(path, "").await.body;
        // Besides the tooltip of the list of runs.
        let shown = page.matches(&detail).count()
            - page.matches(&format!("title=\"no endpoint answered with a member list: {detail}\"")).count();
        assert_eq!(shown, 1, "{path}: {page}");
    }
}
