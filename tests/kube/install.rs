//! One replica, as most people install it: with Helm, or with kustomize.

use serde_json::json;

use crate::rig::{MINUTE, NAMESPACE, Rig, SERVE};
use testkit::until;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside"]
async fn one_replica() {
    let rig = Rig::new().await;
    rig.prometheus_operator_s_definitions().await;
    let mut values = rig.values();
    for object in ["serviceMonitor", "prometheusRule", "alertmanagerConfig"] {
        values[object] = json!({"enabled": true});
    }
    let notes = rig.install(&values).await;
    // The first commands that an operator types are those of the notes.
    for line in notes.lines().filter_map(|line| line.trim().strip_prefix("kubectl ")) {
        let args: Vec<_> = line.split_whitespace().collect();
        let said = rig.lab.kubectl(&args).await.unwrap();
        println!("$ kubectl {line}\n{said}");
    }
    no_unknown_fields(&rig).await;
    works(&rig).await;

    // A process that does not answer is replaced long before the pod's own grace period, which is for a run, is over.
    rig.signal(SERVE, "STOP");
    until("the container to be replaced", MINUTE * 3, || async {
        let restarts = "-o=jsonpath={.items[0].status.containerStatuses[0].restartCount}";
        let restarts = rig.kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=defragd", restarts]).await;
        anyhow::ensure!(restarts == "1", "{restarts} restarts");
        Ok(())
    })
    .await
    .unwrap();
    // With the journal.
    let url = rig.url().await;
    until("its successor to serve", MINUTE * 2, || async {
        let runs = rig.try_get(&format!("{url}/api/v1/runs")).await?;
        anyhow::ensure!(runs.contains("\"succeeded\""), "{runs}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside"]
async fn with_kustomize() {
    let rig = Rig::new().await;
    let overlay = rig.overlay();
    rig.lab.kubectl(&["apply", "-k", &overlay]).await.unwrap();
    rig.kubectl(&["rollout", "status", "deployment/defragd", "--timeout=180s"]).await;
    works(&rig).await;
}

/// It is reached by those who may, has no rights in Kubernetes, and an alert makes it defragment every member.
async fn works(rig: &Rig) {
    // Prometheus reaches it, a stranger does not; and both pods exist and have a network: the stranger reaches the other.
    let ip = rig.kubectl(&["get", "service", "defragd", "-o=jsonpath={.spec.clusterIP}"]).await;
    until("the network policy", MINUTE, || async {
        anyhow::ensure!(!rig.reaches("default", &ip, 9379).await, "default still reaches it");
        Ok(())
    })
    .await
    .unwrap();
    until("monitoring to reach it", MINUTE, || async {
        anyhow::ensure!(rig.reaches("monitoring", &ip, 9379).await, "it does not");
        Ok(())
    })
    .await
    .unwrap();
    assert!(!rig.reaches("default", &ip, 9379).await, "default reaches it again");
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
    println!("memory of the pod after a run: {} MiB", rig.memory().await);
}

/// The API server knows every field that the chart writes; it drops unknown ones of Helm's without an error.
async fn no_unknown_fields(rig: &Rig) {
    let written = rig.lab.helm(&["get", "manifest", "defragd", "-n", NAMESPACE]).await.unwrap();
    for kind in ["ServiceMonitor", "PrometheusRule", "AlertmanagerConfig"] {
        assert!(written.contains(&format!("kind: {kind}")), "{written}");
    }
    let file = rig.lab.dir().join("written.yaml");
    let file = file.to_str().unwrap();
    let apply = ["apply", "--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server", "-f", file];
    std::fs::write(file, &written).unwrap();
    rig.kubectl(&apply).await;
    // The definitions are in force.
    std::fs::write(file, written.replace("scrapeTimeout: 10s", "scrapeTimeout: soon")).unwrap();
    let refused = rig.lab.kubectl(&apply).await.unwrap_err().to_string();
    assert!(refused.contains("scrapeTimeout"), "{refused}");
}

impl Rig {
    /// What installing the Prometheus Operator would install of what the chart uses.
    async fn prometheus_operator_s_definitions(&self) {
        let files = self.lab.tools().dir().with_file_name("prometheus-operator-crds");
        assert!(files.is_dir(), "not in {}: tests/testkit/tools --deploy", files.display());
        self.lab.kubectl(&["apply", "--server-side", "-f", files.to_str().unwrap()]).await.unwrap();
        let wait = ["wait", "crd", "--all", "--for=condition=Established", "--timeout=60s"];
        // kubectl fails at once for one that has no conditions yet.
        until("the definitions are established", MINUTE, || self.lab.kubectl(&wait)).await.unwrap();
    }

    /// The folder of a copy of the overlay for kubeadm, with this node's addresses and image, and these tests' policy.
    fn overlay(&self) -> String {
        let copy = self.lab.dir().join("kustomize");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kustomize");
        assert!(std::process::Command::new("cp").args(["-rL", source]).arg(&copy).status().unwrap().success());
        let overlay = copy.join("overlays/kubeadm");
        let change = |file: &str, changes: &[(&str, String)]| {
            let path = overlay.join(file);
            let mut text = std::fs::read_to_string(&path).unwrap();
            for (shipped, ours) in changes {
                assert!(text.contains(shipped), "{shipped} is not in {file} any more");
                text = text.replace(shipped, ours);
            }
            std::fs::write(path, text).unwrap();
        };
        let values = self.values();
        let cluster = &values["config"]["clusters"][0];
        change(
            "config.yaml",
            &[
                ("name: kubernetes", "name: apps".to_owned()),
                ("{etcd_cluster: kubernetes}", "{etcd_cluster: apps}".to_owned()),
                (
                    "[https://10.0.0.1:2379, https://10.0.0.2:2379, https://10.0.0.3:2379]",
                    cluster["endpoints"].to_string(),
                ),
                ("policy:\n      mode: observe", format!("policy: {}", cluster["policy"])),
            ],
        );
        let ports: Vec<_> = values["networkPolicy"]["egress"]["etcdPorts"].as_array().unwrap().iter().collect();
        let ports: Vec<_> = ports.into_iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
        let address = "value: [{ipBlock: {cidr: 10.0.0.0/24}}]}";
        let ours = "value: [{ipBlock: {cidr: 198.18.0.1/32}}]}";
        let ports = format!("- {{op: replace, path: /spec/egress/1/ports, value: {}}}", json!(ports));
        change(
            "kustomization.yaml",
            &[
                ("newName: registry.example/defragd", "newName: localhost/defragd".to_owned()),
                ("newTag: 0.1.0", "newTag: lab".to_owned()),
                (address, format!("{ours}\n      {ports}")),
            ],
        );
        overlay.display().to_string()
    }
}
