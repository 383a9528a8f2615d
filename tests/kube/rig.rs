//! What the tests start from: a node, a fragmented etcd that its pods can reach, and the chart.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::{Value, json};
use testkit::{EtcdCluster, EtcdSpec, EtcdVersion, Image, KubeLab, Placement, fragment, until};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const NAMESPACE: &str = "defragd";
pub(crate) const TOKEN: &str = "0123456789abcdef-test-token";
/// How the command line of its process begins.
pub(crate) const SERVE: &str = "/usr/local/bin/defragd\0serve\0";
const IMAGE: &str = "localhost/defragd:lab";

pub(crate) struct Rig {
    pub(crate) lab: KubeLab,
    /// Beside the control plane's own.
    etcd: Option<EtcdCluster>,
    pub(crate) http: reqwest::Client,
    alerts: AtomicU32,
}

impl Rig {
    /// With a fragmented etcd of three members beside Kubernetes, which is the one that defragd watches.
    pub(crate) async fn new() -> Self {
        let mut rig = Self::on(&EtcdSpec::new(EtcdVersion::V3_5).members(1)).await;
        let etcd = EtcdCluster::start(rig.lab.tools(), &three_members()).await.unwrap();
        fragment(&etcd, 40 * MIB, 8 * MIB).await.unwrap();
        rig.etcd = Some(etcd);
        rig.certificate().await;
        rig
    }

    /// defragd watches the control plane's own etcd, of three members.
    pub(crate) async fn of_the_control_plane() -> Self {
        let rig = Self::on(&three_members()).await;
        rig.certificate().await;
        rig
    }

    /// Namespaces `defragd`, which is `restricted`, and `monitoring`; a pod `shell` in the latter and in `default`; volumes.
    async fn on(etcd: &EtcdSpec) -> Self {
        // Another build, for figures.
        let program = std::env::var("DEFRAGD_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_defragd").to_owned());
        let image = Image::of_program(IMAGE, Path::new(&program)).unwrap();
        let lab = KubeLab::start(etcd, &[image]).await.unwrap();
        lab.volumes(2).await.unwrap();
        for namespace in [NAMESPACE, "monitoring"] {
            lab.namespace(namespace).await.unwrap();
        }
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        lab.kubectl(&["label", "namespace", NAMESPACE, restricted]).await.unwrap();
        for namespace in ["monitoring", "default"] {
            lab.shell(namespace, "shell").await.unwrap();
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let rig = Self { lab, etcd: None, http, alerts: AtomicU32::new(0) };
        let token = format!("--from-literal=token={TOKEN}");
        rig.kubectl(&["create", "secret", "generic", "defragd-webhook", &token]).await;
        rig
    }

    async fn certificate(&self) {
        let pki = self.etcd().pki().unwrap();
        let file = |key: &str, path: &Path| format!("--from-file={key}={}", path.display());
        let files = [file("ca.crt", pki.ca()), file("tls.crt", &pki.client().cert), file("tls.key", &pki.client().key)];
        let args = ["create", "secret", "generic", "defragd-etcd"].into_iter().chain(files.iter().map(String::as_str));
        self.kubectl(&args.collect::<Vec<_>>()).await;
    }

    /// The one that defragd watches.
    pub(crate) fn etcd(&self) -> &EtcdCluster {
        self.etcd.as_ref().unwrap_or_else(|| self.lab.etcd())
    }

    /// Every member's file is below 1.3 times of what is in use.
    pub(crate) async fn assert_tight(&self) {
        for status in self.etcd().statuses().await.unwrap() {
            assert!(status.size * 10 < status.in_use * 13, "{} bytes for {} in use", status.size, status.in_use);
        }
    }

    /// kubectl in the chart's namespace.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        let args: Vec<_> = ["-n", NAMESPACE].into_iter().chain(args.iter().copied()).collect();
        self.lab.kubectl(&args).await.unwrap()
    }

    /// The chart's values for this etcd, with a policy that fits small files.
    pub(crate) fn values(&self) -> Value {
        let endpoints = self.etcd().endpoints();
        let ports: Vec<u16> = endpoints.iter().map(|url| url.rsplit(':').next().unwrap().parse().unwrap()).collect();
        let secret = |file: &str| format!("/etc/defragd/secrets/defragd-etcd/{file}");
        json!({
            "image": {"repository": IMAGE.rsplit_once(':').unwrap().0, "tag": "lab", "pullPolicy": "Never"},
            "listenAddress": "0.0.0.0:9379",
            "config": {"clusters": [{
                "name": "apps",
                "endpoints": endpoints,
                "tls": {"ca_file": secret("ca.crt"), "cert_file": secret("tls.crt"), "key_file": secret("tls.key")},
                "policy": {"mode": "enforce", "min_reclaimable": "4MiB", "pause_between_members": "1s"},
            }]},
            "networkPolicy": {"egress": {"etcdPorts": ports, "etcdTo": [{"ipBlock": {"cidr": "198.18.0.1/32"}}]}},
            "shutdownGraceSeconds": 30,
        })
    }

    pub(crate) fn chart() -> String {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/defragd").display().to_string()
    }

    /// The name of a file with these values.
    pub(crate) fn write_values(&self, values: &Value) -> String {
        let file = self.lab.dir().join("values.json");
        std::fs::write(&file, values.to_string()).unwrap();
        file.display().to_string()
    }

    /// Installs the chart and waits until its pods are ready; gives the notes. Prints how long that and the first scrape took.
    pub(crate) async fn install(&self, values: &Value) -> String {
        let began = Instant::now();
        let (chart, file) = (Self::chart(), self.write_values(values));
        let args = ["install", "defragd", &chart, "-n", NAMESPACE, "-f", &file, "--wait", "--timeout", "180s"];
        let notes = self.lab.helm(&args).await.unwrap();
        let ready = began.elapsed();
        let url = self.url().await;
        until("a scrape with the cluster's state", MINUTE, || async {
            let metrics = self.try_get(&format!("{url}/metrics")).await?;
            anyhow::ensure!(metrics.contains("defragd_cluster_up{etcd_cluster=\"apps\"} 1"), "{metrics}");
            Ok(())
        })
        .await
        .unwrap();
        println!(
            "after helm install: ready in {:.1} s, the first good scrape in {:.1} s",
            ready.as_secs_f32(),
            began.elapsed().as_secs_f32()
        );
        notes
    }

    /// The Service's URL, as the node reaches it.
    pub(crate) async fn url(&self) -> String {
        let ip = self.kubectl(&["get", "service", "defragd", "-o=jsonpath={.spec.clusterIP}"]).await;
        format!("http://{ip}:9379")
    }

    pub(crate) async fn get(&self, url: &str) -> String {
        self.try_get(url).await.unwrap()
    }

    pub(crate) async fn try_get(&self, url: &str) -> reqwest::Result<String> {
        let request = self.http.get(url).bearer_auth(TOKEN).timeout(MINUTE);
        request.send().await?.error_for_status()?.text().await
    }

    /// Posts an alert as Alertmanager does, each time one that began later; the answer.
    pub(crate) async fn alert(&self, url: &str) -> Value {
        let began = format!("2026-11-23T10:{:02}:00Z", self.alerts.fetch_add(1, Ordering::Relaxed));
        let labels = json!({"alertname": "EtcdFragmentationHigh", "etcd_cluster": "apps"});
        let body = json!({"version": "4", "groupKey": "g", "truncatedAlerts": 0, "status": "firing",
            "receiver": "defragd", "groupLabels": {}, "commonLabels": labels, "commonAnnotations": {}, "externalURL": "",
            "alerts": [{"status": "firing", "labels": labels, "annotations": {}, "startsAt": began,
                "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "f1"}]});
        let request = self.http.post(format!("{url}/api/v1/alerts")).bearer_auth(TOKEN).timeout(MINUTE);
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        serde_json::from_str(&answer.error_for_status().unwrap().text().await.unwrap()).unwrap()
    }

    /// The newest run that this URL knows, once it has ended.
    pub(crate) async fn ended_run(&self, url: &str) -> Value {
        self.run_when(url, "a run to end", |run| run["outcome"].is_string()).await
    }

    /// The newest run that this URL knows, once this is true of it.
    pub(crate) async fn run_when(&self, url: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, MINUTE * 4, || async {
            let run = self.runs(url).await?.into_iter().next().unwrap_or_default();
            anyhow::ensure!(is(&run), "{run}");
            Ok(run)
        })
        .await
        .unwrap()
    }

    /// Its runs, the newest first.
    pub(crate) async fn runs(&self, url: &str) -> anyhow::Result<Vec<Value>> {
        let runs: Value = serde_json::from_str(&self.try_get(&format!("{url}/api/v1/runs")).await?)?;
        Ok(runs["runs"].as_array().cloned().unwrap_or_default())
    }

    /// The one process whose command line, with a NUL after each argument, contains this: pods share the node's processes.
    #[allow(clippy::unused_self, reason = "only where there is a rig, all processes are the node's")]
    fn process(&self, command: &str) -> String {
        let all =
            std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let line = |pid: &String| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let found: Vec<_> = all.filter(|pid| line(pid).contains(command)).collect();
        let [pid] = found.as_slice() else { panic!("not one process is {command}: {found:?}") };
        pid.clone()
    }

    /// Sends that process a signal.
    pub(crate) fn signal(&self, command: &str, signal: &str) {
        let kill = format!("kill -{signal} {}", self.process(command));
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// The memory of the pod in MiB, as `kubectl top` shows it.
    pub(crate) async fn memory(&self) -> u64 {
        until("the kubelet's figures of the pod", MINUTE * 2, || async {
            let summary = self.lab.kubectl(&["get", "--raw", "/api/v1/nodes/node1/proxy/stats/summary"]).await?;
            let summary: Value = serde_json::from_str(&summary)?;
            let pods = summary["pods"].as_array().context("no pods")?;
            let pod = pods.iter().find(|pod| pod["podRef"]["namespace"] == NAMESPACE).context("not this pod")?;
            Ok(pod["memory"]["workingSetBytes"].as_u64().context("not its memory")? / MIB)
        })
        .await
        .unwrap()
    }

    /// Whether a port answers a pod `shell` of a namespace; not either if the command in the pod fails otherwise.
    pub(crate) async fn reaches(&self, namespace: &str, address: &str, port: u16) -> bool {
        let port = port.to_string();
        let args =
            ["-n", namespace, "exec", "shell", "--", "timeout", "5", "nc", "-w", "3", address, &port, "-e", "true"];
        self.lab.kubectl(&args).await.is_ok()
    }
}

fn three_members() -> EtcdSpec {
    EtcdSpec::new(EtcdVersion::V3_5).hosts(&[Placement::on_the_node(); 3]).patient()
}
