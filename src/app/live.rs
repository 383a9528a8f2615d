//! The run in progress, for viewers, and the signal that there is something new to see.
//!
//! It is only displayed: no decision depends on it.

use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    core::{
        gate::GateResult,
        history::{Intent, MemberResult, Request, RunId, RunStep, RunView},
        plan::Plan,
        reason::Reason,
    },
    ports::{
        clock::Clock,
        overview::{CurrentMember, Live, RunActivity},
        progress::Progress,
    },
};

/// Signals viewers that something changed. They find out what it was.
#[derive(Debug, Default)]
pub struct Changes(watch::Sender<u64>);

impl Changes {
    pub fn announce(&self) {
        self.0.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// The run in progress of one cluster.
#[derive(Debug, Default)]
pub(super) struct CurrentRun(Mutex<Option<Live>>);

impl CurrentRun {
    pub(super) fn get(&self) -> Option<Live> {
        self.0.lock().clone()
    }

    /// The label of the reason that the run waits for.
    pub(super) fn waits_for(&self) -> Option<&'static str> {
        match self.0.lock().as_ref()?.activity {
            RunActivity::Waiting { code, .. } => Some(code),
            _ => None,
        }
    }

    fn change(&self, now: Timestamp, activity: Option<RunActivity>, change: impl FnOnce(&mut Live)) {
        if let Some(live) = self.0.lock().as_mut() {
            change(live);
            if let Some(activity) = activity.filter(|activity| !is_same(activity, &live.activity)) {
                (live.activity, live.since) = (activity, now);
            }
        }
    }
}

/// The same wait continues, though its text may change with its figures.
fn is_same(a: &RunActivity, b: &RunActivity) -> bool {
    match (a, b) {
        (RunActivity::Waiting { code: a, .. }, RunActivity::Waiting { code: b, .. }) => a == b,
        (a, b) => a == b,
    }
}

/// Keeps the current run up to date; when it is dropped, there is none.
pub(super) struct LiveProgress<'a> {
    current_run: &'a CurrentRun,
    changes: &'a Changes,
    clock: &'a dyn Clock,
}

impl<'a> LiveProgress<'a> {
    /// `view` is what an earlier process did in the run.
    pub(super) fn begin(
        current_run: &'a CurrentRun,
        changes: &'a Changes,
        clock: &'a dyn Clock,
        (run, request): (RunId, &Request),
        view: Option<&RunView>,
    ) -> Self {
        let now = clock.now();
        *current_run.0.lock() = Some(Live {
            cluster: request.cluster.clone(),
            run,
            trigger: request.trigger,
            began_at: now,
            activity: RunActivity::Checking,
            since: now,
            current: view.and_then(|view| view.open_intent.clone()).map(being_defragmented),
            pending: Vec::new(),
            members: view.map(|view| view.members.clone()).unwrap_or_default(),
            steps: view.map(|view| view.steps.clone()).unwrap_or_default(),
            gates: view.map(|view| view.gates.clone()).unwrap_or_default(),
        });
        changes.announce();
        Self { current_run, changes, clock }
    }

    fn change(&self, activity: Option<RunActivity>, change: impl FnOnce(&mut Live)) {
        self.current_run.change(self.clock.now(), activity, change);
        self.changes.announce();
    }
}

fn being_defragmented(intent: Intent) -> CurrentMember {
    CurrentMember { intent, is_defragmented: false }
}

impl Drop for LiveProgress<'_> {
    fn drop(&mut self) {
        *self.current_run.0.lock() = None;
        self.changes.announce();
    }
}

impl Progress for LiveProgress<'_> {
    fn planned(&self, plan: &Plan) {
        let pending = plan.pending().map(|(step, _)| step.member.clone()).collect();
        self.change(None, |live| live.pending = pending);
    }

    fn step(&self, step: &RunStep) {
        self.change(Some(RunActivity::Step { step: step.clone() }), |live| live.steps.push(step.clone()));
    }

    fn defragmenting(&self, intent: &Intent) {
        self.change(Some(RunActivity::Defragmenting { intent: intent.clone() }), |live| {
            live.current = Some(being_defragmented(intent.clone()));
            live.pending.retain(|name| *name != intent.member);
        });
    }

    fn defragmented(&self, intent: &Intent) {
        self.change(Some(RunActivity::Settling { intent: intent.clone() }), |live| {
            live.current = Some(CurrentMember { intent: intent.clone(), is_defragmented: true });
        });
    }

    fn settling(&self, _healthy_for: Duration, _pause: Duration) {
        // The cluster is healthy again.
        let after_wait = self.current_run.get().filter(|live| matches!(live.activity, RunActivity::Waiting { .. }));
        if let Some(CurrentMember { intent, .. }) = after_wait.and_then(|live| live.current) {
            self.defragmented(&intent);
        }
    }

    fn waiting(&self, reason: &Reason) {
        self.change(Some(RunActivity::waiting(reason)), |_| {});
    }

    fn member_ended(&self, result: &MemberResult) {
        self.change(Some(RunActivity::Checking), |live| {
            live.current = None;
            live.members.push(result.clone());
        });
    }

    fn gate(&self, result: &GateResult) {
        self.change(Some(RunActivity::Gates), |live| live.gates.push(result.clone()));
    }
}
