//! The gate `kubernetes_pods` on a real kube-apiserver (1.35) with real RBAC, tokens, paging and etcd.
//!
//! A cold build takes 7 minutes on two busy cores (400 s of processor time, 2 GiB of build cache, a binary of
//! 98 MiB), so `make test` does not install it: without it these tests are skipped. `make tools-kube` builds it, if Go is
//! there. `src/adapters/gates/kubernetes/tests` run everywhere, against a server that speaks the same protocol.

use std::time::{Duration, Instant};

use defragd::{
    adapters::gates::kubernetes::PodsProbe,
    core::gate::Moment,
    ports::gate::{CheckContext, GateProbe, KubernetesPodsGate, Reading},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{EtcdCluster, EtcdSpec, EtcdVersion, KubeApiserver, Tools, Transport, until};

use crate::rig::MINUTE;

/// An API server of its own, without nodes.
pub(crate) struct Kubernetes {
    pub(crate) api: KubeApiserver,
    pub(crate) etcd: EtcdCluster,
    pub(crate) dir: TempDir,
}

impl Kubernetes {
    /// `None`, and a line that says so, if there is no kube-apiserver.
    pub(crate) async fn start() -> Option<Self> {
        let tools = Tools::find().unwrap();
        if tools.kube_apiserver().is_none() {
            testkit::skipped("no kube-apiserver here; `make tools-kube` builds one");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let spec = EtcdSpec::new(EtcdVersion::V3_5).members(1).transport(Transport::Plain);
        let etcd = EtcdCluster::start(&tools, &spec).await.unwrap();
        let api = KubeApiserver::start(&tools, &etcd, &dir.path().join("kube-apiserver.log")).await.unwrap();
        Some(Self { api, etcd, dir })
    }

    async fn apply_manifest(&self) -> String {
        apply_manifest(&self.api).await
    }

    fn probe(&self, token: &str, grace: Duration) -> PodsProbe {
        let kubeconfig = self.api.kubeconfig(self.dir.path().join("kubeconfig"), token).unwrap();
        PodsProbe::new(KubernetesPodsGate {
            kubeconfig: Some(kubeconfig),
            context: None,
            namespaces: Vec::new(),
            label_selector: None,
            field_selector: None,
            grace,
            timeout: Duration::from_secs(10),
        })
    }
}

/// What a newcomer does with the manifest for the pods gate; gives a token of the account in it.
pub(crate) async fn apply_manifest(api: &KubeApiserver) -> String {
    apply(api, include_str!("../../deploy/rbac/gate-pods.yaml")).await
}

/// What a newcomer does with a manifest in `deploy/rbac`; gives a token of the account in it.
pub(crate) async fn apply(api: &KubeApiserver, manifest: &str) -> String {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "defragd"}});
    api.create("/api/v1/namespaces", &namespace).await.unwrap();
    for document in manifest.split("\n---\n") {
        let value = |key: &str| document.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        let namespace = value("  namespace: ");
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let collection = match value("kind: ") {
            "ServiceAccount" => format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            "ClusterRole" => format!("{rbac}/clusterroles"),
            "ClusterRoleBinding" => format!("{rbac}/clusterrolebindings"),
            "Role" => format!("{rbac}/namespaces/{namespace}/roles"),
            "RoleBinding" => format!("{rbac}/namespaces/{namespace}/rolebindings"),
            other => panic!("a manifest has a {other:?}"),
        };
        api.create_yaml(&collection, document).await.unwrap();
    }
    let token = api.token("defragd", "defragd").await.unwrap();
    for document in manifest.split("\n---\n") {
        is_granted(api, &token, document).await;
    }
    token
}

/// Of each line with this key; of a list, the first one.
fn values<'a>(document: &'a str, key: &str) -> Vec<&'a str> {
    let lines = document.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(key));
    lines.map(|value| value.split(',').next().unwrap_or_default().trim_matches(['[', ']', '"'])).collect()
}

/// Waits until the API server knows that the account may do what a role in this document is for: it learns of roles and
/// bindings a moment after it has stored them.
async fn is_granted(api: &KubeApiserver, token: &str, document: &str) {
    let (groups, resources) = (values(document, "apiGroups: "), values(document, "resources: "));
    let namespace = values(document, "namespace: ").first().copied().unwrap_or_default();
    for ((group, resource), verb) in groups.into_iter().zip(resources).zip(values(document, "verbs: ")) {
        let what = json!({"group": group, "resource": resource, "verb": verb, "namespace": namespace});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": what}})
        .to_string();
        until("the permission to be known", MINUTE, || async {
            let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            let method = "POST".parse().unwrap();
            let answer = api.call(method, reviews, token, "application/json", review.clone()).await?;
            let answered: Value = serde_json::from_str(&answer.body)?;
            anyhow::ensure!(answered["status"]["allowed"] == true, "{answered}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

pub(crate) fn good() -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [container(true, &json!({"running": {"startedAt": "2026-11-24T09:00:00Z"}}), 0)]})
}

pub(crate) fn crashing() -> Value {
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}});
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
        "containerStatuses": [container(false, &waiting, 5)]})
}

fn container(ready: bool, state: &Value, restarts: u32) -> Value {
    json!({"name": "c", "image": "i", "imageID": "", "ready": ready, "restartCount": restarts, "state": state,
        "lastState": {}})
}

async fn check(probe: &PodsProbe, moment: Moment, baseline: Option<&Value>) -> Reading {
    probe.check(CheckContext { moment, baseline }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_role_lets_the_gate_list_pods_and_do_nothing_else() {
    let Some(kubernetes) = Kubernetes::start().await else { return };
    let client = kubernetes.api.pki().client();
    let kubeconfig = kubernetes.dir.path().join("certificate");
    let config = json!({"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": kubernetes.api.url(),
            "certificate-authority": kubernetes.api.pki().ca()}}],
        "users": [{"name": "x", "user": {"client-certificate": client.cert, "client-key": client.key}}]});
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let grace = Duration::from_secs(1);
    let nobody = PodsProbe::new(KubernetesPodsGate {
        kubeconfig: Some(kubeconfig),
        context: None,
        namespaces: vec!["default".to_owned()],
        label_selector: None,
        field_selector: None,
        grace,
        timeout: Duration::from_secs(10),
    });
    let denied = check(&nobody, Moment::Before, None).await;
    assert!(!denied.passed && denied.detail.contains("permission to list pods in the namespace default"), "{denied:?}");
    assert!(denied.detail.contains("User \"defragd-test\" cannot list resource \"pods\""), "{denied:?}");

    let token = kubernetes.apply_manifest().await;
    let wrong = check(&kubernetes.probe("s3cret", grace), Moment::Before, None).await;
    assert!(!wrong.passed && wrong.detail.contains("does not accept the credentials (401)"), "{wrong:?}");
    assert!(!format!("{wrong:?}").contains("s3cret"), "{wrong:?}");
    let allowed = check(&kubernetes.probe(&token, grace), Moment::Before, None).await;
    assert!(allowed.passed, "{allowed:?}");

    kubernetes.api.pod(&json!({"name": "web"}), &good()).await.unwrap();
    let pods = "/api/v1/namespaces/default/pods";
    for (method, path) in [
        ("GET", format!("{pods}/web")),
        ("DELETE", format!("{pods}/web")),
        ("GET", format!("{pods}?watch=1&timeoutSeconds=1")),
        ("GET", "/api/v1/secrets".to_owned()),
        ("GET", "/api/v1/nodes".to_owned()),
    ] {
        let method = method.parse().unwrap();
        let answer = kubernetes.api.call(method, &path, &token, "application/json", String::new()).await.unwrap();
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_new_trouble_that_lasts_fails_the_gate() {
    let Some(kubernetes) = Kubernetes::start().await else { return };
    let token = kubernetes.apply_manifest().await;
    let probe = kubernetes.probe(&token, Duration::from_secs(2));
    let api = &kubernetes.api;
    // More than a page.
    for n in 0..505 {
        api.pod(&json!({"name": format!("good-{n}")}), &good()).await.unwrap();
    }
    api.pod(&json!({"name": "old"}), &crashing()).await.unwrap();
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4b", "uid": "u", "controller": true}]);
    let web = |name: &str| json!({"name": name, "labels": {"pod-template-hash": "5d4b"}, "ownerReferences": owner});
    api.pod(&web("web-5d4b-a"), &crashing()).await.unwrap();

    let begin = Instant::now();
    let before = check(&probe, Moment::Before, None).await;
    eprintln!("507 pods listed in {:?}: {}", begin.elapsed(), before.detail);
    assert!(before.passed, "{before:?}");
    assert_eq!((&before.evidence["pods"], &before.evidence["unhealthy"]), (&json!(507), &json!(2)));
    let baseline = before.baseline.as_ref();

    // The same trouble under a new name.
    api.delete_pod("web-5d4b-a", 0).await.unwrap();
    api.pod(&web("web-5d4b-b"), &crashing()).await.unwrap();
    let same = check(&probe, Moment::Between, baseline).await;
    assert!(same.passed, "{same:?}");

    api.pod_status("good-7", &crashing()).await.unwrap();
    let worse = check(&probe, Moment::After, baseline).await;
    assert!(!worse.passed, "{worse:?}");
    assert_eq!(worse.evidence["new"], json!(["default/good-7: CrashLoopBackOff"]));
    api.pod_status("good-7", &good()).await.unwrap();
    let well = check(&probe, Moment::After, baseline).await;
    assert!(well.passed, "{well:?}");

    // Without a kubelet a deletion is never finished: fine within its own grace period, trouble after it.
    api.delete_pod("good-8", 600).await.unwrap();
    let going = check(&probe, Moment::After, baseline).await;
    assert!(going.passed, "{going:?}");
    api.delete_pod("good-9", 1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stuck = check(&probe, Moment::After, baseline).await;
    assert_eq!(stuck.evidence["new"], json!(["default/good-9: Terminating"]), "{stuck:?}");
    assert!(!stuck.passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_without_its_etcd_is_waited_for_and_fails_the_gate_if_it_stays_so() {
    let Some(kubernetes) = Kubernetes::start().await else { return };
    let token = kubernetes.apply_manifest().await;
    let baseline = check(&kubernetes.probe(&token, Duration::ZERO), Moment::Before, None).await.baseline;
    kubernetes.etcd.stop(0).await.unwrap();
    let short = check(&kubernetes.probe(&token, Duration::from_secs(1)), Moment::After, baseline.as_ref()).await;
    eprintln!("without etcd: {}", short.detail);
    assert!(!short.passed, "{short:?}");
    // Far longer than the API server needs to reach its etcd again.
    let probe = kubernetes.probe(&token, MINUTE * 5);
    let again = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        kubernetes.etcd.restart(0).await.unwrap();
    };
    let (long, ()) = tokio::join!(check(&probe, Moment::After, baseline.as_ref()), again);
    assert!(long.passed, "{long:?}");
}
