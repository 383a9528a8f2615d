//! The main job: Prometheus scrapes, the shipped alert fires, Alertmanager posts, the cluster is defragmented.

use std::path::Path;

use testkit::{Alertmanager, DefragWatch, Defragd, EtcdVersion, Prometheus, Writer, on_each_version, until};

use crate::rig::{MINUTE, Rig, TOKEN, ended_run, members_of};

on_each_version! { an_alert_rolls_a_cluster_of _ => roll }

async fn roll(version: EtcdVersion) {
    let rig = Rig::steady(version).await;
    let leader = rig.cluster.leader().await.unwrap();
    let mut writer = Writer::start(&rig.cluster).await.unwrap();
    let watch = DefragWatch::start(&rig.cluster).unwrap();

    let defragd = rig.serve_with_a_gate().await;
    let alertmanager = start_alertmanager(&rig, &defragd).await;
    let prometheus = start_prometheus(&rig, &defragd, &alertmanager).await;
    prometheus.wait_firing("EtcdFragmentationHigh", MINUTE).await.unwrap();

    until("Alertmanager to ask for a run", MINUTE, || async {
        let runs = defragd.json("/api/v1/runs").await?;
        anyhow::ensure!(runs["runs"].as_array().is_some_and(|runs| !runs.is_empty()), "no run yet");
        Ok(())
    })
    .await
    .unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(run["trigger"], "alert");

    // The servers' own evidence.
    let timeline = watch.stop().await;
    let order = timeline.order();
    assert_eq!(order.len(), 3, "each member once: {order:?}");
    assert_eq!(order.last(), Some(&leader), "the leader last: {order:?}");
    assert_eq!(timeline.max_in_flight(), 1);
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    rig.assert_tight().await;
    let names: Vec<_> = order.iter().map(|index| rig.cluster.member(*index).name().to_owned()).collect();
    assert_eq!(members_of(&run), names, "the journal says what the servers say");

    let report = writer.stop().await.unwrap();
    assert!(report.acked > 100, "{report:?}");
    assert_eq!(writer.verify(&rig.cluster).await.unwrap(), report.acked, "every acknowledged key reads back");

    let metrics = defragd.metrics().await.unwrap();
    let labels = [("etcd_cluster", "demo"), ("trigger", "alert"), ("outcome", "succeeded")];
    assert_eq!(metrics.count("defragd_runs_total", &labels), Some(1));
    assert!(metrics.value("defragd_reclaimed_bytes_total", &[("etcd_cluster", "demo")]).unwrap() > 60.0 * 1_048_576.0);
    crate::dashboards::assert_every_query_answers(&prometheus).await;
    until("the alert to resolve", MINUTE, || async {
        let firing = prometheus.alerts().await?.into_iter().any(|a| a.labels["alertname"] == "EtcdFragmentationHigh");
        anyhow::ensure!(!firing, "it fires on");
        Ok(())
    })
    .await
    .unwrap();
    let warned = defragd.log().unwrap().contains("gets no more fixes");
    assert_eq!(warned, rig.cluster.version() == EtcdVersion::V3_4, "only 3.4 has no support");
    assert!(defragd.terminate(MINUTE).await.unwrap().success());
}

fn shipped(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts").join(file)).unwrap()
}

async fn start_alertmanager(rig: &Rig, defragd: &Defragd) -> Alertmanager {
    // The shipped configuration, with this test's addresses and a short wait.
    let token = rig.path("alertmanager-token");
    std::fs::write(&token, TOKEN).unwrap();
    let config = shipped("alertmanager.yml")
        .replace("http://127.0.0.1:9379", defragd.url())
        .replace("/etc/alertmanager/defragd.token", token.to_str().unwrap())
        .replace("group_wait: 30s", "group_wait: 1s");
    assert!(config.contains(defragd.url()) && config.contains(token.to_str().unwrap()));
    Alertmanager::start(&rig.tools, &config, &rig.path("alertmanager.log")).await.unwrap()
}

async fn start_prometheus(rig: &Rig, defragd: &Defragd, alertmanager: &Alertmanager) -> Prometheus {
    // The shipped rules, with the waiting shortened and the size fitted to a small file.
    let rules = rig.path("defragd.rules.yml");
    let text = testkit::shortened_rules(&shipped("defragd.rules.yml")).unwrap();
    std::fs::write(&rules, text).unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{}']\n\
         scrape_configs:\n  - job_name: defragd\n    static_configs: [{{targets: ['{}']}}]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n",
        rules.display(),
        defragd.target(),
        alertmanager.target(),
    );
    Prometheus::start(&rig.tools, &config, &rig.path("prometheus.log")).await.unwrap()
}
