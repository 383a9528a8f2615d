//! The whole probe, with the real client library, against an API server that can be made to misbehave.

mod api_server;

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::Pki;

use self::api_server::{ApiServer, TOKEN, settings, write_kubeconfig};
use super::{KubernetesPodsGate, PodsProbe};
use crate::{
    core::gate::Moment,
    ports::gate::{CheckContext, GateProbe, Reading},
};

fn pod(namespace: &str, name: &str, status: &Value) -> Value {
    // With what real pods have besides, which must not matter.
    json!({"metadata": {"name": name, "namespace": namespace, "uid": "u", "creationTimestamp": "2026-11-24T09:00:00Z",
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]},
        "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Always", "nodeName": "n1"},
        "status": status})
}

fn good(namespace: &str, name: &str) -> Value {
    let ready =
        json!({"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-11-24T09:00:05Z"});
    let running = json!({"name": "c", "ready": true, "restartCount": 0, "started": true,
        "state": {"running": {"startedAt": "2026-11-24T09:00:04Z"}}, "lastState": {}});
    pod(namespace, name, &json!({"phase": "Running", "conditions": [ready], "containerStatuses": [running]}))
}

fn crashing(namespace: &str, name: &str) -> Value {
    let last = json!({"terminated": {"exitCode": 1, "reason": "Error", "containerID": "x",
        "startedAt": "2026-11-24T09:59:00Z", "finishedAt": "2026-11-24T09:59:01Z"}});
    let container = json!({"name": "c", "ready": false, "restartCount": 4, "lastState": last,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 1m20s restarting failed container"}}});
    pod(
        namespace,
        name,
        &json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False",
        "reason": "ContainersNotReady"}], "containerStatuses": [container]}),
    )
}

async fn check(probe: &PodsProbe, moment: Moment, baseline: Option<&Value>) -> Reading {
    let reading = probe.check(CheckContext { moment, baseline }).await;
    let all = format!("{reading:?}");
    assert!(!all.contains("s3cret"), "{all}");
    assert!(reading.detail.len() < 1_200 && !reading.detail.contains('\n'), "{}", reading.detail);
    reading
}

async fn before(settings: KubernetesPodsGate) -> Reading {
    check(&PodsProbe::new(settings), Moment::Before, None).await
}

/// It must fail, and these words must be in its detail.
fn fails(reading: &Reading, words: &[&str]) {
    assert!(!reading.passed, "{}", reading.detail);
    for word in words {
        assert!(reading.detail.contains(word), "{word:?} is not in {:?}", reading.detail);
    }
}

#[tokio::test]
async fn a_big_cluster_is_read_page_by_page_with_a_client_certificate() {
    let mut pods: Vec<_> = (0..1_200).map(|n| good("apps", &format!("web-{n}"))).collect();
    pods.push(crashing("kube-system", "dns"));
    let server = ApiServer::start(pods).await;
    let reading = check(&server.probe(), Moment::Before, None).await;
    assert!(reading.passed, "{}", reading.detail);
    assert_eq!(reading.detail, "1201 pods; 1 already unhealthy, of 1 workload");
    assert_eq!(reading.evidence["names"], json!(["kube-system/dns: CrashLoopBackOff, exit 1"]));
    assert_eq!((&reading.evidence["pods"], &reading.evidence["unhealthy"]), (&json!(1_201), &json!(1)));
    let baseline = json!({"workloads": {"kube-system/Pod/dns": {"unhealthy": 1, "pods": ["dns"]}}});
    assert_eq!(reading.baseline, Some(baseline));
    let pages = ["&limit=500", "&limit=500&continue=500", "&limit=500&continue=1000"];
    assert_eq!(server.behave().requests, pages.map(|page| format!("/api/v1/pods?{page}")));
}

#[tokio::test]
async fn only_the_chosen_namespaces_and_selectors_are_asked_for() {
    let server = ApiServer::start(vec![good("a", "x"), crashing("b", "y"), crashing("c", "z")]).await;
    let reading = before(KubernetesPodsGate {
        namespaces: vec!["a".to_owned(), "b".to_owned()],
        label_selector: Some("tier in (one,two)".to_owned()),
        field_selector: Some("status.phase!=Succeeded".to_owned()),
        ..server.settings()
    })
    .await;
    assert!(reading.passed, "{}", reading.detail);
    assert_eq!(reading.evidence["names"], json!(["b/y: CrashLoopBackOff, exit 1"]));
    let selectors = "fieldSelector=status.phase%21%3DSucceeded&labelSelector=tier+in+%28one%2Ctwo%29&limit=500";
    let wanted = ["a", "b"].map(|namespace| format!("/api/v1/namespaces/{namespace}/pods?&{selectors}"));
    assert_eq!(server.behave().requests, wanted);
    let odd = before(KubernetesPodsGate { namespaces: vec!["../nodes".to_owned()], ..server.settings() }).await;
    fails(&odd, &["\"../nodes\" is not a valid namespace name"]);
}

#[tokio::test]
async fn a_continue_token_that_is_too_old_begins_the_listing_anew_but_not_for_ever() {
    let server = ApiServer::start((0..501).map(|n| good("a", &format!("p-{n}"))).collect()).await;
    server.behave().expire = 2;
    let reading = check(&server.probe(), Moment::Before, None).await;
    assert!(reading.passed, "{}", reading.detail);
    assert_eq!(reading.evidence["pods"], json!(501));
    assert_eq!(server.behave().requests.len(), 6);
    server.behave().expire = 3;
    fails(&check(&server.probe(), Moment::Before, None).await, &["aborted the listing 3 times", "410"]);
}

#[tokio::test]
async fn more_pods_than_a_gate_should_read_are_too_many() {
    let server = ApiServer::start((0..20_001).map(|n| good("a", &format!("p-{n}"))).collect()).await;
    let settings = KubernetesPodsGate { timeout: Duration::from_mins(5), ..server.settings() };
    fails(&before(settings).await, &["more than 20000 pods", "namespaces or selectors"]);
}

#[tokio::test]
async fn tokens_are_read_from_the_kubeconfig_from_files_and_from_plugins() {
    let server = ApiServer::start(Vec::new()).await;
    let token_file = server.path("token");
    std::fs::write(&token_file, format!("{TOKEN}\n")).expect("written");
    let plugin = server.path("plugin");
    let credential =
        json!({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {"token": TOKEN}});
    std::fs::write(&plugin, format!("#!/bin/sh\ncat <<'END'\n{credential}\nEND\n")).expect("written");
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let exec = format!(
        "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: {:?}}}}}",
        plugin.display().to_string()
    );
    for user in [format!("{{token: {TOKEN}}}"), format!("{{tokenFile: {:?}}}", token_file.display().to_string()), exec]
    {
        let reading = before(settings(server.kubeconfig(&user))).await;
        assert!(reading.passed, "{user}: {}", reading.detail);
        assert_eq!(reading.detail, "0 pods; 0 already unhealthy, of 0 workloads");
    }
}

#[tokio::test]
async fn credentials_that_are_refused_or_cannot_be_had_are_said_without_showing_them() {
    let server = ApiServer::start(Vec::new()).await;
    let wrong = before(settings(server.kubeconfig("{token: s3cret-wrong}"))).await;
    fails(&wrong, &["does not accept the credentials (401)", &server.url]);
    fails(&before(settings(server.kubeconfig("{}"))).await, &["401"]);
    fails(
        &before(settings(server.kubeconfig("{tokenFile: /nowhere/token}"))).await,
        &["/nowhere/token", "No such file"],
    );
    let shell = |script: &str| {
        let api = "apiVersion: client.authentication.k8s.io/v1";
        server.kubeconfig(&format!("{{exec: {{{api}, command: sh, args: [-c, {script:?}]}}}}"))
    };
    let failed = before(settings(shell("echo s3cret; echo s3cret >&2; exit 3"))).await;
    fails(&failed, &["the credential plugin failed (exit status: 3)"]);
    fails(&before(settings(shell("echo '{\"status\": s3cret'"))).await, &["the credential plugin gave no credentials"]);
}

#[tokio::test]
async fn what_an_api_server_says_back_is_shown_without_the_token() {
    let server = ApiServer::start(Vec::new()).await;
    server.behave().indiscreet = true;
    let credential =
        json!({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {"token": TOKEN}});
    let script = format!("echo '{credential}'");
    let api = "apiVersion: client.authentication.k8s.io/v1";
    let plugin = format!("{{exec: {{{api}, command: sh, args: [-c, {script:?}]}}}}");
    for (user, said) in [(format!("{{token: {TOKEN}}}"), "Bearer ***\") may not"), (plugin, "details hidden")] {
        let reading = before(settings(server.kubeconfig(&user))).await;
        fails(&reading, &["403", said]);
        assert!(!format!("{reading:?}").contains(TOKEN), "{reading:?}");
    }
}

#[test]
fn a_credential_plugin_that_hangs_does_not_keep_the_process() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
    let servers = runtime();
    let server = servers.block_on(ApiServer::start(Vec::new()));
    let user = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: sleep, args: ['60']}}";
    let slow = KubernetesPodsGate { timeout: Duration::from_millis(300), ..settings(server.kubeconfig(user)) };
    let begin = Instant::now();
    let checks = runtime();
    fails(&checks.block_on(before(slow)), &["did not list the pods within 0.3 s"]);
    drop(checks);
    // Half of what the plugin takes, so that a slow machine does not matter.
    assert!(begin.elapsed() < Duration::from_secs(30), "the runtime waited for the plugin");
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let server = ApiServer::start(vec![good("a", "x")]).await;
    server.behave().only = Some("a".to_owned());
    let reading = check(&server.probe(), Moment::Before, None).await;
    fails(&reading, &["permission to list pods in all namespaces is missing", "User \"viewer\"", "403"]);
    let in_b = KubernetesPodsGate { namespaces: vec!["b".to_owned()], ..server.settings() };
    fails(&before(in_b).await, &["permission to list pods in the namespace b is missing"]);
    let in_a = KubernetesPodsGate { namespaces: vec!["a".to_owned()], ..server.settings() };
    assert!(before(in_a).await.passed);
}

#[tokio::test]
async fn what_was_crash_looping_before_does_not_block_and_what_begins_to_does() {
    let server = ApiServer::start(vec![crashing("a", "old"), good("a", "new")]).await;
    let probe = server.probe();
    let baseline = check(&probe, Moment::Before, None).await.baseline.expect("a baseline");
    let same = check(&probe, Moment::Between, Some(&baseline)).await;
    assert!(same.passed, "{}", same.detail);
    assert_eq!(same.detail, "2 pods, 1 unhealthy; no workload has more than before the run");
    assert_eq!((same.baseline, &same.evidence["new"]), (None, &json!([])));

    server.behave().pods[1] = crashing("a", "new");
    let worse = check(&probe, Moment::After, Some(&baseline)).await;
    fails(&worse, &["1 workload has more unhealthy pods", "for 1 s or longer: a/new: CrashLoopBackOff, exit 1"]);
    assert!(!worse.detail.contains("a/old"), "{}", worse.detail);
    assert_eq!(worse.evidence["new"], json!(["a/new: CrashLoopBackOff, exit 1"]));
    assert!(server.behave().requests.len() >= 4, "it looks more than once before it fails");

    let settings = KubernetesPodsGate { grace: Duration::ZERO, ..server.settings() };
    let at_once = check(&PodsProbe::new(settings), Moment::After, Some(&baseline)).await;
    fails(&at_once, &["for 0 s or longer: a/new: CrashLoopBackOff, exit 1"]);
}

#[tokio::test]
async fn trouble_that_ends_within_the_grace_is_none() {
    let server = ApiServer::start(vec![crashing("a", "web")]).await;
    let probe = PodsProbe::new(KubernetesPodsGate { grace: Duration::from_mins(1), ..server.settings() });
    let recovers = async {
        while server.behave().requests.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.behave().pods = vec![good("a", "web")];
    };
    let empty = json!({"workloads": {}});
    let (reading, ()) = tokio::join!(check(&probe, Moment::Between, Some(&empty)), recovers);
    assert!(reading.passed, "{}", reading.detail);
    assert!(server.behave().requests.len() >= 2);
}

#[tokio::test]
async fn without_a_baseline_all_trouble_counts_and_that_is_said() {
    let server = ApiServer::start(vec![crashing("a", "old")]).await;
    let none = check(&server.probe(), Moment::After, None).await;
    fails(&none, &["a/old", "there is no baseline from before the run"]);
    let odd = check(&server.probe(), Moment::After, Some(&json!({"workloads": 7}))).await;
    fails(&odd, &["a/old", "the baseline from before the run cannot be parsed"]);
    server.behave().pods.clear();
    assert!(check(&server.probe(), Moment::After, None).await.passed);
}

#[tokio::test]
async fn an_api_server_that_is_away_for_less_than_the_grace_is_waited_for_after_a_member_but_not_before_the_run() {
    let server = ApiServer::start(vec![good("a", "x")]).await;
    let empty = json!({"workloads": {}});
    server.behave().unavailable = 2;
    fails(&check(&server.probe(), Moment::Before, None).await, &["answered 503", "currently unable to handle"]);
    // Longer than two requests take on any machine.
    let patient = PodsProbe::new(KubernetesPodsGate { grace: Duration::from_mins(1), ..server.settings() });
    let reading = check(&patient, Moment::Between, Some(&empty)).await;
    assert!(reading.passed, "{}", reading.detail);
    server.behave().unavailable = usize::MAX;
    fails(&check(&server.probe(), Moment::Between, Some(&empty)).await, &["answered 503"]);
}

#[tokio::test]
async fn no_server_a_foreign_one_and_one_that_never_answers_are_distinguished() {
    let server = ApiServer::start(Vec::new()).await;
    let other = ApiServer::start(Vec::new()).await;
    let user = format!("{{token: {TOKEN}}}");
    let stranger = write_kubeconfig(&server.path("other-ca"), &server.url, other.pki.ca(), &user);
    fails(&before(settings(stranger)).await, &["cannot reach the API server", "invalid peer certificate"]);
    let nobody = write_kubeconfig(&server.path("nobody"), "https://user:s3cret@127.0.0.1:1", server.pki.ca(), &user);
    fails(
        &before(settings(nobody)).await,
        &["cannot reach the API server https://127.0.0.1:1: ", "Connection refused"],
    );
    server.behave().hangs = true;
    // The server is named once the kubeconfig has been read, which must not take as long.
    let short = KubernetesPodsGate { timeout: Duration::from_secs(5), ..server.settings() };
    fails(&before(short).await, &["did not list the pods within 5 s", &server.url]);
}

#[tokio::test]
async fn an_api_server_s_certificate_that_is_its_own_authority_is_taken_from_the_kubeconfig_and_no_other() {
    let own = |name: &'static str| move |_: &Pki, dir: &Path| Pki::self_signed(dir, name, |_| {}).expect("signed");
    let server = ApiServer::showing(vec![good("a", "x")], own("own")).await;
    let user = format!("{{token: {TOKEN}}}");
    let trusting = |cert: &str| write_kubeconfig(&server.path("kubeconfig"), &server.url, &server.path(cert), &user);
    let taken = before(settings(trusting("own.crt"))).await;
    assert!(taken.passed, "{}", taken.detail);
    // The same names, and another key.
    own("other")(&server.pki, &server.path(""));
    let words = ["cannot reach the API server", "only if this very certificate is in the CA file"];
    fails(&before(settings(trusting("other.crt"))).await, &words);
    let kubeconfig = trusting("own.crt");
    let text = std::fs::read_to_string(&kubeconfig).expect("written");
    let elsewhere = text.replace("{server:", "{tls-server-name: elsewhere.test, server:");
    std::fs::write(&kubeconfig, elsewhere).expect("written");
    fails(&before(settings(kubeconfig)).await, &["not valid for name", "elsewhere.test"]);
    let requests = server.behave().requests.len();
    assert_eq!(requests, 1, "nothing is sent to a server that is not accepted");
}

#[tokio::test]
async fn what_is_no_list_of_pods_is_a_failure() {
    let server = ApiServer::start(Vec::new()).await;
    let list = json!({"kind": "PodList", "metadata": {"continue": "7"}, "items": []}).to_string();
    let table = [
        ("{}".to_owned(), "did not answer with a list of pods"),
        ("<html>s3cret</html>".to_owned(), "did not answer with a list of pods: line 1 column 1"),
        (json!({"kind": "NodeList", "items": []}).to_string(), "it has another kind"),
        (
            json!({"kind": "PodList", "items": [{"metadata": {"name": "s3cret"}}]}).to_string(),
            "did not answer with a list of pods: line 1",
        ),
        (list, "its pages do not end"),
    ];
    for (instead, words) in table {
        server.behave().instead = Some(instead);
        fails(&check(&server.probe(), Moment::Before, None).await, &[words]);
    }
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_a_failure_with_its_path() {
    let server = ApiServer::start(Vec::new()).await;
    let file = server.path("broken");
    fails(&before(settings(file.clone())).await, &["broken: cannot read it: No such file"]);
    let proxy = "clusters: [{name: c, cluster: {server: 'https://h', proxy-url: 'http://u:s3cret@p'}}]";
    let table = [
        ("users: [{name: u, user: {token: s3cret]", "it is not a valid kubeconfig"),
        ("users: s3cret", "it is not a valid kubeconfig"),
        ("apiVersion: v1\nkind: Config", "no current-context"),
        (proxy, "proxy-url, which is not supported"),
    ];
    for (text, words) in table {
        std::fs::write(&file, text).expect("written");
        fails(&before(settings(file.clone())).await, &[words, "broken"]);
    }
    let context = KubernetesPodsGate { context: Some("elsewhere".to_owned()), ..server.settings() };
    fails(&before(context).await, &["it has no context \"elsewhere\""]);
    let no_ca = write_kubeconfig(&file, &server.url, &server.path("no-ca"), "{}");
    fails(&before(settings(no_ca)).await, &["cannot read the certificate authority", "no-ca"]);
    let no_key = server.kubeconfig("{client-certificate: /nowhere/c, client-key: /nowhere/k}");
    fails(&before(settings(no_key)).await, &["cannot use the credentials", "/nowhere/"]);
}

#[tokio::test]
async fn without_a_kubeconfig_it_is_the_service_account_of_a_pod() {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        testkit::skipped("this runs in a pod");
        return;
    }
    let server = ApiServer::start(Vec::new()).await;
    let reading = before(KubernetesPodsGate { kubeconfig: None, ..server.settings() }).await;
    fails(&reading, &["the service account of a pod (no kubeconfig is set)"]);
}

#[test]
fn a_check_has_ended_by_itself_within_its_limit() {
    let settings = KubernetesPodsGate { timeout: Duration::from_secs(10), ..settings("x".into()) };
    assert_eq!(settings.limit(), Duration::from_secs(2 + 50 + 6));
}
