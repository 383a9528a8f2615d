//! Queries Alertmanager at start for firing alerts. Alerts that were sent while no defragd was listening would
//! otherwise arrive only after Alertmanager's `repeat_interval`, which is hours.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{info, warn};

use super::{driver::Stop, service::App};
use crate::{
    adapters::outgoing::Alertmanager,
    core::reason::Reason,
    ports::{etcd::Etcd, journal::Journal, service::Service},
};

/// The waits between attempts. The last one repeats: an Alertmanager may be down for long.
const RETRY_AFTER: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(30), Duration::from_mins(2), Duration::from_mins(10)];

/// Reads the alerts of this Alertmanager once, as if they had just been received. Failures are logged and retried, and
/// never end the process.
pub async fn reconcile<E: Etcd, J: Journal>(app: Arc<App<E, J>>, source: Alertmanager, mut stop: Stop) {
    for attempt in 0.. {
        let failure = match source.firing().await {
            Ok(notification) => {
                // Each shard reads its own.
                let notification = app.own_alerts(notification);
                let alerts = notification.alerts.len();
                match app.notify(notification).await {
                    Ok(answers) => {
                        let accepted = answers.iter().filter(|answer| answer.decision.labels().0 == "accepted").count();
                        info!(
                            alertmanager = source.url(),
                            alerts, accepted, "read the firing alerts from Alertmanager"
                        );
                        return;
                    }
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        warn!(
            alertmanager = source.url(),
            error = failure,
            "cannot read the firing alerts from Alertmanager; retrying"
        );
        tokio::select! {
            () = sleep(RETRY_AFTER[attempt.min(RETRY_AFTER.len() - 1)]) => {}
            // An error means that the process is ending.
            _ = stop.wait_for(Option::<Reason>::is_some) => return,
        }
    }
}
