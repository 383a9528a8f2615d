//! The gates promql and alertmanager, from their configuration on, against a real Prometheus and a real
//! Alertmanager.

use std::time::Duration;

use defragd::{
    app::gates::gates,
    config::Settings,
    core::{expect::Samples, gate::Moment},
    ports::gate::{CheckContext, Gate, GateSettings, Reading},
};
use serde_json::json;
use testkit::{Alertmanager, Prometheus, Tools, until};

use crate::rig::MINUTE;

/// The gates of a file with this list of them.
fn configured(list: &str) -> Vec<Gate> {
    // `defragd` itself does so in main.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let text = format!("clusters: [{{name: prod-a, endpoints: ['127.0.0.1:1'], gates: [{list}]}}]");
    let settings = Settings::from_text(&text).unwrap();
    gates(&settings.clusters[0].gates).unwrap()
}

async fn check(gate: &Gate) -> Reading {
    tokio::time::timeout(gate.limit, gate.probe.check(CheckContext { moment: Moment::Before, baseline: None }))
        .await
        .unwrap_or_else(|_| panic!("{gate:?} took longer than its limit"))
}

#[tokio::test(flavor = "multi_thread")]
async fn promql_judges_what_a_real_prometheus_answers() {
    let (tools, dir) = (Tools::find().unwrap(), tempfile::tempdir().unwrap());
    let rules = dir.path().join("rules.yml");
    std::fs::write(
        &rules,
        "groups: [{name: a, interval: 1s, rules: [{record: disk_free, expr: vector(7), labels: {etcd_cluster: prod-a}}]}]",
    )
    .unwrap();
    let config = format!("global: {{evaluation_interval: 1s}}\nrule_files: [{}]\n", rules.display());
    let prometheus = Prometheus::start(&tools, &config, &dir.path().join("prometheus.log")).await.unwrap();
    until("the recording rule", MINUTE, || async {
        anyhow::ensure!(!prometheus.query("disk_free").await?.is_empty(), "no sample yet");
        Ok(())
    })
    .await
    .unwrap();

    let url = prometheus.url();
    for (query, expect, passes, word) in [
        ("disk_free{etcd_cluster=\"$etcd_cluster\"}", "{above: 6}", true, "1 sample, as expected"),
        ("disk_free{etcd_cluster=\"$etcd_cluster\"}", "{above: 7}", false, "disk_free{etcd_cluster=\"prod-a\"} is 7"),
        ("disk_free{etcd_cluster=\"$etcd_cluster\"} < 5", "empty", true, "0 samples"),
        ("disk_free{etcd_cluster=\"other\"}", "{above: 6}", false, "returned nothing"),
        ("disk_free", "not_empty", true, "1 sample"),
        ("scalar(disk_free) / 0", "{below: 1}", false, "the scalar is inf"),
        ("disk_free[5m]", "empty", false, "is not an instant vector"),
        ("disk_free{", "empty", false, "answered 400: invalid parameter"),
        // Label sets that clash: only an evaluation finds it.
        (
            "disk_free * on() group_left label_replace(vector(1) or disk_free, \"x\", \"$1\", \"y\", \"z\")",
            "empty",
            false,
            "answered 422",
        ),
    ] {
        let query = query.replace('\'', "''");
        let list = format!("{{name: q, promql: {{url: '{url}', query: '{query}', expect: {expect}, attempts: 1}}}}");
        let reading = check(&configured(&list)[0]).await;
        assert_eq!(reading.passed, passes, "{query}, expected {expect}: {reading:?}");
        assert!(reading.detail.contains(word), "{query}: {word:?} is not in {reading:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firing_alert_fails_until_it_is_silenced() {
    let (tools, dir) = (Tools::find().unwrap(), tempfile::tempdir().unwrap());
    let config = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";
    let server = Alertmanager::start(&tools, config, &dir.path().join("alertmanager.log")).await.unwrap();
    let list = |matchers: &str, more: &str| {
        format!("{{name: a, alertmanager: {{url: '{}', matchers: {matchers}, attempts: 1{more}}}}}", server.url())
    };
    let gate = configured(&list("['severity=\"critical\"', 'alertname=~\"etcd.*\"']", "")).remove(0);
    assert!(check(&gate).await.passed, "there is no alert yet");

    let labels = json!({"alertname": "etcdNoLeader", "severity": "critical", "etcd_cluster": "prod-a"});
    let other = json!({"alertname": "Watchdog", "severity": "none"});
    server.post(&json!([{"labels": labels}, {"labels": other}])).await.unwrap();
    until("the alerts to be active", MINUTE, || async {
        anyhow::ensure!(server.alerts().await?.len() == 2, "not yet");
        Ok(())
    })
    .await
    .unwrap();
    let reading = check(&gate).await;
    assert!(!reading.passed, "{reading:?}");
    assert_eq!(reading.evidence["alerts"], json!(["etcdNoLeader"]));

    for (matchers, more, passes) in [
        ("['severity=\"critical\"', 'etcd_cluster=\"other\"']", "", true),
        ("['severity=~\"crit.*\"', 'etcd_cluster!=\"other\"']", "", false),
        ("[severity=critical]", ", ignore: [etcdNoLeader]", true),
        ("['alertname!~\"etcd.*\"']", "", false),
    ] {
        let reading = check(&configured(&list(matchers, more))[0]).await;
        assert_eq!(reading.passed, passes, "{matchers}{more}: {reading:?}");
    }

    let at = |time: jiff::Timestamp| time.to_string();
    let now = jiff::Timestamp::now();
    let silence = json!({
        "matchers": [{"name": "alertname", "value": "etcdNoLeader", "isRegex": false, "isEqual": true}],
        "startsAt": at(now), "endsAt": at(now + Duration::from_mins(10)),
        "createdBy": "test", "comment": "known",
    });
    server.silence(&silence).await.unwrap();
    until("the silence to hold", MINUTE, || async {
        let reading = check(&gate).await;
        anyhow::ensure!(reading.passed, "{}", reading.detail);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shipped_query_is_understood_and_fails_where_there_is_no_data() {
    let (tools, dir) = (Tools::find().unwrap(), tempfile::tempdir().unwrap());
    let prometheus = Prometheus::start(&tools, "{}", &dir.path().join("prometheus.log")).await.unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/gates.yaml");
    let settings = Settings::from_file(file.as_ref()).unwrap();
    let mut queries = 0;
    for mut gate in settings.clusters[0].gates.clone() {
        let Some(promql) = &mut gate.promql else { continue };
        promql.url = Some(prometheus.url().parse().unwrap());
        promql.attempts = 1;
        queries += 1;
        let reading = check(&gates(&[gate.clone()]).unwrap()[0]).await;
        assert!(!reading.passed && reading.detail.contains("returned nothing"), "{}: {reading:?}", gate.name);
    }
    assert!(queries >= 4, "only {queries} queries were found");
}

/// The shipped gates of that kind, as (name, query, what it must give).
fn shipped_queries() -> Vec<(String, String, Samples)> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/gates.yaml");
    let gates = Settings::from_file(file.as_ref()).unwrap().clusters.remove(0).gates;
    let query = |gate: GateSettings| gate.promql.map(|promql| (gate.name, promql.query, promql.expect));
    gates.into_iter().filter_map(query).collect()
}

/// Series for `promtool`, a sample a minute.
type Series = (&'static str, &'static str);

const DISKS: [Series; 3] = [
    ("node_filesystem_avail_bytes{job='node-exporter',mountpoint='/var/lib/etcd',instance='a'}", "5e9x30"),
    ("node_filesystem_avail_bytes{job='node-exporter',mountpoint='/var/lib/etcd',instance='b'}", "9e9x30"),
    ("node_filesystem_avail_bytes{job='node-exporter',mountpoint='/',instance='a'}", "1x30"),
];

const fn in_use(bytes: &'static str) -> Series {
    ("defragd_member_db_size_in_use_bytes{etcd_cluster='prod-a',member='a'}", bytes)
}

const fn member(series: &'static str) -> Series {
    (series, "1x30")
}

#[test]
fn the_shipped_queries_tell_good_from_bad() {
    let (a, b) = (
        member("defragd_member_up{etcd_cluster='prod-a',member='a'}"),
        member("defragd_member_up{etcd_cluster='prod-a',member='b'}"),
    );
    let c = member("defragd_member_up{etcd_cluster='prod-a',member='c'}");
    let disks = |more: &[Series]| [&DISKS, more].concat();
    let leader = |values| vec![("etcd_server_leader_changes_seen_total{job='kube-etcd',instance='a'}", values)];
    let fsync = |fast, slow| {
        vec![
            ("etcd_disk_wal_fsync_duration_seconds_bucket{job='kube-etcd',instance='a',le='0.01'}", fast),
            ("etcd_disk_wal_fsync_duration_seconds_bucket{job='kube-etcd',instance='a',le='0.1'}", slow),
            ("etcd_disk_wal_fsync_duration_seconds_bucket{job='kube-etcd',instance='a',le='+Inf'}", slow),
        ]
    };
    let ok = ("apiserver_request_total{job='apiserver',code='200'}", "0+1000x30");
    let errors = |values| vec![ok, ("apiserver_request_total{job='apiserver',code='503'}", values)];
    let cases: Vec<(&str, Vec<Series>, bool)> = vec![
        ("free-disk", disks(&[in_use("4e9x30"), a, b]), true),
        ("free-disk", disks(&[in_use("4.2e9x30"), a, b]), false),
        // A member whose node says nothing about its disk.
        ("free-disk", disks(&[in_use("4e9x30"), a, b, c]), false),
        ("free-disk", disks(&[a, b]), false),
        ("leader-changes", leader("3x30"), true),
        ("leader-changes", leader("3x20 4x10"), false),
        ("wal-fsync", fsync("0+100x30", "0+100x30"), true),
        ("wal-fsync", fsync("0+90x30", "0+100x30"), false),
        // No writes at all.
        ("wal-fsync", fsync("5x30", "5x30"), false),
        ("apiserver-errors", vec![ok], true),
        ("apiserver-errors", errors("0+5x30"), true),
        ("apiserver-errors", errors("0+20x30"), false),
    ];
    let shipped = shipped_queries();
    for (name, ..) in &shipped {
        assert!(cases.iter().any(|(case, _, passes)| case == name && *passes), "there is no good case for {name}");
        assert!(cases.iter().any(|(case, _, passes)| case == name && !*passes), "there is no bad case for {name}");
    }
    let tests: Vec<_> = cases
        .into_iter()
        .map(|(case, series, passes)| {
            let (_, query, expect) = shipped.iter().find(|(name, ..)| name == case).unwrap();
            let good = match expect {
                Samples::Above(limit) => format!("count(({query}) > {limit})"),
                Samples::Below(limit) => format!("count(({query}) < {limit})"),
                other => panic!("{case} expects {other}"),
            };
            let series: Vec<_> =
                series.iter().map(|(name, values)| json!({"series": name, "values": values})).collect();
            let samples = if passes { json!([{"labels": "{}", "value": 1}]) } else { json!([]) };
            let test = json!([{"expr": good, "eval_time": "25m", "exp_samples": samples}]);
            json!({"interval": "1m", "name": case, "input_series": series, "promql_expr_test": test})
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gates.test.yml");
    std::fs::write(&file, json!({"tests": tests}).to_string()).unwrap();
    let promtool = Tools::find().unwrap().promtool();
    let output = std::process::Command::new(promtool).args(["test", "rules"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}
