//! Every query of the shipped dashboards, on a real Prometheus that has scraped a real run.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;
use testkit::{Prometheus, until};

use crate::rig::MINUTE;

/// What a minute's run without maintenance windows cannot show, by a part of the query, and why. These are
/// asked too, but an empty answer is no failure. `tests/observability` tests the days to full with series of days.
const NO_DATA: &[(&str, &str)] = &[
    ("offset 18h", "needs a day of samples"),
    ("offset 5d", "needs a week of samples"),
    ("defragd_cluster_next_scheduled_timestamp_seconds", "no schedule is configured"),
    ("defragd_cluster_next_window_timestamp_seconds", "no maintenance window is configured"),
];

pub(crate) async fn assert_every_query_answers(prometheus: &Prometheus) {
    let mut asked = 0;
    let mut excused = BTreeSet::new();
    for (name, dashboard) in shipped() {
        let mut queries = BTreeSet::new();
        collect(&dashboard, &mut queries);
        for query in queries {
            asked += 1;
            let filled = substitute(&query);
            // At some moment of the last minutes: an annotation of a run is gone with the run. More than a busy machine
            // takes since then.
            let at_some_moment = format!("last_over_time(({filled})[15m:1s])");
            if let Some((part, _)) = NO_DATA.iter().find(|(part, _)| query.contains(part)) {
                prometheus.query(&at_some_moment).await.unwrap();
                excused.insert(*part);
                continue;
            }
            // Rates need a second sample; a query that is wrong stays wrong.
            until(&format!("{name} to answer {filled}"), MINUTE, || async {
                let samples = prometheus.query(&at_some_moment).await?;
                anyhow::ensure!(!samples.is_empty(), "no data");
                Ok(())
            })
            .await
            .unwrap();
        }
    }
    assert!(asked > 80, "only {asked} queries were found: the search is broken");
    assert_eq!(excused.len(), NO_DATA.len(), "an excuse that no query needs any more: only {excused:?} are");
}

fn shipped() -> Vec<(String, Value)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let json = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    json.map(|path| {
        let dashboard = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (path.file_name().unwrap().to_string_lossy().into_owned(), dashboard)
    })
    .collect()
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
        .replace("$member", ".*")
        .replace("$top", "5");
    assert!(!filled.contains('$'), "a variable is left in {filled}");
    filled
}
