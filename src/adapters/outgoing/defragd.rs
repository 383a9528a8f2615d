//! A running defragd, for `defragd approve`, `pause` and `resume`.

use std::path::PathBuf;

use serde_json::Value;

use super::{CallError, Remote, token};

/// Gives orders to a running defragd.
pub struct ControlClient {
    remote: Remote,
    token: Option<String>,
}

impl ControlClient {
    /// For the server at this address. The token is read now.
    pub fn new(server: &str, token_file: Option<&PathBuf>, ca_file: Option<&PathBuf>) -> Result<Self, CallError> {
        Ok(Self { remote: Remote::new(server, ca_file)?, token: token_file.map(token).transpose()? })
    }

    /// Posts an order. The parts of the path are escaped.
    pub async fn post(&self, path: [&str; 3], body: &Value) -> Result<Value, CallError> {
        let mut url = self.remote.url("api/v1/")?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.remote.client.post(url.clone()).json(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        self.remote.call(request, &url).await
    }
}
