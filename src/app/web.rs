//! `--web.config.file` as the HTTP side asks for it: read by [`crate::config::web`], counted in the metrics.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::cluster::Shared;
use crate::{
    config::web::from_file,
    ports::web::{WebConfig, WebSource},
};

/// See the module.
pub struct WebFile<J> {
    path: PathBuf,
    shared: Arc<Shared<J>>,
}

impl<J> WebFile<J> {
    /// Of this file.
    pub fn new(path: PathBuf, shared: Arc<Shared<J>>) -> Self {
        Self { path, shared }
    }
}

impl<J: Send + Sync + 'static> WebSource for WebFile<J> {
    fn path(&self) -> &Path {
        &self.path
    }

    fn load(&self) -> Result<WebConfig, String> {
        from_file(&self.path).map_err(|error| error.to_string())
    }

    fn reloaded(&self, taken: bool) {
        self.shared.counters.web_config_read(taken);
    }
}
