//! The files that a configuration names, and the values that must not be shown.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::config::problem::Place;

/// The values that were read as a `PathBuf` or as a [`crate::ports::access::SecretUrl`].
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Where relative paths start; at the working directory if absent.
    pub(super) dir: Option<PathBuf>,
    /// Where the paths are.
    pub(super) found: RefCell<BTreeSet<Place>>,
    pub(super) secret_urls: RefCell<BTreeSet<Place>>,
}

impl Files {
    /// The path as it is opened. An empty one stays empty, and is reported as such.
    pub(super) fn resolve(&self, text: &str) -> PathBuf {
        self.dir.as_ref().filter(|_| !text.is_empty()).map_or_else(|| text.into(), |dir| dir.join(Path::new(text)))
    }
}
