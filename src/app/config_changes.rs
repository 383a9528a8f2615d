//! What a reload changed, for the log: clusters by name, and the keys that have another value now.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tracing::info;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ConfigChanges {
    added: Vec<String>,
    removed: Vec<String>,
    /// Like `a: endpoints, policy.cooldown`.
    changed: Vec<String>,
}

impl ConfigChanges {
    /// Between two configurations as they are shown to clients, without secrets.
    pub(super) fn between(before: &Value, after: &Value) -> Self {
        let (old, new) = (clusters(before), clusters(after));
        let only_in = |these: &BTreeMap<&str, &Value>, those: &BTreeMap<&str, &Value>| {
            these.keys().filter(|name| !those.contains_key(*name)).map(|name| (*name).to_owned()).collect()
        };
        let mut changed = Vec::new();
        for (name, new) in &new {
            let mut keys = Vec::new();
            if let Some(old) = old.get(name) {
                differing("", old, new, &mut keys);
            }
            if !keys.is_empty() {
                changed.push(format!("{name}: {}", keys.join(", ")));
            }
        }
        let without_clusters = |config: &Value| {
            let mut config = config.as_object().cloned().unwrap_or_default();
            config.remove("clusters");
            Value::Object(config)
        };
        differing("", &without_clusters(before), &without_clusters(after), &mut changed);
        Self { added: only_in(&new, &old), removed: only_in(&old, &new), changed }
    }

    /// Logs it, without the parts in which nothing changed.
    pub(super) fn log(&self) {
        let listed = |names: &[String], separator| Some(names.join(separator)).filter(|text| !text.is_empty());
        let (added, removed) = (listed(&self.added, ","), listed(&self.removed, ","));
        info!(added, removed, changed = listed(&self.changed, "; "), "configuration reloaded");
    }
}

fn clusters(config: &Value) -> BTreeMap<&str, &Value> {
    let clusters = config["clusters"].as_array().into_iter().flatten();
    clusters.filter_map(|cluster| Some((cluster["name"].as_str()?, cluster))).collect()
}

/// Collects the paths of the keys whose values differ. A key without a value is like one that is absent.
fn differing(at: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    let is_mapping = |value: &Value| value.is_object() || value.is_null();
    if old == new {
        return;
    }
    if !is_mapping(old) || !is_mapping(new) {
        return found.push(at.to_owned());
    }
    let keys = [old, new].into_iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys);
    for key in keys.collect::<BTreeSet<_>>() {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        differing(&path, &old[key], &new[key], found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn clusters_are_named_and_changed_keys_with_their_path() {
        let cluster = |name: &str, policy: Value| json!({"name": name, "endpoints": ["a:1"], "policy": policy});
        let before = json!({
            "clusters": [cluster("a", json!({"mode": "observe"})), cluster("b", Value::Null), cluster("old", json!({}))],
            "modules": {"x": {"quota": null}},
        });
        let after = json!({
            "clusters": [cluster("a", json!({"mode": "enforce", "cooldown": "1h"})), cluster("b", json!({"mode": null})),
                cluster("new", json!({}))],
            "modules": {"x": {"quota": "2GiB"}},
        });
        let changes = ConfigChanges::between(&before, &after);
        assert_eq!((changes.added, changes.removed), (vec!["new".to_owned()], vec!["old".to_owned()]));
        assert_eq!(changes.changed, ["a: policy.cooldown, policy.mode", "modules.x.quota"]);
        assert_eq!(ConfigChanges::between(&after, &after), ConfigChanges::default());
    }
}
