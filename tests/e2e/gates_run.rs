//! Gates in runs, beyond the rows of the runbook: unhealthy systems, gates that only warn, and a kill.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Alertmanager, DefragWatch, EtcdVersion, Prometheus};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    gated::{checked, checks, failed_check, json_of, said},
    pods::{crashing, good},
    rig::{MINUTE, Rig, TOKEN, ended_run, firing, first_defragmented},
    site::{Site, pod_list},
};

/// Ways in which Prometheus and Alertmanager are no help.
const NO_HELP: [&str; 5] = ["down", "silent", "slow", "garbage", "ten_megabytes"];

/// A server of that manner, as `host:port`.
async fn no_help(manner: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    if manner == "down" {
        return address;
    }
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Speaks when it was spoken to, and does not care who listens.
                let _ = stream.read(&mut [0; 4096]).await;
                let ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
                let _ = match manner {
                    "silent" => std::future::pending().await,
                    "slow" => drip(&mut stream, &format!("{ok}X-Long: {}\r\n\r\n", "x".repeat(1_000))).await,
                    "garbage" => stream.write_all(b"\xff\x00\x16\n\x80garbage\r\n\r\n").await,
                    _ => {
                        let head = format!("{ok}Content-Length: 10000000\r\n\r\n[");
                        let _ = stream.write_all(head.as_bytes()).await;
                        stream.write_all(&vec![b'7'; 9_999_999]).await
                    }
                };
            });
        }
    });
    address
}

/// A byte now and then: never long without one, and not done within a minute and a half.
async fn drip(stream: &mut tokio::net::TcpStream, text: &str) -> std::io::Result<()> {
    for byte in text.bytes() {
        stream.write_u8(byte).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_or_alertmanager_that_is_no_help_refuses_the_run_in_time() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let mut gates = Vec::new();
    for manner in NO_HELP {
        let url = format!("http://{}", no_help(manner).await);
        let tries = json!({"url": url, "timeout": "500ms", "attempts": 2, "interval": "100ms"});
        let (mut promql, mut alertmanager) = (tries.clone(), tries);
        promql["query"] = json!("up == 0");
        alertmanager["matchers"] = json!(["severity=\"critical\""]);
        gates.push(json!({"name": format!("prometheus-{manner}"), "promql": promql}));
        gates.push(json!({"name": format!("alertmanager-{manner}"), "alertmanager": alertmanager}));
    }
    // Two attempts of half a second, and what a busy machine adds. Without a limit, the slow ones would take longer and
    // the silent ones for ever.
    let bound = MINUTE;

    let config = rig.config(&json!(gates));
    let all = json_of(&rig.with_file(&config, &["gates", "-o", "json"]).await);
    let results = all["clusters"][0]["gates"].as_array().unwrap();
    assert_eq!(results.len(), gates.len(), "{all}");
    for result in results {
        assert_eq!(result["passed"], false, "{result}");
        assert!(result["took_seconds"].as_f64().unwrap() < bound.as_secs_f64(), "{result}");
        assert!(!result["detail"].as_str().unwrap().is_empty(), "{result}");
        assert!(result.to_string().len() < 2_000, "the evidence is not bounded: {result}");
    }
    let plan = rig.with_file(&config, &["plan"]).await;
    assert_eq!(plan.status.code(), Some(3), "{}", said(&plan));
    assert!(said(&plan).contains("- gate prometheus-down"), "{}", said(&plan));

    // Each by itself is enough to refuse a run.
    for gate in &gates {
        let config = rig.config(&json!([gate]));
        let begun = Instant::now();
        let done = rig.with_file(&config, &["run", "-o", "json"]).await;
        let run = &json_of(&done)["run"];
        assert_eq!(done.status.code(), Some(3), "{}", said(&done));
        assert_eq!((&run["outcome"], &run["reason"]["code"]), (&json!("refused"), &json!("gate_failed")), "{run}");
        assert_eq!((&run["reason"]["gate"], &run["members"]), (&gate["name"], &json!([])), "{run}");
        // Including the observation of the cluster before it.
        assert!(begun.elapsed() < bound, "{:?}: {run}", begun.elapsed());
    }
    assert_eq!(rig.defrags().await, [0, 0, 0], "a member was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_only_warns_fails_without_ending_the_run_and_is_counted() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let prometheus = Prometheus::start(&rig.tools, "{}", &rig.path("prometheus.log")).await.unwrap();
    let routes = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";
    let alertmanager = Alertmanager::start(&rig.tools, routes, &rig.path("alertmanager.log")).await.unwrap();
    let firing_alert = json!([{"labels": {"alertname": "DiskSlow", "severity": "warning"}}]);
    alertmanager.post(&firing_alert).await.unwrap();
    testkit::until("the alert to be active", MINUTE, || async {
        anyhow::ensure!(alertmanager.alerts().await?.len() == 1, "not yet");
        Ok(())
    })
    .await
    .unwrap();
    let critical = json!({"url": alertmanager.url(), "matchers": ["severity=\"critical\""]});
    let warning = json!({"url": alertmanager.url(), "matchers": ["severity=\"warning\""], "attempts": 1});
    let query =
        |query: &str, expect: &Value| json!({"url": prometheus.url(), "query": query, "expect": expect, "attempts": 1});
    let config = rig.config(&json!([
        {"name": "critical", "alertmanager": critical},
        {"name": "warning", "on_failure": "warn", "alertmanager": warning},
        {"name": "time", "promql": query("vector(time())", &json!({"above": 0}))},
        {"name": "absent", "on_failure": "warn", "when": ["between", "after"],
            "promql": query("no_such_metric", &json!("not_empty"))},
    ]));
    let now = rig.with_file(&config, &["gates"]).await;
    assert_eq!(now.status.code(), Some(0), "{}", said(&now));

    let defragd = rig.serve_file(&config, &[]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    for (gate, count, passed) in [("critical", 5, true), ("time", 5, true), ("warning", 5, false), ("absent", 4, false)]
    {
        let results = checked(&run, gate);
        assert!(results.len() == count && results.iter().all(|(_, is)| *is == passed), "{gate}: {results:?}");
    }

    let metrics = defragd.metrics().await.unwrap();
    for (gate, moment, result, count) in [
        ("warning", "before", "warned", Some(1)),
        ("warning", "between", "warned", Some(3)),
        ("absent", "between", "warned", Some(3)),
        ("absent", "after", "warned", Some(1)),
        ("absent", "before", "warned", None),
        ("absent", "between", "failed", Some(0)),
        ("critical", "between", "passed", Some(3)),
    ] {
        assert_eq!(checks(&metrics, gate, moment, result), count, "{gate} {moment} {result}");
    }
    let log = defragd.log().unwrap();
    let warned = log.lines().filter(|line| line.contains("gate failed; continuing") && line.contains("level=warn"));
    assert_eq!(warned.count(), 9, "{log}");
    assert!(rig.shown("1", "table").await.contains("gate warning FAILED, continuing (after a member): 1 active alert"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_pods_are_compared_with_how_they_were_before_the_run() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    // A stand-in for the API server: the list of pods is all that matters here.
    let well = || [("old", crashing()), ("web", good())];
    let api = Site::start(&rig.path("api"), move |_| pod_list(&well())).await;
    let kubeconfig = api.kubeconfig(rig.path("kubeconfig"), "token");
    let config = rig.config(&json!([{"name": "pods", "kubernetes_pods": {"kubeconfig": kubeconfig, "grace": "1s"}}]));
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    // Killed while the cluster is watched after the first member: for longer than a busy machine takes for that.
    let defragd = rig.serve_file(&config, &["--pause-between-members=1m"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let first = first_defragmented(&watch, &defragd).await;
    defragd.kill().await.unwrap();
    let begun = crate::faults::journal(&rig).remove(0);
    assert!(begun["outcome"].is_null() && checked(&begun, "pods").len() == 1, "{begun}");

    // Between two observations a pod began to crash. A baseline taken now would include it.
    api.turn(|_| pod_list(&[("old", crashing()), ("web", crashing())]));
    let defragd = rig.serve_file(&config, &[]).await;
    let run = ended_run(&defragd, 1).await;
    assert_eq!((&run["outcome"], &run["reason"]["code"]), (&json!("failed"), &json!("gate_failed")), "{run}");
    assert_eq!(checked(&run, "pods"), [("before".to_owned(), true), ("between".to_owned(), false)], "{run}");
    assert_eq!(failed_check(&run)["evidence"]["new"], json!(["default/web: CrashLoopBackOff"]), "{run}");
    assert_eq!(run["gates"].as_array().unwrap().iter().filter(|result| result["baseline"].is_object()).count(), 1);
    assert_eq!(watch.stop().await.order(), [first], "only the first member was touched");
}
