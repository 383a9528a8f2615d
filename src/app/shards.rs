//! Which part of the clusters this process has, and the way to the others.

use serde_json::Value;
use tracing::{info, warn};

use crate::{
    adapters::outgoing::HttpShards,
    config::{Settings, ShardSettings},
    core::{
        alert::Notification,
        shard::{Elsewhere, Shard, owner},
    },
    ports::service::NotifyError,
};

/// This process's part of the clusters, and the way to the others.
#[derive(Clone, Debug)]
pub struct Shards {
    settings: ShardSettings,
    pub here: Shard,
    client: HttpShards,
}

impl Shards {
    /// `None` if this process has all clusters.
    pub fn of(settings: &Settings) -> Option<Self> {
        let (settings, here) = (settings.shards.clone(), settings.shards.here()?);
        let client = HttpShards { here, token_file: settings.token_file.clone(), tls: settings.tls.clone().into() };
        Some(Self { settings, here, client })
    }

    pub(super) fn owner_of(&self, cluster: &str) -> Elsewhere {
        let (cluster, owner) = (cluster.to_owned(), owner(cluster, self.here.total));
        Elsewhere { url: self.settings.url_of(owner), cluster, owner, here: self.here }
    }

    /// Whether these settings make the same division.
    pub(super) fn divides_like(one: Option<&Self>, other: Option<&Self>) -> bool {
        one.map(|shards| &shards.settings) == other.map(|shards| &shards.settings)
    }

    /// Forwards alerts of one shard's clusters. Returns its decisions in the order of the alerts.
    pub(super) async fn forward(&self, to: Elsewhere, alerts: Notification) -> Result<Vec<Value>, NotifyError> {
        let failed = |detail: String| NotifyError::NotForwarded { to: to.clone(), detail };
        let url = to.url.as_ref().ok_or_else(|| failed("shards.url is not configured".to_owned()))?;
        let decisions = self.client.notify(url, &alerts).await.map_err(|error| failed(error.to_string()))?;
        match decisions.iter().find(|decision| !is_settled(decision)) {
            Some(decision) => {
                let (what, why) = (&decision["decision"], &decision["reason"]["message"]);
                Err(failed(format!("it has not recorded an alert: decision {what}, reason {why}")))
            }
            None => Ok(decisions),
        }
    }
}

/// Whether the other shard has recorded the alert, or has decided about it for good. With the same configuration it knows
/// the cluster: what it ignores because it does not would be lost if it were acknowledged.
fn is_settled(decision: &Value) -> bool {
    match decision["decision"].as_str() {
        Some("accepted" | "duplicate" | "cancelled") => true,
        Some("ignored") => {
            let is_unknown = ["removed", "unknown_cluster"].iter().any(|code| decision["reason"]["code"] == *code);
            decision["cluster"].is_string() && !is_unknown && decision["reason"]["code"].is_string()
        }
        _ => false,
    }
}

/// Logs which part of the clusters this process has.
pub fn log_shard(shards: Option<&Shards>, settings: &Settings, exporter_only: bool) {
    let Some(Shards { here, settings: keys, .. }) = shards else { return };
    let (own, others) = (settings.clusters.len(), settings.elsewhere.len());
    info!(
        shard = here.ordinal,
        total_shards = here.total,
        own,
        others,
        "this process watches its shard of the clusters"
    );
    if keys.url.is_none() && !exporter_only {
        warn!(
            "shards.url is not configured: notifications with alerts for other shards' clusters are answered with 503"
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_other_shard_has_recorded_or_decided_is_acknowledged() {
        let ignored = |reason: &str| json!({"decision": "ignored", "cluster": "a", "reason": {"code": reason}});
        let settled = [
            json!({"decision": "accepted", "cluster": "a", "run": 1}),
            json!({"decision": "duplicate", "cluster": "a", "run": 1, "reason": {"code": "duplicate_alert"}}),
            json!({"decision": "cancelled", "cluster": "a", "run": 1}),
            ignored("resolved"),
        ];
        for decision in settled {
            assert!(is_settled(&decision), "{decision}");
        }
        let lost = [
            ignored("removed"),
            ignored("unknown_cluster"),
            json!({"decision": "ignored", "cluster": null, "reason": {"code": "unknown_cluster"}}),
            json!({"decision": "ignored", "cluster": "a"}),
            json!({"decision": "forwarded", "cluster": "a", "shard": 2}),
            json!({}),
            json!("accepted"),
        ];
        for decision in lost {
            assert!(!is_settled(&decision), "{decision}");
        }
    }
}
