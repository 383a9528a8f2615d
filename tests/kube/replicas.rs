//! Several replicas, of which the one that holds the Lease acts.

use serde_json::json;
use testkit::until;

use crate::rig::{MINUTE, Rig};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside"]
async fn two_replicas() {
    let rig = Rig::new().await;
    let mut values = rig.values();
    values["replicas"] = json!(2);
    values["lock"] = json!({"kind": "kubernetes", "ttl": "15s", "apiServerPort": rig.lab.api().port()});
    values["podDisruptionBudget"] = json!({"enabled": true});
    rig.install(&values).await;

    let holder = holder(&rig, "").await;
    let pod = pod_of(&holder);
    let other = if pod == "defragd-0" { "defragd-1" } else { "defragd-0" };
    let ip = rig.kubectl(&["get", "pod", other, "-o=jsonpath={.status.podIP}"]).await;
    let answer = rig.alert(&format!("http://{ip}:9379")).await;
    assert_eq!(answer["alerts"][0]["decision"], json!("accepted"), "{answer}");
    let ip = rig.kubectl(&["get", "pod", pod, "-o=jsonpath={.status.podIP}"]).await;
    let run = rig.ended_run(&format!("http://{ip}:9379")).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(run["members"].as_array().unwrap().len(), 3);

    // The headless Service names each of them.
    let names = rig.kubectl(&["get", "endpointslices", "-o=jsonpath={.items[*].endpoints[*].hostname}"]).await;
    assert!(names.contains("defragd-0") && names.contains("defragd-1"), "{names}");

    // The budget keeps one of two.
    let budget =
        rig.kubectl(&["get", "poddisruptionbudget", "defragd", "-o=jsonpath={.status.disruptionsAllowed}"]).await;
    assert_eq!(budget, "1");
    rig.kubectl(&["delete", "pod", pod, "--wait=false"]).await;
    // The other one, or the pod's successor, which has the same name.
    self::holder(&rig, &holder).await;
}

/// The pod of a holder: the identity is its name, and what distinguishes this start of it.
fn pod_of(holder: &str) -> &str {
    holder.split('_').next().unwrap()
}

/// Who holds the Lease of the cluster, if it is not this one.
async fn holder(rig: &Rig, not: &str) -> String {
    until("a holder of the Lease", MINUTE, || async {
        let lease = ["-n", "defragd", "get", "lease", "defragd-apps", "-o=jsonpath={.spec.holderIdentity}"];
        let holder = rig.lab.kubectl(&lease).await?;
        anyhow::ensure!(!holder.is_empty() && holder != not, "the holder is {holder:?}");
        Ok(holder)
    })
    .await
    .unwrap()
}
