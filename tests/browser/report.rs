//! `defragd report -o html`, as its reader sees it.

use axum::{Router, extract::Query, routing::get};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::rig::{assert_no_complaints, binary, browser, inspect};

#[derive(Deserialize)]
struct Asked {
    query: String,
    start: i64,
    end: i64,
    step: i64,
}

/// A Prometheus with three clusters: one that grows, one that stays, one whose file is above its quota.
async fn prometheus() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/api/v1/query_range", get(|Query(asked): Query<Asked>| async move { axum::Json(answer(&asked)) }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a month")]
fn answer(asked: &Asked) -> Value {
    let (mib, of_full) = if asked.query.contains("in_use") {
        (600.0, 600.0)
    } else if asked.query.contains("db_size") {
        (900.0, 2_100.0)
    } else if asked.query.contains("quota") {
        (2_048.0, 2_048.0)
    } else {
        return json!({"status": "success", "data": {"resultType": "matrix", "result": []}});
    };
    let growth = if asked.query.contains("quota") { 0.0 } else { 12.0 };
    let series = |cluster: &str, growth: f64| {
        let mib = if cluster == "prod-over" { of_full } else { mib };
        let value = |at: i64| (mib + growth * (at % 10_000_000) as f64 / 86_400.0) * 1_048_576.0;
        let values: Vec<_> = (asked.start..=asked.end)
            .step_by(usize::try_from(asked.step).unwrap())
            .map(|at| json!([at, value(at).to_string()]))
            .collect();
        json!({"metric": {"etcd_cluster": cluster, "member": "m1", "member_id": "1"}, "values": values})
    };
    let result = [series("prod-growing", growth), series("prod-over", 0.0), series("prod-still", 0.0)];
    json!({"status": "success", "data": {"resultType": "matrix", "result": result}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_reads_well_in_both_schemes_and_on_a_phone() {
    let Some(browser) = browser().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = prometheus().await;
    let mut command = tokio::process::Command::new(binary());
    command.args(["report", "--range=30d", "--output=html", "--prometheus.url", &url]).kill_on_drop(true);
    let output = command.output().await.unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains("prod-growing"), "{page}{}", String::from_utf8_lossy(&output.stderr));
    let path = dir.path().join("report.html");
    std::fs::write(&path, &page).unwrap();
    assert!(page.contains("prod-over (file above its quota)"), "{page}");
    browser.open(&format!("file://{}", path.display())).await.unwrap();
    inspect(&browser, "report").await;
    assert_no_complaints(&browser).await;
}
