//! The configuration: the file as it is written ([`raw`]) and what it means once it is checked.
//!
//! Every problem is reported at once, each with its key path. Secrets come from files only, and are
//! read when they are needed, never kept in these structures.

pub mod gates;
pub mod raw;
mod validate;
pub mod web;
mod windows;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use gates::GateSettings;

use crate::core::{alert::Selector, policy::Policy};

/// One configured cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    /// Unique; the metric label `etcd_cluster`.
    pub name: String,
    /// URLs with a scheme.
    pub endpoints: Vec<String>,
    /// The authorities to trust; the system's where absent.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity_files: Option<(PathBuf, PathBuf)>,
    /// etcd user and the file with its password.
    pub user: Option<(String, PathBuf)>,
    /// Which alerts concern this cluster.
    pub selector: Selector,
    /// When to act, and how carefully.
    pub policy: Policy,
    /// What is checked outside etcd before, during and after a run.
    pub gates: Vec<GateSettings>,
}

/// A configuration that passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// At least one.
    pub clusters: Vec<ClusterSettings>,
    /// As it is shown to people: see [`raw::File::shown`].
    pub shown: serde_json::Value,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, like `clusters[0].policy.mode`.
    pub at: String,
    /// What, and what to write instead.
    pub what: String,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not YAML, or has an unknown or missing key.
    #[error("{}: {detail}", path.display())]
    Syntax {
        /// Where.
        path: PathBuf,
        /// What, with line and column.
        detail: String,
    },
    /// All that is wrong with the values.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|problem| format!("{}: {}", problem.at, problem.what)).collect();
    lines.join("\n")
}

impl Settings {
    /// Reads and checks a file.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let file = raw::parse(&text).map_err(|detail| ConfigError::Syntax { path: path.to_owned(), detail })?;
        Self::from_raw(file)
    }

    /// Checks what was read.
    pub fn from_raw(file: raw::File) -> Result<Self, ConfigError> {
        validate::settings(file).map_err(ConfigError::Invalid)
    }
}
