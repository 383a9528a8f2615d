//! The runbook of docs/runbook.md, a test for each row, on real etcd, real TLS servers and, if it is built
//! (`make tools-kube`), a real kube-apiserver on the very etcd that is defragmented. Without it, P1 and P6 say
//! SKIPPED; P7 then covers the servers, and `gates_run.rs` covers pods, with a simulated list.

use std::time::Duration;

use defragd::config::Settings;
use serde_json::{Value, json};
use testkit::{DefragWatch, Defragd, EtcdVersion, KubeApiserver, Timeline, until};

use crate::{
    faults::{self, fires_again, newest},
    gated::{checked, checks, failed_check, json_of, said},
    pods::{apply_manifest, crashing, good},
    rig::{MINUTE, Rig, TOKEN, binary, ended_run, firing, members_of},
    site::{Answer, Site, shrunk},
};

/// A fragmented cluster with a kube-apiserver on it; `None`, and a line that says so, if there is no kube-apiserver.
async fn kubernetes() -> Option<(Rig, KubeApiserver, String)> {
    if testkit::Tools::find().unwrap().kube_apiserver().is_none() {
        testkit::skipped("no kube-apiserver here; `make tools-kube` builds one");
        return None;
    }
    let rig = Rig::steady(EtcdVersion::V3_5).await;
    // Beside the leader, which comes last: it serves while the first member is held in its Defragment.
    let url = rig.cluster.member(rig.cluster.leader().await.unwrap()).client_url().to_owned();
    let log = rig.path("kube-apiserver.log");
    let api = KubeApiserver::start_behind(&rig.tools, &rig.cluster, &[url], &log).await.unwrap();
    let token = apply_manifest(&api).await;
    Some((rig, api, token))
}

fn reason(run: &Value) -> [&str; 4] {
    [&run["outcome"], &run["reason"]["code"], &run["reason"]["gate"], &run["reason"]["moment"]]
        .map(|value| value.as_str().unwrap_or("-"))
}

#[test]
fn every_line_of_configuration_in_the_runbook_is_valid() {
    let page = include_str!("../../docs/runbook.md");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| P")).collect();
    assert_eq!(rows.len(), 7, "{rows:?}");
    for row in rows {
        let line = row.rsplit('|').nth(1).unwrap().trim();
        let Some(keys) = line.strip_prefix('`').and_then(|line| line.strip_suffix('`')) else {
            assert_eq!(line, "none: always", "{row}");
            continue;
        };
        let endpoints = if keys.contains("endpoints:") { "" } else { "endpoints: ['127.0.0.1:2379'], " };
        let text = format!("clusters: [{{name: a, {endpoints}{keys}}}]");
        Settings::from_text(&text).unwrap_or_else(|error| panic!("{row}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_pod_that_begins_to_crash_in_the_run_stops_it_and_one_that_did_before_does_not() {
    let Some((rig, api, token)) = kubernetes().await else { return };
    api.pod(&json!({"name": "old"}), &crashing()).await.unwrap();
    api.pod(&json!({"name": "web"}), &good()).await.unwrap();
    let kubeconfig = api.kubeconfig(rig.path("kubeconfig"), &token).unwrap();
    let config = rig.config(&json!([{"name": "pods", "kubernetes_pods": {"kubeconfig": kubeconfig, "grace": "2s"}}]));
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let defragd = rig.serve_file(&config, &[]).await;
    // When the first member is in its Defragment, the gates before it have passed. It is held until the pod crashes.
    let held = faults::hold(&rig).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let first = faults::defragmenting(&rig.cluster).await;
    api.pod_status("web", &crashing()).await.unwrap();
    drop(held);

    let run = ended_run(&defragd, 1).await;
    assert_eq!(reason(&run), ["failed", "gate_failed", "pods", "between"], "{run}");
    let before = &run["gates"][0];
    assert_eq!((&before["passed"], &before["evidence"]["unhealthy"]), (&json!(true), &json!(1)), "{run}");
    assert_eq!(failed_check(&run)["evidence"]["new"], json!(["default/web: CrashLoopBackOff"]), "{run}");
    assert_eq!(watch.timeline().order(), [first], "only the first member was touched");

    // The proof that it was that pod, and that the old one is no obstacle up to the end.
    api.pod_status("web", &good()).await.unwrap();
    let again = fires_again(&defragd, 2).await;
    assert_eq!(again["outcome"], "succeeded", "{again}");
    assert_eq!(checked(&again, "pods"), passes(&["before", "between", "between", "after"]));
    assert_eq!(watch.stop().await.order().len(), 3);
}

fn passes(moments: &[&str]) -> Vec<(String, bool)> {
    moments.iter().map(|moment| ((*moment).to_owned(), true)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_all_members_are_found_over_mutual_tls_from_any_one_of_them() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    let list = rig.cluster.etcdctl(&["member", "list"]).await.unwrap();
    let mut real: Vec<_> = list.lines().map(|line| format!("{:0>16}", line.split(", ").next().unwrap())).collect();
    real.sort();
    assert_eq!(real.len(), 3, "{list}");
    let ids = |status: &Value| {
        let members = status["clusters"][0]["members"].as_array().unwrap().clone();
        let mut ids: Vec<_> = members
            .iter()
            .inspect(|member| assert!(member["db_size_bytes"].is_u64(), "it was not spoken to: {member}"))
            .map(|member| format!("{:0>16}", member["member_id"].as_str().unwrap()))
            .collect();
        ids.sort();
        ids
    };
    let pki = rig.cluster.pki().unwrap();
    for endpoint in rig.cluster.endpoints() {
        let mut cluster = rig.cluster_keys(&json!([]));
        cluster["endpoints"] = json!([endpoint]);
        let file = rig.path("one.yaml");
        std::fs::write(&file, json!({"clusters": [cluster]}).to_string()).unwrap();
        let by_file = rig.with_file(&file, &["status", "-o", "json"]).await;
        assert_eq!(ids(&json_of(&by_file)), real);

        // An operator's shell, with etcdctl's variables.
        let mut command = tokio::process::Command::new(binary());
        command.args(["status", "-o", "json"]).env("ETCDCTL_ENDPOINTS", &endpoint).env("ETCDCTL_CACERT", pki.ca());
        let without = command.output().await.unwrap();
        assert_ne!(without.status.code(), Some(0), "without a certificate: {}", said(&without));
        command.env("ETCDCTL_CERT", &pki.client().cert).env("ETCDCTL_KEY", &pki.client().key);
        assert_eq!(ids(&json_of(&command.output().await.unwrap())), real);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_the_leader_is_the_one_that_etcdctl_names_also_when_it_changes() {
    let rig = Rig::steady(EtcdVersion::V3_5).await;
    let config = rig.config(&json!([]));
    let defragd = rig.serve_file(&config, &["--mode=observe"]).await;
    let first = rig.cluster.leader().await.unwrap();
    for leader in [first, (first + 1) % 3] {
        rig.cluster.move_leader(leader).await.unwrap();
        // The others hear of it a moment later, and `status` names a leader only when they agree.
        until("all members to name it", MINUTE, || async {
            let all = rig.cluster.statuses().await?;
            anyhow::ensure!(all.iter().all(|one| one.leader == all[leader].id), "{all:?}");
            Ok(())
        })
        .await
        .unwrap();
        let name = rig.cluster.member(leader).name();
        let url = rig.cluster.member(leader).client_url();
        let table = rig.cluster.etcdctl(&["endpoint", "status", "--cluster", "-w", "json"]).await.unwrap();
        let all: Vec<Value> = serde_json::from_str(&table).unwrap();
        let of = |one: &Value| one["Status"]["leader"] == one["Status"]["header"]["member_id"];
        let named: Vec<_> = all.iter().filter(|one| of(one)).map(|one| one["Endpoint"].as_str().unwrap()).collect();
        assert_eq!(named, [url], "{table}");

        let status = json_of(&rig.with_file(&config, &["status", "-o", "json"]).await);
        let members = status["clusters"][0]["members"].as_array().unwrap();
        let leaders: Vec<_> = members.iter().filter(|member| member["is_leader"] == true).collect();
        assert_eq!((leaders.len(), leaders[0]["member"].as_str()), (1, Some(name)), "{status}");

        // From the server, which uses an observation again for some seconds, however many people look.
        until("the plan to have the leader last", MINUTE, || async {
            let plan = json_of(&rig.with_file(&config, &["plan", "-o", "json"]).await);
            anyhow::ensure!(plan["plans"][0]["steps"][2]["member"] == name, "{plan}");
            Ok(())
        })
        .await
        .unwrap();

        let metrics = defragd.metrics().await.unwrap();
        for member in rig.cluster.members() {
            let leads = if member.name() == name { 1.0 } else { 0.0 };
            assert_eq!(metrics.value("defragd_member_is_leader", &[("member", member.name())]), Some(leads));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_followers_come_first_the_leader_last_one_at_a_time_with_a_pause_in_between() {
    let rig = Rig::steady(newest()).await;
    let leader = rig.cluster.leader().await.unwrap();
    let config = rig.config(&json!([]));
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let done = rig.with_file(&config, &["run", "--pause-between-members=2s"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let timeline = watch.stop().await;
    assert_eq!(timeline.order(), [(leader + 2) % 3, (leader + 1) % 3, leader], "backwards from the leader");
    assert_eq!(timeline.max_in_flight(), 1);
    assert_paused(&timeline, Duration::from_secs(2));
    assert_eq!(rig.defrags().await, [1, 1, 1]);
}

/// From the end of each to the begin of the next.
fn assert_paused(timeline: &Timeline, pause: Duration) {
    for pair in timeline.finished().windows(2) {
        let gap = pair[1].began.saturating_sub(pair[0].ended);
        assert!(gap >= pause, "{gap:?} between {pair:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_before_and_after_are_the_servers_own_sizes_in_journal_metrics_log_and_on_the_terminal() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve_file(&rig.config(&json!([])), &[]).await;
    // A new cluster writes its version some seconds after its start, and a file without free pages grows by that.
    testkit::version_written(&rig.cluster).await.unwrap();
    let before = rig.cluster.statuses().await.unwrap();
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    let after = rig.cluster.statuses().await.unwrap();

    let (metrics, log, table) =
        (defragd.metrics().await.unwrap(), defragd.log().unwrap(), rig.shown("1", "table").await);
    let shown: Value = serde_json::from_str(&rig.shown("1", "json").await).unwrap();
    for journal in [&run, &shown["run"]] {
        assert_eq!(members_of(journal).len(), 3);
        for index in 0..3 {
            let (name, before, after) = (rig.cluster.member(index).name(), &before[index], &after[index]);
            let member = journal["members"].as_array().unwrap().iter().find(|one| one["member"] == name).unwrap();
            assert_eq!(member["before"]["db_size_bytes"], before.size, "{member}");
            assert_eq!(member["after"]["db_size_bytes"], after.size, "{member}");
            assert!(before.size > 3 * after.size, "{before:?} {after:?}");
            let reclaimed = metrics.count("defragd_member_last_defrag_reclaimed_bytes", &[("member", name)]);
            assert_eq!(reclaimed, Some(before.size - after.size));
            assert_eq!(metrics.count("defragd_member_db_size_bytes", &[("member", name)]), Some(after.size));
            let line = format!("member={name} before_bytes={} after_bytes={}", before.size, after.size);
            assert!(log.contains(&line), "{line} is not in {log}");
            assert!(table.contains(&format!("{name} defragmented in ")), "{table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_the_shipped_example_asks_pods_api_server_and_ingress_after_every_member_and_at_the_end() {
    let Some((rig, api, token)) = kubernetes().await else { return };
    let ingress = Site::start(&rig.path("ingress"), |_| Answer::new(200, "welcome")).await;
    api.kubeconfig(rig.path("kubeconfig"), &token).unwrap();
    let config = kubeadm(&rig, &api, &ingress);
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let defragd = rig.serve_file(&config, &POLICY).await;
    defragd.post_alerts(&alert("a"), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    for gate in ["pods", "apiserver", "ingress"] {
        assert_eq!(checked(&run, gate), passes(&["before", "between", "between", "between", "after"]), "{gate}: {run}");
    }
    assert_eq!(watch.timeline().order().len(), 3);
    let asked = ingress.asked();
    assert!(asked.len() >= 5 && asked.iter().all(|head| head.contains("host: www.example.org")), "{asked:?}");

    // The API server dies during the first member: the others are left alone.
    rig.fragment().await;
    let held = faults::hold(&rig).await;
    defragd.post_alerts(&alert("b"), Some(TOKEN)).await.unwrap();
    faults::defragmenting(&rig.cluster).await;
    drop(api);
    drop(held);
    let run = ended_run(&defragd, 2).await;
    let [outcome, code, gate, moment] = reason(&run);
    assert_eq!((outcome, code, moment), ("failed", "gate_failed", "between"), "{run}");
    // Both ask it; the first one in the file that failed is the reason.
    assert_eq!(gate, "pods", "{run}");
    let failed = |gate| checked(&run, gate).last().is_some_and(|(_, passed)| !passed);
    assert!(failed("apiserver") && failed("pods") && !failed("ingress"), "{run}");
    assert_eq!(watch.stop().await.order().len(), 4);
}

const POLICY: [&str; 6] = [
    "--mode=enforce",
    // The test holds a defragmentation by open snapshots.
    "--on-open-snapshot=ignore",
    "--min-reclaimable=4MiB",
    "--pause-between-members=3s",
    "--recovery-timeout=20s",
    "--cooldown=0s",
];

/// The firing alert of the cluster `kubeadm`, that began at another time for each word.
fn alert(word: &str) -> Value {
    crate::rig::notification("firing", &[("alertname", "EtcdFragmentationHigh"), ("etcd_cluster", "kubeadm")], word)
}

/// `deploy/examples/kubeadm.yaml` with this test's addresses and files, and shorter times.
fn kubeadm(rig: &Rig, api: &KubeApiserver, ingress: &Site) -> std::path::PathBuf {
    let pki = rig.cluster.pki().unwrap();
    let path = |path: &std::path::Path| path.display().to_string();
    let mut text = include_str!("../../deploy/examples/kubeadm.yaml").to_owned();
    let endpoints = rig.cluster.endpoints();
    for (shipped, ours) in [
        ("https://10.0.0.1:2379", endpoints[0].clone()),
        ("https://10.0.0.2:2379", endpoints[1].clone()),
        ("https://10.0.0.3:2379", endpoints[2].clone()),
        ("/etc/kubernetes/pki/etcd/ca.crt", path(pki.ca())),
        ("/etc/kubernetes/pki/etcd/healthcheck-client.crt", path(&pki.client().cert)),
        ("/etc/kubernetes/pki/etcd/healthcheck-client.key", path(&pki.client().key)),
        ("/etc/defragd/kubeconfig", path(&rig.path("kubeconfig"))),
        ("grace: 60s", "grace: 2s".to_owned()),
        ("https://10.0.0.10:6443", api.url().to_owned()),
        ("/etc/kubernetes/pki/ca.crt", path(api.pki().ca())),
        ("attempts: 10", "attempts: 3".to_owned()),
        ("interval: 3s", "interval: 500ms".to_owned()),
        ("for: 5s", "for: 1s".to_owned()),
        ("https://192.0.2.10/", format!("{}/", ingress.url)),
        ("server_name: www.example.org", format!("server_name: localhost, ca_file: {}", path(ingress.pki.ca()))),
    ] {
        assert!(text.contains(shipped), "{shipped} is not in the example any more");
        text = text.replace(shipped, &ours);
    }
    let file = rig.path("kubeadm.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_an_ingress_that_fails_after_the_first_member_stops_the_run_and_the_evidence_is_kept() {
    let rig = Rig::steady(EtcdVersion::V3_5).await;
    let broken = shrunk(rig.cluster.members());
    let ingress = Site::start(&rig.path("ingress"), move |_| {
        if broken() { Answer::new(503, "no healthy\nupstream") } else { Answer::new(200, "welcome") }
    })
    .await;
    let config = rig.config(&json!([{"name": "ingress", "http": {
        "url": format!("{}/shop", ingress.url),
        "headers": {"Host": "www.example.org"},
        "tls": {"ca_file": ingress.pki.ca(), "server_name": "localhost"},
        "expect_status": [200], "timeout": "5s", "attempts": 2, "interval": "200ms",
    }}]));
    let now = rig.with_file(&config, &["gates"]).await;
    assert_eq!(now.status.code(), Some(0), "{}", said(&now));

    let leader = rig.cluster.leader().await.unwrap();
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let defragd = rig.serve_file(&config, &[]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(reason(&run), ["failed", "gate_failed", "ingress", "between"], "{run}");

    // Nothing after it is touched, by the servers' own word.
    let order = watch.stop().await.order();
    assert!(order.len() == 1 && order[0] != leader, "{order:?}");
    assert_eq!(rig.defrags().await.iter().sum::<u64>(), 1);
    assert_eq!(members_of(&run), [rig.cluster.member(order[0]).name()]);

    assert_evidence(failed_check(&run), &ingress);
    assert_kept(&rig, &run, &ingress).await;
    assert_counted(&defragd).await;

    let now = rig.with_file(&config, &["gates"]).await;
    assert_eq!(now.status.code(), Some(3), "{}", said(&now));
}

/// Status, an excerpt of the body and the latency.
fn assert_evidence(check: &Value, ingress: &Site) {
    let evidence = &check["evidence"];
    // The path may be a secret.
    assert_eq!(evidence["url"], ingress.url, "{check}");
    assert_eq!((&evidence["status"], &evidence["attempts"]), (&json!(503), &json!(2)), "{check}");
    assert_eq!(evidence["body_excerpt"], "no healthy upstream", "{check}");
    assert!(evidence["latency_ms"].is_number() && check["took_seconds"].as_f64().unwrap() > 0.2, "{check}");
}

/// `defragd runs show` and the file itself say what the API says.
async fn assert_kept(rig: &Rig, run: &Value, ingress: &Site) {
    let shown: Value = serde_json::from_str(&rig.shown("1", "json").await).unwrap();
    assert_eq!(shown["run"]["gates"], run["gates"]);
    let table = rig.shown("1", "table").await;
    let line = table.lines().find(|line| line.contains("FAILED")).unwrap();
    assert!(line.contains("gate ingress FAILED (after a member): GET ") && line.contains("answered 503"), "{table}");
    assert!(table.contains("gate ingress passed (before the first member)"), "{table}");

    let journal = rusqlite::Connection::open(rig.path("journal/journal.db")).unwrap();
    let query = "SELECT body FROM entry WHERE run = 1 AND json_extract(body, '$.kind') = 'gate' \
                 AND NOT json_extract(body, '$.passed')";
    let body: String = journal.query_row(query, [], |row| row.get(0)).unwrap();
    assert_evidence(&serde_json::from_str(&body).unwrap(), ingress);
}

async fn assert_counted(defragd: &Defragd) {
    let metrics = defragd.metrics().await.unwrap();
    assert_eq!(checks(&metrics, "ingress", "before", "passed"), Some(1));
    assert_eq!(checks(&metrics, "ingress", "between", "failed"), Some(1));
    assert_eq!(checks(&metrics, "ingress", "after", "failed"), Some(0));
    assert_eq!(metrics.value("defragd_gate_passed", &[("gate", "ingress")]), Some(0.0));
    let stopped = [("etcd_cluster", "demo"), ("decision", "stop"), ("reason", "gate_failed")];
    assert_eq!(metrics.count("defragd_decisions_total", &stopped), Some(1));
    let failed = [("etcd_cluster", "demo"), ("trigger", "alert"), ("outcome", "failed")];
    assert_eq!(metrics.count("defragd_runs_total", &failed), Some(1));
    let log = defragd.log().unwrap();
    let line = log.lines().find(|line| line.contains("gate failed")).unwrap();
    assert!(line.contains("gate=ingress") && line.contains("moment=between"), "{line}");
}
