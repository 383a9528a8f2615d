//! A file that people wrote, and where in it is what. Finds all that is wrong with its shape at once (keys, types,
//! spelling), so that [`crate::config`] can go on to what its values mean.
//!
//! Knows no key of any file: what is expected is asked of serde. A good file is read by the YAML library alone; the tree
//! of this module is made only to explain a bad one. No value of a place where text is expected is ever shown: it may be
//! a secret.

mod de;
mod fault;
mod lenient;
mod tree;

use std::{
    collections::BTreeSet,
    io::Read,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use self::tree::Node;
use super::{ConfigError, Place, Problem};

/// A thousand clusters with all keys are some two megabytes.
const MAX_BYTES: u64 = 16 << 20;

/// A file's text, and what was found wrong with it so far.
#[derive(Debug, Default)]
pub struct Source {
    path: Option<PathBuf>,
    text: String,
    problems: Vec<Problem>,
    /// What stands in for something bad or absent. What is found wrong with it is no news.
    holes: BTreeSet<String>,
    /// What has lost something bad. What is found wrong with it as a whole is no news.
    disturbed: BTreeSet<String>,
    /// There may be more.
    is_cut: bool,
    tree: Option<Node>,
}

impl Source {
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        let refused = |place, what: String| ConfigError::Invalid {
            path: Some(path.to_owned()),
            problems: vec![Problem { at: String::new(), place, what }],
        };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(refused(None, format!("is longer than {MAX_BYTES} bytes: share it out over several defragd")));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { path: Some(path.to_owned()), ..Self::from_text(text) }),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = good.split(|byte| *byte == b'\n').count();
                let column = 1 + good.iter().rev().take_while(|byte| **byte != b'\n').count();
                Err(refused(Some(Place { line, column }), "is not UTF-8; save it as UTF-8 text".to_owned()))
            }
        }
    }

    /// Of a text that is in no file.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Whether there is nothing but comments.
    pub fn is_blank(&self) -> bool {
        let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        self.text.trim_start_matches('\u{feff}').lines().all(blank)
    }

    /// What is written. Where something is wrong, the rest of it; what is wrong is told by [`Source::judge`]. None where
    /// nothing can be made of it.
    pub fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        let error = match serde_saphyr::from_str(&self.text) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let before = self.problems.len();
        let read = lenient::read(self);
        if self.problems.len() == before {
            // What the library alone knows to be wrong. What follows the first line quotes the file.
            let what = error.to_string().lines().next().unwrap_or_default().to_owned();
            let place = error.location().map(|at| Place {
                line: usize::try_from(at.line()).unwrap_or_default(),
                column: usize::try_from(at.column()).unwrap_or_default(),
            });
            self.problems.push(Problem { at: String::new(), place, what });
        }
        read
    }

    /// What came of it, if nothing was wrong before either.
    pub fn judge<T>(&mut self, result: Result<T, Vec<Problem>>) -> Result<T, ConfigError> {
        match result {
            Ok(value) if self.problems.is_empty() => Ok(value),
            Ok(_) => Err(self.error(Vec::new())),
            Err(problems) => Err(self.error(problems)),
        }
    }

    /// All that is wrong, in the order of the file: with its shape, and with what it means.
    pub fn error(&mut self, of_meaning: Vec<Problem>) -> ConfigError {
        let news: Vec<_> = of_meaning.into_iter().filter(|problem| !self.is_no_news(&problem.at)).collect();
        self.problems.extend(news);
        let places = self.tree().map(Node::places).unwrap_or_default();
        for problem in self.problems.iter_mut().filter(|problem| problem.place.is_none()) {
            problem.place = above(&problem.at).find_map(|at| places.get(at).copied());
        }
        self.problems.sort_by_key(|problem| problem.place);
        let mut problems = self.problems.clone();
        if self.is_cut {
            let what = "and perhaps more, to be seen once these are mended".to_owned();
            problems.push(Problem { at: String::new(), place: None, what });
        }
        ConfigError::Invalid { path: self.path.clone(), problems }
    }

    /// The values of all keys that name files: path in the file, and what is written there.
    pub fn named_files(&mut self) -> Vec<(String, String)> {
        self.tree().map(Node::named_files).unwrap_or_default()
    }

    fn tree(&mut self) -> Option<&Node> {
        if self.tree.is_none() {
            self.tree = tree::parse(&self.text).ok().map(|parsed| parsed.root);
        }
        self.tree.as_ref()
    }

    fn is_no_news(&self, at: &str) -> bool {
        self.disturbed.contains(at) || above(at).any(|at| self.holes.contains(at))
    }
}

/// The key path, then those of what it is in, up to the whole file.
fn above<'a>(at: &'a str) -> impl Iterator<Item = &'a str> {
    let shorter = |at: &&'a str| {
        let at: &'a str = at;
        (!at.is_empty()).then_some(&at[..at.rfind(['.', '[']).unwrap_or_default()])
    };
    std::iter::successors(Some(at), shorter)
}

#[cfg(test)]
mod tests;
