//! `--web.config.file` as the HTTP side asks for it: read by [`crate::config::web`], its fate told to whoever counts.

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
    /// Of this file; `tell` hears whether a changed one was taken up.
    pub fn new(path: PathBuf, tell: F) -> Self {
        Self { path, tell }
    }

    /// Whether the file and the certificates that it names are good. The error is for people, one problem a line.
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
