//! What a run in progress changes in the counters and in its cluster's state.

use std::time::Duration;

use super::cluster::Cluster;
use crate::{
    core::{
        gate::GateResult,
        history::{Intent, MemberEnd, MemberResult, Outcome, Trigger},
        plan::Plan,
    },
    ports::{etcd::Etcd, journal::Journal, progress::Progress},
    telemetry::members::LastDefrag,
};

/// Keeps counters and the cluster's state up to date with a run.
pub(super) struct StateProgress<'a, E, J> {
    pub(super) cluster: &'a Cluster<E, J>,
    pub(super) trigger: Trigger,
}

impl<E: Etcd, J: Journal> Progress for StateProgress<'_, E, J> {
    fn planned(&self, plan: &Plan) {
        self.cluster.requests.state.lock().emergency = plan.emergency;
        self.cluster.shared.counters.planned(self.cluster.name(), plan);
    }

    fn defragmenting(&self, intent: &Intent) {
        self.cluster.requests.state.lock().defragmenting = Some(intent.member_id);
        self.cluster.shared.counters.started(self.cluster.name(), intent.need);
    }

    /// From here on the member recovers. If it no longer answers, it is down, and alerts must say so. Without an answer
    /// to the RPC, the server may still be defragmenting, and the mark stays.
    fn defragmented(&self, _intent: &Intent) {
        self.cluster.requests.state.lock().defragmenting = None;
    }

    fn member_ended(&self, result: &MemberResult) {
        self.cluster.requests.state.lock().defragmenting = None;
        if matches!(result.end, MemberEnd::NotSent { .. }) {
            return;
        }
        self.cluster.shared.counters.member_ended(self.cluster.name(), result);
        let last = LastDefrag { at: self.cluster.shared.clock.now(), result: result.clone() };
        self.cluster.requests.state.lock().last_defrags.insert(result.intent.member_id, last);
    }

    fn gate(&self, result: &GateResult) {
        self.cluster.shared.counters.gate(self.cluster.name(), result);
    }

    fn finished(&self, outcome: &Outcome, took: Duration) {
        self.cluster.shared.counters.run_ended(self.cluster.name(), self.trigger, outcome, Some(took));
    }
}
