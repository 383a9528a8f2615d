//! The API through the real router, over fakes at the ports.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header},
};
use serde_json::{Value, json};
use tower::util::ServiceExt;

use super::*;
use crate::{
    adapters::http::{Access, Options, Web, router},
    app::{
        cluster::tests::{cluster_in, serve_for, shared},
        fake::{FakeEtcd, FakeJournal},
    },
    config::Settings,
    core::policy::{Mode, Policy},
};

const TOKEN: &str = "0123456789abcdef";

fn site(mode: Mode, access: Access) -> (Arc<App<FakeEtcd, FakeJournal>>, Router) {
    let world = shared(1);
    let cluster = cluster_in(&world, "a", Policy { mode, ..Policy::default() });
    let app = Arc::new(App::new(vec![cluster], world));
    let options = Options {
        access,
        telemetry_path: "/metrics".to_owned(),
        timeout_offset: Duration::ZERO,
        max_requests: 40,
        route_prefix: String::new(),
        link_prefix: String::new(),
        web: Arc::new(Web::plain()),
    };
    let router = router(Arc::clone(&app), options);
    (app, router)
}

async fn ask(router: &Router, method: &str, path: &str, body: &Value, token: &str) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::from(body.to_string()))
        .expect("a request");
    let answer = router.clone().oneshot(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into())))
}

async fn post(router: &Router, path: &str, body: &Value) -> (u16, Value) {
    ask(router, "POST", path, body, TOKEN).await
}

fn notification(status: &str) -> Value {
    let alert = json!({
        "status": status, "labels": {"etcd_cluster": "a"}, "startsAt": "2026-11-23T00:00:00Z", "fingerprint": "f"
    });
    json!({ "version": "4", "alerts": [alert] })
}

#[tokio::test(start_paused = true)]
async fn every_order_needs_the_token_and_the_content_type() {
    let paths = ["clusters/a/pause", "clusters/a/resume", "clusters/a/run", "runs/1/approve"];
    let (app, router) = site(Mode::Enforce, Access::tokens(Some(TOKEN.to_owned()), None));
    for path in paths {
        let path = format!("/api/v1/{path}");
        assert_eq!(ask(&router, "POST", &path, &json!({"reason": "x"}), "wrong-wrong-wrong").await.0, 401, "{path}");
        assert_eq!(ask(&router, "GET", &path, &json!({}), TOKEN).await.0, 405, "{path}");
        let plain = Request::post(&path).header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
        let plain = plain.body(Body::from("{}")).expect("a request");
        assert_eq!(router.clone().oneshot(plain).await.expect("an answer").status(), 415, "{path}");
    }
    let (_, closed) = site(Mode::Enforce, Access::closed());
    for path in paths {
        assert_eq!(post(&closed, &format!("/api/v1/{path}"), &json!({"reason": "x"})).await.0, 403, "{path}");
    }
    assert!(app.runs(10).await.expect("read").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_paused_shown_so_and_resumed() {
    let (_app, router) = site(Mode::Enforce, Access::tokens(Some(TOKEN.to_owned()), None));
    let order = json!({"by": "ann", "reason": "upgrade", "for": "2h"});
    let (status, answer) = post(&router, "/api/v1/clusters/a/pause", &order).await;
    assert_eq!((status, &answer["cluster"]["paused"]["by"]), (200, &json!("ann")), "{answer}");
    let (_, clusters) = ask(&router, "GET", "/api/v1/clusters", &json!({}), "").await;
    let paused = &clusters["clusters"][0]["paused"];
    assert_eq!((&paused["code"], &paused["reason"]), (&json!("paused"), &json!("upgrade")), "{clusters}");
    assert_eq!(paused["until"], "2026-11-23T02:00:00Z");
    let (_, metrics) = ask(&router, "GET", "/metrics", &json!({}), "").await;
    let metrics = metrics.as_str().expect("text");
    assert!(metrics.contains("defragd_cluster_paused{etcd_cluster=\"a\"} 1"), "{metrics}");
    assert!(metrics.contains("defragd_cluster_breaker_open{etcd_cluster=\"a\"} 0"), "{metrics}");
    assert!(!metrics.contains("next_window_timestamp_seconds{"), "there are no windows");
    let (status, answer) = post(&router, "/api/v1/clusters/a/resume", &json!({"by": "ann"})).await;
    assert_eq!((status, &answer["cluster"]["paused"]), (200, &Value::Null), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn orders_that_cannot_be_carried_out_say_why() {
    let (_app, router) = site(Mode::Enforce, Access::tokens(None, None));
    for (path, body, status, text) in [
        ("clusters/b/run", json!({}), 404, "there is no cluster \"b\""),
        ("clusters/a/pause", json!({}), 400, "needs a reason"),
        ("clusters/a/pause", json!({"reason": "x", "for": "-2h"}), 400, "above 0"),
        ("clusters/a/pause", json!({"reason": "x", "fro": "2h"}), 400, "fro"),
        ("clusters/a/pause", json!({"reason": "x".repeat(501)}), 400, "500 characters"),
        ("runs/7/approve", json!({}), 404, "there is no run 7"),
    ] {
        let (code, answer) = post(&router, &format!("/api/v1/{path}"), &body).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(code == status && error.contains(text), "{path}: {code} {answer}");
    }
    assert_eq!(post(&router, "/api/v1/clusters/a/run", &json!({})).await, (202, json!({"run": 1})));
    let (status, answer) = post(&router, "/api/v1/clusters/a/run", &json!({})).await;
    assert_eq!((status, &answer["reason"]["code"]), (409, &json!("already_requested")), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_alert_waits_for_approval_and_is_cancelled_or_approved() {
    let (app, router) = site(Mode::Approve, Access::tokens(None, None));
    let (status, answer) = post(&router, "/api/v1/alerts", &notification("firing")).await;
    assert_eq!((status, &answer["alerts"][0]["decision"]), (202, &json!("accepted")), "{answer}");
    serve_for(&app.clusters[0], Duration::from_mins(1)).await;
    let (_, clusters) = ask(&router, "GET", "/api/v1/clusters", &json!({}), "").await;
    assert_eq!(clusters["clusters"][0]["waiting_for"]["code"], "awaiting_approval", "{clusters}");
    let (_, answer) = post(&router, "/api/v1/alerts", &notification("resolved")).await;
    assert_eq!(answer["alerts"][0]["decision"], "cancelled", "{answer}");
    assert_eq!(post(&router, "/api/v1/runs/1/approve", &json!({})).await.0, 409);

    // A new firing of the same alert.
    tokio::time::sleep(Duration::from_mins(10)).await;
    let (_, answer) = post(&router, "/api/v1/alerts", &notification("firing")).await;
    assert_eq!(answer["alerts"][0]["run"], 2, "{answer}");
    assert_eq!(post(&router, "/api/v1/runs/2/approve", &json!({"by": "ann"})).await.0, 200);
    serve_for(&app.clusters[0], Duration::from_mins(10)).await;
    let (_, run) = ask(&router, "GET", "/api/v1/runs/2", &json!({}), "").await;
    assert_eq!((&run["outcome"], &run["approved"]["by"]), (&json!("succeeded"), &json!("ann")), "{run}");
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_only_while_it_can_do_its_work() {
    let (app, router) = site(Mode::Enforce, Access::tokens(None, None));
    let ready = async || {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (code, why) = ask(&router, "GET", "/-/ready", &json!({}), "").await;
        assert_eq!(ask(&router, "HEAD", "/-/ready", &json!({}), "").await.0, code);
        assert_eq!(ask(&router, "HEAD", "/-/healthy", &json!({}), "").await.0, 200, "alive in any case");
        (code, why.as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ready().await, (503, "the journal of earlier processes is being taken up\n".to_owned()));
    app.recover().await.expect("recovered");
    assert_eq!(ready().await.0, 200);
    app.shared.journal.break_down();
    assert_eq!(ready().await, (503, "cannot write the journal: disk full\n".to_owned()));
    app.shared.journal.mend();
    assert_eq!(ready().await.0, 200, "without a write from elsewhere");
    app.stopping();
    assert_eq!(ready().await, (503, "defragd is shutting down\n".to_owned()));
}

fn settings(text: &str) -> Result<Settings, String> {
    crate::config::raw::parse(text).and_then(|file| Settings::from_raw(file).map_err(|error| error.to_string()))
}

#[tokio::test(start_paused = true)]
async fn a_reload_swaps_the_rules_and_leaves_a_run_under_way_with_its_own() {
    const PLAIN: &str = "clusters: [{name: a, endpoints: ['http://127.0.0.1:1'], policy: {mode: enforce}}]";
    let world = shared(1);
    let before = settings(PLAIN).expect("good").clusters.remove(0);
    let cluster = Arc::new(Cluster::new(before, FakeEtcd::new(3), Arc::clone(&world)));
    let app = App::new(vec![Arc::clone(&cluster)], world);
    let with = |rest: &str| format!("clusters: [{{name: a, endpoints: ['http://127.0.0.1:1'], {rest}}}]");
    let read = |text: String| app.take_over(settings(&text)?);

    for (what, text) in [
        ("clusters: were a and would be b", "clusters: [{name: b, endpoints: ['http://127.0.0.1:1']}]".to_owned()),
        ("cluster a: endpoints changed", PLAIN.replace("127.0.0.1:1", "127.0.0.1:9")),
        ("cluster a: tls changed", with("tls: {ca_file: /nowhere}")),
        ("cluster a: auth changed", with("auth: {username: root, password_file: /nowhere}")),
        ("cluster a: policy.compaction.older_than changed", with("policy: {compaction: {older_than: 1h}}")),
    ] {
        let refused = read(text).expect_err(what);
        assert!(refused.contains(what), "{refused}");
        assert_eq!(cluster.summary().mode, Mode::Enforce, "nothing of it is taken over");
    }

    cluster.request(Vec::new()).await.expect("accepted");
    let held = cluster.rules();
    read(with("policy: {mode: observe}, match: [{job: other}]")).expect("good");
    assert_eq!((held.policy.mode, cluster.summary().mode), (Mode::Enforce, Mode::Observe));
    let ignored = app.notify(serde_json::from_value(notification("firing")).expect("one")).await.expect("decided");
    assert!(
        matches!(ignored[0].decision, AlertDecision::Ignored { reason: Reason::UnknownCluster, .. }),
        "{ignored:?}"
    );
}
