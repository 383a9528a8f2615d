//! Several replicas, of which the one that holds the lock acts.

use serde_json::json;
use testkit::{fragment, until};

use crate::rig::{MIB, MINUTE, Rig};

const PODS: [&str; 2] = ["defragd-0", "defragd-1"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside"]
async fn two_replicas() {
    let rig = Rig::new().await;
    let mut values = rig.values();
    values["replicas"] = json!(2);
    values["config"]["clusters"][0]["policy"]["cooldown"] = json!("1s");
    values["lock"] = json!({"kind": "kubernetes", "ttl": "15s", "apiServerPort": rig.lab.api().port()});
    values["podDisruptionBudget"] = json!({"enabled": true});
    rig.install(&values).await;

    let holder = lease_holder(&rig, "").await;
    let pod = holder.split('_').next().unwrap();
    assert_eq!(pod, lock_holder(&rig).await);
    rolls(&rig).await;

    // The headless Service names each of them.
    let names = rig.kubectl(&["get", "endpointslices", "-o=jsonpath={.items[*].endpoints[*].hostname}"]).await;
    assert!(PODS.iter().all(|pod| names.contains(pod)), "{names}");

    rig.kubectl(&["delete", "pod", pod, "--wait=false"]).await;
    // The other one, or the pod's successor, which has the same name.
    lease_holder(&rig, &holder).await;

    // The other kind. Replicas that do not agree on it would each have a lock: the old ones end first.
    rig.lab.helm(&["uninstall", "defragd", "-n", "defragd", "--wait"]).await.unwrap();
    fragment(rig.etcd(), 40 * MIB, 8 * MIB).await.unwrap();
    values["lock"] = json!({"kind": "etcd", "ttl": "15s"});
    rig.install(&values).await;
    rolls(&rig).await;
    let keys = rig.etcd().etcdctl(&["get", "--prefix", "--keys-only", "/defragd/lock/apps"]).await.unwrap();
    assert!(keys.contains("/defragd/lock/apps"), "the lock is in etcd: {keys}");
    let account = ["auth", "can-i", "update", "leases", "--as=system:serviceaccount:defragd:defragd"];
    assert!(rig.lab.kubectl(&account).await.is_err(), "it needs no rights in Kubernetes");
    drained(&rig).await;
}

/// A drain of the node evicts one of two replicas; the other one stays, and acts.
async fn drained(rig: &Rig) {
    // The evicted one finds no other node, so the drain cannot end.
    let drain = ["drain", "node1", "--pod-selector=app.kubernetes.io/name=defragd", "--timeout=30s"];
    let refused = rig.lab.kubectl(&drain).await.unwrap_err().to_string();
    assert!(refused.contains("violate the pod's disruption budget"), "{refused}");
    // The evicted one may still be ending.
    until("one replica to stay", MINUTE, || async {
        let ready = ["get", "statefulset", "defragd", "-o=jsonpath={.status.readyReplicas}"];
        let ready = rig.kubectl(&ready).await;
        anyhow::ensure!(ready == "1", "{ready} are ready: {refused}");
        Ok(())
    })
    .await
    .unwrap();
    lock_holder(rig).await;
    rig.kubectl(&["uncordon", "node1"]).await;
    rig.kubectl(&["rollout", "status", "statefulset/defragd", "--timeout=120s"]).await;
}

/// An alert that reaches the replica without the lock makes the other one defragment every member.
async fn rolls(rig: &Rig) {
    let holder = lock_holder(rig).await;
    let other = PODS.into_iter().find(|pod| *pod != holder).unwrap();
    let url = url_of(rig, holder).await.unwrap();
    let earlier = rig.runs(&url).await.unwrap();
    let other = url_of(rig, other).await.unwrap();
    let answer = rig.alert(&other).await;
    assert_eq!(answer["alerts"][0]["decision"], json!("accepted"), "{answer}");
    let run = rig.run_when(&url, "a run to end", |run| run["outcome"].is_string() && !earlier.contains(run)).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(run["members"].as_array().unwrap().len(), 3);
    rig.assert_tight().await;
    // The other one notices it, so its own request does not stand any longer.
    let theirs = rig.run_when(&other, "the forwarded request to end", |run| run["outcome"].is_string()).await;
    assert!(theirs["reason"].to_string().contains("forwarded"), "{theirs}");
}

async fn url_of(rig: &Rig, pod: &str) -> anyhow::Result<String> {
    let ip = rig.lab.kubectl(&["-n", "defragd", "get", "pod", pod, "-o=jsonpath={.status.podIP}"]).await?;
    Ok(format!("http://{ip}:9379"))
}

/// The one pod whose metrics say that it holds the lock.
async fn lock_holder(rig: &Rig) -> &'static str {
    until("one holder of the lock", MINUTE, || async {
        let mut holders = Vec::new();
        for pod in PODS {
            let Ok(metrics) = rig.try_get(&format!("{}/metrics", url_of(rig, pod).await?)).await else { continue };
            if metrics.contains("defragd_cluster_lock_held{etcd_cluster=\"apps\"} 1") {
                holders.push(pod);
            }
        }
        anyhow::ensure!(holders.len() == 1, "the holders are {holders:?}");
        Ok(holders[0])
    })
    .await
    .unwrap()
}

/// Who holds the Lease of the cluster, if it is not this one: a pod's name, and what distinguishes this start of it.
async fn lease_holder(rig: &Rig, not: &str) -> String {
    until("a holder of the Lease", MINUTE, || async {
        let lease = ["-n", "defragd", "get", "lease", "defragd-apps", "-o=jsonpath={.spec.holderIdentity}"];
        let holder = rig.lab.kubectl(&lease).await?;
        anyhow::ensure!(!holder.is_empty() && holder != not, "the holder is {holder:?}");
        Ok(holder)
    })
    .await
    .unwrap()
}
