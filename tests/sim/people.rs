//! Policies and operators' actions in one schedule: leader policy, compaction, windows, limits, approvals, pauses.
//!
//! Drawn from a separate random stream, so that a seed's faults do not depend on it.

use std::time::Duration;

use defragd::core::{
    policy::{Compaction, LeaderPolicy, Mode},
    window::{Schedule as Windows, Window},
};
use jiff::{Timestamp, tz::TimeZone};

use crate::{faults::Schedule, gates, journal::EPOCH_SECOND, rng::Rng};

/// An operator's action, or a change of an alert.
#[derive(Clone, Debug)]
pub enum Person {
    Pause {
        by: &'static str,
        lasts: Option<Duration>,
    },
    Resume,
    /// Approves the waiting run.
    Approve,
    /// Requests a run.
    Run,
    /// An alert of the schedule no longer fires.
    Resolve {
        alert: usize,
    },
    /// Withdraws the standing request.
    Cancel,
    /// Rejects the waiting run.
    Reject,
    /// Changes the mode in the configuration and reloads it. Only for a single replica.
    Reload {
        mode: Mode,
    },
}

/// Most of these should coincide with runs, and those are in the first half minute.
const BUSY_WITHIN_SECS: u64 = 40;
const WITHIN_SECS: u64 = 90;

pub fn draw(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0x0b5e_55ed);
    schedule.history_percent = rng.between(0, 60);
    // Every other schedule has only faults.
    if rng.percent(45) {
        return;
    }
    draw_policy(schedule, &mut rng);
    draw_no_space(schedule, &mut rng);
    draw_people(schedule, &mut rng);
    schedule.gate = gates::draw(&mut rng);
}

fn draw_policy(schedule: &mut Schedule, rng: &mut Rng) {
    let policy = &mut schedule.policy;
    policy.leader = match rng.below(100) {
        0..=39 => LeaderPolicy::Last,
        40..=84 => LeaderPolicy::LastAfterTransfer,
        _ => LeaderPolicy::Skip,
    };
    if rng.percent(25) {
        // More than there are: nothing to compact.
        let keep_revisions = *rng.pick(&[0, 100, 10_000, 1_000_000]);
        policy.compaction = Some(Compaction::KeepRevisions(keep_revisions));
    }
    policy.disarm_no_space = rng.percent(85);
    if rng.percent(10) && policy.mode == Mode::Enforce {
        policy.mode = Mode::Approve;
        policy.approval_timeout = rng.seconds(20, 120);
    }
    if rng.percent(20) {
        policy.windows = windows(rng.between(1, WITHIN_SECS), rng.between(5, 120));
    }
    if rng.percent(15) {
        policy.max_runs_per_day = u32::try_from(rng.between(1, 3)).unwrap();
    }
    policy.emergency = !Rng::new(schedule.seed ^ 0xe3e6).percent(30);
    if rng.percent(20) {
        policy.breaker_failures = u32::try_from(rng.between(1, 3)).unwrap();
        policy.breaker_reset_after = rng.percent(50).then(|| rng.seconds(10, 100));
    }
}

/// Open all day except for a gap that begins this long after the start.
fn windows(closes: u64, gap: u64) -> Windows {
    let clock = |seconds: u64| {
        let at = Timestamp::from_second(EPOCH_SECOND + i64::try_from(seconds).unwrap()).unwrap();
        TimeZone::UTC.to_datetime(at).time()
    };
    Windows(vec![Window { days: Vec::new(), start: clock(closes + gap), end: clock(closes), timezone: TimeZone::UTC }])
}

/// The quota is just above what a member needs, or just below.
fn draw_no_space(schedule: &mut Schedule, rng: &mut Rng) {
    if !rng.percent(20) {
        return;
    }
    schedule.no_space = true;
    let most = schedule.members.iter().map(|member| member.in_use).max().unwrap_or(0);
    schedule.quota = most / 100 * *rng.pick(&[105, 115, 125, 150, 250]);
}

fn draw_people(schedule: &mut Schedule, rng: &mut Rng) {
    let busy = |rng: &mut Rng| rng.millis(500, BUSY_WITHIN_SECS * 1000);
    let mut people = Vec::new();
    if schedule.policy.mode == Mode::Approve && rng.percent(75) {
        for _ in 0..rng.between(1, 5) {
            people.push((busy(rng), Person::Approve));
        }
    }
    if rng.percent(20) {
        let lasts = rng.percent(30).then(|| rng.seconds(1, 40));
        let paused = busy(rng);
        people.push((paused, Person::Pause { by: "ann", lasts }));
        people.push((paused + rng.seconds(1, 50), Person::Resume));
    }
    if rng.percent(15) {
        people.push((rng.seconds(1, WITHIN_SECS), Person::Resume));
    }
    for _ in 0..rng.below(3) {
        if rng.percent(30) {
            people.push((busy(rng), Person::Resolve { alert: rng.index(3) }));
        }
    }
    people.sort_by_key(|(at, _)| *at);
    schedule.people = people;
}

/// Which of these occur, for the totals.
pub fn names(schedule: &Schedule) -> Vec<String> {
    let policy = &schedule.policy;
    let mut names: Vec<_> = schedule.people.iter().map(|(_, person)| format!("{person:?}")).collect();
    for name in &mut names {
        name.truncate(name.find(' ').unwrap_or(name.len()));
    }
    names.push(format!("leader:{:?}", policy.leader));
    let with = [
        (policy.compaction.is_some(), "with:compaction"),
        (policy.mode == Mode::Approve, "with:approval"),
        (!policy.windows.0.is_empty(), "with:window"),
        (policy.max_runs_per_day < u32::MAX, "with:daily_limit"),
        (policy.breaker_failures < u32::MAX, "with:breaker"),
        (schedule.no_space, "with:no_space"),
        (schedule.gate.is_some(), "with:gate"),
        (schedule.sent_twice, "with:two_alertmanagers"),
        (schedule.stale_sizes && schedule.no_space, "with:stale_sizes"),
        (!schedule.modes.is_empty(), "with:mode_changes"),
    ];
    names.extend(with.into_iter().filter(|(there, _)| *there).map(|(_, name)| name.to_owned()));
    names
}
