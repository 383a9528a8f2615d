//! [`Peers`]: the other replicas, over their own API.
//!
//! The URL comes from the lock's store, so a client that can write there decides where our token is sent: the store
//! must be protected as well as the token, and `https` with `lock.peers.tls.ca_file` protects the token in any case.

use std::{path::PathBuf, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{CallError, ClientSettings, ClientTls, Credentials, Remote};
use crate::{
    core::{alert::Notification, history::RunId, lock::Holder},
    ports::peers::{FORWARDED_HEADER, OfferAnswer, PeerError, PeerOrder, Peers},
};

/// The other replica only writes to its journal.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// A run with all its members and gates has some kilobytes.
const MAX_ANSWER_BYTES: usize = 4 << 20;

#[derive(Clone, Debug)]
pub struct HttpPeers {
    /// Our name, for the other replicas' logs.
    pub name: String,
    pub token_file: Option<PathBuf>,
    pub admin_token_file: Option<PathBuf>,
    /// The trusted CAs and our certificate.
    pub tls: ClientTls,
}

/// The fields used of the answer to a notification.
#[derive(Deserialize)]
struct Answers {
    alerts: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    decision: String,
    run: Option<RunId>,
    reason: Option<Value>,
}

impl HttpPeers {
    fn remote(&self, holder: &Holder, token_file: Option<&PathBuf>) -> Result<Remote, PeerError> {
        let url = holder.url.as_ref().ok_or_else(|| PeerError::NoAddress(holder.name.clone()))?;
        let name: String = self.name.chars().filter(char::is_ascii_graphic).collect();
        let mut credentials = Credentials::bearer(token_file.cloned());
        credentials.headers.0.insert(FORWARDED_HEADER.to_owned(), name);
        let access = ClientSettings::new(credentials, self.tls.clone(), DEADLINE);
        Remote::new(url, access, MAX_ANSWER_BYTES).map_err(|error| unreachable(holder, &error))
    }

    async fn call(
        &self,
        holder: &Holder,
        token_file: Option<&PathBuf>,
        method: Method,
        path: &[String],
        body: Option<&Value>,
    ) -> Result<Value, PeerError> {
        let remote = self.remote(holder, token_file)?;
        let url = remote.api(path).map_err(|error| unreachable(holder, &error))?;
        match remote.call(method, &url, body).await {
            Ok(heard) => Ok(heard.json),
            Err(CallError::Refused { status, detail, .. }) => {
                Err(PeerError::Refused { holder: holder.name.clone(), status, detail })
            }
            Err(error) => Err(unreachable(holder, &error)),
        }
    }

    async fn forward(&self, to: &Holder, alerts: &Notification) -> Result<OfferAnswer, PeerError> {
        let body = webhook_body(alerts);
        let path = ["alerts".to_owned()];
        let answer = self.call(to, self.token_file.as_ref(), Method::POST, &path, Some(&body)).await?;
        let answers: Answers =
            serde_json::from_value(answer).map_err(|error| not_understood(to, &error.to_string()))?;
        // All of them are of one cluster, so they all have the same decision.
        let Some(answer) = answers.alerts.into_iter().next() else {
            return Err(PeerError::Ignored("no alert was left".to_owned()));
        };
        let reason = answer.reason.unwrap_or_default();
        let code = reason["code"].as_str().unwrap_or_default();
        match (answer.decision.as_str(), answer.run) {
            ("duplicate", _) if code == "rejected" => match serde_json::from_value(reason) {
                Ok(reason) => Ok(OfferAnswer::Rejected(reason)),
                Err(error) => Err(not_understood(to, &error.to_string())),
            },
            ("duplicate", Some(run)) if matches!(code, "forwarded" | "handed_over") => Ok(OfferAnswer::Ended(run)),
            ("accepted" | "duplicate" | "cancelled", Some(run)) => Ok(OfferAnswer::Accepted(run)),
            (_, _) if code.starts_with("lock_") => Ok(OfferAnswer::NotTheHolder),
            _ => Err(PeerError::Ignored(words(&reason).unwrap_or(answer.decision))),
        }
    }
}

/// As Alertmanager would send it.
pub(super) fn webhook_body(alerts: &Notification) -> Value {
    let mut body = json!(alerts);
    body["version"] = json!("4");
    body
}

impl Peers for HttpPeers {
    fn notify<'a>(&'a self, to: &'a Holder, alerts: &'a Notification) -> BoxFuture<'a, Result<OfferAnswer, PeerError>> {
        Box::pin(self.forward(to, alerts))
    }

    fn order<'a>(&'a self, to: &'a Holder, order: &'a PeerOrder) -> BoxFuture<'a, Result<Value, PeerError>> {
        let token = self.admin_token_file.as_ref().or(self.token_file.as_ref());
        Box::pin(self.call(to, token, Method::POST, &order.path, Some(&order.body)))
    }
}

/// A reason as text; of a newer release, its code.
fn words(reason: &Value) -> Option<String> {
    let known = serde_json::from_value::<crate::core::reason::Reason>(reason.clone());
    known.map(|reason| reason.to_string()).ok().or_else(|| reason["code"].as_str().map(str::to_owned))
}

fn unreachable(holder: &Holder, error: &CallError) -> PeerError {
    PeerError::Unreachable { holder: holder.name.clone(), detail: error.to_string() }
}

fn not_understood(holder: &Holder, detail: &str) -> PeerError {
    PeerError::Unreachable { holder: holder.name.clone(), detail: format!("its answer cannot be parsed: {detail}") }
}
