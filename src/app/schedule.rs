//! Requests the runs that are due by the cluster's schedule. It does not decide whether a run may start: its requests
//! are served like an alert's.

use std::{convert::Infallible, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::sleep;
use tracing::{error, info};

use super::{cluster::Cluster, detached::to_its_end};
use crate::{
    core::{history::AlertKey, note::StandingRequest, policy::Policy},
    ports::{
        etcd::Etcd,
        journal::{Journal, JournalError},
        service::AlertDecision,
    },
};

/// The time of day may jump, so no single wait is longer than this.
pub(super) const RECHECK_INTERVAL: Duration = Duration::from_mins(1);
/// How soon to check again without a schedule; a new one wakes the task.
const IDLE_INTERVAL: Duration = Duration::from_hours(1);
/// How soon to retry with a journal that failed.
const JOURNAL_INTERVAL: Duration = Duration::from_secs(5);

struct ScheduleCheck {
    next: Timestamp,
    /// This due time is settled.
    decided: Option<Timestamp>,
}

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// Requests a run whenever one is due. Never ends.
    pub async fn keep_schedule(self: &Arc<Self>) -> Infallible {
        let mut decided = None;
        loop {
            let cluster = Arc::clone(self);
            let looked = to_its_end(async move { cluster.request_what_is_due(decided).await }).await;
            let again = match looked.and_then(|looked| looked) {
                Ok(Some(looked)) => {
                    decided = looked.decided;
                    self.until(Some(looked.next))
                }
                Ok(None) => IDLE_INTERVAL,
                Err(error) => {
                    error!(cluster = self.name(), %error, "cannot record a scheduled run; retrying");
                    JOURNAL_INTERVAL
                }
            };
            tokio::select! {
                biased;
                () = self.requests.schedule_changed.notified() => {}
                () = sleep(again) => {}
            }
        }
    }

    /// How long to wait for this time, or to look again.
    pub(super) fn until(&self, time: Option<Timestamp>) -> Duration {
        let left =
            |time: Timestamp| Duration::try_from(time.duration_since(self.shared.clock.now())).unwrap_or_default();
        time.map_or(RECHECK_INTERVAL, left).min(RECHECK_INTERVAL)
    }

    /// `None` without a schedule.
    async fn request_what_is_due(&self, decided: Option<Timestamp>) -> Result<Option<ScheduleCheck>, JournalError> {
        let timetable = self.rules().policy.schedule.clone();
        let Some(next) = timetable.next(self.shared.clock.now()) else { return Ok(None) };
        // Also on a replica without the lock: it needs the schedule when it acquires the lock.
        let since = self.shared.journal.scheduled_since(self.name(), &timetable.text()).await?;
        let _one_at_a_time = self.requests.admission.lock().await;
        let now = self.shared.clock.now();
        let due = timetable.due(since, now).filter(|due| decided != Some(*due));
        // The replica that holds the lock does it for all.
        let acts = !self.is_retired() && self.succession.may_begin().is_ok();
        let Some(due) = due.filter(|_| acts) else { return Ok(Some(ScheduleCheck { next, decided })) };
        let ledger = self.ledger().await?;
        if ledger.standing_request(now).is_some_and(|request| request.alerts.iter().any(|key| key.due().is_some())) {
            // It joins that request, and is checked again when that is over.
            return Ok(Some(ScheduleCheck { next, decided }));
        }
        if !ledger.is_decided(due, now)
            && let AlertDecision::Accepted { run, .. } =
                self.place(&ledger, StandingRequest::of_alerts(vec![AlertKey::of_schedule(due)]), now).await?
        {
            info!(cluster = self.name(), run = run.0, due = %due, "requested by the schedule");
            self.succession.mark_note_due();
        }
        Ok(Some(ScheduleCheck { next, decided: Some(due) }))
    }

    /// When a run is next requested; `None` where this process requests none.
    pub(super) fn next_scheduled(&self, policy: &Policy, now: Timestamp) -> Option<Timestamp> {
        let lock = &self.succession.lock;
        policy.schedule.next(now).filter(|_| lock.is_needed() || lock.view().may_begin().is_ok())
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
