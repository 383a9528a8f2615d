//! A night: the control plane's own etcd fragments under the API server, Prometheus sees it, Alertmanager asks for a run, a
//! pod breaks in the middle, the run stops, the pod is repaired, and another attempt does the rest.

use serde_json::json;
use testkit::{Alertmanager, Prometheus, until};

use crate::{
    rig::{MIB, MINUTE, Rig, TOKEN},
    users::Users,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside"]
async fn a_night() {
    let rig = Rig::of_the_control_plane().await;
    rig.fragile_pod().await;
    let mut values = rig.values();
    let api = json!({"to": [{"ipBlock": {"cidr": "198.18.0.1/32"}}], "ports": [{"port": rig.lab.api().port()}]});
    values["networkPolicy"]["egress"]["extra"] = json!([api]);
    values["rbac"] = json!({"podsGate": true});
    values["config"]["clusters"][0]["gates"] = json!([{"name": "pods", "kubernetes_pods": {"grace": "12s"}}]);
    values["config"]["clusters"][0]["policy"]["pause_between_members"] = json!("20s");
    values["config"]["clusters"][0]["policy"]["cooldown"] = json!("1s");
    rig.install(&values).await;
    let url = rig.url().await;

    // Before anything can fire: a member that is compacted after its defragmentation would need another one.
    rig.rewrite_config_maps().await;
    let users = Users::start(&rig).await;
    let alertmanager = rig.alertmanager(&url).await;
    let prometheus = rig.prometheus(&url, &alertmanager).await;
    prometheus.wait_firing("EtcdFragmentationHigh", MINUTE * 3).await.unwrap();

    // Once a member is done, a pod of the cluster fails.
    let first = rig.run_when(&url, "its first member to be done", |run| run["members"][0]["member"].is_string()).await;
    rig.break_pod(true).await;
    let stopped = rig.run_when(&url, "it to stop", |run| run["outcome"].is_string()).await;
    assert_eq!(stopped["id"], first["id"]);
    assert_ne!(stopped["outcome"], "succeeded", "{stopped}");
    assert!(stopped["reason"].to_string().contains("default/fragile"), "it names the pod: {stopped}");
    let done = stopped["members"].as_array().unwrap().len();
    assert!(done < 3, "{stopped}");

    // The pod is repaired; nobody asks for another run.
    rig.break_pod(false).await;
    let last = rig.run_when(&url, "another attempt to succeed", |run| run["outcome"] == "succeeded").await;
    assert_ne!(last["id"], stopped["id"]);
    assert_eq!(done + last["members"].as_array().unwrap().len(), 3, "each member once: {stopped} {last}");
    for status in rig.etcd().statuses().await.unwrap() {
        assert!(status.size < 40 * MIB, "{} bytes", status.size);
    }
    until("the alert to resolve", MINUTE * 2, || async {
        let firing = prometheus.alerts().await?.into_iter().any(|a| a.labels["alertname"] == "EtcdFragmentationHigh");
        anyhow::ensure!(!firing, "it fires on");
        Ok(())
    })
    .await
    .unwrap();
    users.stop().await;
}

impl Rig {
    /// A pod that ends as soon as a file is there.
    async fn fragile_pod(&self) {
        let script = "while [ ! -e /host/break ]; do sleep 0.2; done; exit 1";
        let container = json!({"name": "c", "image": "localhost/shell:lab", "imagePullPolicy": "Never",
            "command": ["sh", "-c", script], "volumeMounts": [{"name": "host", "mountPath": "/host"}]});
        let host =
            json!({"name": "host", "hostPath": {"path": self.lab.dir().join("fragile"), "type": "DirectoryOrCreate"}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fragile", "namespace": "default"},
            "spec": {"tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 1,
                "containers": [container], "volumes": [host]}});
        self.lab.apply(&pod).await.unwrap();
        let ready = ["-n", "default", "wait", "pod/fragile", "--for=condition=Ready", "--timeout=120s"];
        self.lab.kubectl(&ready).await.unwrap();
    }

    /// Makes it crash, or lets it run again; returns once Kubernetes says so.
    async fn break_pod(&self, breaks: bool) {
        let file = self.lab.dir().join("fragile/break");
        if breaks {
            std::fs::write(&file, "").unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
        }
        let ready = "-o=jsonpath={.status.containerStatuses[0].ready}";
        until("the pod to change", MINUTE * 2, || async {
            let now = self.lab.kubectl(&["-n", "default", "get", "pod", "fragile", ready]).await?;
            anyhow::ensure!(now == if breaks { "false" } else { "true" }, "ready is {now}");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Fragments the control plane's etcd as its users do: objects are rewritten, and the API server compacts.
    pub(crate) async fn rewrite_config_maps(&self) {
        let name = |n: usize| format!("rewritten-{n}");
        let object = |n: usize, text: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(n), "namespace": "default"},
                "data": {"text": text}})
        };
        let collection = "/api/v1/namespaces/default/configmaps";
        let api = self.lab.api();
        for n in 0..4 {
            // Unless it is there, from an earlier time.
            let _ = api.create(collection, &object(n, "")).await;
        }
        // Twenty-five rounds are enough where they take less than the ten seconds between two compactions: what these
        // free is used again, and the files grow more slowly.
        for round in 0..250_u8 {
            let grown = self.etcd().statuses().await.unwrap().iter().all(|status| status.size > 40 * MIB);
            if round >= 25 && grown {
                break;
            }
            let text = char::from(b'a' + round % 26).to_string().repeat(500_000);
            for n in 0..4 {
                api.replace(&format!("{collection}/{}", name(n)), &object(n, &text)).await.unwrap();
            }
        }
        until("the API server to compact all of it", MINUTE * 3, || async {
            for status in self.etcd().statuses().await? {
                anyhow::ensure!(status.size > 40 * MIB && status.in_use < 8 * MIB, "{status:?}");
            }
            Ok(())
        })
        .await
        .unwrap();
    }

    async fn alertmanager(&self, url: &str) -> Alertmanager {
        let token = self.lab.dir().join("alertmanager-token");
        std::fs::write(&token, TOKEN).unwrap();
        let config = shipped("alertmanager.yml")
            .replace("http://127.0.0.1:9379", url)
            .replace("/etc/alertmanager/defragd.token", token.to_str().unwrap())
            .replace("group_wait: 30s", "group_wait: 1s");
        Alertmanager::start(self.lab.tools(), &config, &self.lab.dir().join("alertmanager.log")).await.unwrap()
    }

    async fn prometheus(&self, url: &str, alertmanager: &Alertmanager) -> Prometheus {
        let rules = self.lab.dir().join("defragd.rules.yml");
        std::fs::write(&rules, testkit::shortened_rules(&shipped("defragd.rules.yml")).unwrap()).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
             scrape_configs:\n  - job_name: defragd\n    static_configs: [{{targets: ['{}']}}]\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n",
            rules.display(),
            url.trim_start_matches("http://"),
            alertmanager.target(),
        );
        Prometheus::start(self.lab.tools(), &config, &self.lab.dir().join("prometheus.log")).await.unwrap()
    }
}

fn shipped(file: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts").join(file)).unwrap()
}
