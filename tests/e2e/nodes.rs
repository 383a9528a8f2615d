//! The gate `kubernetes_nodes` on a real kube-apiserver with real RBAC; the test plays the kubelets. Skipped without one,
//! as `pods`.

use std::time::Duration;

use defragd::{
    adapters::gates::kubernetes::NodesProbe,
    core::gate::Moment,
    ports::gate::{CheckContext, GateProbe, KubernetesNodesGate, Reading},
};
use serde_json::{Value, json};
use testkit::{DefragWatch, EtcdVersion, KubeApiserver};

use crate::{
    faults::{defragmenting, hold},
    gated::failed_check,
    pods::{Kubernetes, apply, good},
    rig::{Rig, TOKEN, ended_run, firing},
};

const MANIFEST: &str = include_str!("../../deploy/rbac/gate-nodes.yaml");
const ROLE: &str = "node-role.kubernetes.io/control-plane";
const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/kube-system/pods";

fn node(name: &str, role: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {(role): ""}}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": "2026-11-24T09:00:00Z", "lastTransitionTime": "2026-11-24T09:00:00Z"}],
            "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "",
                "containerRuntimeVersion": "", "kubeletVersion": "v1.35.0", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64"}}})
}

/// The pod with which a kubelet shows a static pod.
fn mirror(node: &str, uid: &Value, image: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("kube-apiserver-{node}"), "labels": {"tier": "control-plane"},
            "annotations": {"kubernetes.io/config.mirror": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": true}]},
        "spec": {"nodeName": node, "containers": [{"name": "kube-apiserver", "image": image}]}})
}

async fn run_static_pod(api: &KubeApiserver, node: &str, uid: &Value, image: &str) {
    let mut pod = api.create(PODS, &mirror(node, uid, image)).await.unwrap();
    pod["status"] = good();
    api.replace(&format!("{PODS}/kube-apiserver-{node}/status"), &pod).await.unwrap();
}

async fn change(api: &KubeApiserver, path: &str, change: impl FnOnce(&mut Value)) {
    let mut object = api.get(path.trim_end_matches("/status")).await.unwrap();
    change(&mut object);
    api.replace(path, &object).await.unwrap();
}

async fn check(probe: &NodesProbe, moment: Moment) -> Reading {
    probe.check(CheckContext { moment, baseline: None }).await
}

fn fails(reading: &Reading, words: &str) {
    assert!(!reading.passed && reading.detail.contains(words), "{words:?} is not in {reading:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_is_being_changed_refuses_a_run_and_one_that_is_not_does_not() {
    let Some(kubernetes) = Kubernetes::start().await else { return };
    let api = &kubernetes.api;
    let token = apply(api, MANIFEST).await;
    let probe = |token: &str, grace| {
        let kubeconfig = api.kubeconfig(kubernetes.dir.path().join("kubeconfig"), token).unwrap();
        let keys = json!({"kubeconfig": kubeconfig, "grace": grace, "timeout": "30s"});
        NodesProbe::new(serde_json::from_value::<KubernetesNodesGate>(keys).unwrap())
    };
    let gate = probe(&token, "0s");
    fails(&check(&gate, Moment::Before).await, "no node matches label_selector");
    let mut uids = Vec::new();
    for name in ["n1", "n2"] {
        uids.push(api.create(NODES, &node(name, ROLE)).await.unwrap()["metadata"]["uid"].clone());
    }
    let mut worker = node("worker", "node-role.kubernetes.io/worker");
    worker["status"]["conditions"][0]["status"] = json!("False");
    api.create(NODES, &worker).await.unwrap();
    // As with k3s.
    let passed = check(&gate, Moment::Before).await;
    assert!(passed.passed, "{passed:?}");
    assert_eq!(passed.detail, "2 control-plane nodes Ready with kubelet v1.35.0; 0 static pods ready");

    run_static_pod(api, "n1", &uids[0], "apiserver:v1.35.0").await;
    fails(&check(&gate, Moment::Before).await, "kube-apiserver has no static pod on n2");
    run_static_pod(api, "n2", &uids[1], "apiserver:v1.35.0").await;
    let passed = check(&gate, Moment::Before).await;
    assert_eq!(passed.detail, "2 control-plane nodes Ready with kubelet v1.35.0; 2 static pods ready", "{passed:?}");

    // kubectl cordon
    change(api, &format!("{NODES}/n2"), |node| node["spec"]["unschedulable"] = json!(true)).await;
    fails(&check(&gate, Moment::Before).await, "the node n2 is cordoned: `kubectl uncordon n2`");
    change(api, &format!("{NODES}/n2"), |node| node["spec"]["unschedulable"] = json!(false)).await;

    // A kubelet that is gone: the controller manager writes this.
    let ready = |status: &'static str, reason: &'static str| {
        move |node: &mut Value| {
            node["status"]["conditions"][0]["status"] = json!(status);
            node["status"]["conditions"][0]["reason"] = json!(reason);
        }
    };
    change(api, &format!("{NODES}/n1/status"), ready("Unknown", "NodeStatusUnknown")).await;
    fails(&check(&gate, Moment::Before).await, "the node n1 is not Ready (NodeStatusUnknown)");
    // After a member it may come back.
    let patient = probe(&token, "1m");
    let back = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        change(api, &format!("{NODES}/n1/status"), ready("True", "KubeletReady")).await;
    };
    let (reading, ()) = tokio::join!(check(&patient, Moment::Between), back);
    assert!(reading.passed, "{reading:?}");

    // kubeadm upgrade: static pods first, then the kubelet.
    api.delete(&format!("{PODS}/kube-apiserver-n1")).await.unwrap();
    run_static_pod(api, "n1", &uids[0], "apiserver:v1.36.1").await;
    fails(
        &check(&gate, Moment::After).await,
        "a rollout is in progress: finish it; kube-apiserver is apiserver:v1.35.0 on n2, apiserver:v1.36.1 on n1",
    );
    api.delete(&format!("{PODS}/kube-apiserver-n2")).await.unwrap();
    run_static_pod(api, "n2", &uids[1], "apiserver:v1.36.1").await;
    assert!(check(&gate, Moment::After).await.passed);
    change(api, &format!("{NODES}/n1/status"), |node| node["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.36.1"))
        .await;
    fails(
        &check(&gate, Moment::After).await,
        "an upgrade is in progress: finish it; the kubelet is v1.35.0 on n2, v1.36.1 on n1",
    );

    // The shipped permissions are those that are needed.
    for (path, status) in [
        (NODES.to_owned(), 200),
        (PODS.to_owned(), 200),
        (format!("{NODES}/n1"), 403),
        ("/api/v1/namespaces/default/pods".to_owned(), 403),
        ("/api/v1/namespaces/kube-system/secrets".to_owned(), 403),
    ] {
        let answer = api.call("GET".parse().unwrap(), &path, &token, "application/json", String::new()).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "powerless"}});
    api.create("/api/v1/namespaces/defragd/serviceaccounts", &account).await.unwrap();
    let powerless = api.token("defragd", "powerless").await.unwrap();
    fails(
        &check(&probe(&powerless, "0s"), Moment::Before).await,
        "the permission to list nodes is missing: nodes is forbidden",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cordoned_during_a_run_stops_it_after_the_current_member() {
    // On an etcd of its own, so that it answers while a member of the other one is held.
    let Some(kubernetes) = Kubernetes::start().await else { return };
    let api = &kubernetes.api;
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let token = apply(api, MANIFEST).await;
    api.create(NODES, &node("n1", ROLE)).await.unwrap();
    let kubeconfig = api.kubeconfig(rig.path("kubeconfig"), &token).unwrap();
    let gate = json!({"name": "control-plane", "kubernetes_nodes": {"kubeconfig": kubeconfig, "grace": "1s"}});
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    // The first member is held until the node is cordoned.
    let held = hold(&rig).await;
    let defragd = rig.serve_file(&rig.config(&json!([gate])), &[]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let first = defragmenting(&rig.cluster).await;
    change(api, &format!("{NODES}/n1"), |node| node["spec"]["unschedulable"] = json!(true)).await;
    drop(held);

    let run = ended_run(&defragd, 1).await;
    let reason = &run["reason"];
    assert_eq!(
        (&run["outcome"], &reason["code"], &reason["gate"], &reason["moment"]),
        (&json!("failed"), &json!("gate_failed"), &json!("control-plane"), &json!("between")),
        "{run}"
    );
    let check = failed_check(&run);
    let words = check["detail"].as_str().unwrap();
    assert!(words.contains("the node n1 is cordoned: `kubectl uncordon n1`"), "{run}");
    assert_eq!(watch.stop().await.order(), [first], "only the first member was touched");
}
