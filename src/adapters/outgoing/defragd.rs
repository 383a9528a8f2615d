//! A running defragd, for `defragd approve`, `pause` and `resume`.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::Value;

use super::{CallError, Remote};

/// Gives orders to a running defragd.
pub struct ControlClient {
    remote: Remote,
}

impl ControlClient {
    /// For the server at this address. The token is read when an order is given.
    pub fn new(server: &str, token_file: Option<&PathBuf>, ca_file: Option<&PathBuf>) -> Result<Self, CallError> {
        Ok(Self { remote: Remote::plain(server, token_file.cloned(), ca_file.cloned())? })
    }

    /// Posts an order. The parts of the path are escaped.
    pub async fn post(&self, path: [&str; 3], body: &Value) -> Result<Value, CallError> {
        let mut url = self.remote.url("api/v1/")?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        Ok(self.remote.call(Method::POST, &url, Some(body)).await?.json)
    }
}
