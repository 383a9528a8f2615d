//! A file with several clusters that changes while defragd serves, and how clusters are connected to.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use serde_json::{Value, json};
use testkit::{Defragd, EtcdCluster, EtcdSpec, EtcdVersion, Transport, until};

use crate::{
    faults::{self, received},
    rig::{MINUTE, Rig, TOKEN, binary, ended_run, firing, notification},
};

/// An entry of the configuration; JSON is YAML.
pub(crate) fn entry(name: &str, cluster: &EtcdCluster) -> Value {
    let policy = json!({
        "on_open_snapshot": "ignore",
        "mode": "enforce", "min_reclaimable": "4MiB", "pause_between_members": "1s", "recovery_timeout": "20s",
        "allow_without_quorum_slack": true,
    });
    let tls = cluster
        .pki()
        .map(|pki| json!({"ca_file": pki.ca(), "cert_file": pki.client().cert, "key_file": pki.client().key}));
    json!({"name": name, "endpoints": cluster.endpoints(), "tls": tls.unwrap_or(json!({})), "policy": policy})
}

fn write(rig: &Rig, entries: &[Value]) {
    fs::write(rig.path("config.yaml"), json!({"clusters": entries}).to_string()).unwrap();
}

async fn serve(rig: &Rig) -> Defragd {
    let token = rig.path("token");
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let args = [
        format!("--config={}", rig.path("config.yaml").display()),
        format!("--data-dir={}", rig.path("journal").display()),
        format!("--web.bearer-token-file={}", token.display()),
    ];
    Defragd::start(binary(), &args, &rig.path("defragd.log")).await.unwrap()
}

async fn reload(defragd: &Defragd) -> (u16, String) {
    let answer = defragd.post("/-/reload", "", Some(TOKEN)).await.unwrap();
    (answer.status, answer.body)
}

async fn other(rig: &Rig) -> EtcdCluster {
    let spec = EtcdSpec::new(EtcdVersion::V3_5).members(1).transport(Transport::Plain);
    EtcdCluster::start(&rig.tools, &spec).await.unwrap()
}

async fn names(defragd: &Defragd) -> Vec<String> {
    let clusters = defragd.json("/api/v1/clusters").await.unwrap();
    let names = clusters["clusters"].as_array().unwrap().iter();
    names.map(|cluster| cluster["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_adds_moves_and_removes_clusters_while_a_run_goes_on() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let (second, third) = (other(&rig).await, other(&rig).await);
    write(&rig, &[entry("demo", &rig.cluster)]);
    let defragd = serve(&rig).await;
    let held = faults::hold(&rig).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    faults::defragmenting(&rig.cluster).await;

    // One that cannot be: nothing of the file is taken.
    let mut broken = entry("broken", &third);
    broken["tls"] = json!({"ca_file": "/nowhere/ca.crt"});
    let secured = third.endpoints().iter().map(|url| url.replace("http://", "https://")).collect::<Vec<_>>();
    broken["endpoints"] = json!(secured);
    write(&rig, &[entry("second", &second), broken]);
    let (status, text) = reload(&defragd).await;
    assert!(status >= 400 && text.contains("/nowhere/ca.crt"), "{status} {text}");
    assert_eq!(names(&defragd).await, ["demo"]);

    // One cluster is added, the one with the run is removed.
    write(&rig, &[entry("second", &second)]);
    assert_eq!(reload(&defragd).await.0, 200);
    assert_eq!(names(&defragd).await, ["second", "demo"], "the run is not at its end");
    let metrics = defragd.metrics().await.unwrap();
    assert_eq!(metrics.value("defragd_cluster_up", &[("etcd_cluster", "second")]), Some(1.0));
    assert_eq!(metrics.value("defragd_cluster_run_active", &[("etcd_cluster", "demo")]), Some(1.0));
    let answer = defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    assert!(answer.body.contains("unknown_cluster"), "{}", answer.body);
    drop(held);
    let run = ended_run(&defragd, 1).await;
    assert_eq!((&run["outcome"], &run["reason"]["code"]), (&json!("stopped"), &json!("removed")), "{run}");
    assert_eq!(received(&rig.cluster).iter().sum::<usize>(), 1, "the member in hand, and no other");
    until("the cluster's series to be gone", MINUTE, || async {
        anyhow::ensure!(!defragd.metrics().await?.text().contains("etcd_cluster=\"demo\""), "they are there");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(names(&defragd).await, ["second"]);

    // It is added again and served; the other moves to another etcd.
    write(&rig, &[entry("demo", &rig.cluster), entry("second", &third)]);
    assert_eq!(reload(&defragd).await.0, 200);
    let metrics = defragd.metrics().await.unwrap();
    let id = format!("{:x}", third.status(0).await.unwrap().id);
    let seen = metrics.value("defragd_member_up", &[("etcd_cluster", "second"), ("member_id", &id)]);
    assert_eq!(seen, Some(1.0), "{}", metrics.text());
    let alert = notification("firing", &[("etcd_cluster", "demo")], "f2");
    defragd.post_alerts(&alert, Some(TOKEN)).await.unwrap();
    // The cooldown of the stopped run still holds: the journal has what it did.
    let clusters = defragd.json("/api/v1/clusters").await.unwrap();
    assert!(clusters["clusters"][0]["cooldown_until"].is_string(), "{clusters}");
    assert!(defragd.terminate(MINUTE).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_behind_two_names_is_reported_and_a_member_behind_two_urls_is_one() {
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).members(1)).await;
    let mut by_name = entry("by-name", &rig.cluster);
    let url = rig.cluster.endpoints()[0].replace("127.0.0.1", "localhost");
    by_name["endpoints"] = json!([url, format!("{url}/")]);
    write(&rig, &[entry("by-address", &rig.cluster), by_name]);
    let defragd = serve(&rig).await;
    for _ in 0..3 {
        defragd.metrics().await.unwrap();
    }
    let metrics = defragd.metrics().await.unwrap();
    for name in ["by-address", "by-name"] {
        let labels = [("etcd_cluster", name)];
        assert_eq!(metrics.value("defragd_cluster_duplicate", &labels), Some(1.0), "{}", metrics.text());
        let of = |(labels, _): &(std::collections::BTreeMap<String, String>, f64)| labels["etcd_cluster"] == name;
        assert_eq!(metrics.samples("defragd_member_up").filter(of).count(), 1, "{}", metrics.text());
    }
    let log = defragd.log().unwrap();
    assert_eq!(log.matches("lead to the same etcd cluster").count(), 1, "{log}");
    let clusters = defragd.json("/api/v1/clusters").await.unwrap();
    assert_eq!(clusters["clusters"][0]["same_as"], json!(["by-name"]), "{clusters}");
}

/// The local ports of a process' connections to these ports, by the kernel's table of all processes' connections.
fn connections(pid: u32, to: &BTreeSet<u16>) -> BTreeSet<u16> {
    // A file may be closed meanwhile.
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let own: BTreeSet<_> = files.filter_map(|file| fs::read_link(file.path()).ok()).collect();
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
        for line in text.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let is_own = own.contains(Path::new(&format!("socket:[{}]", fields[9])));
            if is_own && fields[3] == "01" && to.contains(&port(fields[2])) {
                found.insert(port(fields[1]));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_scrapes_use_the_same_connections() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--exporter-only"]).await;
    let port = |url: &String| url.rsplit(':').next().unwrap().parse().unwrap();
    let ports: BTreeSet<u16> = rig.cluster.endpoints().iter().map(port).collect();
    let own = || {
        // The test's own clients come and go; these are only defragd's.
        let fds = fs::read_dir(format!("/proc/{}/fd", defragd.pid())).unwrap().count();
        (connections(defragd.pid(), &ports), fds)
    };
    defragd.metrics().await.unwrap();
    defragd.metrics().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, fds) = own();
    for _ in 0..200 {
        defragd.metrics().await.unwrap();
    }
    let (after, fds_after) = own();
    assert!(!before.is_empty());
    assert!(before.is_subset(&after) && after.len() <= before.len() + ports.len(), "{before:?} became {after:?}");
    assert!(fds_after <= fds + ports.len(), "{fds} became {fds_after}");
}
