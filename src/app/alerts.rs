//! Decides about the alerts of a notification: those that concern the same cluster request one run.

use std::collections::BTreeMap;

use tracing::{debug, info, warn};

use super::{fleet::ConfiguredClusters, service::App};
use crate::{
    core::{
        alert::{self, AlertStatus, ForeignAlerts, Notification},
        explain::Severity,
        history::AlertKey,
        reason::Reason,
    },
    ports::{
        etcd::Etcd,
        journal::{Journal, JournalError},
        service::{AlertAnswer, AlertDecision, NotifyError},
    },
    telemetry::log_limit::{self, MAX_FIELD_CHARS},
};

impl<E: Etcd, J: Journal> App<E, J> {
    /// Decides about each alert, and forwards those for other shards' clusters.
    pub(super) async fn answer_alerts(&self, notification: Notification) -> Result<Vec<AlertAnswer>, NotifyError> {
        // Firing alerts first: one that joins keeps the request of one that is resolved.
        let fleet = self.fleet().now();
        let firing = self.decide(&notification, &fleet, AlertStatus::Firing).await?;
        let resolved = self.decide(&notification, &fleet, AlertStatus::Resolved).await?;
        let forwarded = self.forward_to_shards(&notification, &fleet).await;
        if notification.truncated_alerts > 0 {
            warn!(
                alerts = notification.truncated_alerts,
                "Alertmanager truncated the alerts: set max_alerts to 0 for this receiver"
            );
        }
        let answer = |(index, alert): (usize, &alert::Alert)| {
            let target = target(&notification, alert, &fleet.selectors);
            let decisions = if alert.status == AlertStatus::Firing { &firing } else { &resolved };
            let decision = match target {
                Ok(_) if forwarded.decisions.contains_key(&index) => forwarded.decisions[&index].clone(),
                Err(reason) => AlertDecision::Ignored { cluster: None, reason },
                Ok(cluster) => decisions.get(cluster).cloned().unwrap_or_else(|| AlertDecision::Ignored {
                    cluster: Some(cluster.to_owned()),
                    reason: Reason::UnknownCluster,
                }),
            };
            self.shared.counters.alert(&decision);
            let (decided, code) = decision.labels();
            let code = Some(code).filter(|code| *code != "none");
            let name = alert.labels.get("alertname").map_or("", String::as_str);
            // Other replicas offer open requests repeatedly.
            if notification.taken_as.is_some() {
                debug!(fingerprint = alert.fingerprint, decision = decided, code, "alert offered again");
            } else {
                let (cluster, run) = decision.about();
                if let (AlertDecision::Ignored { cluster: None, reason }, AlertStatus::Firing) =
                    (&decision, alert.status)
                    && reason.severity() == Severity::Operator
                {
                    let labels = labels(alert);
                    warn!(labels, fingerprint = alert.fingerprint, code, %reason, "the alert concerns no cluster");
                }
                info!(
                    cluster,
                    run = run.map(|run| run.0),
                    alertname = name,
                    fingerprint = alert.fingerprint,
                    decision = decided,
                    code,
                    "alert received"
                );
            }
            AlertAnswer { fingerprint: alert.key().fingerprint, status: alert.status, decision }
        };
        let answers = notification.alerts.iter().enumerate().map(answer).collect();
        forwarded.failure.map_or(Ok(answers), Err)
    }

    /// One decision per cluster, for all alerts of the same status that concern it.
    async fn decide(
        &self,
        notification: &Notification,
        fleet: &ConfiguredClusters<E, J>,
        status: AlertStatus,
    ) -> Result<BTreeMap<String, AlertDecision>, JournalError> {
        let mut wanted: BTreeMap<&str, Vec<AlertKey>> = BTreeMap::new();
        for alert in notification.alerts.iter().filter(|alert| alert.status == status) {
            if let Ok(cluster) = target(notification, alert, &fleet.selectors) {
                wanted.entry(cluster).or_default().push(alert.key());
            }
        }
        let mut decisions = BTreeMap::new();
        for (name, keys) in wanted {
            let Some(cluster) = fleet.find(name) else { continue };
            let decision = match status {
                _ if notification.forwarded && cluster.held_term().is_none() => {
                    AlertDecision::Ignored { cluster: Some(name.to_owned()), reason: cluster.succession.why_passive() }
                }
                AlertStatus::Firing => cluster.offered(keys, notification.taken_as).await?,
                AlertStatus::Resolved => match cluster.resolve(keys).await? {
                    Some(run) => AlertDecision::Cancelled { cluster: name.to_owned(), run },
                    None => AlertDecision::Ignored { cluster: Some(name.to_owned()), reason: Reason::Resolved },
                },
            };
            decisions.insert(name.to_owned(), decision);
        }
        Ok(decisions)
    }
}

/// The alert's labels for the log, each value of limited length.
fn labels(alert: &alert::Alert) -> String {
    let label = |(name, value): (&String, &String)| format!("{name}={}", log_limit::cut(value, MAX_FIELD_CHARS));
    alert.labels.iter().map(label).collect::<Vec<_>>().join(",")
}

/// Which cluster an alert concerns, whether Alertmanager, another replica or another shard sent it.
pub(super) fn target<'a>(
    notification: &Notification,
    alert: &alert::Alert,
    selectors: &'a [alert::Selector],
) -> Result<&'a str, Reason> {
    match notification.foreign {
        ForeignAlerts::Refuse => alert::forwarded_target(alert, selectors),
        _ if notification.forwarded => alert::forwarded_target(alert, selectors),
        ForeignAlerts::Forward => alert::target(alert, selectors),
    }
}
