//! Whether a pod is healthy: a pure function of what Kubernetes reports about it and of the time.
//!
//! | pod | verdict |
//! |---|---|
//! | `Succeeded` | fine: a finished Job's |
//! | `Running`, condition `Ready` | fine; but see below |
//! | `Running`, not ready, but all containers that are not ready have ended successfully and are not restarted | fine: its work is done, only a helper (such as an injected proxy) still runs |
//! | being deleted | fine until its own grace period is over, `Terminating` after that |
//! | anything else: `Pending`, `Failed`, `Unknown`, `Running` but not ready | unhealthy, with the reason that `kubectl get pods` would show |
//!
//! A crash-looping container runs for a while between its crashes, and its pod may be ready meanwhile. It counts as
//! crash-looping until it has run for clearly longer than the last time. And a container that restarted recently does
//! not count as healthy in a *baseline*: it might be in such a pause.
//!
//! Times of the nodes and the API server are compared with our own clock: a difference of seconds shifts the limits by
//! as much.

use jiff::{SignedDuration, Timestamp};

use super::pod::{Container, Pod, Status, Terminated};

/// The kubelet forgets a container's crashes once it has run this long; so do we.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// The kubelet's first pause: after this time, a container that used to crash at once counts as running.
const LEAST_RUN: SignedDuration = SignedDuration::from_secs(10);
/// Longer than any reason of Kubernetes' own; the field is free text.
const MAX_REASON_CHARS: usize = 60;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Healthy,
    /// Healthy now, but it restarted so recently that a baseline counts it as unhealthy.
    Restless(String),
    /// Failed permanently; whether that matters depends on later pods of its workload.
    Failed(String),
    Unhealthy(String),
}

/// See the module's table.
pub(super) fn judge(pod: &Pod, now: Timestamp) -> Health {
    let status = &pod.status;
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    if phase == "Succeeded" {
        return Health::Healthy;
    }
    if let Some(gone_by) = pod.metadata.deletion_timestamp {
        return if now <= gone_by { Health::Healthy } else { Health::Unhealthy("Terminating".to_owned()) };
    }
    match phase {
        "Failed" => Health::Failed(why(status)),
        "Running" => running(pod, now),
        _ => Health::Unhealthy(why(status)),
    }
}

fn running(pod: &Pod, now: Timestamp) -> Health {
    let status = &pod.status;
    if let Some(last) = containers(status).find_map(|container| looping(container, now)) {
        return Health::Unhealthy(format!("crash-looping, {}", ended(last)));
    }
    let ready = conditions(status, "Ready").any(|condition| condition.status == "True");
    if ready {
        return match containers(status).filter_map(|container| restarted_ago(container, now)).min() {
            Some(ago) => Health::Restless(format!("restarted {} s ago", ago.as_secs())),
            None => Health::Healthy,
        };
    }
    if work_is_done(pod) { Health::Healthy } else { Health::Unhealthy(why(status)) }
}

/// The last end of a container that runs now but has crashed repeatedly, as far as that can be determined: its last run
/// was short, and this one is not yet clearly longer.
fn looping(container: &Container, now: Timestamp) -> Option<&Terminated> {
    let last = container.last_state.terminated.as_ref()?;
    let last_run = last.finished_at?.duration_since(last.started_at?).max(SignedDuration::ZERO);
    let runs_for = now.duration_since(container.state.running.as_ref()?.started_at?);
    let convincing = (last_run * 2).clamp(LEAST_RUN, FORGOTTEN_AFTER);
    (container.restart_count > 0 && last_run < FORGOTTEN_AFTER && runs_for < convincing).then_some(last)
}

fn restarted_ago(container: &Container, now: Timestamp) -> Option<SignedDuration> {
    container.state.running.as_ref()?;
    let ago = now.duration_since(container.last_state.terminated.as_ref()?.finished_at?);
    (ago < FORGOTTEN_AFTER).then_some(ago.max(SignedDuration::ZERO))
}

/// Whether, in a pod whose containers are not restarted after success, all those that are not ready have succeeded.
fn work_is_done(pod: &Pod) -> bool {
    let mut waited_for = pod.status.container_statuses.iter().flatten().filter(|container| !container.ready).peekable();
    let ended_well = |container: &Container| container.state.terminated.as_ref().is_some_and(|end| end.exit_code == 0);
    matches!(pod.spec.restart_policy.as_deref(), Some("Never" | "OnFailure"))
        && waited_for.peek().is_some()
        && waited_for.all(ended_well)
}

/// The most informative reason of an unhealthy pod.
fn why(status: &Status) -> String {
    let failed = status.phase.as_deref() == Some("Failed");
    // For a failed pod, what was done to it (Evicted, NodeShutdown, …) says more than how its containers ended.
    let own = || status.reason.clone();
    let found = if failed { own() } else { None }
        .or_else(|| init_first(status, stuck))
        .or_else(|| init_first(status, |container| Some(ended(bad_end(container)?))))
        .or_else(own)
        .or_else(|| not_true(status, "PodScheduled"))
        .or_else(|| init_first(status, waits_for))
        .or_else(|| not_true(status, "Ready").filter(|reason| reason != "ContainersNotReady"));
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    let found = found.unwrap_or_else(|| if phase == "Running" { "not ready".to_owned() } else { phase.to_owned() });
    found.chars().take(MAX_REASON_CHARS).collect()
}

/// The reason of the first init container, then of the first container, that has one.
fn init_first(status: &Status, say: impl Fn(&Container) -> Option<String>) -> Option<String> {
    let init = status.init_container_statuses.iter().flatten().find_map(&say).map(|reason| format!("Init:{reason}"));
    init.or_else(|| status.container_statuses.iter().flatten().find_map(&say))
}

fn waits_for(container: &Container) -> Option<String> {
    container.state.waiting.as_ref()?.reason.clone()
}

/// What keeps a container from starting, other than waiting for its turn.
fn stuck(container: &Container) -> Option<String> {
    let reason = waits_for(container).filter(|reason| reason != "ContainerCreating" && reason != "PodInitializing")?;
    Some(match &container.last_state.terminated {
        Some(last) => format!("{reason}, {}", ended(last)),
        None => reason,
    })
}

fn bad_end(container: &Container) -> Option<&Terminated> {
    container.state.terminated.as_ref().filter(|end| end.exit_code != 0)
}

fn ended(end: &Terminated) -> String {
    match end.reason.as_deref() {
        None | Some("Error" | "Completed") => format!("exit {}", end.exit_code),
        Some(reason) => format!("{reason} (exit {})", end.exit_code),
    }
}

fn not_true(status: &Status, kind: &str) -> Option<String> {
    conditions(status, kind).find(|condition| condition.status != "True")?.reason.clone()
}

fn conditions<'a>(status: &'a Status, kind: &'a str) -> impl Iterator<Item = &'a super::pod::Condition> {
    status.conditions.iter().flatten().filter(move |condition| condition.kind == kind)
}

fn containers(status: &Status) -> impl Iterator<Item = &Container> {
    status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
