//! The chart's values against their schema: a misspelt value is refused at every level. `deploy/check` shows that Helm does it.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use super::{read, yaml};

fn schema() -> Value {
    serde_json::from_str(&read("deploy/helm/defragd/values.schema.json")).unwrap()
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// The schema itself, or what it refers to.
fn resolved<'a>(all: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(name) => all.pointer(name.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}

/// Adds the path of each object that accepts any key.
fn open_objects<'a>(all: &'a Value, schema: &'a Value, path: &str, found: &mut BTreeSet<String>) {
    let schema = resolved(all, schema);
    if schema["type"] == "object" && schema["additionalProperties"] != false {
        found.insert(path.to_owned());
    }
    for name in keys(&schema["properties"]) {
        open_objects(all, &schema["properties"][name], &format!("{path}.{name}"), found);
    }
    if schema["items"].is_object() {
        open_objects(all, &schema["items"], &format!("{path}[]"), found);
    }
}

#[test]
fn only_values_whose_keys_are_kubernetes_own_or_the_users_accept_any_key() {
    let schema = schema();
    let mut found = BTreeSet::new();
    open_objects(&schema, &schema, "", &mut found);
    let mut expected: BTreeSet<String> = [
        // The names are the user's: labels, annotations, clusters.
        ".global",
        ".nodeSelector",
        ".podAnnotations",
        ".podLabels",
        ".service.annotations",
        ".serviceAccount.annotations",
        ".serviceMonitor.labels",
        ".prometheusRule.labels",
        ".alertmanagerConfig.labels",
        ".dashboards.labels",
        ".dashboards.annotations",
        // defragd check-config
        ".config.lock",
        ".config.modules",
        ".config.shards",
        // Kubernetes' own, which its API checks.
        ".affinity.nodeAffinity",
        ".affinity.podAffinity",
        ".affinity.podAntiAffinity",
        ".extraEnv[].valueFrom",
        ".extraVolumes[]",
        ".resources.requests",
        ".resources.limits",
        ".resources.claims[]",
    ]
    .map(str::to_owned)
    .into();
    for peers in [
        ".lock.apiServerTo",
        ".networkPolicy.ingressFrom",
        ".networkPolicy.egress.etcdTo",
        ".networkPolicy.egress.extra[].to",
    ] {
        expected.extend(["ipBlock", "namespaceSelector", "podSelector"].map(|key| format!("{peers}[].{key}")));
    }
    assert_eq!(found, expected);
}

#[test]
fn the_schema_has_the_values_that_the_chart_has() {
    fn compare(all: &Value, schema: &Value, values: &Value, path: &str) {
        let schema = resolved(all, schema);
        if schema["additionalProperties"] != false || values.as_object().is_none_or(serde_json::Map::is_empty) {
            return;
        }
        let mut known = keys(&schema["properties"]);
        // Helm's own, and what is left out by default.
        for optional in
            [".global", ".resources.claims", ".config.lock", ".config.modules", ".config.notify", ".config.shards"]
        {
            if let Some(name) = optional.strip_prefix(path).and_then(|rest| rest.strip_prefix('.')) {
                known.remove(name);
            }
        }
        assert_eq!(known, keys(values), "{path}");
        for name in keys(values) {
            compare(all, &schema["properties"][name], &values[name], &format!("{path}.{name}"));
        }
    }
    let schema = schema();
    let values = yaml(&read("deploy/helm/defragd/values.yaml"), Path::new("values.yaml"));
    compare(&schema, &schema, &values, "");
}

#[test]
fn the_schema_knows_the_top_level_keys_of_the_configuration() {
    let (values, own) = (schema(), read("deploy/config.schema.json"));
    let own: Value = serde_json::from_str(&own).unwrap();
    assert_eq!(keys(&values["properties"]["config"]["properties"]), keys(&own["properties"]));
}
