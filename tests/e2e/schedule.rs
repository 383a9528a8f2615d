//! A schedule instead of alerts, on a real clock.

use std::time::{Duration, SystemTime};

use serde_json::json;
use testkit::{EtcdVersion, until};

use crate::rig::{MINUTE, Rig};

/// The run that the schedule requests within a minute, with all members, on a slow machine.
const LONG: Duration = Duration::from_mins(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_repairs_a_fragmented_cluster_without_any_alert() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let mut cluster = rig.cluster_keys(&json!([]));
    cluster["policy"]["schedule"] = json!([{"cron": "* * * * *"}]);
    // What the second minute finds is measured in the cooldown of the first.
    cluster["policy"]["cooldown"] = "6h".into();
    let config = rig.path("config.yaml");
    std::fs::write(&config, json!({"clusters": [cluster]}).to_string()).unwrap();
    let defragd = rig.serve_file(&config, &[]).await;

    let ended = |id: i64| {
        let path = format!("/api/v1/runs/{id}");
        let defragd = &defragd;
        async move {
            until("the run that the schedule requests to end", LONG, || async {
                let run = defragd.json(&path).await?;
                anyhow::ensure!(run["outcome"].is_string(), "it is under way: {run}");
                Ok(run)
            })
            .await
            .unwrap()
        }
    };
    let run = ended(1).await;
    assert_eq!((&run["outcome"], &run["trigger"]), (&"succeeded".into(), &"schedule".into()), "{run}");
    assert_eq!(run["alerts"][0]["fingerprint"], "schedule", "{run}");
    assert!(run["alerts"][0]["starts_at"].as_str().unwrap().ends_with(":00Z"), "a whole minute: {run}");
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    rig.assert_tight().await;

    // Each later minute measures, and nothing is needed.
    let run = ended(2).await;
    assert_eq!((&run["outcome"], &run["trigger"]), (&"nothing_to_do".into(), &"schedule".into()), "{run}");
    assert_eq!(rig.defrags().await, [1, 1, 1]);

    until("the next time to be shown", MINUTE, || async {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
        let metrics = defragd.get("/metrics").await?.body;
        let name = "defragd_cluster_next_scheduled_timestamp_seconds{etcd_cluster=\"demo\"} ";
        let next: f64 = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().parse()?;
        anyhow::ensure!(next > now && next % 60.0 == 0.0, "{next} at {now}");
        let cluster = defragd.json("/api/v1/clusters").await?["clusters"][0].clone();
        anyhow::ensure!(cluster["next_scheduled"].as_str().is_some_and(|at| at.ends_with(":00Z")), "{cluster}");
        let page = defragd.get("/clusters/demo").await?.body;
        anyhow::ensure!(page.contains("The schedule requests the next run at "), "{page}");
        Ok(())
    })
    .await
    .unwrap();
}
