//! What a shard does with an alert for a cluster of another shard: it forwards the alert, and acknowledges it only when
//! the other one has it in its journal. Otherwise the sender is asked to repeat the notification.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    fleet::ConfiguredClusters,
    service::{App, target},
    shards::Shards,
};
use crate::{
    core::{
        alert::{Alert, AlertStatus, ForeignAlerts, Notification, Selector},
        history::{Entry, Outcome, RunView},
        reason::Reason,
        shard::Elsewhere,
    },
    ports::{
        etcd::Etcd,
        journal::Journal,
        service::{AlertDecision, NotifyError},
    },
};

/// The other shard may be starting, too.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// What became of the alerts for other shards' clusters.
#[derive(Default)]
pub(super) struct ForwardedAlerts {
    /// By the alert's index in the notification.
    pub(super) decisions: BTreeMap<usize, AlertDecision>,
    /// Why some were not forwarded.
    pub(super) failure: Option<NotifyError>,
}

/// The alerts of an open request, as they were received. What is due by the schedule, the other shard knows itself.
fn alerts(view: &RunView) -> impl Iterator<Item = Alert> {
    let received = view.open_alerts().filter(|key| key.due().is_none()).cloned();
    received.map(|key| Alert::of(key, AlertStatus::Firing).about(&view.request.cluster))
}

impl<E: Etcd, J: Journal> App<E, J> {
    /// The same as one of several shards; `elsewhere` says which alerts concern clusters of the others.
    #[must_use]
    pub fn sharded(mut self, shards: Option<Shards>, elsewhere: Vec<Selector>) -> Self {
        self.shared.counters.shard(shards.as_ref().map(|shards| shards.here));
        self.fleet().set_elsewhere(elsewhere);
        self.shards = shards;
        self
    }

    /// Where a configured cluster is, if it belongs to another shard.
    pub(super) fn where_else(&self, cluster: &str) -> Option<Elsewhere> {
        let shards = self.shards.as_ref().filter(|shards| !shards.here.owns(cluster))?;
        let is_configured = self.fleet().now().selectors.iter().any(|of| of.cluster == cluster);
        is_configured.then(|| shards.owner_of(cluster))
    }

    /// Whether it is an alert's request for a cluster that belongs to another shard now: [`Self::forward_moved`] serves it.
    pub(super) fn is_for_another_shard(&self, view: &RunView) -> bool {
        self.where_else(&view.request.cluster).is_some() && alerts(view).next().is_some()
    }

    /// Forwards the open requests of clusters that belonged to this shard in an earlier process, until their shards have
    /// them.
    pub async fn forward_moved(&self) {
        let Some(shards) = &self.shards else { return };
        let mut wait = FIRST_RETRY;
        while let Err(detail) = self.forward_open(shards).await {
            warn!(
                error = detail,
                "cannot forward an open request to the shard that the cluster belongs to now; retrying"
            );
            sleep(wait).await;
            wait = LONGEST_WAIT.min(wait * 2);
        }
    }

    async fn forward_open(&self, shards: &Shards) -> Result<(), String> {
        let mut failure = None;
        for view in self.shared.journal.open_runs().await.map_err(|error| error.to_string())? {
            let Some(to) = self.where_else(&view.request.cluster) else { continue };
            let reason = Reason::OtherShard { shard: to.owner, total: to.here.total };
            let notification = Notification { alerts: alerts(&view).collect(), ..Notification::default() };
            match shards.forward(to, notification).await {
                Ok(_) => {
                    let outcome = Outcome::Stopped { reason: reason.clone() };
                    let ended = self.shared.journal.append(view.id, Entry::Finished(outcome)).await;
                    ended.map_err(|error| error.to_string())?;
                    info!(cluster = view.request.cluster, run = view.id.0, %reason, "forwarded an open request to its shard");
                }
                Err(error) => failure = Some(error.to_string()),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Forwards the alerts for other shards' clusters, to each shard once.
    pub(super) async fn forward_to_shards(
        &self,
        notification: &Notification,
        fleet: &ConfiguredClusters<E, J>,
    ) -> ForwardedAlerts {
        let Some(shards) = &self.shards else { return ForwardedAlerts::default() };
        let mut of_shards: BTreeMap<u32, Vec<(usize, Elsewhere)>> = BTreeMap::new();
        for (index, alert) in notification.alerts.iter().enumerate() {
            if let Ok(cluster) = target(notification, alert, &fleet.selectors)
                && !shards.here.owns(cluster)
            {
                let to = shards.owner_of(cluster);
                of_shards.entry(to.owner).or_default().push((index, to));
            }
        }
        let mut forwarded = ForwardedAlerts::default();
        for (index, to) in of_shards.values().flatten() {
            let reason = Reason::OtherShard { shard: to.owner, total: to.here.total };
            forwarded.decisions.insert(*index, AlertDecision::Ignored { cluster: Some(to.cluster.clone()), reason });
        }
        let of_replica = notification.forwarded;
        match &notification.foreign {
            ForeignAlerts::Ignore => return forwarded,
            // The replica keeps the request, and offers it again.
            _ if of_replica => return forwarded,
            ForeignAlerts::Refuse => {
                forwarded.failure = of_shards.into_values().flatten().next().map(|(_, to)| NotifyError::NotForwarded {
                    to,
                    detail:
                        "another shard has forwarded it here: all of them need the same total and the same clusters"
                            .to_owned(),
                });
                return forwarded;
            }
            ForeignAlerts::Forward => {}
        }
        let calls = of_shards.into_values().map(|alerts| async {
            let part =
                alerts.iter().map(|(index, to)| notification.alerts[*index].clone().about(&to.cluster)).collect();
            let to = alerts[0].1.clone();
            let result = shards.forward(to, Notification { alerts: part, ..Notification::default() }).await;
            (alerts, result)
        });
        for (alerts, result) in join_all(calls).await {
            match result {
                Ok(decisions) => {
                    forwarded.decisions.extend(alerts.into_iter().zip(decisions).map(|((index, to), answer)| {
                        (index, AlertDecision::Forwarded { cluster: to.cluster, shard: to.owner, answer })
                    }));
                }
                Err(failure) => forwarded.failure = Some(failure),
            }
        }
        forwarded
    }
}
