//! The dashboards: the rules of Grafana's own linter that apply, and the one query with arithmetic in it.

use std::{collections::BTreeSet, process::Command};

use serde_json::{Value, json};
use testkit::Tools;

use super::{files, forbidden_label, root, values_of};

fn dashboards() -> Vec<(String, Value)> {
    let named = files("dashboards", ".json").into_iter().map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    });
    named.collect()
}

/// The panels that show something, without the rows' headings.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().unwrap();
    let panels: Vec<_> = all.iter().filter(|panel| panel["type"] != "row").collect();
    assert!(panels.len() > 8, "the search is broken");
    panels
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn the_json_is_what_the_source_says() {
    let Ok(out) = Command::new("python3").arg(root().join("dashboards/generate.py")).arg("--check").output() else {
        testkit::skipped("no python3 here");
        return;
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn each_dashboard_can_be_imported_anywhere_and_leads_to_the_others() {
    let mut uids = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        assert_eq!(text(&dashboard, "uid"), format!("defragd-{name}"), "a stable uid");
        assert!(uids.insert(text(&dashboard, "uid").to_owned()));
        assert!(
            text(&dashboard, "title").ends_with("(defragd)") && text(&dashboard, "description").len() > 20,
            "{name}"
        );
        assert_eq!(dashboard["editable"], false, "{name}");
        assert_eq!(dashboard["tags"], json!(["defragd", "etcd"]), "{name}");
        assert!(dashboard["schemaVersion"].as_u64() >= Some(39), "{name}");
        assert!(dashboard.get("__inputs").is_none() && dashboard["id"].is_null(), "{name}");
        assert_eq!(dashboard["links"][0]["tags"], json!(["defragd"]), "{name}");
        assert_eq!(dashboard["links"][0]["includeVars"], true, "{name}");
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        assert_eq!(text(&variables[0], "name"), "datasource", "{name}");
        assert_eq!(variables.iter().filter(|variable| variable["type"] == "datasource").count(), 1, "{name}");
        for variable in variables.iter().filter(|variable| variable["type"] == "query") {
            let (label, refresh) = (text(variable, "label"), &variable["refresh"]);
            assert!(!label.is_empty() && *refresh == 2, "{name}: {label} is read anew when the time range changes");
        }
        let mut sources = Vec::new();
        values_of(&dashboard, "datasource", &mut sources);
        for source in sources.iter().filter(|source| source["type"] != "grafana") {
            assert_eq!(**source, json!({"type": "prometheus", "uid": "${datasource}"}), "{name}");
        }
        let annotations = dashboard["annotations"]["list"].as_array().unwrap();
        assert!(annotations.iter().any(|a| a["expr"].as_str().is_some_and(|e| e.contains("run_active"))), "{name}");
    }
    // A link in a table names one of them.
    let linked: Vec<_> = dashboards().iter().flat_map(|(_, dashboard)| links(dashboard)).collect();
    assert!(!linked.is_empty());
    for uid in linked {
        assert!(uids.contains(&uid), "{uid} is no dashboard of ours");
    }
}

fn links(dashboard: &Value) -> Vec<String> {
    let json = dashboard.to_string();
    json.split("/d/").skip(1).map(|rest| rest.split(['?', '/', '"']).next().unwrap().to_owned()).collect()
}

#[test]
fn each_panel_has_a_title_a_description_a_unit_and_a_place_of_its_own() {
    for (name, dashboard) in dashboards() {
        let (mut ids, mut titles, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for panel in panels(&dashboard) {
            let title = text(panel, "title");
            assert!(!title.is_empty() && titles.insert(title), "{name}: {title:?} twice or empty");
            let description = text(panel, "description");
            let question = description.split_once("? ").map_or("", |(question, _)| question);
            assert!(question.len() > 10 && !question.contains('.'), "{name}: {title} does not say what it is for");
            assert!(description.len() > 20 && description.ends_with('.'), "{name}: {title} has no description");
            assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{name}: {title} has no unit");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}: {title}");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{name}: {title} asks nothing");
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(place("x") + place("w") <= 24, "{name}: {title} is too far to the right");
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(cells.insert((x, y)), "{name}: {title} lies on another panel");
                }
            }
        }
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: an id is used twice");
        }
    }
}

#[test]
fn each_query_asks_counters_for_their_increase_over_grafanas_intervals_and_names_no_targets() {
    for (name, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().unwrap() {
                let query = text(target, "expr");
                let at = format!("{name}: {}: {query}", text(panel, "title"));
                assert_eq!(forbidden_label(query), None, "{at}");
                let rated = query.contains("increase(") || query.contains("rate(");
                let counter = ["_total{", "_bucket{", "_count{", "_sum{"].iter().any(|end| query.contains(end));
                assert_eq!(rated, counter, "{at}");
                let ranges: Vec<_> = query.split('[').skip(1).map(|rest| rest.split(']').next().unwrap()).collect();
                let grafanas = |range: &&str| ["$__rate_interval", "$__range"].contains(range);
                // A slope is over a day or a week, however long the graph is.
                assert!(!rated || ranges.iter().all(grafanas), "{at}");
                assert!(query.contains("$etcd_cluster") || !query.contains("defragd_cluster_"), "{at}");
                assert!(query.contains("$etcd_cluster") || !query.contains("defragd_member_"), "{at}");
            }
        }
    }
}

#[test]
fn a_graph_of_all_clusters_has_lines_for_the_top_few_only() {
    for (name, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            let drawn = ["timeseries", "state-timeline", "bargauge", "barchart"].contains(&text(panel, "type"));
            for target in panel["targets"].as_array().unwrap() {
                let (query, legend) = (text(target, "expr"), text(target, "legendFormat"));
                let many = legend.contains("{{etcd_cluster}}") || query.contains("label_join");
                let few = ["topk($top, ", "bottomk($top, "].iter().any(|limit| query.contains(limit));
                assert_eq!(drawn && many, few, "{name}: {}: {query}", text(panel, "title"));
            }
        }
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let top = variables.iter().find(|variable| variable["name"] == "top").unwrap();
        assert_eq!(top["current"]["value"], "5", "{name}");
    }
}

#[test]
fn the_fleet_begins_with_what_is_wrong() {
    let (_, fleet) = dashboards().into_iter().find(|(name, _)| name == "fleet").unwrap();
    assert_eq!(fleet["panels"][0]["title"], "What is wrong");
    let first: Vec<_> = panels(&fleet).into_iter().take(2).map(|panel| text(panel, "title")).collect();
    assert_eq!(first, ["Clusters with a problem", "Firing alerts"]);
}

#[test]
fn growth_is_in_mib_per_day_as_in_the_report() {
    let (_, capacity) = dashboards().into_iter().find(|(name, _)| name == "capacity").unwrap();
    let slopes: Vec<_> =
        panels(&capacity).into_iter().filter(|panel| text(panel, "title").starts_with("Growth of")).collect();
    assert_eq!(slopes.len(), 2);
    for panel in slopes {
        assert_eq!(panel["fieldConfig"]["defaults"]["unit"], "suffix: MiB/day");
        assert!(text(&panel["targets"][0], "expr").contains("* 86400 / 1048576"), "{panel}");
    }
}

/// The query of the panel, with "all" for every variable.
fn query_of(dashboard: &str, title: &str, number: usize) -> String {
    let (_, dashboard) = dashboards().into_iter().find(|(name, _)| name == dashboard).unwrap();
    let panel = panels(&dashboard).into_iter().find(|panel| panel["title"] == title).unwrap();
    text(&panel["targets"][number], "expr")
        .replace("$etcd_cluster", ".*")
        .replace("$member", ".*")
        .replace("$top", "10")
}

/// The query over series of days, which no other test has the time for.
#[test]
fn the_days_to_a_full_quota_are_right_and_are_not_shown_without_growth_or_data() {
    let series = |metric: &str, cluster: &str, values: &str| {
        let labels = format!("etcd_cluster=\"{cluster}\", member=\"m1\", member_id=\"1\"");
        json!({"series": format!("defragd_member_{metric}{{{labels}}}"), "values": values})
    };
    // Samples every 10 minutes: 144 a day. 1000 a sample are 144,000 a day.
    let mut input = Vec::new();
    for (cluster, in_use) in [
        ("grows", "1000000+1000x1100"),
        ("rests", "1000000x1100"),
        ("shrinks", "3000000-1000x1100"),
        ("full", "9000000+1000x1100"),
        ("new", "_x1080 1000000+1000x20"),
    ] {
        input.push(series("db_size_in_use_bytes", cluster, in_use));
        input.push(series("db_quota_bytes", cluster, "5000000x1100"));
    }
    input.push(series("db_size_in_use_bytes", "no-quota", "1000000+1000x1100"));
    let expected = |expression: String, time: &str, days: f64| {
        json!({"expr": format!("round({expression}, 0.01)"), "eval_time": time, "exp_samples": [
            {"labels": "{etcd_cluster=\"full\"}", "value": 0},
            {"labels": "{etcd_cluster=\"grows\"}", "value": days},
        ]})
    };
    let panel = "Days to a full quota";
    let (by_day, by_week) = (query_of("capacity", panel, 0), query_of("capacity", panel, 1));
    let none = |expression: &str, time: &str| json!({"expr": expression, "eval_time": time, "exp_samples": []});
    promtool(&json!({"evaluation_interval": "10m", "tests": [{
        "interval": "10m",
        "input_series": input,
        "promql_expr_test": [
            // After 2 days 1,288,000 of 5,000,000 are in use, after 7.5 days 2,080,000.
            expected(by_day.clone(), "2d", 25.78),
            expected(by_day.clone(), "180h", 20.28),
            expected(by_week.clone(), "180h", 20.28),
            none(&by_day, "17h"),
            none(&by_week, "4d"),
        ],
    }]}));
}

/// What no real cluster of the tests has all at once.
#[test]
fn the_problems_of_each_cluster_are_listed_and_a_member_being_defragmented_is_not_down() {
    let series = |name: &str, labels: &str, value: f64| json!({"series": format!("defragd_{name}{{{labels}}}"), "values": format!("{value}x20")});
    let member = |cluster: &str, member: &str| {
        format!("etcd_cluster=\"{cluster}\", member=\"{member}\", member_id=\"{member}\"")
    };
    let input = [
        series("cluster_up", "etcd_cluster=\"a\"", 1.0),
        series("cluster_has_leader", "etcd_cluster=\"a\"", 0.0),
        series("cluster_breaker_open", "etcd_cluster=\"a\"", 1.0),
        series("member_up", &member("a", "down"), 0.0),
        series("member_alarm", &format!("{}, alarm=\"NOSPACE\"", member("a", "down")), 1.0),
        series("member_alarm", &format!("{}, alarm=\"CORRUPT\"", member("a", "down")), 0.0),
        series("member_quota_usage_ratio", &member("a", "down"), 0.95),
        series("cluster_up", "etcd_cluster=\"busy\"", 1.0),
        series("cluster_has_leader", "etcd_cluster=\"busy\"", 1.0),
        series("member_up", &member("busy", "m1"), 0.0),
        series("member_defrag_in_progress", &member("busy", "m1"), 1.0),
        series("member_fragmentation_ratio", &member("busy", "m1"), 0.5),
        series("cluster_paused", "etcd_cluster=\"busy\"", 1.0),
        series("cluster_up", "etcd_cluster=\"gone\"", 0.0),
        series("cluster_has_leader", "etcd_cluster=\"gone\"", 0.0),
    ];
    let found = |cluster: &str, problem: &str, value: f64| json!({"labels": format!("{{etcd_cluster=\"{cluster}\", problem=\"{problem}\"}}"), "value": value});
    promtool(&json!({"evaluation_interval": "1m", "tests": [{
        "interval": "1m",
        "input_series": input,
        "promql_expr_test": [{
            "expr": query_of("fleet", "Clusters with a problem", 0),
            "eval_time": "5m",
            "exp_samples": [
                found("gone", "unreachable", 0.0),
                found("a", "no leader", 0.0),
                found("a", "alarm NOSPACE", 1.0),
                found("a", "near the quota", 0.95),
                found("a", "a member is down", 0.0),
                found("a", "breaker open", 1.0),
                found("busy", "paused", 1.0),
                found("busy", "fragmented", 0.5),
            ],
        }],
    }]}));
}

fn promtool(test: &Value) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queries.test.yml");
    std::fs::write(&path, test.to_string()).unwrap(); // JSON is YAML
    let out = Command::new(Tools::find().unwrap().promtool()).args(["test", "rules"]).arg(path).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}
