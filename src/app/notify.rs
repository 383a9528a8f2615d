//! Sends notifications of runs without ever delaying one: each target has a bounded queue and a task of its own. A
//! target that does not keep up loses notifications, which are counted, and nothing else.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};
use url::Url;

use super::gates;
use crate::{
    adapters::{kubernetes_event::EventTarget, outgoing::NotifyTarget},
    config::ConfigError,
    core::{
        history::{MemberEnd, MemberResult, Outcome, Request, RunId, RunView},
        reason::Reason,
    },
    ports::{
        clock::Clock,
        notifier::{End, Notice, Notifier, NotifyKind, NotifySettings},
        progress::Progress,
    },
    telemetry::counters::NotificationCounter,
};

/// As many as the runs of an hour in a large fleet.
const QUEUE: usize = 100;
/// The waits before the second and the third attempt; there is no fourth.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// The targets. Without any it does nothing.
#[derive(Default)]
pub struct Notifications {
    queues: Vec<Queue>,
    counter: NotificationCounter,
    /// Before `/runs/{id}`.
    external_url: Option<String>,
}

struct Queue {
    target: Arc<dyn Notifier>,
    sender: Mutex<Option<Sender<Notice>>>,
    /// Ends with the last notification that could not be delivered.
    delivery: Mutex<Option<JoinHandle<Option<String>>>>,
}

fn unusable(settings: &NotifySettings, error: &dyn std::fmt::Display) -> anyhow::Error {
    ConfigError::Unusable(format!("notify {}: {error}", settings.name)).into()
}

/// The targets of the configuration, each or what is wrong with it. Blocks while it reads their files.
pub fn targets(settings: &[NotifySettings]) -> Vec<anyhow::Result<Arc<dyn Notifier>>> {
    let target = |settings: &NotifySettings| -> Option<anyhow::Result<Arc<dyn Notifier>>> {
        let (format, access) = match settings.target()? {
            NotifyKind::Http(format, access) => (format, access),
            NotifyKind::KubernetesEvent(event) => {
                return Some(match EventTarget::new(settings.name.clone(), event) {
                    Ok(target) => Ok(Arc::new(target)),
                    Err(error) => Err(unusable(settings, &error)),
                });
            }
        };
        gates::warn_unverified(&settings.name, &access.tls);
        Some(match NotifyTarget::new(settings.name.clone(), format, access) {
            Ok(target) => Ok(Arc::new(target)),
            Err(error) => Err(unusable(settings, &error)),
        })
    };
    settings.iter().filter_map(target).collect()
}

impl Notifications {
    /// Starts a task for each target.
    pub fn start(
        targets: impl IntoIterator<Item = Arc<dyn Notifier>>,
        counter: NotificationCounter,
        external_url: Option<&Url>,
    ) -> Self {
        let queue = |target: Arc<dyn Notifier>| {
            counter.expect(target.name());
            let (sender, receiver) = channel(QUEUE);
            let delivery = tokio::spawn(deliver(Arc::clone(&target), receiver, counter.clone()));
            Queue { target, sender: Mutex::new(Some(sender)), delivery: Mutex::new(Some(delivery)) }
        };
        let queues = targets.into_iter().map(queue).collect();
        let external_url = external_url.map(|url| url.as_str().trim_end_matches('/').to_owned());
        Self { queues, counter, external_url }
    }

    /// Queues it for the targets. Returns at once, whatever the targets do.
    fn enqueue(&self, notice: &Notice) {
        for queue in self.queues.iter().filter(|queue| queue.target.wants(notice)) {
            let sender = queue.sender.lock();
            let is_taken = sender.as_ref().is_some_and(|sender| sender.try_send(notice.clone()).is_ok());
            if !is_taken {
                let target = queue.target.name();
                warn!(target_name = target, run = notice.run.0, "dropped a notification: the target does not keep up");
                self.counter.count(target, "dropped");
            }
        }
    }

    /// At the end of the process: sends what is queued, within this time. Returns what could not be delivered, as a
    /// sentence for each target.
    pub async fn finish(&self, limit: Duration) -> Vec<String> {
        let finished = self.queues.iter().map(|queue| queue.finish(limit));
        join_all(finished).await.into_iter().flatten().collect()
    }
}

impl Queue {
    async fn finish(&self, limit: Duration) -> Option<String> {
        drop(self.sender.lock().take());
        let delivery = self.delivery.lock().take()?;
        let Ok(ended) = timeout(limit, delivery).await else {
            let name = self.target.name();
            let seconds = limit.as_secs();
            warn!(target_name = name, seconds, "the process ends before all notifications are delivered");
            return Some(format!("could not deliver all notifications to {name} within {seconds} s"));
        };
        ended.ok()?
    }
}

async fn deliver(
    target: Arc<dyn Notifier>,
    mut queue: Receiver<Notice>,
    counter: NotificationCounter,
) -> Option<String> {
    let mut undelivered = None;
    while let Some(notice) = queue.recv().await {
        let mut waits = AGAIN_AFTER.into_iter();
        let (name, run) = (target.name(), notice.run.0);
        let result = loop {
            match (target.deliver(&notice).await, waits.next()) {
                (Ok(()), _) => break "sent",
                (Err(failure), Some(wait)) if failure.may_pass => {
                    info!(target_name = name, run, detail = failure.detail, "a notification failed; retrying");
                    sleep(wait).await;
                }
                (Err(failure), _) => {
                    warn!(target_name = name, run, detail = failure.detail, "could not deliver a notification");
                    undelivered = Some(format!("could not deliver a notification to {name}: {}", failure.detail));
                    break "failed";
                }
            }
        };
        counter.count(name, result);
    }
    undelivered
}

/// Sends the notifications of one run.
pub struct NotifyProgress<'a> {
    notifications: &'a Notifications,
    clock: &'a dyn Clock,
    run: RunId,
    request: &'a Request,
    started_at: Timestamp,
    members: Mutex<Vec<MemberResult>>,
}

impl<'a> NotifyProgress<'a> {
    /// Sends the notification of its start. `view` is what an earlier process did in the run.
    pub fn begin(
        notifications: &'a Notifications,
        clock: &'a dyn Clock,
        (run, request): (RunId, &'a Request),
        view: Option<&RunView>,
    ) -> Self {
        let members = Mutex::new(view.map(|view| view.members.clone()).unwrap_or_default());
        let this = Self { notifications, clock, run, request, started_at: clock.now(), members };
        this.enqueue("run_started", None);
        this
    }

    fn enqueue(&self, event: &'static str, end: Option<End>) {
        let link = self.notifications.external_url.as_ref().map(|base| format!("{base}/runs/{}", self.run));
        let (cluster, trigger) = (self.request.cluster.clone(), self.request.trigger);
        let (run, started_at) = (self.run, self.started_at);
        let alerts = self.request.alerts.iter().filter(|key| key.due().is_none()).cloned().collect();
        self.notifications.enqueue(&Notice { event, cluster, run, trigger, alerts, started_at, link, end });
    }
}

impl Progress for NotifyProgress<'_> {
    fn member_ended(&self, result: &MemberResult) {
        if !matches!(result.end, MemberEnd::NotSent { .. }) {
            self.members.lock().push(result.clone());
        }
    }

    fn finished(&self, outcome: &Outcome, _took: Duration) {
        let members = self.members.lock().clone();
        let end = End {
            finished_at: self.clock.now(),
            outcome: outcome.label(),
            reason_code: outcome.reason().map(Reason::label),
            reason: outcome.reason().map(ToString::to_string),
            advice: outcome.reason().map(Reason::advice),
            reclaimed_bytes: members.iter().map(|member| member.reclaimed().0).sum(),
            members: members.into_iter().map(|member| member.intent.member).collect(),
        };
        self.enqueue("run_finished", Some(end));
    }
}

#[cfg(test)]
#[path = "notify_tests.rs"]
mod tests;
