//! Reads a tree repeatedly: each problem is recorded and repaired, until the rest can be read.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Source,
    de::De,
    fault::{Fault, What, words},
    tree::{self, Key, Kind, Node, Parsed},
};
use crate::config::problem::{Place, Problem};

/// With this many problems, the operator will check again anyway after fixing them.
const MAX_PROBLEMS: usize = 50;
/// Keys that hold secrets elsewhere. Here, all secrets are in files.
const SECRETS: [&str; 4] = ["password", "bearer_token", "token", "admin_token"];
/// Names that are less similar are not suggested.
const MIN_LIKENESS: f64 = 0.75;

/// Reads what is valid; problems and repairs are added to the source.
pub(super) fn read<T: DeserializeOwned>(source: &mut Source, over: &Value) -> Option<T> {
    let start = Place { line: 1, column: 1 };
    let parsed = match tree::parse(&source.text) {
        _ if source.tree.is_some() => Parsed { root: source.tree.take()?, problems: vec![] },
        _ if source.is_blank() => {
            Parsed { root: Node { place: start, kind: Kind::Plain(String::new()) }, problems: vec![] }
        }
        Ok(parsed) => parsed,
        Err(problem) => {
            source.problems.push(problem);
            return None;
        }
    };
    source.problems.extend(parsed.problems);
    let mut root = parsed.root;
    if root.is_null() {
        root.kind = Kind::Map(Vec::new());
    }
    root.merge(over);
    let before = source.problems.len();
    let read = loop {
        match T::deserialize(De { node: &root, files: &source.files }) {
            Ok(value) => break Some(value),
            Err(_) if source.problems.len() - before >= MAX_PROBLEMS => {
                source.is_cut = true;
                break None;
            }
            Err(fault) => {
                if !repair(&mut root, fault, source) {
                    break None;
                }
            }
        }
    };
    source.tree = Some(root);
    read
}

/// Records a problem and replaces the value by a readable one. False if that is impossible.
fn repair(root: &mut Node, mut fault: Fault, source: &mut Source) -> bool {
    fault.way.reverse();
    let mut path = String::new();
    let steps = fault.way.len() - usize::from(fault.of_key);
    let mut node = &mut *root;
    for step in &fault.way[..steps] {
        node = match &mut node.kind {
            Kind::List(items) => {
                tree::push_index(&mut path, *step);
                &mut items[*step]
            }
            Kind::Map(entries) => {
                tree::push_key(&mut path, &entries[*step].0.name);
                &mut entries[*step].1
            }
            Kind::Plain(_) | Kind::Quoted(_) | Kind::Hole | Kind::Blank => return false,
        };
    }
    let said = words(&fault.what, node);
    match (&fault.what, &mut node.kind) {
        (What::UnknownKey(known), Kind::Map(entries)) => {
            let index = fault.way.last().copied().unwrap_or_default();
            let (key, _) = &entries[index];
            let (name, place) = (key.name.clone(), key.place);
            let free: Vec<_> =
                known.iter().filter(|known| entries.iter().all(|(key, _)| key.name != **known)).collect();
            let meant = like(&name, free.into_iter().copied());
            let mut at = path.clone();
            tree::push_key(&mut at, &name);
            // Most likely the content of a file, and a secret.
            let file = meant.filter(|meant| meant.ends_with("_file") && !name.contains("fil")).map(str::to_owned);
            let is_secret = SECRETS.contains(&name.as_str());
            let its_file = || Some(format!("{name}_file")).filter(|file| is_secret && known.contains(&file.as_str()));
            let file = file.or_else(its_file);
            let what = match (&file, meant) {
                (Some(file), _) => {
                    format!("is not supported: put it into a file of its own, and write {file} with the path")
                }
                (None, _) if is_secret => {
                    "is not supported: secrets are read from files, such as auth.password_file".to_owned()
                }
                (None, Some(meant)) => format!("is unknown; did you mean {meant}?"),
                (None, None) => said,
            };
            source.problems.push(Problem { at, place: Some(place), what });
            match meant {
                Some(meant) => {
                    meant.clone_into(&mut entries[index].0.name);
                    // Not the path of a file, which would be shown where it cannot be opened.
                    if file.is_some() {
                        entries[index].1.kind = Kind::Hole;
                        source.holes.insert(format!("{path}.{meant}"));
                    }
                }
                None => drop(entries.remove(index)),
            }
            source.disturbed.insert(path);
            true
        }
        (What::MissingKey(name), Kind::Map(_) | Kind::Hole) => {
            let is_news = !super::above(&path).any(|at| source.holes.contains(at));
            if is_news {
                let mut at = path.clone();
                tree::push_key(&mut at, name);
                source.problems.push(Problem { at: at.clone(), place: Some(node.place), what: said });
                source.holes.insert(at);
            }
            let place = node.place;
            let entry = (Key { name: (*name).to_owned(), place }, Node { place, kind: Kind::Hole });
            match &mut node.kind {
                Kind::Map(entries) => entries.push(entry),
                kind => *kind = Kind::Map(vec![entry]),
            }
            true
        }
        // The replacement is wrong, too: some types can only be read from a text.
        (_, Kind::Hole) => {
            node.kind = Kind::Blank;
            true
        }
        _ if source.holes.contains(&path) => false,
        (what, _) => {
            let meant = match (what, &node.kind) {
                (What::Word(known), Kind::Plain(text) | Kind::Quoted(text)) if !known.contains(&text.as_str()) => {
                    like(text, known.iter().copied())
                }
                _ => None,
            };
            let what = meant.map_or_else(|| said.clone(), |meant| format!("{said}; did you mean {meant}?"));
            let is_single = matches!(node.kind, Kind::Plain(_) | Kind::Quoted(_)) && !node.is_null();
            let place = is_single.then_some(node.place);
            // Without what was removed from it, the value as a whole may be wrong, too.
            if !(matches!(fault.what, What::Other(_)) && source.disturbed.contains(&path)) {
                source.problems.push(Problem { at: path.clone(), place, what });
            }
            node.kind = Kind::Hole;
            if let Some(parent) = super::above(&path).nth(1) {
                source.disturbed.insert(parent.to_owned());
            }
            source.holes.insert(path);
            true
        }
    }
}

/// The known name that was most likely meant.
fn like<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // An abbreviated name means the whole one: `quota_ratio`, `namespace`.
    let likeness = |known: &str| {
        let (a, b) = (name.to_lowercase(), known.to_lowercase());
        let whole = a.len() >= 3 && (b.starts_with(&a) || a.starts_with(&b));
        let alike = strsim::normalized_damerau_levenshtein(&a, &b).max(strsim::jaro_winkler(&a, &b) - 0.1);
        if whole { alike.max(0.8) } else { alike }
    };
    // Longer parts of a name are not worth the time.
    (name.len() <= 100).then_some(())?;
    known
        .map(|known| (likeness(known), known))
        .filter(|(likeness, _)| *likeness >= MIN_LIKENESS)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}
