//! The run under way, for those who watch it, and the signal that there is something new to see.
//!
//! Only what is shown is kept here: nothing is decided by it.

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::cluster::Cluster;
use crate::{
    core::{
        gate::GateResult,
        history::{Intent, MemberResult, RunId, RunStep, RunView, Trigger},
        plan::Plan,
        reason::Reason,
    },
    ports::{
        etcd::Etcd,
        journal::Journal,
        overview::{Live, RunActivity},
        progress::Progress,
    },
};

/// Tells watchers that something changed. They look for themselves what it was.
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

/// The run under way of one cluster.
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

/// A wait for the same thing goes on, though its words may change with its figures.
fn is_same(a: &RunActivity, b: &RunActivity) -> bool {
    match (a, b) {
        (RunActivity::Waiting { code: a, .. }, RunActivity::Waiting { code: b, .. }) => a == b,
        (a, b) => a == b,
    }
}

/// Keeps the stage up with a run; when it is dropped, the stage is empty.
pub(super) struct LiveProgress<'a, E: Etcd, J: Journal>(&'a Cluster<E, J>);

impl<'a, E: Etcd, J: Journal> LiveProgress<'a, E, J> {
    /// `view` is what an earlier process did of the run.
    pub(super) fn begin(cluster: &'a Cluster<E, J>, run: RunId, trigger: Trigger, view: Option<&RunView>) -> Self {
        let now = cluster.shared.clock.now();
        *cluster.current_run.0.lock() = Some(Live {
            cluster: cluster.name().to_owned(),
            run,
            trigger,
            began_at: now,
            activity: RunActivity::Checking,
            since: now,
            pending: Vec::new(),
            members: view.map(|view| view.members.clone()).unwrap_or_default(),
            steps: view.map(|view| view.steps.clone()).unwrap_or_default(),
            gates: view.map(|view| view.gates.clone()).unwrap_or_default(),
        });
        cluster.shared.changes.announce();
        Self(cluster)
    }

    fn change(&self, activity: Option<RunActivity>, change: impl FnOnce(&mut Live)) {
        self.0.current_run.change(self.0.shared.clock.now(), activity, change);
        self.0.shared.changes.announce();
    }
}

impl<E: Etcd, J: Journal> Drop for LiveProgress<'_, E, J> {
    fn drop(&mut self) {
        *self.0.current_run.0.lock() = None;
        self.0.shared.changes.announce();
    }
}

impl<E: Etcd, J: Journal> Progress for LiveProgress<'_, E, J> {
    fn planned(&self, plan: &Plan) {
        let pending = plan.pending().map(|(step, _)| step.member.clone()).collect();
        self.change(None, |live| live.pending = pending);
    }

    fn step(&self, step: &RunStep) {
        self.change(Some(RunActivity::Step { step: step.clone() }), |live| live.steps.push(step.clone()));
    }

    fn defragmenting(&self, intent: &Intent) {
        self.change(Some(RunActivity::Defragmenting { intent: intent.clone() }), |live| {
            live.pending.retain(|name| *name != intent.member);
        });
    }

    fn defragmented(&self, intent: &Intent) {
        self.change(Some(RunActivity::Settling { intent: intent.clone() }), |_| {});
    }

    fn waiting(&self, reason: &Reason) {
        self.change(Some(RunActivity::waiting(reason)), |_| {});
    }

    fn member_ended(&self, result: &MemberResult) {
        self.change(Some(RunActivity::Checking), |live| live.members.push(result.clone()));
    }

    fn gate(&self, result: &GateResult) {
        self.change(Some(RunActivity::Gates), |live| live.gates.push(result.clone()));
    }
}
