//! Notifications of Alertmanager and Grafana, as the receiver parses them. `tests/program/edge.rs` attacks the HTTP layer before it.

use defragd::core::alert::{self, Notification, Selector};
use serde_json::{Value, json};

use crate::Target;

const WORDS: [&str; 24] = [
    "version",
    "4",
    "alerts",
    "status",
    "firing",
    "resolved",
    "labels",
    "alertname",
    "etcd_cluster",
    "prod-a",
    "annotations",
    "startsAt",
    "endsAt",
    "2026-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "fingerprint",
    "truncatedAlerts",
    "groupKey",
    "receiver",
    "commonLabels",
    "orgId",
    "values",
    "\\ud800",
    "\\u0000",
];

fn alertmanager() -> Value {
    json!({
        "version": "4", "groupKey": "{}:{alertname=\"EtcdFragmentationHigh\"}", "truncatedAlerts": 0, "status": "firing",
        "receiver": "defragd", "groupLabels": {"alertname": "EtcdFragmentationHigh"},
        "commonLabels": {"alertname": "EtcdFragmentationHigh"}, "commonAnnotations": {}, "externalURL": "http://a:9093",
        "alerts": [
            {"status": "firing", "labels": {"alertname": "EtcdFragmentationHigh", "etcd_cluster": "prod-a", "member": "a"},
             "annotations": {"summary": "x"}, "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
             "generatorURL": "http://p:9090/graph", "fingerprint": "c0ffee"},
            {"status": "resolved", "labels": {"etcd_cluster": "prod-b"}, "annotations": {},
             "startsAt": "2026-01-01T00:00:00.123Z", "endsAt": "2026-01-01T01:00:00Z", "generatorURL": ""}
        ]
    })
}

fn grafana() -> Value {
    json!({
        "receiver": "defragd", "status": "firing", "orgId": 1, "title": "x", "state": "alerting", "message": "x",
        "alerts": [{"status": "firing", "labels": {"alertname": "frag", "etcd_cluster": "prod-a"}, "annotations": {},
            "startsAt": "2026-01-01T00:00:00+01:00", "endsAt": "0001-01-01T00:00:00Z", "values": {"B": 1.5, "C": null},
            "valueString": "[ var='B' ]", "generatorURL": "", "fingerprint": "a", "silenceURL": "", "dashboardURL": "",
            "panelURL": "", "imageURL": ""}],
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://g/", "version": "1",
        "groupKey": "{}", "truncatedAlerts": 0
    })
}

fn selectors() -> Vec<Selector> {
    ["prod-a", "prod-b"]
        .map(|name| {
            let any_of = vec![[("etcd_cluster".to_owned(), name.to_owned())].into_iter().collect()];
            Selector { cluster: name.to_owned(), any_of }
        })
        .to_vec()
}

fn judge(bytes: &[u8]) -> Result<(), String> {
    let selectors = selectors();
    let Ok(notification) = serde_json::from_slice::<Notification>(bytes) else { return Ok(()) };
    for alert in &notification.alerts {
        let key = alert.key();
        if key.fingerprint.is_empty() && !alert.labels.is_empty() {
            return Err(format!("no identity: {alert:?}"));
        }
        match alert::target(alert, &selectors) {
            Ok(name) if alert.labels["etcd_cluster"] != name => return Err(format!("{alert:?} is for {name}")),
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn target() -> Target {
    let trees = vec![alertmanager(), grafana()];
    let seeds = trees.iter().map(|tree| tree.to_string().into_bytes()).collect();
    Target { name: "webhook", seeds, trees, words: &WORDS, cost: 1, judge: Box::new(judge) }
}

#[test]
fn whatever_a_notification_is_it_concerns_the_clusters_that_it_names_or_none() {
    target().attack();
}

#[test]
fn very_many_alerts_and_very_deep_ones_are_read_in_bounded_memory() {
    let one = alertmanager()["alerts"][0].clone();
    let mut many = alertmanager();
    many["alerts"] = vec![one; 100_000].into();
    judge(many.to_string().as_bytes()).unwrap();
    for deep in ["[".repeat(1_000_000), "{\"alerts\":".repeat(1_000_000), format!("{{\"x\":{}", "[".repeat(1_000_000))]
    {
        judge(deep.as_bytes()).unwrap();
    }
}
