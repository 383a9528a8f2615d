//! The simulator's model of etcd against real etcd: the same scenarios are played on both through the same port,
//! and what a client sees must be the same. What the simulator proves holds only as far as this does.
//!
//! - [`lab`]: what a scenario can do, and how an answer is recorded: by its kind, never by its time.
//! - [`scenarios`]: the scenarios. [`real`] and [`simulated`]: the two clusters that they are played on.
//!
//! Not here, because they need root and namespaces: partitions and full disks (`tests/e2e`).

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking")]
#![allow(clippy::struct_excessive_bools, clippy::needless_pass_by_value, reason = "a model's state is many flags")]
#![allow(clippy::unchecked_time_subtraction, reason = "virtual time does not go back")]

mod lab;
mod real;
mod scenarios;
mod simulated;

// The simulator's parts, as they are; what only its own schedules use is idle here.
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/due.rs"]
mod due;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/faults.rs"]
mod faults;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/fleet.rs"]
mod fleet;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/gates.rs"]
mod gates;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/invariants.rs"]
mod invariants;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/journal.rs"]
mod journal;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/lock.rs"]
mod lock;
#[allow(dead_code, unused_imports, reason = "used by the simulator")]
#[path = "../sim/model/mod.rs"]
mod model;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/peers.rs"]
mod peers;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/people.rs"]
mod people;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/policy.rs"]
mod policy;
#[path = "../sim/requests.rs"]
mod requests;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/rng.rs"]
mod rng;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/seen.rs"]
mod seen;
#[path = "../sim/servers.rs"]
mod servers;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/sim.rs"]
mod sim;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/stopped.rs"]
mod stopped;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/succession.rs"]
mod succession;
#[allow(dead_code, reason = "used by the simulator")]
#[path = "../sim/truth.rs"]
mod truth;

use scenarios::Scenario;
use testkit::{EtcdVersion, on_each_version};

/// The model draws its delays from a seed: it has to answer alike whatever they are.
const SEEDS: u64 = 30;

on_each_version! { the_model_answers_as_etcd _ does => compare }

/// `MODEL_SCENARIO=name` plays one alone.
async fn compare(line: EtcdVersion) {
    let only = std::env::var("MODEL_SCENARIO").ok();
    let mut differences = Vec::new();
    for scenario in Scenario::ALL {
        if only.as_ref().is_some_and(|only| *only != format!("{scenario:?}")) {
            continue;
        }
        differences.extend(Box::pin(differences_in(line, scenario)).await);
    }
    assert!(differences.is_empty(), "the model is not as etcd is:\n{}", differences.join("\n"));
}

/// Plays a scenario on real members, and on the model until a seed of it differs.
async fn differences_in(line: EtcdVersion, scenario: Scenario) -> Vec<String> {
    let begun = std::time::Instant::now();
    let (version, real) = Box::pin(real::play(line, scenario)).await;
    println!("etcd {version}, {scenario:?}, {:.1} s:", begun.elapsed().as_secs_f64());
    for line in &real {
        println!("    {line}");
    }
    for seed in 1..=SEEDS {
        let model = simulated::play(version.clone(), scenario, seed).await;
        let lines = real.len().max(model.len());
        let missing = "(nothing)".to_owned();
        let pair = |line: usize| (real.get(line).unwrap_or(&missing), model.get(line).unwrap_or(&missing));
        let differ = (0..lines).map(pair).filter(|(real, model)| real != model);
        let found: Vec<_> = differ
            .map(|(real, model)| {
                format!("{scenario:?}, etcd {version}, seed {seed}:\n  real:  {real}\n  model: {model}")
            })
            .collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}
