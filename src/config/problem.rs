//! What is wrong with a configuration, and where.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A place in a file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key path, like `clusters[0].policy.mode`; empty for the file as a whole.
    pub at: String,
    /// Where in the file, if it comes from one.
    pub place: Option<Place>,
    /// The problem, and what to write instead.
    pub what: String,
}

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    /// What the configuration names cannot be used, like a gate's certificate.
    #[error("{0}")]
    Unusable(String),
    /// All problems, in the order of the file.
    #[error("{}", list(path.as_deref(), problems))]
    Invalid {
        /// The file, if the settings do not come from flags.
        path: Option<PathBuf>,
        /// At least one.
        problems: Vec<Problem>,
    },
}

/// Like `config.yaml:4:7: clusters[0].name: is missing`, in the format of compilers: editors jump to it.
fn list(path: Option<&Path>, problems: &[Problem]) -> String {
    let place = |problem: &Problem| {
        // A flag is in no file.
        if problem.at.starts_with("--") {
            return String::new();
        }
        let mut words: Vec<String> = path.iter().map(|path| path.display().to_string()).collect();
        words.extend(problem.place.into_iter().flat_map(|place| [place.line.to_string(), place.column.to_string()]));
        words.iter().fold(String::new(), |all, word| all + word + ":")
    };
    let places: Vec<_> = problems.iter().map(place).collect();
    let width = places.iter().map(|place| place.chars().count()).max().unwrap_or_default();
    let lines = problems.iter().zip(places).map(|(problem, place)| {
        let blank = if place.is_empty() { "" } else { " " };
        let at = if problem.at.is_empty() { String::new() } else { format!("{}: ", problem.at) };
        plain(format!("{place:width$}{blank}{at}{}", problem.what).trim_start())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// One line without control characters, whatever a key is called: the file's content must not control a terminal.
fn plain(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}
