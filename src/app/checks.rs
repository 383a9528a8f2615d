//! Checks the gates of a moment: all at once, each within its limit.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{
    core::gate::{GateResult, Moment},
    ports::gate::{CheckContext, Gate, Reading},
};

/// Checks the gates that this moment has. Never fails as a whole: what does not answer is a failed gate.
pub async fn run(gates: &[Gate], moment: Moment, baselines: &BTreeMap<String, Value>) -> Vec<GateResult> {
    let due = gates.iter().filter(|gate| gate.rule.when.contains(&moment));
    join_all(due.map(|gate| check_one(gate, moment, baselines.get(&gate.rule.name)))).await
}

async fn check_one(gate: &Gate, moment: Moment, baseline: Option<&Value>) -> GateResult {
    let begun = Instant::now();
    let baseline = baseline.filter(|_| moment != Moment::Before);
    let checked = timeout(gate.limit, gate.probe.check(CheckContext { moment, baseline })).await;
    let reading =
        checked.unwrap_or_else(|_| Reading::fail(format!("no answer within {:.0} s", gate.limit.as_secs_f64())));
    GateResult {
        gate: gate.rule.name.clone(),
        kind: gate.rule.kind,
        moment,
        passed: reading.passed,
        on_failure: gate.rule.on_failure,
        detail: reading.detail,
        evidence: reading.evidence,
        baseline: reading.baseline.filter(|_| moment == Moment::Before),
        took: begun.elapsed(),
    }
}
