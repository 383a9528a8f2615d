//! Alerts, routes and dashboards are consistent: alerts have tests and runbooks, routes lead where the README says,
//! dashboards match their source and read well in Grafana.
//!
//! Tests that need a running defragd are elsewhere: `tests/e2e/dashboards.rs` runs every query on a real Prometheus,
//! `tests/e2e/exposition.rs` checks that every metric exists.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value;

mod alerts;
mod dashboards;
mod routes;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files of a folder whose name ends so, in order.
fn files(dir: &str, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    found.sort();
    assert!(!found.is_empty(), "no {end} in {dir}");
    found
}

/// Every value of a key, at any depth.
fn values_of<'a>(node: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match node {
        Value::Object(map) => {
            found.extend(map.get(key));
            map.values().for_each(|value| values_of(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| values_of(value, key, found)),
        _ => {}
    }
}

/// Which of Prometheus' own target labels, or of the names that clash with them, a query on our metrics names.
fn forbidden_label(query: &str) -> Option<&'static str> {
    // Only the target says which process it is.
    if !query.contains("defragd_") || query.contains("defragd_build_info") {
        return None;
    }
    let mut words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.find_map(|word| ["cluster", "endpoint", "instance", "job"].into_iter().find(|label| *label == word))
}

#[test]
fn a_forbidden_label_is_seen() {
    assert_eq!(forbidden_label(r#"defragd_member_up{etcd_cluster="a", job="x"}"#), Some("job"));
    assert_eq!(forbidden_label("sum by (cluster) (defragd_member_up)"), Some("cluster"));
    assert_eq!(forbidden_label("sum by (etcd_cluster) (defragd_cluster_up)"), None);
    assert_eq!(forbidden_label(r#"up{job="defragd"}"#), None);
}
