//! One replica, as most people install it.

use serde_json::json;

use crate::rig::{MINUTE, Rig};
use testkit::until;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside"]
async fn one_replica() {
    let rig = Rig::new().await;
    let notes = rig.install(&rig.values()).await;
    // The first commands that an operator types are those of the notes.
    for line in notes.lines().filter_map(|line| line.trim().strip_prefix("kubectl ")) {
        let args: Vec<_> = line.split_whitespace().collect();
        let said = rig.lab.kubectl(&args).await.unwrap();
        println!("$ kubectl {line}\n{said}");
    }

    // Prometheus reaches it, a stranger does not; and both pods exist and have a network: the stranger reaches the other.
    let ip = rig.kubectl(&["get", "service", "defragd", "-o=jsonpath={.spec.clusterIP}"]).await;
    until("the network policy", MINUTE, || async {
        anyhow::ensure!(!rig.reaches("default", &ip, 9379).await, "default still reaches it");
        Ok(())
    })
    .await
    .unwrap();
    assert!(rig.reaches("monitoring", &ip, 9379).await, "monitoring does not reach it");
    let url = rig.url().await;
    let metrics = rig.get(&format!("{url}/metrics")).await;
    assert!(metrics.contains("etcd_cluster=\"apps\""), "{metrics}");

    // It may do nothing in Kubernetes: it has no token, and its account no rights.
    let account = "--as=system:serviceaccount:defragd:defragd";
    for what in ["list pods", "get secrets", "create leases"] {
        let args: Vec<_> = ["auth", "can-i"].into_iter().chain(what.split(' ')).chain([account]).collect();
        assert!(rig.lab.kubectl(&args).await.is_err(), "it may {what}");
    }
    let pod = rig.kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=defragd", "-o=json"]).await;
    assert!(!pod.contains("serviceaccount"), "a token is mounted: {pod}");

    let claim = rig.kubectl(&["get", "pvc", "-o=jsonpath={.items[*].status.phase}"]).await;
    assert_eq!(claim, "Bound");

    let answer = rig.alert(&url).await;
    assert_eq!(answer["alerts"][0]["decision"], json!("accepted"), "{answer}");
    let run = rig.ended_run(&url).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(run["members"].as_array().unwrap().len(), 3);
    rig.assert_tight().await;
    // By hand, in the pod: the server there runs it.
    let by_hand = rig.kubectl(&["exec", "deployment/defragd", "--", "defragd", "run", "--by", "anna"]).await;
    assert!(by_hand.contains("Nothing to do"), "{by_hand}");
    let runs = rig.get(&format!("{url}/api/v1/runs")).await;
    assert!(runs.contains("\"anna\""), "{runs}");

    // A process that does not answer is replaced long before the pod's own grace period, which is for a run, is over.
    rig.signal_defragd("STOP");
    until("the container to be replaced", MINUTE * 3, || async {
        let restarts = "-o=jsonpath={.items[0].status.containerStatuses[0].restartCount}";
        let restarts = rig.kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=defragd", restarts]).await;
        anyhow::ensure!(restarts == "1", "{restarts} restarts");
        Ok(())
    })
    .await
    .unwrap();
    // With the journal.
    until("its successor to serve", MINUTE * 2, || async {
        let runs = rig.try_get(&format!("{url}/api/v1/runs")).await?;
        anyhow::ensure!(runs.contains("\"succeeded\""), "{runs}");
        Ok(())
    })
    .await
    .unwrap();
}
