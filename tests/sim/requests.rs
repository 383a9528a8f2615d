//! What happens to requests besides the faults of [`crate::faults`]: duplicate alerts, changing limits, wrong clocks,
//! credentials that are denied for a time.
//!
//! Drawn from a separate random stream, so that a seed's other draws do not depend on it.

use std::time::Duration;

use defragd::core::{
    policy::{Mode, OpenSnapshotPolicy},
    schedule::Timetable,
    window::Schedule as Windows,
};

use crate::{
    faults::{Fault, Schedule, Seedling},
    people::Person,
    rng::Rng,
};

const DAY_SECONDS: i64 = 86_400;
const WITHIN_SECS: u64 = 60;

pub fn draw(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0x57a4_d1f6);
    schedule.sent_twice = rng.percent(30);
    schedule.stale_sizes = rng.percent(50);
    // Those without any fault are to show what is without any.
    if schedule.faults.is_empty() || rng.percent(50) {
        return;
    }
    for _ in 0..rng.between(1, 3) {
        let at = rng.millis(200, WITHIN_SECS * 1_000);
        let time = if rng.percent(50) { rng.seconds(1, 15) } else { rng.seconds(15, 90) };
        schedule.faults.push((at, draw_fault(&mut rng, time)));
    }
    schedule.faults.sort_by_key(|(at, _)| *at);
    if rng.percent(25) {
        let lasts = rng.percent(60).then(|| rng.seconds(1, 20));
        let at = rng.seconds(1, 30);
        if rng.percent(50) {
            schedule.people.push((at - rng.millis(100, 900), Person::Pause { by: "ann", lasts: None }));
        }
        schedule.people.push((at, Person::Pause { by: "bob", lasts }));
        schedule.people.push((at + rng.seconds(5, 60), Person::Resume));
        schedule.people.sort_by_key(|(at, _)| *at);
    }
    if rng.percent(30) && schedule.fault_names().iter().all(|name| name != "with:gate") {
        schedule.modes =
            schedule.deaths.iter().map(|_| *rng.pick(&[Mode::Observe, Mode::Approve, Mode::Enforce])).collect();
        // An operator is there to approve.
        schedule.people.push((Duration::from_secs(80), Person::Approve));
        schedule.people.sort_by_key(|(at, _)| *at);
    }
}

/// Requests that an operator withdraws.
pub fn draw_cancels(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0xca2c_e115);
    if rng.percent(8) {
        // In a run, or between one that was refused and the next.
        let within = if rng.percent(50) { 40_000 } else { 150_000 };
        schedule.people.push((rng.millis(500, within), Person::Cancel));
        schedule.people.sort_by_key(|(at, _)| *at);
    }
}

/// Runs that an operator rejects instead of approving them.
pub fn draw_rejections(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0x4e1e_c7ed);
    if schedule.policy.mode == Mode::Approve && rng.percent(60) {
        for _ in 0..rng.between(1, 2) {
            schedule.people.push((rng.millis(500, WITHIN_SECS * 1_000), Person::Reject));
        }
        schedule.people.sort_by_key(|(at, _)| *at);
    }
}

/// Alerts that are resolved between two attempts at their request, when most members are done; those are fragmented again,
/// and another alert wants them defragmented.
pub fn draw_resolved_between_attempts(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0x4e50_17ee);
    if schedule.faults.is_empty() || schedule.no_space || !rng.percent(4) {
        return;
    }
    let policy = &mut schedule.policy;
    (policy.mode, policy.on_open_snapshot) = (Mode::Enforce, OpenSnapshotPolicy::Wait);
    (policy.windows, policy.schedule, policy.max_runs_per_day) = (Windows::default(), Timetable::default(), u32::MAX);
    (schedule.gate, schedule.cadence) = (None, None);
    schedule.deaths.clear();
    schedule.modes.clear();
    // A run gives a backup a minute, and the next attempt comes a minute later.
    let resolved = rng.seconds(75, 150);
    let again = resolved + rng.seconds(1, 20);
    let backup = Fault::Snapshot { node: schedule.leader, time: again + rng.seconds(5, 30) };
    schedule.faults = vec![(Duration::ZERO, backup)];
    schedule.faults.extend((0..schedule.members.len()).map(|node| (resolved, Fault::Fragments { node })));
    schedule.people = vec![(resolved, Person::Resolve { alert: 0 })];
    schedule.requests = vec![rng.millis(0, 2_000), again];
    schedule.repaired_at = schedule.repaired_at.max(again + Duration::from_secs(60));
}

/// An operator's request that a backup breaks off, and an alert that comes before its next attempt.
pub fn draw_joined_between_attempts(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0x0a1e_7004);
    if schedule.faults.is_empty() || schedule.no_space || !rng.percent(4) {
        return;
    }
    let policy = &mut schedule.policy;
    (policy.mode, policy.on_open_snapshot) = (Mode::Approve, OpenSnapshotPolicy::Wait);
    (policy.windows, policy.schedule, policy.max_runs_per_day) = (Windows::default(), Timetable::default(), u32::MAX);
    (schedule.gate, schedule.cadence) = (None, None);
    schedule.deaths.clear();
    schedule.modes.clear();
    let asked = rng.millis(500, 2_000);
    // A run gives a backup a minute, and the next attempt comes a minute later.
    let joined = rng.seconds(75, 150);
    let backup = Fault::Snapshot { node: schedule.leader, time: joined + rng.seconds(5, 30) };
    schedule.faults = vec![(Duration::ZERO, backup)];
    schedule.people = vec![(asked, Person::Run)];
    schedule.requests = vec![joined];
    schedule.repaired_at = schedule.repaired_at.max(joined + Duration::from_secs(60));
}

/// The members' version, and its change one member after the other.
pub fn draw_upgrades(schedule: &mut Schedule) {
    // Such that the seeds of `seeds.rs` play as they did.
    let mut rng = Rng::new(schedule.seed ^ 0x0b9a_de13);
    if rng.percent(50) {
        let is_3_6 = |member: &&mut Seedling| member.version == "3.6.5";
        schedule.members.iter_mut().filter(is_3_6).for_each(|member| member.version = "3.7.3");
    }
    let version = schedule.members[0].version;
    let next = match version {
        "3.4.23" => "3.5.30",
        "3.5.16" | "3.5.30" | "3.5.30-custom" => "3.6.5",
        "3.6.5" => "3.7.3",
        "3.7.3" => "3.8.0-alpha.0",
        // Refused in any case.
        _ => return,
    };
    if schedule.faults.is_empty() || !rng.percent(10) {
        return;
    }
    let mut at = rng.millis(0, WITHIN_SECS * 500);
    if matches!(version, "3.6.5" | "3.7.3") && rng.percent(50) {
        let time = rng.seconds(5, 90);
        let to = if version == "3.6.5" { "3.5.0" } else { "3.6.0" };
        schedule.faults.push((at, Fault::Downgrade { to, time }));
    } else {
        for _ in 0..schedule.members.len() {
            schedule.faults.push((at, Fault::Upgrade { to: next, down: rng.millis(300, 5_000) }));
            at += if rng.percent(60) { rng.seconds(2, 12) } else { rng.seconds(12, 60) };
        }
    }
    schedule.faults.sort_by_key(|(at, _)| *at);
}

/// Modes that change while defragd runs.
pub fn draw_reloads(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0x4e10_ad00);
    if !rng.percent(8) || schedule.fault_names().iter().any(|name| name == "with:gate") {
        return;
    }
    for _ in 0..rng.between(1, 3) {
        let mode = *rng.pick(&[Mode::Observe, Mode::Approve, Mode::Enforce]);
        schedule.people.push((rng.millis(500, 60_000), Person::Reload { mode }));
    }
    // An operator is there to approve.
    schedule.people.push((Duration::from_secs(85), Person::Approve));
    schedule.people.sort_by_key(|(at, _)| *at);
}

fn draw_fault(rng: &mut Rng, time: Duration) -> Fault {
    match rng.below(6) {
        0 | 1 => Fault::Denied { time },
        2 => Fault::NoShrink { node: rng.index(8) },
        3 => Fault::SlotsTaken { time },
        4 => Fault::ClockStops { time },
        _ => {
            let days = i64::try_from(rng.between(1, 3)).unwrap();
            Fault::ClockStep { seconds: if rng.percent(50) { days } else { -days } * DAY_SECONDS }
        }
    }
}
