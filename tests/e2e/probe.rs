//! `/probe`: clusters that are not configured, on real etcd and scraped by a real Prometheus.

use std::{
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::json;
use testkit::{Defragd, EtcdSpec, EtcdVersion, Exposition, Prometheus, Transport, until};

use crate::rig::{MINUTE, Rig, binary};

/// Serves modules and no cluster: one for the rig's certificates, one that allows only the first member's port, one
/// with files that are not there.
async fn serve(rig: &Rig) -> Defragd {
    let ports: Vec<u16> = rig.cluster.endpoints().iter().map(|url| port(url)).collect();
    let pki = rig.cluster.pki().unwrap();
    let tls = json!({"ca_file": pki.ca(), "cert_file": pki.client().cert, "key_file": pki.client().key});
    let config = json!({"modules": {
        "lab": {"tls": tls, "allowed_targets": ["127.0.0.0/8"], "allowed_ports": ports},
        "narrow": {"tls": tls, "allowed_targets": ["127.0.0.0/8"], "allowed_ports": [ports[0]]},
        "broken": {"tls": {"ca_file": rig.path("nowhere.crt")}, "allowed_targets": ["127.0.0.1"], "allowed_ports": ports},
    }});
    let file = rig.path("probe.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    let args = [format!("--config={}", file.display()), "--exporter-only".to_owned(), "--log.level=debug".to_owned()];
    Defragd::start(binary(), &args, &rig.path("probe.log")).await.unwrap()
}

fn port(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.parse().unwrap()
}

fn authority(url: &str) -> &str {
    url.split_once("://").unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_configured_is_measured_within_its_module_and_no_further() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    let defragd = serve(&rig).await;
    let first = rig.cluster.endpoints()[0].clone();
    let target = authority(&first).to_owned();
    let measured = AtomicU64::new(0);
    let probe = async |query: String| {
        let answer = defragd.get(&format!("/probe?{query}")).await.unwrap();
        measured.fetch_add(u64::from(answer.status == 200), Ordering::Relaxed);
        answer
    };

    // The first one before the probe and the others after it: a new cluster still writes something.
    let mut statuses = rig.cluster.statuses().await.unwrap();
    // Before 3.6 the quotas are on the metrics pages, for which a probe waits two seconds and no longer.
    let page = until("a probe with all quotas", MINUTE, || async {
        let answer = probe(format!("module=lab&target={target}")).await;
        anyhow::ensure!(answer.status == 200, "{}", answer.body);
        let page = Exposition::new(answer.body);
        anyhow::ensure!(page.samples("defragd_member_db_quota_bytes").count() == 3, "{}", page.text());
        Ok(page)
    })
    .await
    .unwrap();
    assert_eq!(page.value("defragd_probe_success", &[]), Some(1.0));
    assert_eq!(page.value("defragd_cluster_up", &[("etcd_cluster", &target)]), Some(1.0));
    statuses.extend(rig.cluster.statuses().await.unwrap());
    let sizes: Vec<f64> = page.samples("defragd_member_db_size_bytes").map(|(_, value)| value).collect();
    assert_eq!(sizes.len(), 3, "{}", page.text());
    assert!(
        sizes.iter().all(|size| statuses.iter().any(|status| status.size.to_string() == size.to_string())),
        "{sizes:?}"
    );
    assert!(!page.text().contains("process_") && !page.text().contains("_runs_total"), "{}", page.text());

    let mut promtool = std::process::Command::new(rig.tools.promtool());
    let mut check = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), page.text().as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    // The members that the first one tells of are outside of this module: they are well, and not dialled.
    let narrow = probe(format!("module=narrow&target={first}&cluster=prod-a")).await;
    let page = Exposition::new(narrow.body);
    let up: Vec<f64> = page.samples("defragd_member_up").map(|(_, value)| value).collect();
    assert_eq!((up.len(), up.iter().sum::<f64>()), (3, 1.0), "{}", page.text());
    assert_eq!(page.value("defragd_cluster_up", &[("etcd_cluster", "prod-a")]), Some(1.0));
    let log = defragd.log().unwrap();
    assert!(log.contains("is not dialled: its port is not among the module"), "{log}");

    for (query, status, says) in [
        (String::new(), 400, "target=HOST:PORT"),
        (format!("target={target}"), 400, "module=NAME"),
        (format!("module=prod&target={target}"), 400, "configured modules: broken, lab, narrow"),
        ("module=lab&target=10.0.0.1:2379".to_owned(), 403, "allowed_ports"),
        (format!("module=lab&target=10.0.0.1:{}", port(&first)), 403, "allowed_targets"),
        (format!("module=lab&target=root:pw@{target}"), 400, "credentials belong to the module"),
        (format!("module=broken&target={target}"), 500, "nowhere.crt"),
    ] {
        let answer = probe(query.clone()).await;
        assert!(answer.status == status && answer.body.contains(says), "{query}: {} {}", answer.status, answer.body);
    }

    let metrics = defragd.metrics().await.unwrap();
    let scrapes = |code| metrics.count("defragd_scrapes_total", &[("page", "probe"), ("code", code)]);
    assert_eq!(
        (scrapes("200"), scrapes("400"), scrapes("403"), scrapes("500")),
        (Some(measured.load(Ordering::Relaxed)), Some(4), Some(2), Some(1))
    );
    assert_eq!(metrics.value("defragd_scrapes_in_flight", &[("page", "metrics")]), Some(1.0), "this one");
    assert_eq!(metrics.value("defragd_scrapes_in_flight", &[("page", "probe")]), Some(0.0));

    // A module is gone with the next reading of the file.
    let file = rig.path("probe.yaml");
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    config["modules"].as_object_mut().unwrap().remove("lab");
    std::fs::write(&file, config.to_string()).unwrap();
    defragd.signal_hup().unwrap();
    until("the module to be gone", MINUTE, || async {
        let answer = defragd.get(&format!("/probe?module=lab&target={target}")).await?;
        anyhow::ensure!(
            answer.status == 400 && answer.body.contains("configured modules: broken, narrow"),
            "{}",
            answer.body
        );
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_keeps_its_connections_and_a_frozen_member_costs_it_its_timeout_at_the_most() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    let defragd = serve(&rig).await;
    let target = rig.cluster.endpoints().join(",");
    let path = format!("/probe?module=lab&target={target}");
    let open = async || defragd.metrics().await.unwrap().value("process_open_fds", &[]).unwrap();
    defragd.get(&path).await.unwrap();
    let before = open().await;
    for _ in 0..20 {
        assert_eq!(defragd.get(&path).await.unwrap().status, 200);
    }
    assert!(open().await <= before + 3.0, "{before} and then {}", open().await);

    rig.cluster.pause(1).unwrap();
    let client = reqwest::Client::builder().timeout(MINUTE).build().unwrap();
    let began = std::time::Instant::now();
    let url = format!("{}{path}", defragd.url());
    // The member is frozen for good: only the probe's own limit gives an answer. `app/observer.rs` tests it in virtual
    // time.
    let answer = client.get(url).header("x-prometheus-scrape-timeout-seconds", "5").send().await.unwrap();
    let page = Exposition::new(answer.text().await.unwrap());
    eprintln!("answered after {:?}", began.elapsed());
    let up: Vec<f64> = page.samples("defragd_member_up").map(|(_, value)| value).collect();
    assert_eq!((up.len(), up.iter().sum::<f64>()), (3, 2.0), "{}", page.text());
    rig.cluster.resume(1).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_a_module_log_in_and_a_cluster_that_denies_is_no_success() {
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).transport(Transport::Plain)).await;
    rig.cluster.enable_auth("s3cret-of-root").await.unwrap();
    std::fs::write(rig.path("root"), "s3cret-of-root\n").unwrap();
    std::fs::write(rig.path("wrong"), "another\n").unwrap();
    let ports: Vec<u16> = rig.cluster.endpoints().iter().map(|url| port(url)).collect();
    let module = |file: &str| {
        json!({"scheme": "http", "auth": {"username": "root", "password_file": rig.path(file)},
               "allowed_targets": ["127.0.0.1"], "allowed_ports": ports})
    };
    let config = json!({"modules": {"right": module("root"), "wrong": module("wrong")}});
    std::fs::write(rig.path("probe.yaml"), config.to_string()).unwrap();
    let args = [format!("--config={}", rig.path("probe.yaml").display()), "--exporter-only".to_owned()];
    let defragd = Defragd::start(binary(), &args, &rig.path("probe.log")).await.unwrap();
    let target = authority(&rig.cluster.endpoints()[0]).to_owned();
    for (module, success, members) in [("right", 1.0, 3), ("wrong", 0.0, 0)] {
        let answer = defragd.get(&format!("/probe?module={module}&target={target}")).await.unwrap();
        let page = Exposition::new(answer.body);
        assert_eq!(page.value("defragd_probe_success", &[]), Some(success), "{}", page.text());
        assert_eq!(page.samples("defragd_member_db_size_bytes").count(), members);
    }
    let log = defragd.log().unwrap();
    assert!(!log.contains("s3cret"), "{log}");
    let shown = defragd.get("/config").await.unwrap().body;
    assert!(shown.contains("allowed_targets") && !shown.contains("s3cret"), "{shown}");
}

/// The example that is shipped, with this machine's addresses in it.
fn shipped(targets: &[String], defragd: &str) -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/prometheus-probe.yml");
    let text = std::fs::read_to_string(example).unwrap();
    let start = text.find("targets: [").unwrap();
    let end = start + text[start..].find(']').unwrap();
    let targets: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
    let text = format!("{}targets: [{}{}", &text[..start], targets.join(", "), &text[end..]);
    assert!(text.contains("127.0.0.1:9379") && text.contains("module: [kubeadm]"), "{text}");
    let text = text.replace("127.0.0.1:9379", defragd).replace("module: [kubeadm]", "module: [lab]");
    format!("global: {{scrape_interval: 1s}}\n{text}")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_prometheus_probes_as_the_shipped_example_says() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    let defragd = serve(&rig).await;
    let target = authority(&rig.cluster.endpoints()[0]).to_owned();
    let programs = [Some(rig.tools.prometheus()), rig.tools.prometheus_3()];
    if programs[1].is_none() {
        testkit::skipped("no Prometheus 3 here; tests/testkit/tools gets it");
    }
    for program in programs.into_iter().flatten() {
        let config = shipped(std::slice::from_ref(&target), defragd.target());
        let prometheus = Prometheus::start_program(&program, &config, &rig.path("prometheus.log")).await.unwrap();
        until("Prometheus to have probed", MINUTE, || async {
            let up = prometheus.query(&format!("defragd_member_up{{instance=\"{target}\"}} == 1")).await?;
            let success = prometheus.query("defragd_probe_success == 1").await?;
            anyhow::ensure!(up.len() == 3 && success.len() == 1, "{up:?} {success:?}");
            anyhow::ensure!(up.iter().all(|sample| sample.labels["job"] == "defragd-probe"), "{up:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
}
