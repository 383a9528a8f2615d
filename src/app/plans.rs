//! The plan of a cluster for people who decide: the same observation and the same checks that a run makes, and
//! everything that holds one back now.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    checks,
    cluster::{Cluster, Rules},
    detached::to_its_end,
    ledger, observer,
};
use crate::{
    core::{
        cluster::ClusterFacts,
        gate::{GateResult, Moment},
        history::Trigger,
        plan_view::{PlanInputs, PlanView},
        reason::Reason,
        safety,
    },
    ports::{etcd::Etcd, journal::Journal},
};

/// A younger observation is used again, however many people look.
const FRESH_FOR: Duration = Duration::from_secs(4);

#[derive(Clone)]
pub(super) struct PlanBasis {
    done: Instant,
    /// How long it stays usable: longer, if it took long.
    fresh_for: Duration,
    at: Timestamp,
    /// Under which rules the gates were checked.
    rules: Arc<Rules>,
    facts: Arc<ClusterFacts>,
    gates: Vec<GateResult>,
    /// Why the journal cannot be written, if so: then no run starts.
    unwritable: Option<Reason>,
}

impl<E: Etcd, J: Journal> Cluster<E, J> {
    /// What would be done now, by an automatic run or by one that an operator requests. `Err` if the members cannot be
    /// observed.
    pub(super) async fn plan(self: &Arc<Self>, as_manual: bool) -> Result<PlanView, Reason> {
        let cluster = Arc::clone(self);
        // If a client disconnects, the observation is still used.
        let basis = to_its_end(async move { cluster.plan_basis().await }).await;
        let basis = basis.map_err(|_| Reason::InternalError)??;
        // Read without an announcement: a page that shows a plan would otherwise request itself again.
        let read = ledger::read(&self.shared.journal, self.name()).await;
        let ledger = read.map_err(Reason::from)?;
        let (queued, mut others) = self.other_holds(as_manual);
        others.extend(basis.unwritable);
        Ok(PlanView::new(PlanInputs {
            cluster: self.name(),
            at: basis.at,
            now: self.shared.clock.now(),
            facts: &basis.facts,
            policy: &basis.rules.policy,
            ledger: &ledger,
            run: queued.and_then(|run| ledger.run(run)),
            as_manual,
            gates: basis.gates,
            others,
            unknown_holds: Vec::new(),
        }))
    }

    /// The run that waits, and the holds that neither the journal nor the members show.
    fn other_holds(&self, as_manual: bool) -> (Option<crate::core::history::RunId>, Vec<Reason>) {
        let mut holds = Vec::new();
        let state = self.requests.state.lock();
        let (queued, is_active) = (state.waiting().map(|open| open.id), state.active_run().is_some());
        let is_manual = state.waiting().is_some_and(|open| open.request.trigger == Trigger::Manual);
        drop(state);
        if as_manual && (is_active || is_manual) {
            holds.push(Reason::AlreadyRequested);
        }
        holds.extend(self.succession.may_begin().err());
        if !is_active && self.shared.slots.available_permits() == 0 {
            holds.push(Reason::TooManyRuns { limit: self.shared.max_concurrent_runs });
        }
        (queued, holds)
    }

    async fn plan_basis(&self) -> Result<PlanBasis, Reason> {
        // Concurrent requests wait for this observation.
        let mut last = self.plan_basis.lock().await;
        let rules = self.rules();
        let fresh =
            last.as_ref().filter(|basis| basis.done.elapsed() < basis.fresh_for && Arc::ptr_eq(&basis.rules, &rules));
        if let Some(basis) = fresh {
            return Ok(basis.clone());
        }
        let place = self.shared.fleet_observer.places.acquire().await;
        let (begun, at, etcd) = (Instant::now(), self.shared.clock.now(), self.target.etcd());
        let facts = observer::observe_all(&*etcd).await.map_err(|unknown| safety::no_member_list(&unknown))?;
        drop(place);
        let gates = checks::run(&rules.gates, Moment::Before, &BTreeMap::new()).await;
        let unwritable = self.shared.journal_trouble(FRESH_FOR).await.map(Reason::from);
        let done = Instant::now();
        let fresh_for = FRESH_FOR.max(done - begun);
        let basis = PlanBasis { done, fresh_for, at, rules, facts: Arc::new(facts), gates, unwritable };
        *last = Some(basis.clone());
        Ok(basis)
    }
}
