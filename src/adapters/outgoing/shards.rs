//! The other shards, over their own API.

use std::path::PathBuf;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{
    CallError, ClientSettings, ClientTls, Credentials, Remote,
    peers::{DEADLINE, webhook_body},
};
use crate::{
    core::{alert::Notification, shard::Shard},
    ports::peers::SHARD_HEADER,
};

/// Some kilobytes for each of the alerts that were sent.
const MAX_ANSWER_BYTES: usize = 16 << 20;

#[derive(Clone, Debug)]
pub struct HttpShards {
    pub here: Shard,
    pub token_file: Option<PathBuf>,
    pub tls: ClientTls,
}

#[derive(Deserialize)]
struct Decided {
    alerts: Vec<Value>,
}

impl HttpShards {
    /// Forwards alerts to the shard at this URL, once. Returns its decisions, in the order of the alerts: they are in its
    /// journal. It never forwards them again: two shards that each take the other for the owner must not send alerts back
    /// and forth.
    pub async fn notify(&self, url: &str, alerts: &Notification) -> Result<Vec<Value>, CallError> {
        let mut credentials = Credentials::bearer(self.token_file.clone());
        credentials.headers.0.insert(SHARD_HEADER.to_owned(), self.here.to_string());
        let access = ClientSettings::new(credentials, self.tls.clone(), DEADLINE);
        let remote = Remote::new(url, access, MAX_ANSWER_BYTES)?;
        let body = webhook_body(alerts);
        let answer = remote.call(Method::POST, &remote.url("api/v1/alerts")?, Some(&body)).await?;
        let not_understood = |detail| CallError::NotUnderstood { url: url.to_owned(), detail };
        let decided: Decided =
            serde_json::from_value(answer.json).map_err(|error| not_understood(error.to_string()))?;
        let (sent, got) = (alerts.alerts.len(), decided.alerts.len());
        if sent == got {
            Ok(decided.alerts)
        } else {
            Err(not_understood(format!("it has {got} decisions for {sent} alerts")))
        }
    }
}
