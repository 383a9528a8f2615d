//! Every query of the shipped dashboards, asked of a real Prometheus that has scraped a real run.

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde_json::Value;
use testkit::{Prometheus, until};

pub(crate) async fn assert_every_query_answers(prometheus: &Prometheus) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let mut asked = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let mut queries = BTreeSet::new();
        collect(&dashboard, &mut queries);
        for query in queries {
            asked += 1;
            let filled = substitute(&query);
            // At some moment of the last minutes: an annotation of a run is gone with the run.
            let at_some_moment = format!("last_over_time(({filled})[5m:1s])");
            // Rates need a second sample; a query that is wrong stays wrong.
            until(&format!("{} to answer {filled}", path.display()), Duration::from_secs(20), || async {
                let samples = prometheus.query(&at_some_moment).await?;
                anyhow::ensure!(!samples.is_empty(), "no data");
                Ok(())
            })
            .await
            .unwrap();
        }
    }
    assert!(asked > 30, "only {asked} queries were found: the search is broken");
}

fn collect(node: &Value, queries: &mut BTreeSet<String>) {
    match node {
        Value::Object(map) => {
            if let Some(query) = map.get("expr").and_then(Value::as_str) {
                queries.insert(query.to_owned());
            }
            map.values().for_each(|value| collect(value, queries));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, queries)),
        _ => {}
    }
}

/// What Grafana fills in, for "all" of every variable.
fn substitute(query: &str) -> String {
    let filled = query
        .replace("$__rate_interval", "1m")
        .replace("$__range", "5m")
        .replace("$etcd_cluster", ".*")
        .replace("$member", ".*");
    assert!(!filled.contains('$'), "a variable is left in {filled}");
    filled
}
