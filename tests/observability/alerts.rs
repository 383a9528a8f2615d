//! The rules: each alert is tested both ways, says what to do, and says where to read more.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{files, forbidden_label, read, values_of, yaml};

/// The rules in order, those of all groups.
pub(crate) fn rules() -> Vec<Value> {
    let rules = yaml("alerts/defragd.rules.yml");
    let groups = rules["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// The alerting rules with their names.
pub(crate) fn alerts() -> Vec<(String, Value)> {
    let named = rules().into_iter().filter_map(|rule| Some((rule["alert"].as_str()?.to_owned(), rule)));
    let alerts: Vec<_> = named.collect();
    assert!(alerts.len() > 10, "the search is broken: {alerts:?}");
    alerts
}

#[test]
fn each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let mut fires = BTreeSet::new();
    let mut silent = BTreeSet::new();
    for path in files("alerts/tests", ".test.yml") {
        let file: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let mut cases = Vec::new();
        values_of(&file, "alert_rule_test", &mut cases);
        for case in cases.into_iter().flat_map(|cases| cases.as_array().unwrap()) {
            let expected = case["exp_alerts"].as_array().unwrap();
            let seen = if expected.is_empty() { &mut silent } else { &mut fires };
            seen.insert(case["alertname"].as_str().unwrap().to_owned());
        }
    }
    let names: BTreeSet<_> = alerts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(fires, names, "alerts that fire in a test, and alerts");
    assert_eq!(silent, names, "alerts that stay silent in a test, and alerts");
}

#[test]
fn each_recording_rule_is_read_by_a_test() {
    let tests: String =
        files("alerts/tests", ".test.yml").iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let names: Vec<_> = rules().iter().filter_map(|rule| Some(rule["record"].as_str()?.to_owned())).collect();
    assert!(!names.is_empty());
    let used = |name: &String| {
        // Or by a rule that a test reads.
        let expressions = rules().into_iter().filter(|rule| rule["record"] != name.as_str());
        tests.contains(name) || expressions.into_iter().any(|rule| rule["expr"].as_str().unwrap().contains(name))
    };
    let idle: Vec<_> = names.iter().filter(|name| !used(name)).collect();
    assert!(idle.is_empty(), "{idle:?}");
}

#[test]
fn each_alert_leads_to_its_section_of_the_runbooks_and_each_section_has_its_alert() {
    let runbooks = read("alerts/runbooks.md");
    let sections: BTreeSet<_> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    for (name, rule) in &alerts {
        let url = rule["annotations"]["runbook_url"].as_str().unwrap_or_else(|| panic!("{name} has no runbook_url"));
        assert_eq!(url, format!("alerts/runbooks.md#{}", name.to_lowercase()), "{name}");
    }
    assert_eq!(sections, alerts.iter().map(|(name, _)| name.as_str()).collect(), "sections and alerts");
    for section in runbooks.split("\n## ").skip(1) {
        assert!(section.contains("**Means.**") && section.contains("**Do.**"), "says not what to do: {section}");
    }
    // Links within the page.
    for link in runbooks.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(sections.iter().any(|section| section.to_lowercase() == link), "no section {link}");
    }
}

#[test]
fn each_alert_has_words_a_severity_and_a_line_in_the_readme() {
    let readme = read("alerts/README.md");
    let alerts = alerts();
    let names: BTreeSet<_> = alerts.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), alerts.len(), "a name is used twice");
    for (name, rule) in &alerts {
        let annotations = rule["annotations"].as_object().unwrap();
        for words in ["summary", "description"] {
            assert!(annotations[words].as_str().is_some_and(|text| text.len() > 20), "{name}: {words}");
        }
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["warning", "critical"].contains(&severity), "{name}: {severity}");
        let asks = if rule["labels"]["defragd"] == "remediate" { "yes" } else { "" };
        let line = readme.lines().find(|line| line.starts_with(&format!("| [{name}](runbooks.md#")));
        let cells: Vec<_> = line.unwrap_or_else(|| panic!("no line for {name}")).split('|').map(str::trim).collect();
        assert_eq!((cells[2], cells[4]), (severity, asks), "{name}");
    }
}

#[test]
fn no_rule_depends_on_the_labels_of_a_target() {
    for rule in rules() {
        let query = rule["expr"].as_str().unwrap();
        assert_eq!(forbidden_label(query), None, "{query}");
    }
}
