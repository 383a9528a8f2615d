//! Unusual etcds: members that send snapshots, and members that answer while they defragment; and the policies that
//! concern them.
//!
//! Drawn from a separate random stream, so that a seed's other draws do not depend on it.

use std::time::Duration;

use defragd::core::policy::{LeaderPolicy, OpenSnapshotPolicy, VerifyPolicy};

use crate::{
    faults::{Fault, Schedule},
    rng::Rng,
};

/// From which version on etcd defragments without blocking by itself.
const NON_BLOCKING: &str = "3.8.0";
const WITHIN_SECS: u64 = 60;

/// Defragmentations that last for minutes, of members that answer meanwhile and whose metrics pages fail, and one whose
/// answer is lost: no other member may begin.
pub fn draw_unknown_ends(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0x0e4d_5eea);
    if schedule.members[0].version != NON_BLOCKING || schedule.faults.is_empty() || rng.percent(50) {
        return;
    }
    schedule.policy.defrag_deadline = Duration::from_secs(5);
    let time = Duration::from_mins(5);
    for node in 0..schedule.members.len() {
        schedule.faults.push((Duration::from_millis(100), Fault::SlowDisk { node, factor: 60, time }));
        schedule.faults.push((Duration::from_millis(150), Fault::PageLost { node, time }));
    }
    schedule.faults.push((rng.seconds(3, 20), Fault::LoseRunningReply));
    schedule.faults.sort_by_key(|(at, _)| *at);
}

/// A backup that hangs while a cluster has no space: the alarm must not wait for it.
pub fn draw_backups_without_space(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0x0bac_4095);
    if schedule.no_space && !schedule.faults.is_empty() && rng.percent(40) {
        let (node, time) = (rng.index(8), Duration::from_mins(5));
        schedule.faults.push((rng.millis(0, 3_000), Fault::Snapshot { node, time }));
        schedule.faults.sort_by_key(|(at, _)| *at);
    }
}

pub fn draw(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0x5e4e_4b15);
    let policy = &mut schedule.policy;
    if policy.leader == LeaderPolicy::Last && rng.percent(50) {
        policy.leader = LeaderPolicy::Auto;
        policy.transfer_above = *rng.pick(&[0, 2, 3_600].map(Duration::from_secs));
    }
    policy.on_open_snapshot = if rng.percent(20) { OpenSnapshotPolicy::Ignore } else { OpenSnapshotPolicy::Wait };
    if rng.percent(12) {
        for member in &mut schedule.members {
            (member.version, member.has_gauge) = (NON_BLOCKING, true);
        }
        // If only their page says that they are busy, it is lost more often.
        if !schedule.faults.is_empty() {
            let (node, time) = (rng.index(8), rng.seconds(5, 90));
            schedule.faults.push((rng.millis(200, 25_000), Fault::PageLost { node, time }));
        }
    }
    if schedule.faults.is_empty() || rng.percent(70) {
        schedule.faults.sort_by_key(|(at, _)| *at);
        return;
    }
    for _ in 0..rng.between(1, 3) {
        // From a quick backup to one that hangs.
        let time = if rng.percent(70) { rng.seconds(1, 20) } else { rng.seconds(60, 180) };
        schedule.faults.push((rng.millis(0, WITHIN_SECS * 1_000), Fault::Snapshot { node: rng.index(8), time }));
    }
    schedule.faults.sort_by_key(|(at, _)| *at);
}

/// Policies that compare the data, and members whose data differs.
pub fn draw_data(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0xda7a_d1ff);
    if rng.percent(70) {
        return;
    }
    schedule.policy.verify = VerifyPolicy::Hash;
    if !schedule.faults.is_empty() && rng.percent(40) {
        let at = if rng.percent(50) { Duration::ZERO } else { rng.millis(0, WITHIN_SECS * 1_000) };
        schedule.faults.push((at, Fault::DataDiffers { node: rng.index(8) }));
        schedule.faults.sort_by_key(|(at, _)| *at);
    }
}

/// Hashes that are wrong for once. A stream of its own, so that the seeds of `seeds.rs` play as they did.
pub fn draw_wrong_hashes(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0x0dd_4a54);
    if schedule.policy.verify == VerifyPolicy::Hash && !schedule.faults.is_empty() && rng.percent(40) {
        let fault = Fault::HashWrongOnce { node: rng.index(8) };
        schedule.faults.push((rng.millis(0, WITHIN_SECS * 1_000), fault));
        schedule.faults.sort_by_key(|(at, _)| *at);
    }
}

/// Members whose files are fragmented again while a backup of another one holds up the end of a request.
pub fn draw_fragmenting(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0x0f4a_93e7);
    let holds_up =
        |(_, fault): &(Duration, Fault)| matches!(fault, Fault::Snapshot { time, .. } if time.as_secs() >= 60);
    if !schedule.faults.iter().any(holds_up) || rng.percent(20) {
        return;
    }
    for node in 0..schedule.members.len() {
        schedule.faults.push((rng.seconds(20, 150), Fault::Fragments { node }));
    }
    schedule.faults.sort_by_key(|(at, _)| *at);
}
