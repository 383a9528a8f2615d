//! The configuration's schema against what reads configurations: each default, range and word tried, and all files that
//! ship.

use std::{fs, path::Path};

use bytesize::ByteSize;
use defragd::{
    config::{ConfigError, Problem, Settings, Source, schema, web},
    core::time::Time,
};
use serde_json::{Value, json};

use crate::{
    configuration::{Key, inner, keys, range, words},
    root,
};

/// A value that is accepted, for keys that must be there.
fn example_of(path: &str) -> Option<Value> {
    let name = path.rsplit('.').next().unwrap();
    Some(match name {
        "name" | "username" => json!("a"),
        "endpoints" => json!(["x:1"]),
        "url" if path.ends_with("metrics.url") => json!("https://{host}:1"),
        "url" => json!("https://x.example"),
        "domain" => json!("x.example"),
        "cert_file" | "key_file" | "password_file" => json!("/file"),
        "cron" => json!("0 3 * * sun"),
        "start" => json!("02:00"),
        "end" => json!("05:00"),
        "timezone" => json!("UTC"),
        "query" => json!("up"),
        "matchers" => json!(["a=\"b\""]),
        "address" => json!("x:1"),
        "allowed_targets" => json!(["10.0.0.0/8"]),
        "burst" => json!(1),
        _ => return None,
    })
}

/// The smallest valid file in which that key can be, and where it is. It stays as it is without a value.
fn file_with(schema: &Value, path: &str, value: Option<&Value>) -> (Value, String) {
    let mut file = json!({});
    if schema["properties"].get("clusters").is_some() {
        file["clusters"] = json!([{ "name": "a", "endpoints": ["x:1"] }]);
    }
    if let Some(kind) = ["etcd", "kubernetes"].into_iter().find(|kind| path.starts_with(&format!("lock.{kind}."))) {
        file["lock"] = json!({ "kind": kind });
    }
    fill(&mut file, schema, "", path, value);
    // A gate needs a kind.
    if path.strip_prefix("clusters[].gates[].").is_some_and(|key| !key.contains('.')) {
        file["clusters"][0]["gates"][0]["tcp"] = json!({ "address": "x:1" });
    }
    (file, path.replace("[]", "[0]"))
}

/// Everything on the way to the key, with what must be beside it.
fn fill(file: &mut Value, schema: &Value, at: &str, path: &str, value: Option<&Value>) {
    let (suffix, object) = inner(schema).unwrap();
    let place = match suffix {
        "[]" => {
            if !file.is_array() {
                *file = json!([{}]);
            }
            &mut file[0]
        }
        ".NAME" => {
            *file = json!({ "NAME": {} });
            &mut file["NAME"]
        }
        _ => file,
    };
    let at = format!("{at}{suffix}");
    for (name, schema) in object["properties"].as_object().unwrap() {
        let here = format!("{at}.{name}").trim_start_matches('.').to_owned();
        let is_needed = object["required"].as_array().is_some_and(|all| all.contains(&json!(name)))
            || schema["x-default"].as_str().is_some_and(|words| words.starts_with("required"));
        if here == path {
            if let Some(value) = value.cloned().or_else(|| example_of(path).filter(|_| is_needed)) {
                place[name] = value;
            }
        } else if path.starts_with(&format!("{here}.")) || path.starts_with(&format!("{here}[")) {
            if place[name].is_null() {
                place[name] = json!({});
            }
            fill(&mut place[name], schema, &here, path, value);
        } else if let Some(value) = example_of(&here).filter(|_| is_needed) {
            place[name] = value;
        }
    }
}

/// What is made of a file: all of it as text, or its problems.
type Read = fn(&Value) -> Result<String, Vec<Problem>>;

fn read_file(file: &Value) -> Result<String, Vec<Problem>> {
    let settings = Settings::from_text(&file.to_string());
    // What is shown to people is what was written.
    settings.map(|settings| format!("{:?}", Settings { redacted: Value::Null, ..settings })).map_err(problems)
}

fn read_web_file(file: &Value) -> Result<String, Vec<Problem>> {
    let config = web::from_source(&mut Source::from_text(file.to_string()));
    config.map(|config| format!("{config:?}")).map_err(problems)
}

fn problems(error: ConfigError) -> Vec<Problem> {
    match error {
        ConfigError::Invalid { problems, .. } => problems,
        other @ (ConfigError::Unreadable { .. } | ConfigError::Unusable(_)) => panic!("{other}"),
    }
}

fn files() -> [(Value, Read); 2] {
    [(schema::file(), read_file), (schema::web_file(), read_web_file)]
}

#[test]
fn every_default_is_what_holds_without_the_key() {
    let mut tried = 0;
    for (schema, read) in files() {
        for key in keys(&schema) {
            let Some(default) = key.schema.get("default") else { continue };
            let (without, _) = file_with(&schema, &key.path, None);
            let (with, _) = file_with(&schema, &key.path, Some(default));
            assert_ne!(without, with, "{}", key.path);
            let of_none = read(&without).unwrap_or_else(|problems| panic!("{}: {problems:?}\n{without}", key.path));
            let of_default = read(&with).unwrap_or_else(|problems| panic!("{}: {problems:?}\n{with}", key.path));
            assert_eq!(of_none, of_default, "{}: {default} is not its default", key.path);
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried}");
}

/// A bit less than the least, or more than the most.
fn beyond(key: &Key, bound: &Value, is_most: bool) -> Option<Value> {
    let sign: i32 = if is_most { 1 } else { -1 };
    if let Some(number) = bound.as_i64() {
        return Some(json!(number + i64::from(sign)));
    }
    if let Some(number) = bound.as_f64() {
        return Some(json!(number + f64::from(sign) / 1000.0));
    }
    let text = bound.as_str().unwrap();
    if key.text("title") == Some("size") {
        let bytes = text.parse::<ByteSize>().unwrap().0;
        return Some(json!(if is_most { bytes + 1 } else { bytes - 1 }));
    }
    let time = std::time::Duration::from(text.parse::<Time>().unwrap());
    let millisecond = std::time::Duration::from_millis(1);
    let time = if is_most { time.checked_add(millisecond) } else { time.checked_sub(millisecond) };
    time.map(|time| json!(format!("{}ms", time.as_millis())))
}

#[test]
fn every_range_and_every_word_is_what_is_accepted() {
    let mut tried = 0;
    for (schema, read) in files() {
        let is_accepted = |key: &Key, value: &Value| {
            let (file, at) = file_with(&schema, &key.path, Some(value));
            let problems = read(&file).err().unwrap_or_default();
            !problems.iter().any(|problem| problem.at == at)
        };
        for key in keys(&schema) {
            for (is_most, bound) in [false, true].into_iter().zip(range(&key.schema)) {
                let Some(bound) = bound else { continue };
                assert!(is_accepted(&key, &bound), "{}: {bound} is within the range", key.path);
                if let Some(beyond) = beyond(&key, &bound, is_most) {
                    assert!(!is_accepted(&key, &beyond), "{}: {beyond} is outside of the range", key.path);
                }
                tried += 1;
            }
            let words = words(&key.schema);
            for word in &words {
                assert!(is_accepted(&key, &json!(word)), "{}: {word}", key.path);
                tried += 1;
            }
            assert!(words.is_empty() || !is_accepted(&key, &json!("no_such_word")), "{}", key.path);
        }
    }
    assert!(tried > 80, "{tried}");
}

/// The YAML files below a folder that are whole configurations.
fn configurations(dir: &Path, found: &mut Vec<(String, Value)>) {
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            configurations(&path, found);
        } else if path.extension().is_some_and(|end| end == "yaml") {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            if text.lines().any(|line| line.starts_with("cluster"))
                && let Ok(file) = serde_saphyr::from_str(&text)
            {
                found.push((path.display().to_string(), file));
            }
        }
    }
}

#[test]
fn the_schema_accepts_what_ships_and_refuses_what_is_misspelt() {
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("config.json", schema::file()).unwrap();
    let compiled = compiler.compile("config.json", &mut schemas).unwrap();
    let mut found = Vec::new();
    for dir in ["deploy", "demo", "tests/config"] {
        configurations(&root().join(dir), &mut found);
    }
    let of_shape = ["bad_key_spelling", "bad_key_of_elsewhere", "bad_types", "bad_words"];
    let (mut good, mut bad) = (0, 0);
    for (path, file) in found {
        let verdict = schemas.validate(&file, compiled);
        if of_shape.iter().any(|stem| path.ends_with(&format!("{stem}.yaml"))) {
            assert!(verdict.is_err(), "{path}");
            bad += 1;
        } else if !path.contains("/bad_") {
            assert!(verdict.is_ok(), "{path}: {}", verdict.unwrap_err());
            good += 1;
        }
    }
    assert_eq!(bad, of_shape.len());
    assert!(good > 8, "{good}");
}
