//! Alertmanager's API v2: the alerts that fire now, as its webhook would send them. Silenced and inhibited ones are
//! left out, because their receivers are not notified of them either.

use std::path::PathBuf;

use reqwest::Method;
use serde::Deserialize;
use url::Url;

use super::{CallError, ClientSettings, MAX_ANSWER_BYTES, Remote, Secrets, excerpt, shown};
use crate::core::alert::{Alert, AlertStatus, Labels, Notification};

/// Thousands of alerts fit in.
const MAX_CHECKED_BYTES: usize = 4 << 20;

#[derive(Clone, Debug)]
pub struct Alertmanager {
    remote: Remote,
}

/// The fields used of a `gettableAlert`.
#[derive(Deserialize)]
pub(in crate::adapters) struct Gettable {
    pub(in crate::adapters) labels: Labels,
    #[serde(default)]
    annotations: Labels,
    fingerprint: String,
    #[serde(rename = "startsAt")]
    starts_at: String,
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    state: String,
}

impl Alertmanager {
    /// At this address, with its route prefix if it has one.
    pub fn new(url: &str, token_file: Option<PathBuf>, ca_file: Option<&PathBuf>) -> Result<Self, CallError> {
        Ok(Self { remote: Remote::new(url, ClientSettings::of_flags(token_file, ca_file.cloned()), MAX_ANSWER_BYTES)? })
    }

    /// The same for a check, with everything that is needed to reach it.
    pub(in crate::adapters) fn checked(url: &str, access: ClientSettings) -> Result<Self, CallError> {
        Ok(Self { remote: Remote::new(url, access, MAX_CHECKED_BYTES)? })
    }

    /// The same at another address, which is a secret.
    pub(in crate::adapters) fn at_secret(&self, url: Url) -> Self {
        Self { remote: self.remote.at_secret(url) }
    }

    pub fn url(&self) -> String {
        shown(&self.remote.base)
    }

    /// The alerts that fire, as a notification.
    pub async fn firing(&self) -> Result<Notification, CallError> {
        let (alerts, secrets) = self.active(&[]).await?;
        // The content of an alert goes to the log and the journal.
        let alerts = alerts.into_iter().map(|alert| Alert {
            status: AlertStatus::Firing,
            labels: alert.labels.into_iter().map(|(name, value)| (name, secrets.mask(&value))).collect(),
            annotations: alert.annotations.into_iter().map(|(name, value)| (name, secrets.mask(&value))).collect(),
            starts_at: secrets.mask(&alert.starts_at),
            fingerprint: secrets.mask(&alert.fingerprint),
        });
        Ok(Notification { alerts: alerts.collect(), ..Notification::default() })
    }

    /// The firing alerts that all of the matchers match.
    pub(in crate::adapters) async fn active(&self, matchers: &[String]) -> Result<(Vec<Gettable>, Secrets), CallError> {
        let mut url = self.remote.url("api/v2/alerts")?;
        let wanted = [("active", "true"), ("silenced", "false"), ("inhibited", "false"), ("unprocessed", "false")];
        url.query_pairs_mut().extend_pairs(wanted).extend_pairs(matchers.iter().map(|matcher| ("filter", matcher)));
        let heard = self.remote.call(Method::GET, &url, None).await?;
        // The error may quote the answer, at any length.
        let alerts: Vec<Gettable> = serde_json::from_value(heard.json).map_err(|error| CallError::NotUnderstood {
            url: shown(&url),
            detail: excerpt(&heard.secrets.mask(&error.to_string())),
        })?;
        // The query asks for that already; an Alertmanager that ignores it must not start or stop runs.
        Ok((alerts.into_iter().filter(|alert| alert.status.state == "active").collect(), heard.secrets))
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::Uri, routing::get};

    use super::*;

    async fn serve(answer: &'static str) -> String {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let page = move |uri: Uri| async move {
            let wanted = "active=true&silenced=false&inhibited=false&unprocessed=false";
            if uri.query() == Some(wanted) { answer.to_owned() } else { format!("wrong query {uri}") }
        };
        let router = Router::new().route("/prefix/api/v2/alerts", get(page));
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/prefix")
    }

    #[tokio::test]
    async fn firing_alerts_are_read_as_the_webhook_would_send_them_without_silenced_ones() {
        let url = serve(
            r#"[{"annotations":{},"endsAt":"2026-11-23T10:05:00Z","fingerprint":"f1","receivers":[{"name":"x"}],
                 "startsAt":"2026-11-23T10:00:00Z","status":{"inhibitedBy":[],"silencedBy":[],"state":"active"},
                 "updatedAt":"2026-11-23T10:01:00Z","labels":{"etcd_cluster":"a"}},
                {"fingerprint":"f2","startsAt":"t","status":{"state":"suppressed"},"labels":{"etcd_cluster":"b"}}]"#,
        )
        .await;
        let notification = Alertmanager::new(&url, None, None).expect("valid").firing().await.expect("alerts");
        let keys: Vec<_> = notification.alerts.iter().map(Alert::key).collect();
        assert_eq!(keys.len(), 1);
        assert_eq!((keys[0].fingerprint.as_str(), keys[0].starts_at.as_str()), ("f1", "2026-11-23T10:00:00Z"));
        assert_eq!(notification.alerts[0].labels["etcd_cluster"], "a");
    }

    #[tokio::test]
    async fn what_is_no_list_of_alerts_is_an_error_with_the_address() {
        let url = serve("<html>").await;
        let error = Alertmanager::new(&url, None, None).expect("valid").firing().await.expect_err("no alerts");
        assert!(error.to_string().starts_with(url.strip_suffix("/prefix").expect("its path")), "{error}");
        let nobody = Alertmanager::new("http://127.0.0.1:1", None, None).expect("valid").firing().await;
        assert!(matches!(nobody, Err(CallError::Unreachable { .. })));
        for bad in ["ftp://x", "x", "http://user:secret@x", "ftp://user:secret@x", "http://x y/secret"] {
            let error = Alertmanager::new(bad, None, None).expect_err(bad).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
