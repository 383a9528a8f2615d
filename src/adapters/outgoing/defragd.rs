//! A running defragd, for `defragd approve`, `pause`, `resume` and `health`.

use reqwest::Method;
use serde_json::Value;

use super::{CallError, ClientSettings, MAX_ANSWER_BYTES, Remote, excerpt, shown};

/// How the answers of both health pages begin: other programs have pages of these names, too.
const HEALTHY: &str = "defragd is ";
/// The answers are one line.
const MAX_HEALTH_BYTES: usize = 4 << 10;

/// Asks a running defragd, and sends it actions.
pub struct ControlClient {
    remote: Remote,
}

impl ControlClient {
    /// For the server at this address. Checks the TLS files; the credentials are read when they are needed.
    pub fn new(server: &str, access: ClientSettings) -> Result<Self, CallError> {
        Ok(Self { remote: Remote::new(server, access, MAX_ANSWER_BYTES)? })
    }

    pub async fn post(&self, path: [&str; 3], body: &Value) -> Result<Value, CallError> {
        self.call(Method::POST, &path, Some(body)).await
    }

    /// Reads below `/api/v1/`.
    pub async fn get(&self, path: &[&str]) -> Result<Value, CallError> {
        self.call(Method::GET, path, None).await
    }

    /// The plan of a cluster, of an automatic run or of one that an operator requests.
    pub async fn plan(&self, cluster: &str, as_manual: bool) -> Result<Value, CallError> {
        let mut url = self.remote.api(&["clusters", cluster, "plan"])?;
        url.query_pairs_mut().append_pair("as_manual", &as_manual.to_string());
        Ok(self.remote.call(Method::GET, &url, None).await?.json)
    }

    /// The text of a health page of defragd, if it answers 200.
    pub async fn health(&self, page: &str) -> Result<String, CallError> {
        let url = self.remote.url(page)?;
        let answer = self.remote.access.ask(Method::GET, &url, None, MAX_HEALTH_BYTES).await?;
        let said = excerpt(&answer.secrets.mask(&String::from_utf8_lossy(&answer.body)));
        match answer.status {
            200 if said.starts_with(HEALTHY) => Ok(said),
            200 => {
                Err(CallError::NotUnderstood { url: shown(&url), detail: format!("it is not from defragd: {said}") })
            }
            status => Err(CallError::Refused { url: shown(&url), status, detail: said, reason: None }),
        }
    }

    async fn call(&self, method: Method, path: &[&str], body: Option<&Value>) -> Result<Value, CallError> {
        Ok(self.remote.call(method, &self.remote.api(path)?, body).await?.json)
    }
}
