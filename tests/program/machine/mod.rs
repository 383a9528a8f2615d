//! What the program does when its machine fails: the disk under the journal, the descriptors, the clock. Nothing that was
//! accepted is lost, and what cannot be recorded is answered with 503, so that Alertmanager sends it again.
//!
//! There is no etcd: every run is refused. `tests/e2e/oom.rs` and `tests/e2e/journal.rs` have runs on real members.

use std::{collections::BTreeSet, fmt::Write};

use serde_json::{Value, json};
use testkit::{Defragd, Home};

mod clock;
mod descriptors;
mod disk;

/// Writes the configuration of so many clusters, `c0`, `c1` …, that are not there, and gives its flag.
fn clusters(home: &Home, count: usize) -> String {
    let mut config = "clusters:\n".to_owned();
    for number in 0..count {
        writeln!(config, "- {{name: c{number}, endpoints: [\"http://127.0.1.{number}:1\"]}}").unwrap();
    }
    home.write("config.yaml", config).unwrap();
    home.flag("--config", "config.yaml")
}

fn fingerprint(cluster: usize, number: usize) -> String {
    format!("{cluster}-{number}")
}

/// An alert for one cluster; each number is an alert of its own.
fn alert(cluster: usize, number: usize) -> Value {
    let labels = json!({"alertname": "EtcdFragmentationHigh", "etcd_cluster": format!("c{cluster}"), "number": number.to_string()});
    let alert = json!({"status": "firing", "labels": labels, "startsAt": "2026-11-23T10:00:00Z", "fingerprint": fingerprint(cluster, number)});
    json!({"version": "4", "alerts": [alert]})
}

/// Posts an alert: the status, and the run that a 202 promises.
async fn post(defragd: &Defragd, alert: &Value) -> (u16, Option<i64>) {
    let answer = defragd.post_alerts(alert, None).await.unwrap();
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    (answer.status, (answer.status == 202).then(|| body["alerts"][0]["run"].as_i64().unwrap()))
}

/// Every alert that a 202 promised is in the journal.
fn assert_recorded(home: &Home, promised: &BTreeSet<String>) {
    let journal = rusqlite::Connection::open(home.path("journal/journal.db")).unwrap();
    let query = "SELECT DISTINCT alert.value ->> 'fingerprint' FROM entry, json_each(body, '$.alerts') AS alert";
    let mut statement = journal.prepare(query).unwrap();
    let recorded: BTreeSet<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(promised.is_subset(&recorded), "lost: {:?}", promised.difference(&recorded));
}
