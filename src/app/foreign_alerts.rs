//! What a shard does with an alert for a cluster of another shard: it forwards the alert, and acknowledges it only when
//! the other one has it in its journal. Otherwise the sender is asked to repeat the notification.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{alerts::target, fleet::ConfiguredClusters, ledger, service::App, shards::Shards};
use crate::{
    core::{
        alert::{self, Alert, AlertStatus, ForeignAlerts, Notification, Selector},
        history::{AlertKey, Entry, Outcome, Request, RunId, RunView, Trigger},
        ledger::Ledger,
        reason::Reason,
        shard::Elsewhere,
    },
    ports::{
        etcd::Etcd,
        journal::{Journal, JournalError},
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

/// What is due by the schedule, the other shard knows itself.
fn is_received(key: &AlertKey) -> bool {
    key.due().is_none()
}

/// Whether only this process could serve it: an operator's request, a due time, or one that was cancelled.
fn stays_here(run: &RunView) -> bool {
    run.cancelled.is_some() || !run.open_alerts().any(is_received)
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

    /// The same without the alerts for other shards' clusters.
    pub(super) fn own_alerts(&self, mut notification: Notification) -> Notification {
        if let Some(shards) = &self.shards {
            let fleet = self.fleet().now();
            notification.alerts.retain(|alert| {
                alert::target(alert, &fleet.selectors).map_or(true, |cluster| shards.here.owns(cluster))
            });
        }
        notification
    }

    /// Forwards the alerts of requests that stand in this journal for clusters that belonged to this shard in an earlier
    /// process, until their shards have them.
    pub async fn forward_moved(&self) {
        let Some(shards) = &self.shards else { return };
        let fleet = self.fleet().now();
        let names = fleet.selectors.iter().map(|of| of.cluster.as_str());
        let mut moved: Vec<_> =
            names.filter(|name| !shards.here.owns(name)).map(|name| shards.owner_of(name)).collect();
        let mut wait = FIRST_RETRY;
        loop {
            let (mut left, mut failure) = (Vec::new(), String::new());
            for to in moved {
                if let Err(error) = self.forward_standing(shards, to.clone()).await {
                    failure = error;
                    left.push(to);
                }
            }
            if left.is_empty() {
                return;
            }
            warn!(
                clusters = left.len(),
                error = failure,
                "cannot forward an open request to the shard that the cluster belongs to now; retrying"
            );
            moved = left;
            sleep(wait).await;
            wait = LONGEST_WAIT.min(wait * 2);
        }
    }

    /// A request also stands after a run that ended without serving it. Once the other shard has its alerts, it ends here,
    /// so that it does not start again if the cluster ever comes back.
    async fn forward_standing(&self, shards: &Shards, to: Elsewhere) -> Result<(), String> {
        let cluster = to.cluster.clone();
        let reason = Reason::OtherShard { shard: to.owner, total: to.here.total };
        let failed = |error: JournalError| error.to_string();
        let mut ledger = self.moved_ledger(&cluster).await.map_err(failed)?;
        let staying: Vec<_> = ledger.runs.iter().filter(|run| run.outcome.is_none() && stays_here(run)).collect();
        for view in &staying {
            warn!(cluster, run = view.id.0, %reason, "closing a run of a cluster that belongs to another shard now");
            self.end_moved(view.id, view.withdrawn().unwrap_or_else(|| reason.clone())).await.map_err(failed)?;
        }
        // Most clusters have nothing here, and a fleet has many.
        if !staying.is_empty() {
            ledger = self.moved_ledger(&cluster).await.map_err(failed)?;
        }
        let Some(standing) = ledger.standing_request(self.shared.clock.now()) else { return Ok(()) };
        let received = standing.alerts.iter().filter(|key| is_received(key)).cloned();
        let alerts: Vec<_> = received.map(|key| Alert::of(key, AlertStatus::Firing).about(&cluster)).collect();
        if !alerts.is_empty() {
            let notification = Notification { alerts, ..Notification::default() };
            shards.forward(to, notification).await.map_err(|error| error.to_string())?;
            info!(cluster, %reason, "forwarded an open request to its shard");
        }
        for view in ledger.runs.iter().filter(|run| run.outcome.is_none()) {
            self.end_moved(view.id, reason.clone()).await.map_err(failed)?;
        }
        ledger = self.moved_ledger(&cluster).await.map_err(failed)?;
        if let Some(left) = ledger.standing_request(self.shared.clock.now()) {
            let request = Request { cluster, trigger: Trigger::Retry, alerts: left.alerts, members: Vec::new() };
            let run = self.shared.journal.accept(request).await.map_err(failed)?;
            self.end_moved(run, reason).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn moved_ledger(&self, cluster: &str) -> Result<Ledger, JournalError> {
        ledger::read(&self.shared.journal, cluster).await
    }

    async fn end_moved(&self, run: RunId, reason: Reason) -> Result<(), JournalError> {
        self.shared.journal.append(run, Entry::Finished(Outcome::Stopped { reason })).await
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        app::{cluster::tests::shared, fake_site::FakeApp},
        config::Settings,
        core::history::Cancellation,
        ports::service::Service,
    };

    const MOVED: &str = "prod-2";

    /// The first of two shards. It cannot reach the other one.
    fn first_shard() -> FakeApp {
        let text = "clusters: [{name: prod-2, endpoints: ['x:1']}]\nshards: {ordinal: 0, total: 2}";
        let settings = Settings::from_text(text).expect("valid").into_shard().expect("a shard");
        App::new(Vec::new(), shared(1)).sharded(Shards::of(&settings), settings.elsewhere)
    }

    fn request(trigger: Trigger, alerts: Vec<AlertKey>) -> Request {
        Request { cluster: MOVED.to_owned(), trigger, alerts, members: Vec::new() }
    }

    fn fired() -> Vec<AlertKey> {
        vec![AlertKey::new("f".to_owned(), "2026-11-23T00:00:00Z")]
    }

    /// The codes of the reasons of all runs, newest first.
    async fn ended(app: &FakeApp) -> Vec<Option<&'static str>> {
        let runs = app.runs(10).await.expect("read");
        runs.iter().map(|run| Some(run.outcome.as_ref()?.reason()?.label())).collect()
    }

    async fn standing(app: &FakeApp) -> Option<Vec<AlertKey>> {
        let ledger = ledger::read(&app.shared.journal, MOVED).await.expect("read");
        ledger.standing_request(app.shared.clock.now()).map(|request| request.alerts)
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_this_process_could_serve_ends_without_being_forwarded() {
        let app = first_shard();
        let journal = &app.shared.journal;
        let cancelled = journal.accept(request(Trigger::Alert, fired())).await.expect("accepted");
        let cancellation = Cancellation { by: "ann".to_owned(), reason: "upgrade".to_owned() };
        journal.append(cancelled, Entry::Cancelled(cancellation)).await.expect("cancelled");
        let approved = journal.accept(request(Trigger::Manual, Vec::new())).await.expect("accepted");
        journal.append(approved, Entry::approved("ann".to_owned())).await.expect("approved");
        app.recover().await.expect("recovers");
        // It would wait for the other shard.
        app.forward_moved().await;
        assert_eq!(ended(&app).await, [Some("other_shard"), Some("cancelled")]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_other_shard_knows_itself_ends_and_does_not_start_again_here() {
        let app = first_shard();
        let due = vec![AlertKey::of_schedule(Timestamp::UNIX_EPOCH)];
        let run = app.shared.journal.accept(request(Trigger::Schedule, due)).await.expect("accepted");
        let outcome = Outcome::Stopped { reason: Reason::ShuttingDown };
        app.shared.journal.append(run, Entry::Finished(outcome)).await.expect("ended");
        app.forward_moved().await;
        assert_eq!(ended(&app).await, [Some("other_shard"), Some("shutting_down")]);
        assert_eq!(standing(&app).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alert_stays_requested_while_its_shard_cannot_be_reached() {
        let app = first_shard();
        let journal = &app.shared.journal;
        let stopped = journal.accept(request(Trigger::Alert, fired())).await.expect("accepted");
        let outcome = Outcome::Stopped { reason: Reason::ShuttingDown };
        journal.append(stopped, Entry::Finished(outcome)).await.expect("ended");
        // An operator's run does not serve it.
        journal.accept(request(Trigger::Manual, Vec::new())).await.expect("accepted");
        let waits = tokio::time::timeout(Duration::from_mins(10), app.forward_moved()).await;
        assert!(waits.is_err(), "it gave up");
        assert_eq!(ended(&app).await, [Some("other_shard"), Some("shutting_down")]);
        assert_eq!(standing(&app).await, Some(fired()));
    }

    #[test]
    fn alerts_that_another_shard_reads_itself_are_left_out() {
        let app = first_shard();
        let alert = |cluster: &str| {
            let key =
                AlertKey { labels: [("etcd_cluster".to_owned(), cluster.to_owned())].into(), ..fired().remove(0) };
            Alert::of(key, AlertStatus::Firing)
        };
        let read = Notification { alerts: vec![alert(MOVED), alert("unknown")], ..Notification::default() };
        let left: Vec<_> = app.own_alerts(read).alerts.into_iter().map(|alert| alert.labels).collect();
        assert_eq!(left, [alert("unknown").labels]);
    }
}
