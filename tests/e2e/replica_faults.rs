//! Two and three replicas, each on a machine of its own (a network namespace), that are killed, stopped past the
//! lock's TTL and cut off at random moments of runs: never two members of the cluster at once, according to the servers;
//! every accepted request ends once; in the end the cluster is defragmented.

use std::{collections::BTreeMap, time::Duration};

use testkit::{EtcdVersion, is_inside};

use crate::{
    faults,
    kill::seed,
    replica_world::{FaultReport, Kind, World, Worlds},
};

/// A short one has at least so many in its three worlds, most of them while the new holder keeps still.
const FEW: usize = 6;
/// A world waits up to five minutes for its end, and too few faults mean another round of all of them. A test may take
/// 15 minutes.
const FEW_LIMIT: Duration = Duration::from_mins(14);
/// A soak has so many in the middle of runs in each of its five worlds, and some more at other moments. A quarter are
/// kills, a quarter ends in order.
const MANY: u32 = 110;
const SOAK_LIMIT: Duration = Duration::from_hours(4);

#[tokio::test(flavor = "multi_thread")]
async fn kills_pauses_and_partitions_of_replicas_lose_and_double_nothing() {
    if let Some(why) = testkit::in_namespaces_for("replica_faults::inside_a_few_faults", FEW_LIMIT).await.unwrap() {
        testkit::skipped(why);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "many minutes: `make soak`"]
async fn soak_many_kills_pauses_and_partitions_of_replicas_lose_and_double_nothing() {
    if let Some(why) = testkit::in_namespaces_for("replica_faults::inside_many_faults", SOAK_LIMIT).await.unwrap() {
        testkit::skipped(why);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "in namespaces of its own, by the test above"]
async fn inside_a_few_faults() {
    if is_inside() {
        let worlds = [(2, EtcdVersion::V3_5, false), (3, EtcdVersion::V3_5, false), (3, EtcdVersion::V3_5, true)];
        let mut reports = 0;
        // A run that ends before the fault's moment leaves nothing to hit: then there is another round.
        while reports < FEW {
            reports += all_of(&worlds, 1, true).await.len();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "in namespaces of its own, by the test above"]
async fn inside_many_faults() {
    if !is_inside() {
        return;
    }
    let worlds = [
        (2, EtcdVersion::V3_5, false),
        (3, EtcdVersion::V3_5, false),
        (3, faults::newest(), false),
        (2, faults::newest(), false),
        (2, EtcdVersion::V3_5, true),
    ];
    let reports = all_of(&worlds, MANY, false).await;
    let in_runs =
        |kinds: &[Kind]| reports.iter().filter(|fault| fault.in_a_run() && kinds.contains(&fault.kind)).count();
    let (killed, in_order) = (in_runs(&[Kind::Kill, Kind::KillAndLose]), in_runs(&[Kind::Terminate]));
    assert!(killed >= 100 && in_order >= 100, "in runs: {killed} killed, {in_order} ended in order");
}

/// Several clusters at the same time, each with its own replicas: most of the time all wait for something.
async fn all_of(worlds: &[(usize, EtcdVersion, bool)], faults: u32, short: bool) -> Vec<FaultReport> {
    let seed = seed();
    eprintln!("DEFRAGD_SEED={seed}");
    let mut running = tokio::task::JoinSet::new();
    for (number, &(replicas, version, without_space)) in (0_u8..).zip(worlds) {
        let plan = Worlds { number, replicas, version, without_space, faults, short, seed: seed + u64::from(number) };
        running.spawn(async move { World::create(plan).await.run().await });
    }
    let mut reports = Vec::new();
    while let Some(of_one) = running.join_next().await {
        reports.extend(of_one.unwrap());
    }
    summary(&reports);
    reports
}

fn summary(reports: &[FaultReport]) {
    let mut kinds = BTreeMap::<_, u32>::new();
    for fault in reports {
        *kinds.entry((fault.kind.label(), fault.moment, fault.of_holder)).or_default() += 1;
    }
    eprintln!(
        "{} faults, {} of them in a run:",
        reports.len(),
        reports.iter().filter(|fault| fault.in_a_run()).count()
    );
    for ((kind, moment, of_holder), count) in kinds {
        eprintln!("  {count:3} × {kind}, {moment}, of {}", if of_holder { "the holder" } else { "a follower" });
    }
    let spread = |what: &str, mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        if let (Some(first), Some(last)) = (seconds.first(), seconds.last()) {
            let median = seconds[seconds.len() / 2];
            eprintln!("{what}: {} times, min {first:.1} s, median {median:.1} s, max {last:.1} s", seconds.len());
        }
    };
    let short = |fault: &&FaultReport| fault.lasted > crate::replica_world::TTL;
    spread("from the fault to another's lock", reports.iter().filter(short).filter_map(|fault| fault.taken).collect());
    spread("from the fault to another's first plan", reports.iter().filter_map(|fault| fault.planned).collect());
    spread("from the fault to another's first Defragment", reports.iter().filter_map(|fault| fault.acted).collect());
}
