//! A file that people wrote, with the positions of its values. Finds all structural problems at once (keys, types,
//! spelling), so that [`crate::config`] can continue with what the values mean.
//!
//! Knows no key of any file: what is expected is asked of serde. No value of a place where text is expected is ever shown:
//! it may be a secret. Relative paths, which are the values that are read as a `PathBuf`, start at the file's directory.

mod de;
mod fault;
mod files;
mod lenient;
mod tree;

use std::{
    collections::BTreeSet,
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use self::{
    de::De,
    files::Files,
    tree::{NOWHERE, Node},
};
use super::problem::{ConfigError, Place, Problem};
use crate::core::check::Problems;

/// A thousand clusters with all keys are some two megabytes.
const MAX_BYTES: u64 = 16 << 20;

/// A file's text, and the problems found so far.
#[derive(Debug, Default)]
pub struct Source {
    path: Option<PathBuf>,
    text: String,
    problems: Vec<Problem>,
    /// Replacements for wrong or missing values. Errors about them are not reported.
    holes: BTreeSet<String>,
    /// Values from which something wrong was removed. Errors about them as a whole are not reported.
    disturbed: BTreeSet<String>,
    /// There may be more problems.
    is_cut: bool,
    tree: Option<Node>,
    files: Files,
}

impl Source {
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |cause| ConfigError::Unreadable { path: path.to_owned(), cause };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        let refused = |place, what: String| ConfigError::Invalid {
            path: Some(path.to_owned()),
            problems: vec![Problem { at: String::new(), place, what }],
        };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(refused(
                None,
                format!("is longer than {MAX_BYTES} bytes: divide it among several defragd processes"),
            ));
        }
        // Absolute: a path in an error is complete, and a later change of the working directory changes nothing.
        let dir = std::path::absolute(path).map_err(unreadable)?.parent().map(Path::to_owned);
        let files = Files { dir, ..Files::default() };
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { path: Some(path.to_owned()), files, ..Self::from_text(text) }),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = good.split(|byte| *byte == b'\n').count();
                let column = 1 + good.iter().rev().take_while(|byte| **byte != b'\n').count();
                Err(refused(Some(Place { line, column }), "is not UTF-8; save it as UTF-8 text".to_owned()))
            }
        }
    }

    /// From a text that is not in a file.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// From flags: its values have no places.
    pub fn from_flags(value: &Value) -> Self {
        Self { tree: Some(Node::of(value)), ..Self::default() }
    }

    /// Whether there are only comments.
    pub fn is_blank(&self) -> bool {
        let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        self.text.trim_start_matches('\u{feff}').lines().all(blank)
    }

    /// The parsed value. If something is wrong, the valid rest of it; [`Source::judge`] reports the problems. None if
    /// nothing of it is usable.
    pub fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        self.read_with(&Value::Null)
    }

    /// The same, with the keys of `over` in place of those in the file. The only item of a list there stands for all items
    /// of the file's list.
    pub fn read_with<T: DeserializeOwned>(&mut self, over: &Value) -> Option<T> {
        lenient::read(self, over)
    }

    /// What was read, as it is written, without absent values, values of headers (those are often secrets), and what
    /// follows the host in secret URLs.
    pub fn redacted(&self) -> Value {
        let read = |tree: &Node| {
            let tree = tree.redacted(&self.files.secret_urls.borrow());
            Value::deserialize(De { node: &tree, files: &self.files }).ok()
        };
        let mut value = self.tree.as_ref().and_then(read).unwrap_or_default();
        redact(&mut value);
        value
    }

    /// An error if there is a problem, in the structure or the meaning.
    pub fn judge(&mut self, of_meaning: Problems) -> Result<(), ConfigError> {
        if self.problems.is_empty() && of_meaning.0.is_empty() {
            return Ok(());
        }
        let problem = |(at, what)| Problem { at, place: None, what };
        Err(self.error(of_meaning.0.into_iter().map(problem).collect()))
    }

    /// All problems, in the order of the file: in its structure and its meaning.
    pub fn error(&mut self, of_meaning: Vec<Problem>) -> ConfigError {
        let news: Vec<_> = of_meaning.into_iter().filter(|problem| !self.is_no_news(&problem.at)).collect();
        self.problems.extend(news);
        let places = self.tree.as_ref().map(Node::places).unwrap_or_default();
        for problem in self.problems.iter_mut().filter(|problem| problem.place.is_none_or(|at| at == NOWHERE)) {
            problem.place = above(&problem.at).find_map(|at| places.get(at).copied());
        }
        self.problems.sort_by_key(|problem| problem.place);
        let mut problems = self.problems.clone();
        if self.is_cut {
            let what = "there may be more problems: fix these and check again".to_owned();
            problems.push(Problem { at: String::new(), place: None, what });
        }
        ConfigError::Invalid { path: self.path.clone(), problems }
    }

    /// All files that were named in what was read: path of the key, and path of the file.
    pub fn named_files(&self) -> Vec<(String, PathBuf)> {
        self.tree.as_ref().map(|tree| tree.named_files(&self.files)).unwrap_or_default()
    }

    fn is_no_news(&self, at: &str) -> bool {
        self.disturbed.contains(at) || above(at).any(|at| self.holes.contains(at))
    }
}

/// Removes what is null or an empty mapping, and the values of headers.
fn redact(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                match value {
                    Value::Object(headers) if name == "headers" => {
                        headers.values_mut().for_each(|value| *value = "***".into());
                    }
                    value => redact(value),
                }
            }
            map.retain(|_, value| !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty()));
        }
        Value::Array(list) => list.iter_mut().for_each(redact),
        _ => {}
    }
}

/// The key path, then those of its parents, up to the whole file.
fn above<'a>(at: &'a str) -> impl Iterator<Item = &'a str> {
    let shorter = |at: &&'a str| {
        let at: &'a str = at;
        (!at.is_empty()).then_some(&at[..at.rfind(['.', '[']).unwrap_or_default()])
    };
    std::iter::successors(Some(at), shorter)
}

#[cfg(test)]
mod tests;
