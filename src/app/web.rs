//! `--web.config.file` for the HTTP side: read by [`crate::config::web`], with reloads reported to the metrics.

use std::path::{Path, PathBuf};

use crate::{
    adapters::http::Web,
    config::web::from_file,
    ports::web::{WebConfig, WebSource},
};

pub struct WebFile<F> {
    path: PathBuf,
    tell: F,
}

impl<F: Fn(bool) + Send + Sync + 'static> WebFile<F> {
    /// For this file; `tell` is called with whether a changed one was applied.
    pub fn new(path: PathBuf, tell: F) -> Self {
        Self { path, tell }
    }

    /// Whether the file and the certificates that it names are valid. The error is for people, one problem per line.
    pub fn check(self) -> Result<(), String> {
        Web::open(self).map(drop)
    }
}

impl<F: Fn(bool) + Send + Sync + 'static> WebSource for WebFile<F> {
    fn path(&self) -> &Path {
        &self.path
    }

    fn load(&self) -> Result<WebConfig, String> {
        from_file(&self.path).map_err(|error| error.to_string())
    }

    fn reloaded(&self, taken: bool) {
        (self.tell)(taken);
    }
}
