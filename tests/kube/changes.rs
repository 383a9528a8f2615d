//! What changes under a pod that serves: an upgrade and a rollback in the middle of a run, and a renewed Secret.

use serde_json::{Value, json};
use testkit::{DefragWatch, Identity, fragment, until};

use crate::rig::{MIB, MINUTE, Rig};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside"]
async fn upgrade_rollback_and_certificate() {
    let rig = Rig::new().await;
    let mut values = rig.values();
    // Time to replace the pod between two members.
    values["config"]["clusters"][0]["policy"]["pause_between_members"] = json!("20s");
    values["config"]["clusters"][0]["policy"]["cooldown"] = json!("1s");
    rig.install(&values).await;
    let url = rig.url().await;

    values["logLevel"] = json!("debug");
    let file = rig.write_values(&values);
    let chart = Rig::chart();
    replaced_in_a_run(&rig, &url, &["upgrade", "defragd", &chart, "-f", &file]).await;
    fragment(rig.etcd(), 40 * MIB, 8 * MIB).await.unwrap();
    replaced_in_a_run(&rig, &url, &["rollback", "defragd", "1"]).await;

    let before = pod(&rig).await;
    renewed_certificate(&rig, &url).await;
    assert_eq!(pod(&rig).await, before, "it was restarted");
}

/// Helm replaces the pod once a run's first member is done: the old one ends in order, and the new one does the
/// rest of the same request.
async fn replaced_in_a_run(rig: &Rig, url: &str, helm: &[&str]) {
    let watch = DefragWatch::start(rig.etcd()).unwrap();
    let earlier = rig.runs(url).await.unwrap();
    let answer = rig.alert(url).await;
    assert_eq!(answer["alerts"][0]["decision"], json!("accepted"), "{answer}");
    let run = rig.run_when(url, "its first member to be done", |run| {
        !earlier.iter().any(|other| other["id"] == run["id"]) && run["members"][0]["member"].is_string()
    });
    let run = run.await;
    let (old, _) = pod(rig).await;
    let helm = helm.iter().copied().chain(["-n", "defragd", "--wait", "--timeout=180s"]).collect::<Vec<_>>();
    // The log is followed to the pod's end, as it goes with the pod.
    let follow = ["logs", "--follow", &old];
    let (log, replaced) = tokio::join!(rig.kubectl(&follow), rig.lab.helm(&helm));
    replaced.unwrap();
    assert!(log.trim_end().lines().last().is_some_and(|line| line.contains("\"stopped\"")), "its last words: {log}");

    assert_ne!(pod(rig).await.0, old);
    let rest = rig.run_when(url, "the rest to be done", |now| now["outcome"] == "succeeded" && now["id"] != run["id"]);
    let rest = rest.await;
    assert_eq!((&rest["trigger"], &rest["alerts"]), (&json!("retry"), &run["alerts"]), "the same request: {rest}");
    let timeline = watch.stop().await;
    assert_eq!(timeline.order().len(), 3, "each member once: {timeline:?}");
    assert_eq!(timeline.max_in_flight(), 1);
    rig.assert_tight().await;
}

/// Proven by a certificate that etcd does not accept, and by another one that it accepts.
async fn renewed_certificate(rig: &Rig, url: &str) {
    let pki = rig.etcd().pki().unwrap();
    for (identity, up) in [(pki.expired_client().unwrap(), 0), (pki.client_named("renewed").unwrap(), 1)] {
        let Identity { cert, key } = identity;
        let text = |file| std::fs::read_to_string(file).unwrap();
        let data = json!({"stringData": {"tls.crt": text(cert), "tls.key": text(key)}});
        rig.kubectl(&["patch", "secret", "defragd-etcd", "-p", &data.to_string()]).await;
        until(&format!("the cluster's up to be {up}"), MINUTE * 4, || async {
            let metrics = rig.try_get(&format!("{url}/metrics")).await?;
            anyhow::ensure!(metrics.contains(&format!("defragd_cluster_up{{etcd_cluster=\"apps\"}} {up}")), "not yet");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// The name of the one pod, and how often its container was restarted.
async fn pod(rig: &Rig) -> (String, Value) {
    let pods = rig.kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=defragd", "-o=json"]).await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    let [pod] = pods["items"].as_array().unwrap().as_slice() else { panic!("not one pod: {pods}") };
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    (name, pod["status"]["containerStatuses"][0]["restartCount"].clone())
}
