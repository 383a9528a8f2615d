//! `defragd approve`, `pause`, `resume` and `cancel` against a running `defragd serve`, and its query to Alertmanager at
//! start. There is no etcd: every run is refused, and tried again.

use std::{
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::ensure;
use axum::{Router, routing::get};
use serde_json::{Value, json};
use testkit::{Defragd, Home, until};

use crate::rig::{MINUTE, binary, home};

/// An Alertmanager with one firing alert.
async fn alertmanager() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let alerts = json!([{
        "labels": {"etcd_cluster": "demo"}, "fingerprint": "f", "startsAt": "2026-11-23T10:00:00Z",
        "status": {"state": "active", "silencedBy": [], "inhibitedBy": []},
    }]);
    let router = Router::new().route("/api/v2/alerts", get(move || async move { axum::Json(alerts) }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn serve(home: &Home, alertmanager: &str) -> Defragd {
    let mut flags = Home::nowhere();
    flags.extend(["--mode=approve".to_owned(), format!("--alertmanager.url={alertmanager}")]);
    flags.push(home.flag("--web.bearer-token-file", "token"));
    home.serve(&flags).await.unwrap()
}

async fn act(defragd: &Defragd, token: &Path, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(binary());
    command.args(args).args(["--server", defragd.url(), "--by", "ann", "--token-file"]).arg(token);
    command.kill_on_drop(true).output().await.unwrap()
}

async fn cluster(defragd: &Defragd) -> anyhow::Result<Value> {
    Ok(defragd.json("/api/v1/clusters").await?["clusters"][0].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_reach_the_server_and_outlive_it() {
    let home = home();
    let token = home.write("token", format!("{}\n", Home::TOKEN)).unwrap();
    let alertmanager = alertmanager().await;
    let defragd = serve(&home, &alertmanager).await;
    until("the alert that Alertmanager knows of waits for approval", MINUTE, || async {
        let cluster = cluster(&defragd).await?;
        ensure!(cluster["waiting_for"]["code"] == "awaiting_approval", "{cluster}");
        Ok(())
    })
    .await
    .unwrap();

    let wrong = home.write("wrong", "0123456789abcdef-wrong-token\n").unwrap();
    let refused = act(&defragd, &wrong, &["approve", "1", "--yes"]).await;
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(error.contains("401") && error.contains("bearer token") && !error.contains("wrong-token"), "{error}");
    assert!(
        error.contains("/wrong is another one; pass --token-file with the file of the server's admin token"),
        "{error}"
    );

    let approved = act(&defragd, &token, &["approve", "1", "--yes"]).await;
    assert_eq!(approved.status.code(), Some(0), "{}", String::from_utf8_lossy(&approved.stderr));
    until("the refused run is to be tried again", MINUTE, || async {
        let (cluster, run) = (cluster(&defragd).await?, defragd.json("/api/v1/runs/1").await?);
        ensure!(run["outcome"] == "refused" && run["reason"]["code"] == "cluster_unreachable", "{run}");
        ensure!(run["approved"]["by"] == "ann", "{run}");
        ensure!(cluster["retry_at"].is_string(), "{cluster}");
        Ok(())
    })
    .await
    .unwrap();

    let paused = act(&defragd, &token, &["pause", "--cluster=demo", "--reason=upgrade of the rack", "--for=2h"]).await;
    let said = String::from_utf8(paused.stdout).unwrap();
    assert!(
        said.contains("Cluster demo is paused until 20") && said.contains(" UTC (in 2 h)"),
        "{said}{}",
        String::from_utf8_lossy(&paused.stderr)
    );
    let nobody = act(&defragd, &token, &["pause", "--cluster=other", "--reason=x"]).await;
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("there is no cluster \"other\""));
    defragd.kill().await.unwrap();
    let logged = defragd.log().unwrap().len();

    let defragd = serve(&home, &alertmanager).await;
    let summary = cluster(&defragd).await.unwrap();
    assert_eq!(summary["paused"]["reason"], "upgrade of the rack", "{summary}");
    // It asks Alertmanager again, at any time from now on: an alert that comes after its request was cancelled is a new
    // request, which would stand in the end.
    until("the alerts to be read again", MINUTE, || async {
        let log = defragd.log()?.split_off(logged);
        ensure!(log.contains("read the firing alerts from Alertmanager"), "{log}");
        Ok(())
    })
    .await
    .unwrap();
    let gauge = [("etcd_cluster", "demo")];
    assert_eq!(defragd.metrics().await.unwrap().count("defragd_cluster_paused", &gauge), Some(1));
    let resumed = act(&defragd, &token, &["resume", "--cluster=demo"]).await;
    assert_eq!(resumed.status.code(), Some(0), "{}", String::from_utf8_lossy(&resumed.stderr));
    assert_eq!(defragd.metrics().await.unwrap().count("defragd_cluster_paused", &gauge), Some(0));

    let cancelled = act(&defragd, &token, &["cancel", "--cluster=demo", "--reason=not tonight"]).await;
    assert_eq!(cancelled.status.code(), Some(0), "{}", String::from_utf8_lossy(&cancelled.stderr));
    until("nothing stands any more", MINUTE, || async {
        let cluster = cluster(&defragd).await?;
        let stands = ["active_run", "queued_run", "retry_at"].iter().any(|key| !cluster[*key].is_null());
        ensure!(!stands, "{cluster}");
        Ok(())
    })
    .await
    .unwrap();
    let nothing = act(&defragd, &token, &["cancel", "--cluster=demo"]).await;
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("there is nothing to cancel"));
    let log = defragd.log().unwrap();
    assert!(log.contains("read the firing alerts from Alertmanager"), "{log}");
    assert!(!log.contains("test-token"), "the token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_asks_a_server_for_its_clusters_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("--server=http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let clusters = move || async move {
        count.fetch_add(1, Ordering::Relaxed);
        axum::Json(json!({"clusters": [], "shard": {"ordinal": 1, "total": 2}}))
    };
    let router = Router::new().route("/api/v1/clusters", get(clusters));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let status = tokio::process::Command::new(binary()).args(["status", &server]).output().await.unwrap();
    let said = String::from_utf8_lossy(&status.stdout) + String::from_utf8_lossy(&status.stderr);
    assert!(said.contains(", shard 1 (--total-shards=2), sees it"), "{said}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
