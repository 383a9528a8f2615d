//! Checks the direction of the layers, ports ← config, telemetry ← adapters ← app ← cli ← main, and that the files of
//! a folder do not import each other in circles. The core and the report are crates of their own, so they cannot use
//! any of the layers. No file is longer than [`MAX_LINES`].
//!
//! It reads the paths in each file, so it sees imports and full paths alike. CONTRIBUTING.md says how to see it fail.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Each layer with those that it may use, besides itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("ports", &["core"]),
    ("config", &["core", "ports"]),
    ("telemetry", &["core", "ports"]),
    ("adapters", &["core", "ports", "turn_limiter"]),
    ("app", &["core", "report", "ports", "config", "telemetry", "adapters", "turn_limiter"]),
    ("cli", &["core", "report", "ports", "config", "telemetry", "adapters", "app"]),
];

/// The crates whose folders are checked for cycles.
const CRATES: &[&str] = &["src", "crates/defragd-core/src", "crates/defragd-report/src"];

/// A longer file is about two things.
const MAX_LINES: usize = 400;

/// A path from the crate's root, such as `["app", "driver", "Stop"]`; the root's is empty.
type ModulePath = Vec<String>;

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

/// A path below the repository.
fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The code of a file without its comments.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    lines.join("\n")
}

/// The paths in the code, also those in groups. `base` says where a path with this first word begins.
fn paths(code: &str, base: impl Fn(&str) -> Option<ModulePath>) -> Vec<ModulePath> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices(|c: char| c.is_ascii_alphabetic()) {
        // The middle of a word or path, or `pub(in …)`.
        if code[..start].ends_with(|c: char| c.is_ascii_alphanumeric() || "_:".contains(c))
            || code[..start].ends_with("(in ")
        {
            continue;
        }
        let (first, rest) = word(&code[start..]);
        if let (Some(rest), Some(base)) = (rest.strip_prefix("::"), base(first)) {
            branches(rest, base, &mut found);
        }
    }
    found
}

/// Adds the paths that begin with `base` and continue with this text; returns the text behind them.
fn branches<'a>(text: &'a str, base: ModulePath, found: &mut Vec<ModulePath>) -> &'a str {
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if let Some(end) = rest.strip_prefix('}') {
                return end;
            }
            rest = branches(rest, base.clone(), found);
        }
    }
    let (name, rest) = word(text.strip_prefix('*').unwrap_or(text));
    let base = match name {
        "" | "self" => base,
        "super" => base[..base.len() - 1].to_vec(),
        name => [base, vec![name.to_owned()]].concat(),
    };
    if let Some(rest) = rest.strip_prefix("::") {
        return branches(rest, base, found);
    }
    found.push(base);
    rest.strip_prefix(" as ").map_or(rest, |alias| word(alias).1)
}

/// The first word, and the rest.
fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len()))
}

/// The module of each file of a crate that is compiled without `cfg(test)`, with the paths that it names.
#[derive(Default)]
struct Modules(BTreeMap<ModulePath, Vec<ModulePath>>);

impl Modules {
    /// Adds a file's module, and those that it declares.
    fn add(&mut self, file: &Path, module: &[String]) {
        let code = without_tests(&code(file));
        let children = declared(&code);
        let base = |first: &str| match first {
            "crate" => Some(Vec::new()),
            "self" => Some(module.to_vec()),
            "super" => Some(module[..module.len() - 1].to_vec()),
            child => {
                children.iter().find(|name| *name == child).map(|name| [module, std::slice::from_ref(name)].concat())
            }
        };
        self.0.insert(module.to_vec(), paths(&code, base));
        let is_entrance = ["lib.rs", "mod.rs"].iter().any(|name| file.ends_with(name));
        let dir = if is_entrance { file.parent().unwrap().to_owned() } else { file.with_extension("") };
        for child in children {
            let files = [dir.join(format!("{child}.rs")), dir.join(&child).join("mod.rs")];
            let file = files.iter().find(|file| file.exists()).unwrap();
            self.add(file, &[module, &[child]].concat());
        }
    }

    /// The modules with children.
    fn folders(&self) -> BTreeSet<&[String]> {
        self.0.keys().filter_map(|module| Some(module.split_last()?.1)).collect()
    }

    /// The groups of a folder's files each of which imports all others, directly or indirectly. A folder in it counts
    /// as one file. Its own `mod.rs` does not count: it is the way in to all of them, and holds what they share.
    fn cycles(&self, folder: &[String]) -> BTreeSet<BTreeSet<String>> {
        let mut reached: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
        for (module, paths) in &self.0 {
            let Some([from, ..]) = module.strip_prefix(folder) else { continue };
            let used = paths.iter().filter_map(|path| path.strip_prefix(folder)?.first());
            let used = used.filter(|to| *to != from && self.0.contains_key(&[folder, &[(*to).clone()]].concat()));
            reached.entry(from).or_default().extend(used);
        }
        let files: Vec<_> = reached.keys().copied().collect();
        for through in &files {
            for from in &files {
                if reached[from].contains(through) {
                    let more = reached[through].clone();
                    reached.entry(from).or_default().extend(more);
                }
            }
        }
        let cycle = |file: &&String| -> BTreeSet<String> {
            reached[file].iter().filter(|other| reached[**other].contains(file)).map(|other| (*other).clone()).collect()
        };
        files.iter().map(cycle).filter(|cycle| !cycle.is_empty()).collect()
    }
}

/// The code without the items that are compiled for tests only.
fn without_tests(code: &str) -> String {
    let mut parts = code.split("#[cfg(test)]\n");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |code, part| {
        let mut depth = 0;
        let end = part.find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0 && (c == ';' || c == '}')
        });
        code + &part[end.unwrap() + 1..]
    })
}

/// The modules in files of their own that the code declares.
fn declared(code: &str) -> Vec<String> {
    let lines = code.lines().filter_map(|line| line.trim().strip_suffix(';')?.split_once("mod "));
    lines
        .filter(|(before, _)| before.is_empty() || before.starts_with("pub"))
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// The first words of the paths from the crate's root.
fn used(code: &str) -> Vec<String> {
    let from_root = paths(code, |first| (first == "crate").then(Vec::new));
    from_root.into_iter().filter_map(|path| path.into_iter().next()).collect()
}

#[test]
fn no_layer_uses_one_above_it() {
    let src = at("src");
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
fn no_folder_has_a_cycle_of_more_than_two_files() {
    let mut wrong = Vec::new();
    let mut edges = 0;
    for root in CRATES {
        let mut modules = Modules::default();
        modules.add(&at(root).join("lib.rs"), &[]);
        edges += modules.0.values().map(Vec::len).sum::<usize>();
        for folder in modules.folders() {
            let cycles = modules.cycles(folder);
            let long = cycles.iter().filter(|cycle| cycle.len() > 2);
            let folder = [&[(*root).to_owned()], folder].concat().join("/");
            wrong.extend(long.map(|cycle| format!("{folder}: {cycle:?}")));
        }
    }
    assert!(wrong.is_empty(), "files that import each other in circles:\n{}", wrong.join("\n"));
    assert!(edges > 1_000, "only {edges} paths were found: the search is broken");
}

#[test]
fn no_file_is_longer_than_the_limit() {
    let mut files = Vec::new();
    for root in CRATES {
        sources(&at(root), &mut files);
    }
    assert!(files.len() > 200, "only {} files were found: the search is broken", files.len());
    let long = |file: &PathBuf| std::fs::read_to_string(file).unwrap().lines().count() > MAX_LINES;
    let long: Vec<_> = files.iter().filter(|file| long(file)).collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:?}");
}

#[test]
fn a_cycle_is_found_whether_it_is_imported_or_written_out() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, code: &str| std::fs::write(dir.path().join(name), code).unwrap();
    write("lib.rs", "mod a;\npub mod b;\nmod c;\nmod d;\nuse a::A;\n#[cfg(test)]\nmod tests { use crate::a; }\n");
    write("a.rs", "use super::{\n    b::{X as Y, Z},\n    c::*,\n};\n");
    write(
        "b.rs",
        "fn b() -> crate::c::C { let d = d::d(); }\n#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::d;\n}\n",
    );
    write("c.rs", "/// Not `crate::d`.\npub(in crate::d) fn c() { html! { (super::a::a()) } }\n");
    write("d.rs", "use crate::{a, b::B};\n");
    let mut modules = Modules::default();
    modules.add(&dir.path().join("lib.rs"), &[]);
    let cycle: BTreeSet<_> = ["a", "b", "c"].map(str::to_owned).into();
    assert_eq!(modules.cycles(&[]), BTreeSet::from([cycle]));
}

#[test]
fn the_search_sees_plain_and_grouped_paths() {
    let code =
        "use crate::app::x;\nuse crate::{\n    core::{a, b::{c}},\n    ports::etcd,\n};\nlet x = crate::cli::y();";
    assert_eq!(used(code), ["app", "core", "core", "ports", "cli"]);
}

/// An error whose text has its cause must not also have it as its source: a message with the chain would show it twice.
#[test]
fn no_error_shows_its_cause_and_has_it_as_its_source() {
    let mut files = Vec::new();
    for dir in CRATES {
        sources(&at(dir), &mut files);
    }
    let texts = files.iter().map(|file| (file, std::fs::read_to_string(file).unwrap()));
    let twice: Vec<_> = texts.filter(|(_, text)| text.contains("{source}")).map(|(file, _)| file.clone()).collect();
    assert!(twice.is_empty(), "name the field `cause`, which thiserror does not take for a source: {twice:?}");
}
