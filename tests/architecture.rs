//! Checks the direction of the layers: ports ← config, telemetry ← adapters ← app ← cli ← main. The core and
//! the report are crates of their own, so they cannot use any of them.
//!
//! It reads the `crate::…` paths in each file, so it sees imports and full paths alike. CONTRIBUTING.md says
//! how to see it fail.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// Each layer with those that it may use, besides itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("ports", &["core"]),
    ("config", &["core", "ports"]),
    ("telemetry", &["core", "ports"]),
    ("adapters", &["core", "ports"]),
    ("app", &["core", "report", "ports", "config", "telemetry", "adapters"]),
    ("cli", &["core", "report", "ports", "config", "telemetry", "adapters", "app"]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file without its comments.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    lines.join("\n")
}

/// The layers that the code names: `crate::ports::…`, and each of the branches of `use crate::{…}`.
fn used(code: &str) -> Vec<String> {
    let mut layers = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        let rest = &code[start + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            layers.extend(branches(group));
        } else {
            layers.push(word(rest));
        }
    }
    layers
}

/// The first words of the top-level branches of a use group, up to its closing brace.
fn branches(group: &str) -> Vec<String> {
    let (mut depth, mut begin, mut found) = (0, true, Vec::new());
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begin = true,
            c if begin && !c.is_whitespace() => {
                found.push(word(&group[index..]));
                begin = false;
            }
            _ => {}
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn no_layer_uses_one_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut edges = 0;
    for (layer, allowed) in LAYERS {
        let mut files = Vec::new();
        sources(&src.join(layer), &mut files);
        assert!(!files.is_empty(), "there is no layer {layer}");
        for file in files {
            for used in used(&code(&file)) {
                edges += 1;
                if used != *layer && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}: {layer} uses {used}", file.strip_prefix(&src).unwrap().display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "edges in the wrong direction:\n{}", wrong.join("\n"));
    assert!(edges > 50, "only {edges} edges were found: the search is broken");
}

#[test]
fn the_search_sees_plain_and_grouped_paths() {
    let code =
        "use crate::app::x;\nuse crate::{\n    core::{a, b::{c}},\n    ports::etcd,\n};\nlet x = crate::cli::y();";
    assert_eq!(used(code), ["app", "core", "ports", "cli"]);
}
