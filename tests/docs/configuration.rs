//! `docs/reference/configuration.md` and `deploy/config.schema.json`: made of the structures that read the files. What they
//! say of defaults, ranges and words is tried in [`crate::accepted`].

use std::{fmt::Write, fs};

use defragd::config::schema;
use serde_json::{Map, Value, json};

use crate::{held, root};

/// One key.
pub(crate) struct Key {
    /// Like `clusters[].policy.cooldown`.
    pub(crate) path: String,
    pub(crate) schema: Value,
    is_required: bool,
    /// Its own `x-restart`, or that of what it is in.
    restart: Option<Value>,
}

impl Key {
    fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap()
    }

    pub(crate) fn text(&self, keyword: &str) -> Option<&str> {
        self.schema[keyword].as_str()
    }

    /// Whether it has keys below it.
    fn is_container(&self) -> bool {
        inner(&self.schema).is_some()
    }
}

/// What a value with keys of its own is: as it is, in a list, or by names.
pub(crate) fn inner(schema: &Value) -> Option<(&'static str, &Value)> {
    let places = [("", schema), ("[]", &schema["items"]), (".NAME", &schema["additionalProperties"])];
    places.into_iter().find(|(_, schema)| schema["properties"].is_object() && schema["type"] == "object")
}

/// All keys, what is in a key behind it.
pub(crate) fn keys(schema: &Value) -> Vec<Key> {
    let mut found = Vec::new();
    walk("", schema, None, &mut found);
    found
}

fn walk(at: &str, schema: &Value, restart: Option<&Value>, found: &mut Vec<Key>) {
    let (suffix, object) = inner(schema).unwrap();
    assert_eq!(object["additionalProperties"], false, "{at}: a key that does not exist must be refused");
    for (name, schema) in object["properties"].as_object().unwrap() {
        let path = format!("{at}{suffix}.{name}").trim_start_matches('.').to_owned();
        let is_required = object["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
        let restart = schema.get("x-restart").or(restart);
        found.push(Key { path: path.clone(), schema: schema.clone(), is_required, restart: restart.cloned() });
        if inner(schema).is_some() {
            walk(&path, schema, restart, found);
        }
    }
}

/// The words that a key may have, if there are only some.
pub(crate) fn words(schema: &Value) -> Vec<&str> {
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    variants
        .chain([schema])
        .flat_map(|one| one["enum"].as_array().into_iter().flatten().chain(one.get("const")).filter_map(Value::as_str))
        .collect()
}

/// Its type, for people. `many` for what a list or mapping is of.
fn kind(key: &str, schema: &Value, many: bool) -> String {
    let plural = |word: &str| if many { format!("{word}s") } else { word.to_owned() };
    let words = words(schema);
    if !words.is_empty() {
        let mut words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        let others = schema["oneOf"].as_array().into_iter().flatten().filter_map(|one| one["properties"].as_object());
        words.extend(others.flat_map(Map::keys).map(|key| format!("`{{{key}: NUMBER}}`")));
        return words.join(", ");
    }
    if let Some(title) = schema["title"].as_str() {
        return plural(title);
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(key, items, true));
    }
    if schema["additionalProperties"].is_object() {
        return format!("{} from names to {}", plural("mapping"), kind(key, &schema["additionalProperties"], true));
    }
    let is_file = key.ends_with("_file") || key.ends_with("_files") || key == "kubeconfig";
    match schema["type"].as_str() {
        Some("object") => plural("mapping"),
        Some("string") if is_file => plural("file"),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some(other) => plural(other),
        None => {
            let any = schema["anyOf"].as_array().unwrap_or_else(|| panic!("{key}: {schema}"));
            any.iter().map(|one| kind(key, one, many)).collect::<Vec<_>>().join(" or ")
        }
    }
}

/// As it is written in YAML.
fn yaml(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(yaml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Least and most.
pub(crate) fn range(schema: &Value) -> [Option<Value>; 2] {
    let bound = |index: usize, keyword: &str| {
        let bound = schema.get(keyword).or_else(|| schema["x-range"].get(index)).cloned();
        bound.filter(|bound| !bound.is_null())
    };
    [bound(0, "minimum"), bound(1, "maximum")]
}

fn range_words(schema: &Value) -> String {
    match range(schema).map(|bound| bound.as_ref().map(yaml)) {
        [Some(least), Some(most)] => format!(", {least} to {most}"),
        [Some(least), None] => format!(", at least {least}"),
        [None, Some(most)] => format!(", at most {most}"),
        [None, None] => String::new(),
    }
}

fn row(key: &Key, applied_by: &str) -> String {
    let kind = kind(key.name(), &key.schema, false) + &range_words(&key.schema);
    let default = match (key.schema.get("default"), key.text("x-default")) {
        (Some(value), _) => format!("`{}`", yaml(value)),
        (None, Some(words)) => words.to_owned(),
        (None, None) if key.is_required => "required".to_owned(),
        (None, None) => String::new(),
    };
    let applied = match &key.restart {
        None => applied_by.to_owned(),
        Some(Value::String(case)) => format!("{applied_by}; restart {case}"),
        Some(_) => "restart".to_owned(),
    };
    let description = key.text("description").unwrap_or_default().replace('\n', " ").replace('|', "\\|");
    format!("| `{}` | {kind} | {default} | {applied} | {description} |\n", key.path)
}

/// A section for each value that has keys of its own, with these as rows.
fn sections(title: &str, applied_by: &str, schema: &Value) -> String {
    let head = "| key | type | default | applied by | meaning |\n|---|---|---|---|---|\n";
    let keys = keys(schema);
    let mut page = format!("## {title}\n\n{head}");
    let parent = |path: &str| path.rsplit_once('.').map(|(parent, _)| parent.to_owned()).unwrap_or_default();
    for key in keys.iter().filter(|key| parent(&key.path).is_empty()) {
        page += &row(key, applied_by);
    }
    for container in keys.iter().filter(|key| key.is_container()) {
        let suffix = inner(&container.schema).unwrap().0;
        let at = format!("{}{suffix}", container.path);
        write!(page, "\n### `{at}`\n\n{head}").unwrap();
        for key in keys.iter().filter(|key| parent(&key.path) == at) {
            page += &row(key, applied_by);
        }
    }
    page
}

fn page() -> String {
    let file = sections("The configuration file", "reload", &schema::file());
    let web = sections("The web configuration file", "change of the file", &schema::web_file());
    format!(
        "# Configuration reference\n\n\
         <!-- Made by tests/docs from the code: UPDATE=1 cargo test --test docs -->\n\n\
         A whole file with comments is `deploy/examples/config.yaml`.\n\n\
         A **duration** is written like `90s`, `10m`, `1h30m`, `2d` or `1w`; a **size** like `100MiB` or `8GiB`, or as a \
         number of bytes; a **ratio** is a number from 0 to 1. A **file** is a path on the machine that defragd runs on; \
         secrets are never written into a configuration, only the files that hold them. Unknown keys are errors.\n\n\
         **Applied by** says what makes a changed value count. *reload*: `SIGHUP` or `POST /-/reload`. *restart*: a reload \
         is refused as a whole while this value differs from the one that defragd started with.\n\n\
         Flags of the [command line](command-line.md) override `policy` and `lock`. \
         `defragd check-config FILE` finds all mistakes in a file at once, and `defragd check-config --schema` prints a \
         JSON schema, with which editors complete and check: it is also \
         `deploy/config.schema.json`. In an editor that uses yaml-language-server, begin the file with \
         `# yaml-language-server: $schema=config.schema.json`.\n\n\
         {file}\n\
         {web}\n\
         The web configuration has the format of Prometheus' exporter-toolkit, and it is given by `--web.config.file`. It \
         needs no reload: it is read again, with the files that it names, when it changes. Relative paths start at its \
         folder.\n"
    )
}

#[test]
fn the_page_and_the_schema_are_those_of_the_code() {
    held("docs/reference/configuration.md", &page());
    held("deploy/config.schema.json", &format!("{:#}\n", schema::file()));
}

#[test]
fn the_schema_that_the_program_prints_is_the_one_that_ships() {
    let shipped = fs::read_to_string(root().join("deploy/config.schema.json")).unwrap();
    let is_same = crate::text(&["check-config", "--schema"]) == shipped;
    assert!(is_same, "defragd check-config --schema is not deploy/config.schema.json");
}

#[test]
fn every_key_says_what_it_does_what_holds_without_it_and_its_range() {
    for schema in [schema::file(), schema::web_file()] {
        for key in keys(&schema) {
            let description = key.text("description").unwrap_or_default();
            assert!(description.ends_with('.') && description.len() > 12, "{}: {description:?}", key.path);
            let ways = [key.is_required, key.schema.get("default").is_some(), key.text("x-default").is_some()];
            let given = ways.into_iter().filter(|given| *given).count();
            assert!(given == 1 || (given == 0 && key.is_container()), "{}: {ways:?}", key.path);
            let has_range = range(&key.schema).iter().all(Option::is_some);
            let needs_range = ["duration", "ratio"].contains(&key.text("title").unwrap_or_default());
            // Of the web configuration's interval, 0 is none and there is no most.
            assert!(has_range || !needs_range || key.path == "rate_limit.interval", "{} has no range", key.path);
        }
    }
}

#[test]
fn the_example_names_every_key() {
    let example = fs::read_to_string(root().join("deploy/examples/config.yaml")).unwrap();
    let keys = keys(&schema::file());
    assert!(keys.len() > 150, "{}", keys.len());
    for key in keys {
        assert!(example.contains(&format!("{}:", key.name())), "deploy/examples/config.yaml lacks {}", key.path);
    }
}
