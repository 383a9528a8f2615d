//! While an alert fires, the page, the API, the metrics and `plan` name it and the one reason why nothing runs, however
//! the last run ended.

use std::process::Output;

use serde_json::{Value, json};
use testkit::{Defragd, EtcdVersion, until};

use crate::{
    faults,
    rig::{MINUTE, Rig, TOKEN, ended_run, notification},
};

const NAME: &str = "EtcdFragmentationHigh";
/// As the alert's `startsAt`.
const SINCE: &str = "EtcdFragmentationHigh firing since 2026-11-23 10:00 UTC";

fn alert(status: &str) -> Value {
    let labels = [("alertname", NAME), ("etcd_cluster", "demo"), ("severity", "warning")];
    let mut alert = notification(status, &labels, "f1");
    alert["alerts"][0]["annotations"] = json!({"summary": "much of the file is free"});
    alert
}

async fn post(defragd: &Defragd, status: &str) {
    let answer = defragd.post_alerts(&alert(status), Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
}

async fn page(defragd: &Defragd) -> String {
    let page = defragd.get("/clusters/demo").await.unwrap().body;
    page.replace("&quot;", "\"").replace("&amp;", "&")
}

/// Page, API and metrics agree on this hold and contain these words. Returns the cluster.
async fn shows(defragd: &Defragd, code: &str, words: &[&str]) -> Value {
    let cluster = until(&format!("{code} to be shown"), MINUTE, || async {
        let cluster = defragd.json("/api/v1/clusters").await?["clusters"][0].clone();
        anyhow::ensure!(cluster["request"]["hold"]["reason"]["code"] == code, "{cluster}");
        Ok(cluster)
    })
    .await
    .unwrap();
    let fires = &cluster["request"]["alerts"][0];
    assert_eq!((&fires["labels"]["alertname"], &fires["labels"]["severity"]), (&json!(NAME), &json!("warning")));
    assert_eq!(fires["summary"], "much of the file is free");
    let page = page(defragd).await;
    assert!(page.contains(SINCE) && !page.contains("No alert is requesting"), "{page}");
    for words in words {
        assert!(page.contains(words), "no {words:?} in {page}");
    }
    let labels = [("etcd_cluster", "demo"), ("reason", code)];
    assert_eq!(defragd.metrics().await.unwrap().value("defragd_cluster_waiting", &labels), Some(1.0));
    cluster
}

/// The cluster, once it is in this state.
async fn is(defragd: &Defragd, state: &str, activity: &str) -> Value {
    until(&format!("the state {state}, {activity}"), MINUTE, || async {
        let cluster = defragd.json("/api/v1/clusters").await?["clusters"][0].clone();
        anyhow::ensure!(cluster["state"] == state && cluster["activity"] == activity, "{cluster}");
        Ok(cluster)
    })
    .await
    .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The codes of a plan's holds.
fn holds(plan: &Value) -> Vec<&str> {
    plan["holds"].as_array().unwrap().iter().map(|hold| hold["reason"]["code"].as_str().unwrap()).collect()
}

async fn planned(rig: &Rig, extra: &[&str]) -> (Option<i32>, Value) {
    let data_dir = format!("--data-dir={}", rig.path("journal").display());
    let args = [&["-o", "json", "--cluster-name=demo", data_dir.as_str()], extra].concat();
    let output = rig.command("plan", &args).await;
    let plans: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    (output.status.code(), plans["plans"][0].clone())
}

async fn act(defragd: &Defragd, path: &str, body: Value) {
    let answer = defragd.post(path, body.to_string(), Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_observed_run_the_alert_still_fires_until_it_is_resolved() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=observe"]).await;
    post(&defragd, "firing").await;
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "observed");
    let cluster = shows(&defragd, "served", &["Run 1 for the alert ended: observed; would have defragmented"]).await;
    assert_eq!(cluster["request"]["served_by"]["run"], 1, "{cluster}");
    defragd.logs("EtcdFragmentationHigh firing since 2026-11-23 10:00 UTC. Run 1 for the alert", MINUTE).await.unwrap();
    is(&defragd, "fragmented", "idle").await;
    // With --mode, as the server was started.
    let (code, plan) = planned(&rig, &["--mode=observe"]).await;
    assert_eq!((code, holds(&plan)), (Some(3), vec!["observe_mode"]), "{plan}");
    assert_eq!(rig.defrags().await, [0, 0, 0]);

    post(&defragd, "resolved").await;
    let cluster = defragd.json("/api/v1/clusters").await.unwrap()["clusters"][0].clone();
    assert_eq!(cluster["request"], Value::Null, "{cluster}");
    let page = page(&defragd).await;
    assert!(page.contains("No alert is requesting a run") && !page.contains(SINCE), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cancelled_run_the_page_says_who_cancelled_it_and_that_the_alert_still_fires() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=approve"]).await;
    post(&defragd, "firing").await;
    shows(&defragd, "awaiting_approval", &["Waiting for approval, until "]).await;
    act(&defragd, "/api/v1/clusters/demo/cancel", json!({"by": "anna", "reason": "not now"})).await;
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "stopped");
    shows(&defragd, "served", &["Run 1 for the alert ended: stopped: cancelled by anna: not now"]).await;
    // Sent again, it requests another run, which an operator rejects.
    post(&defragd, "firing").await;
    shows(&defragd, "awaiting_approval", &[]).await;
    act(&defragd, "/api/v1/runs/2/reject", json!({"by": "ben", "reason": "a release"})).await;
    post(&defragd, "firing").await;
    shows(&defragd, "rejected", &["Rejected by ben: a release; no run is requested until "]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_run_the_page_names_the_alert_the_failure_and_the_next_run() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let leader = rig.cluster.leader().await.unwrap();
    let defragd = rig.serve(&["--mode=enforce", "--recovery-timeout=4s", "--breaker-failures=1"]).await;
    let held = faults::hold(&rig).await;
    post(&defragd, "firing").await;
    let first = faults::defragmenting(&rig.cluster).await;
    let dies = (0..3).find(|index| *index != first && *index != leader).unwrap();
    rig.cluster.kill(dies).await.unwrap();
    drop(held);
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "failed");
    // The next run is created after a while, and waits for the same.
    shows(&defragd, "breaker_open", &["the breaker is open since"]).await;
    let cluster = is(&defragd, "needs_attention", "waiting").await;
    let problems = cluster["problems"].to_string();
    let down = format!("member {} is down", rig.cluster.member(dies).name());
    assert!(problems.contains(&down) && problems.contains("the last run, 1, failed"), "{problems}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_daily_limit_used_up_everything_names_it_and_an_operators_run_is_not_held() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let limits = ["--mode=enforce", "--max-runs-per-day=1", "--cooldown=0s"];
    let defragd = rig.serve(&limits).await;
    post(&defragd, "firing").await;
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "succeeded");
    let limit = "Waiting: daily limit reached (1 of 1, max_runs_per_day), next run after ";
    let cluster = shows(&defragd, "daily_limit", &[limit, "Run 1 ended at", "succeeded"]).await;
    assert!(cluster["request"]["hold"]["until"].is_string(), "{cluster}");
    let (code, plan) = planned(&rig, &limits).await;
    assert_eq!((code, holds(&plan)), (Some(3), vec!["daily_limit"]), "{plan}");
    let (code, plan) = planned(&rig, &[&limits[..], &["--as-manual"]].concat()).await;
    assert_eq!((code, holds(&plan)), (Some(0), vec![]), "{plan}");
    // The server says the same.
    for (query, held) in [("", vec!["daily_limit"]), ("?as_manual=true", vec![])] {
        let plan = defragd.json(&format!("/api/v1/clusters/demo/plan{query}")).await.unwrap();
        assert_eq!(holds(&plan), held, "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_lists_all_holds_and_approve_shows_the_alert_and_the_plan_before_it_asks() {
    let rig = Rig::steady(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=approve"]).await;
    post(&defragd, "firing").await;
    shows(&defragd, "awaiting_approval", &[]).await;
    is(&defragd, "fragmented", "waiting_for_approval").await;
    act(&defragd, "/api/v1/clusters/demo/pause", json!({"by": "ben", "reason": "release"})).await;
    let (code, plan) = planned(&rig, &["--mode=approve"]).await;
    assert_eq!((code, holds(&plan)), (Some(3), vec!["awaiting_approval", "paused"]), "{plan}");
    assert_eq!(plan["totals"]["members"], 3, "{plan}");
    let (code, plan) = planned(&rig, &["--mode=approve", "--as-manual"]).await;
    assert_eq!((code, holds(&plan)), (Some(3), vec!["paused"]), "{plan}");
    let run = defragd.json("/api/v1/runs/1").await.unwrap();
    assert_eq!(holds(&run["plan"]), ["awaiting_approval", "paused"], "{run}");

    let approve = |extra: &'static [&'static str]| {
        let token = format!("--token-file={}", rig.path("token").display());
        let args = ["approve", "1", "--server", defragd.url(), "--by", "anna", &token];
        let mut command = tokio::process::Command::new(crate::rig::binary());
        command.args(args).args(extra).stdin(std::process::Stdio::null()).kill_on_drop(true);
        async move { command.output().await.unwrap() }
    };
    let asked = approve(&[]).await;
    let said = text(&asked);
    assert!(!asked.status.success() && said.contains("pass --yes"), "{said}");
    let leader = rig.cluster.member(rig.cluster.leader().await.unwrap()).name();
    for words in [
        "Alert EtcdFragmentationHigh firing since 2026-11-23 10:00 UTC: much of the file is free",
        "severity=\"warning\"",
        "3 members would be defragmented, one at a time, in this order: up to",
        "paused by ben: release",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert!(said.contains(&format!("{leader} is the leader")), "{said}");
    let run = defragd.json("/api/v1/runs/1").await.unwrap();
    assert_eq!(run["approved"], Value::Null, "{run}");
    let done = approve(&["--yes"]).await;
    assert!(done.status.success(), "{}", text(&done));
    let run = defragd.json("/api/v1/runs/1").await.unwrap();
    assert_eq!(run["approved"]["by"], "anna", "{run}");
    let data_dir = format!("--data-dir={}", rig.path("journal").display());
    let shown = tokio::process::Command::new(crate::rig::binary()).args(["runs", "show", "1", &data_dir]).output();
    let shown = text(&shown.await.unwrap());
    assert!(
        shown.contains("alert EtcdFragmentationHigh firing since") && shown.contains("accepted, for 1 alert ("),
        "{shown}"
    );
}
