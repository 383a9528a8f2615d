//! The configuration: the file as it is written ([`raw`]), and its meaning once it is checked.
//!
//! Every problem is reported at once, each with its line and key path ([`source`]). Secrets come from files only, and
//! are read when they are needed, never stored in these structures.

pub mod effective;
pub mod gates;
pub mod lock;
pub mod metrics;
pub mod modules;
pub mod raw;
mod schedule;
pub mod schema;
pub mod source;
mod validate;
pub mod web;
mod windows;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytesize::ByteSize;
use thiserror::Error;

pub use gates::GateSettings;
pub use lock::{LockKind, LockSettings};
pub use metrics::MetricsSettings;
pub use modules::ModuleSettings;
pub use source::Source;

use crate::core::{alert::Selector, policy::Policy};

#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    /// Unique; the metric label `etcd_cluster`.
    pub name: String,
    /// URLs with a scheme. At least one, or SRV discovery.
    pub endpoints: Vec<String>,
    /// Finds endpoints by SRV records.
    pub discovery: Option<DiscoverySettings>,
    /// The CAs to trust; the system's if absent.
    pub ca_file: Option<PathBuf>,
    pub identity_files: Option<(PathBuf, PathBuf)>,
    /// etcd user and the file with its password.
    pub user: Option<(String, PathBuf)>,
    /// Where the members' metrics pages are; at their client URLs if absent.
    pub metrics: Option<MetricsSettings>,
    /// The backend quota of members that do not report it.
    pub quota: Option<ByteSize>,
    pub selector: Selector,
    /// When to act, and under which conditions.
    pub policy: Policy,
    /// What is checked outside etcd before, during and after a run.
    pub gates: Vec<GateSettings>,
    /// Messages name flags instead of keys.
    pub by_flags: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySettings {
    /// The domain of the SRV records.
    pub domain: String,
    /// The last part of the service's name.
    pub name: Option<String>,
    /// Whether endpoints without TLS are accepted, and names from the records suffice for verification.
    pub insecure: bool,
    /// Queried instead of the system's name servers.
    pub nameserver: Option<std::net::SocketAddr>,
}

/// A configuration that passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// At least one, or there are modules.
    pub clusters: Vec<ClusterSettings>,
    pub lock: LockSettings,
    /// How clusters that are not configured may be probed, by name.
    pub modules: BTreeMap<String, ModuleSettings>,
    /// The targets of run notifications.
    pub notify: Vec<gates::notify::NotifySettings>,
    /// As it is exposed to clients: see [`raw::File::redacted`].
    pub redacted: serde_json::Value,
}

/// A place in a file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// A problem.
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
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
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
        let mut words: Vec<String> = path.iter().map(|path| path.display().to_string()).collect();
        words.extend(problem.place.into_iter().flat_map(|place| [place.line.to_string(), place.column.to_string()]));
        words.iter().fold(String::new(), |all, word| all + word + ":")
    };
    let places: Vec<_> = problems.iter().map(place).collect();
    let width = places.iter().map(|place| place.chars().count()).max().unwrap_or_default();
    let lines = problems.iter().zip(places).map(|(problem, place)| {
        let blank = if place.is_empty() { "" } else { " " };
        let at = if problem.at.is_empty() { String::new() } else { format!("{}: ", problem.at) };
        plain(&format!("{place:width$}{blank}{at}{}", problem.what))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// One line without control characters, whatever a key is called: the file's content must not control a terminal.
fn plain(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

impl Settings {
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        Self::from_source(&mut Source::open(path)?, |_| ())
    }

    /// Reads and checks a file, after `change` was applied to it.
    pub fn from_source(source: &mut Source, change: impl FnOnce(&mut raw::File)) -> Result<Self, ConfigError> {
        let Some(mut file) = source.read::<raw::File>() else { return Err(source.error(Vec::new())) };
        change(&mut file);
        source.judge(validate::settings(file))
    }

    /// Checks settings that do not come from a file.
    pub fn from_raw(file: raw::File) -> Result<Self, ConfigError> {
        validate::settings(file).map_err(|problems| ConfigError::Invalid { path: None, problems })
    }
}
