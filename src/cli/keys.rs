//! Flags as keys of the file, which they override.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// Those that were given.
pub(super) fn given<const N: usize>(keys: [(&str, Value); N]) -> Map<String, Value> {
    keys.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A flag's path is relative to the working directory, not to the file's.
pub(super) fn from_here(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
