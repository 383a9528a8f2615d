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
    adapters::http::AccessPolicy,
    app::{
        cluster::tests::serve_for,
        fake_site::{FakeApp, site},
    },
    core::policy::Mode,
};

#[path = "service_tests/reload.rs"]
mod reload;

const TOKEN: &str = "0123456789abcdef";

async fn scrape(app: &FakeApp) -> String {
    let mut page = String::new();
    app.scrape(Duration::from_secs(5), &mut page).await.expect("metrics");
    page
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
async fn every_action_needs_the_token_and_the_content_type() {
    let paths = ["clusters/a/pause", "clusters/a/resume", "clusters/a/run", "runs/1/approve"];
    let (app, router) = site(&["a"], Mode::Enforce, AccessPolicy::tokens(Some(TOKEN.to_owned()), None));
    for path in paths {
        let path = format!("/api/v1/{path}");
        assert_eq!(ask(&router, "POST", &path, &json!({"reason": "x"}), "wrong-wrong-wrong").await.0, 401, "{path}");
        assert_eq!(ask(&router, "GET", &path, &json!({}), TOKEN).await.0, 405, "{path}");
        let plain = Request::post(&path).header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
        let plain = plain.body(Body::from("{}")).expect("a request");
        assert_eq!(router.clone().oneshot(plain).await.expect("an answer").status(), 415, "{path}");
    }
    let (_, closed) = site(&["a"], Mode::Enforce, AccessPolicy::exporter_only(None, None, &[]).expect("no files"));
    for path in paths {
        assert_eq!(post(&closed, &format!("/api/v1/{path}"), &json!({"reason": "x"})).await.0, 403, "{path}");
    }
    assert!(app.runs(10).await.expect("read").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_paused_shown_so_and_resumed() {
    let (_app, router) = site(&["a"], Mode::Enforce, AccessPolicy::tokens(Some(TOKEN.to_owned()), None));
    let order = json!({"by": "ann", "reason": "upgrade", "for": "1d12h"});
    let (status, answer) = post(&router, "/api/v1/clusters/a/pause", &order).await;
    assert_eq!((status, &answer["cluster"]["paused"]["by"]), (200, &json!("ann")), "{answer}");
    let (_, clusters) = ask(&router, "GET", "/api/v1/clusters", &json!({}), "").await;
    let paused = &clusters["clusters"][0]["paused"];
    assert_eq!((&paused["code"], &paused["reason"]), (&json!("paused"), &json!("upgrade")), "{clusters}");
    assert_eq!(paused["until"], "2026-11-24T12:00:00Z");
    let (_, metrics) = ask(&router, "GET", "/metrics", &json!({}), "").await;
    let metrics = metrics.as_str().expect("text");
    assert!(metrics.contains("defragd_cluster_paused{etcd_cluster=\"a\"} 1"), "{metrics}");
    assert!(metrics.contains("defragd_cluster_breaker_open{etcd_cluster=\"a\"} 0"), "{metrics}");
    assert!(!metrics.contains("next_window_timestamp_seconds{"), "there are no windows");
    let (status, answer) = post(&router, "/api/v1/clusters/a/resume", &json!({"by": "ann"})).await;
    assert_eq!((status, &answer["cluster"]["paused"]), (200, &Value::Null), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn actions_that_cannot_be_executed_say_why() {
    let (_app, router) = site(&["a"], Mode::Enforce, AccessPolicy::tokens(None, None));
    for (path, body, status, text) in [
        ("clusters/b/run", json!({}), 404, "there is no cluster \"b\""),
        ("clusters/a/pause", json!({}), 400, "needs a reason"),
        ("clusters/a/pause", json!({"reason": "x", "for": "-2h"}), 400, "must not be negative"),
        ("clusters/a/pause", json!({"reason": "x", "for": "0s"}), 400, "above 0"),
        ("clusters/a/pause", json!({"reason": "x", "for": "1mo"}), 400, "days or weeks"),
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
    let (app, router) = site(&["a"], Mode::Approve, AccessPolicy::tokens(None, None));
    let (status, answer) = post(&router, "/api/v1/alerts", &notification("firing")).await;
    assert_eq!((status, &answer["alerts"][0]["decision"]), (202, &json!("accepted")), "{answer}");
    serve_for(&app.fleet().now().clusters[0], Duration::from_mins(1)).await;
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
    serve_for(&app.fleet().now().clusters[0], Duration::from_mins(10)).await;
    let (_, run) = ask(&router, "GET", "/api/v1/runs/2", &json!({}), "").await;
    assert_eq!((&run["outcome"], &run["approved"]["by"]), (&json!("succeeded"), &json!("ann")), "{run}");
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_only_while_it_can_do_its_work() {
    let (app, router) = site(&["a"], Mode::Enforce, AccessPolicy::tokens(None, None));
    let ready = async || {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (code, why) = ask(&router, "GET", "/-/ready", &json!({}), "").await;
        assert_eq!(ask(&router, "HEAD", "/-/ready", &json!({}), "").await.0, code);
        assert_eq!(ask(&router, "HEAD", "/-/healthy", &json!({}), "").await.0, 200, "alive in any case");
        (code, why.as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ready().await, (503, "starting: resuming runs from the journal\n".to_owned()));
    app.recover().await.expect("recovered");
    assert_eq!(ready().await.0, 200);
    app.shared.journal.break_down();
    assert_eq!(ready().await, (503, "cannot write the journal: disk full\n".to_owned()));
    app.shared.journal.recover();
    assert_eq!(ready().await.0, 200, "without a write from elsewhere");
    app.stopping();
    assert_eq!(ready().await, (503, "defragd is shutting down\n".to_owned()));
}
