//! The configuration in effect for people: each key with its value, or its default where the key is not set.

use std::sync::LazyLock;

use bytesize::ByteSize;
use serde_json::{Map, Value};

use super::schema;
use crate::{
    core::{story, time::Time},
    ports::service::{ConfigKey, ConfigSection},
};

/// Objects whose keys have defaults although the object is left out. Others do nothing unless they are written.
const ALWAYS_IN_EFFECT: [&str; 1] = ["policy"];

static SCHEMA: LazyLock<Value> = LazyLock::new(schema::file);

/// From the configuration as written, without secrets: a section for each cluster, module and notifier, and one for
/// each other key of the file.
pub fn effective(written: &Value) -> Vec<ConfigSection> {
    let mut sections = Vec::new();
    for (key, schema) in properties(&SCHEMA) {
        match &written[key] {
            Value::Null => {}
            Value::Array(items) => sections.extend(items.iter().map(|item| {
                let name = item["name"].as_str().unwrap_or_default();
                section(key, Some(name), &schema["items"], item)
            })),
            Value::Object(named) if schema["additionalProperties"].is_object() => {
                let of =
                    |(name, item): (&String, &Value)| section(key, Some(name), &schema["additionalProperties"], item);
                sections.extend(named.iter().map(of));
            }
            item => sections.push(section(key, None, schema, item)),
        }
    }
    sections
}

fn section(kind: &str, name: Option<&str>, schema: &Value, written: &Value) -> ConfigSection {
    let mut keys = Vec::new();
    walk("", schema, written, &mut keys);
    ConfigSection { kind: kind.to_owned(), name: name.map(ToOwned::to_owned), keys }
}

fn walk(prefix: &str, schema: &Value, written: &Value, keys: &mut Vec<ConfigKey>) {
    for (key, schema) in properties(schema) {
        let (path, value) = (format!("{prefix}{key}"), &written[key]);
        let is_object = schema["properties"].is_object();
        if is_object && (value.is_object() || ALWAYS_IN_EFFECT.contains(&key.as_str())) {
            walk(&format!("{path}."), schema, value, keys);
            continue;
        }
        let kind = schema["title"].as_str().unwrap_or_default();
        let default = schema.get("x-default").or_else(|| schema.get("default")).map(|default| text(kind, default));
        let value = Some(value).filter(|value| !value.is_null()).map(|value| text(kind, value));
        if value.is_some() || default.is_some() {
            let description = schema["description"].as_str().unwrap_or_default().to_owned();
            let differs = value.is_some() && value != default;
            keys.push(ConfigKey {
                path,
                value: value.or_else(|| default.clone()).unwrap_or_default(),
                default,
                differs,
                description,
            });
        }
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flat_map(Map::iter)
}

/// As people write it. `kind` is the title in the schema: durations and sizes are written in more than one way.
fn text(kind: &str, value: &Value) -> String {
    match (kind, value) {
        ("duration", Value::String(text)) => text.parse::<Time>().map_or_else(|_| plain(text), |time| time.to_string()),
        ("size", Value::String(text)) => text.parse().map_or_else(|_| plain(text), story::size),
        ("size", Value::Number(bytes)) => {
            bytes.as_u64().map_or_else(|| bytes.to_string(), |bytes| story::size(ByteSize(bytes)))
        }
        (_, Value::String(text)) => plain(text),
        (_, Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        (_, value) => value.to_string(),
    }
}

/// Defaults in words have Markdown's marks.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn keys_have_their_value_or_their_default_and_differences_are_marked() {
        let file = "clusters: [{name: demo, endpoints: ['https://a:1', 'https://b:1'], tls: {ca_file: /ca}, \
                    policy: {cooldown: 6h, mode: approve, min_reclaimable: 50MiB}}]\nlock: {kind: etcd}\n";
        let sections = effective(&Settings::from_text(file).expect("valid").redacted);
        let [demo, lock] = sections.as_slice() else { panic!("{sections:?}") };
        assert_eq!((demo.kind.as_str(), demo.name.as_deref()), ("clusters", Some("demo")));
        assert_eq!((lock.kind.as_str(), lock.name.as_deref()), ("lock", None));
        let key = |path: &str| demo.keys.iter().find(|key| key.path == path).expect(path);
        let shown = |path| (key(path).value.as_str(), key(path).default.as_deref(), key(path).differs);
        assert_eq!(shown("policy.mode"), ("approve", Some("observe"), true));
        assert_eq!(shown("policy.cooldown"), ("6h", Some("6h"), false), "written, but no different");
        assert_eq!(shown("policy.min_reclaimable"), ("50.0 MiB", Some("100.0 MiB"), true));
        assert_eq!(shown("policy.max_runs_per_day"), ("4", Some("4"), false));
        assert_eq!(shown("policy.windows"), ("always open", Some("always open"), false));
        assert_eq!(shown("tls.ca_file"), ("/ca", Some("the system's authorities"), true));
        assert_eq!(shown("endpoints").0, "https://a:1, https://b:1");
        assert!(demo.keys.iter().all(|key| !key.path.starts_with("auth")), "what is left out does nothing");
        assert!(key("policy.mode").description.len() > 10, "{:?}", key("policy.mode"));
    }
}
