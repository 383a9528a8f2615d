//! A gate that fails from time to time, and the checks of what a run does then: nothing is sent before the gate has
//! passed, after each member none is started before it has passed again, and none at all after a failure that stops.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use defragd::{
    core::gate::{GateKind, GateResult, GateRule, Moment, OnFailure},
    ports::gate::{CheckContext, Gate, GateProbe, Reading},
};
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::{model::World, rng::Rng, sim::Sim};

/// The gate of a schedule.
#[derive(Clone, Debug)]
pub struct Outages {
    pub on_failure: OnFailure,
    /// When the world outside etcd is not well: from, until.
    pub times: Vec<(Duration, Duration)>,
    /// How long a check takes, at most.
    pub slowest: Duration,
}

pub fn draw(rng: &mut Rng) -> Option<Outages> {
    if !rng.percent(30) {
        return None;
    }
    let on_failure = if rng.percent(70) { OnFailure::Stop } else { OnFailure::Warn };
    let times = (0..rng.below(3))
        .map(|_| {
            let from = rng.millis(0, 40_000);
            (from, from + rng.millis(100, 20_000))
        })
        .collect();
    Some(Outages { on_failure, times, slowest: *rng.pick(&[0, 100, 12_000].map(Duration::from_millis)) })
}

/// The limit of a check: slower ones have failed.
const LIMIT: Duration = Duration::from_secs(10);

/// The gates of a cluster: one, or none.
pub fn gates(sim: &Arc<Sim>) -> Vec<Gate> {
    let outages = sim.world().schedule.gate.clone();
    let gate = |outages: Outages| Gate {
        rule: GateRule {
            name: "ingress".to_owned(),
            kind: GateKind::Http,
            when: BTreeSet::from(Moment::ALL),
            on_failure: outages.on_failure,
        },
        limit: LIMIT,
        probe: Arc::new(SimGate { sim: Arc::clone(sim), outages }),
    };
    outages.map(gate).into_iter().collect()
}

struct SimGate {
    sim: Arc<Sim>,
    outages: Outages,
}

impl GateProbe for SimGate {
    fn check<'a>(&'a self, _occasion: CheckContext<'a>) -> BoxFuture<'a, Reading> {
        Box::pin(async move {
            let takes = {
                let mut world = self.sim.world();
                let repaired = world.now >= world.schedule.repaired_at;
                let slowest = if repaired { 0 } else { u64::try_from(self.outages.slowest.as_millis()).unwrap() };
                world.rng.millis(0, slowest)
            };
            sleep(takes).await;
            let now = self.sim.now();
            if self.outages.times.iter().any(|(from, until)| (*from..*until).contains(&now)) {
                Reading::fail("503")
            } else {
                Reading::pass("200")
            }
        })
    }
}

/// The results of a run's gates, according to its journal.
#[derive(Clone, Debug, Default)]
pub struct GateRecord {
    /// Since the start of the process and the last member, a check let the run pass.
    passed: bool,
    /// A check required the run to end.
    stopped: bool,
}

impl GateRecord {
    pub fn on_start(&mut self) {
        self.passed = false;
    }

    pub fn on_result(&mut self, result: &GateResult) {
        if result.passed || result.on_failure == OnFailure::Warn {
            self.passed = true;
        } else {
            self.stopped = true;
        }
    }

    pub fn on_member(&mut self) {
        self.passed = false;
    }
}

impl World {
    /// When something is sent.
    pub fn check_gates(&mut self, said: &GateRecord, what: &str) {
        if self.schedule.gate.is_some() && (!said.passed || said.stopped) {
            self.violate("gates", format!("{what} though the gates have not let the run pass: {said:?}"));
        }
    }
}
