//! The configuration file, and that the messages about a bad one are right.

use defragd::config::{ConfigError, Settings};
use serde_json::Value;

use crate::{Target, repository};

const WORDS: [&str; 49] = [
    "clusters",
    "name",
    "endpoints",
    "tls",
    "ca_file",
    "cert_file",
    "key_file",
    "auth",
    "username",
    "match",
    "policy",
    "mode",
    "enforce",
    "min_reclaimable",
    "100MiB",
    "cooldown",
    "6h",
    "10",
    "-1s",
    "rule",
    "dbSize > 1",
    "windows",
    "days",
    "sat",
    "start",
    "02:00",
    "24:00",
    "timezone",
    "schedule",
    "cron",
    "0 3 * * sun",
    "*/61 L ? feb#9 -1",
    "Europe/Berlin",
    "gates",
    "when",
    "http",
    "url",
    "https://x:1",
    "kubernetes_pods",
    "kubernetes_nodes",
    "promql",
    "expect",
    "above",
    "<<",
    "&a",
    "*a",
    "!!str",
    "|",
    "---",
];

pub(crate) fn seeds() -> Vec<String> {
    let own = ["deploy/examples/config.yaml", "deploy/examples/gates.yaml", "deploy/examples/kubeadm.yaml"];
    let read = |path: &str| std::fs::read_to_string(repository(path)).unwrap();
    own.into_iter().chain(["tests/config/bad_merged.yaml", "tests/config/bad_types.yaml"]).map(read).collect()
}

fn tree(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// What every report of problems must be.
pub(crate) fn is_sound<T>(text: &str, result: Result<T, ConfigError>) -> Result<(), String> {
    let Err(error) = result else { return Ok(()) };
    let said = error.to_string();
    let ConfigError::Invalid { problems, .. } = error else { return Err(format!("another error: {said}")) };
    if problems.is_empty() || said.lines().count() != problems.len() {
        return Err(format!("{} problems in {} lines: {said}", problems.len(), said.lines().count()));
    }
    if said.chars().any(|c| c.is_control() && c != '\n') {
        return Err(format!("control characters: {said:?}"));
    }
    // A carriage return alone ends a line in YAML.
    let lines = text.split(['\n', '\r']).count();
    if let Some(problem) =
        problems.iter().find(|problem| problem.place.is_some_and(|at| at.line == 0 || at.line > lines))
    {
        return Err(format!("{problem:?} of {lines} lines"));
    }
    if problems.iter().any(|problem| problem.what.is_empty()) {
        return Err(format!("nothing is said: {problems:?}"));
    }
    Ok(())
}

pub(crate) fn target() -> Target {
    let seeds = seeds();
    let trees = seeds.iter().take(3).map(|text| tree(text)).collect();
    let dir = tempfile::tempdir().unwrap();
    let judge = move |bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            let path = dir.path().join("config.yaml");
            std::fs::write(&path, bytes).unwrap();
            return is_sound(&"\n".repeat(bytes.len()), Settings::from_file(&path));
        };
        let result = Settings::from_text(text);
        if result.is_ok() {
            agrees_with_the_library(text)?;
        }
        is_sound(text, result)
    };
    let seeds = seeds.into_iter().map(String::into_bytes).collect();
    Target { name: "config", seeds, trees, words: &WORDS, cost: 1, judge: Box::new(judge) }
}

#[test]
fn whatever_the_configuration_is_it_is_read_or_refused_in_order() {
    target().attack();
}

/// The explanation of bad files must find nothing wrong in good ones: with one unknown key added, only that is reported.
fn agrees_with_the_library(text: &str) -> Result<(), String> {
    let Ok(Value::Object(mut tree)) = serde_saphyr::from_str::<Value>(text) else { return Ok(()) };
    let again = serde_json::to_string(&tree).unwrap();
    if Settings::from_text(&again).is_err() {
        // Times, sizes and numbers may be written in ways that JSON has not.
        return Ok(());
    }
    tree.insert("zzz".to_owned(), Value::Null);
    let text = serde_json::to_string(&tree).unwrap();
    match Settings::from_text(&text) {
        Err(ConfigError::Invalid { problems, .. }) if problems.len() == 1 && problems[0].at == "zzz" => Ok(()),
        other => Err(format!("with one unknown key more: {other:?}")),
    }
}
