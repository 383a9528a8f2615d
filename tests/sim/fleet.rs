//! Several replicas in one schedule: how many, what happens to each of them and to their lock, and which requests reach
//! which of them.
//!
//! Drawn from a separate random stream: a seed with one replica plays as it always did.

use std::time::Duration;

use defragd::core::{policy::Mode, schedule::Timetable, window::Schedule as Windows};

use crate::{
    faults::{Death, Fault, Schedule},
    people::Person,
    rng::Rng,
};

/// Of a hundred schedules so many have several replicas.
pub const SHARE_PERCENT: u64 = 10;
/// A first holder keeps still for half a minute, so everything that meets runs is later by that.
const HEAD_START: Duration = Duration::from_secs(34);
/// The lock's lease, the next holder's time to settle, and two minutes in which it must have ended what was rejected.
const TAKEN_OVER_BY: Duration = Duration::from_mins(4);
/// Takeovers take time: the faults of the lock and of the replicas begin within this.
const WITHIN_SECS: u64 = 150;

#[derive(Clone, Debug)]
pub struct Fleet {
    pub replicas: Vec<Replica>,
    pub lock: LockPlan,
    pub stops: Vec<(Duration, Stop)>,
    pub lock_faults: Vec<(Duration, LockFault)>,
}

#[derive(Clone, Debug, Default)]
pub struct Replica {
    pub starts: Duration,
    /// Of its clock on the wall.
    pub skew_seconds: i64,
    pub deaths: Vec<(Death, Back)>,
    /// Which alert of the schedule reaches it, and when.
    pub alerts: Vec<(Duration, usize)>,
    pub people: Vec<(Duration, Person)>,
}

/// How a replica comes back after its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    WithItsJournal,
    /// On another machine, say.
    WithAnEmptyJournal,
    Never,
}

#[derive(Clone, Debug)]
pub struct LockPlan {
    /// In the cluster that is being defragmented, and so under its troubles.
    pub in_target: bool,
    pub ttl: Duration,
    /// The server's clock is so much faster, in parts of a thousand.
    pub fast_permille: u32,
    /// The client's own limit for one call.
    pub call_limit: Duration,
}

/// SIGSTOP, and SIGCONT after a while.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    pub replica: usize,
    pub place: Place,
    pub time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Wherever it is.
    Now,
    /// When it next requests the permit to send a Defragment, after its last observation of the members.
    BeforePermit,
    /// When it next has the permit to send a Defragment, and has not sent it.
    BetweenPermitAndSend,
    /// When it has next sent a Defragment.
    AfterSend,
}

#[derive(Clone, Debug)]
pub enum LockFault {
    /// The lock's server is out of this replica's reach.
    Cut { replica: usize, time: Duration },
    /// It is down for everybody. `refreshes`: a new leader gives every lease its whole time, as etcd's does.
    Down { time: Duration, refreshes: bool },
    /// The longest time of a call, each way.
    Slow { most: Duration, time: Duration },
    /// A share of the answers is lost.
    Lossy { permille: u64, time: Duration },
    /// NOSPACE at the lock's server: leases are renewed, nothing new is written.
    Full { time: Duration },
    /// The replicas do not reach this one and it not them, or calls are carried out and their answers are lost.
    Peers { replica: usize, answers_only: bool, time: Duration },
    /// Renewals hang for everybody, as while the leader is defragmented under writes, and leases run out meanwhile.
    Stall { time: Duration },
}

impl Fleet {
    /// `percent` of the seeds have one.
    pub fn draw(schedule: &Schedule, percent: u64) -> Option<Self> {
        let mut rng = Rng::new(schedule.seed ^ 0x0f1e_e700);
        if !rng.percent(percent) {
            return None;
        }
        // A single replica loses its lock too, and wins it again at once.
        let count = match rng.below(100) {
            0..=9 => 1,
            10..=77 => 2,
            _ => 3,
        };
        let mut replicas: Vec<_> = (0..count).map(|index| draw_replica(&mut rng, index)).collect();
        // At least one lives to the end.
        if replicas.iter().all(|replica| replica.deaths.iter().any(|(_, back)| *back == Back::Never)) {
            for (_, back) in &mut replicas[0].deaths {
                *back = Back::WithItsJournal;
            }
        }
        spread(schedule, &mut replicas, &mut rng);
        // The lock is where the endpoints lead to: a new cluster would be a new lock.
        let replaced = schedule.faults.iter().any(|(_, fault)| matches!(fault, Fault::ReplaceCluster));
        let lock = LockPlan {
            in_target: !replaced && rng.percent(40),
            ttl: Duration::from_secs(*rng.pick(&[10, 15, 30, 60])),
            fast_permille: u32::try_from(rng.between(0, 50)).unwrap(),
            call_limit: Duration::from_secs(*rng.pick(&[4, 60])),
        };
        let calm = rng.percent(10);
        let lock_faults = if calm { 0 } else { rng.below(4) };
        let stops = if calm { 0 } else { rng.below(3) };
        let mut fleet = Self {
            lock_faults: (0..lock_faults).map(|_| (moment(&mut rng), draw_lock_fault(&mut rng, count))).collect(),
            stops: (0..stops).map(|_| (moment(&mut rng), draw_stop(&mut rng, count))).collect(),
            replicas,
            lock,
        };
        fleet.lock_faults.sort_by_key(|(at, _)| *at);
        fleet.stops.sort_by_key(|(at, _)| *at);
        Some(fleet)
    }

    /// Moves a schedule that was drawn for one replica to when the first holder acts.
    pub fn put_off(schedule: &mut Schedule) {
        let later = |at: &mut Duration| *at += HEAD_START;
        schedule.faults.iter_mut().for_each(|(at, _)| later(at));
        schedule.requests.iter_mut().for_each(later);
        if let Some(gate) = &mut schedule.gate {
            for (from, until) in &mut gate.times {
                later(from);
                later(until);
            }
        }
        let over = Duration::from_secs(WITHIN_SECS) + HEAD_START;
        schedule.repaired_at = over.max(schedule.repaired_at + HEAD_START);
        schedule.deaths.clear();
        schedule.people.clear();
    }

    /// Both replicas have an alert. An operator rejects it at the holder, which dies before the other one has heard of
    /// that; the alert is sent again, and later another operator approves what still waits for it.
    pub fn draw_rejected_elsewhere(schedule: &mut Schedule) {
        let mut rng = Rng::new(schedule.seed ^ 0x4e1e_e165);
        let Some(fleet) = schedule.fleet.as_mut().filter(|_| rng.percent(8)) else { return };
        let policy = &mut schedule.policy;
        (policy.mode, policy.windows) = (Mode::Approve, Windows::default());
        (policy.cooldown, policy.approval_timeout) = (Duration::from_mins(30), Duration::from_mins(30));
        (policy.schedule, schedule.cadence, schedule.gate) = (Timetable::default(), None, None);
        (fleet.lock.ttl, fleet.lock.in_target) = (Duration::from_secs(10), false);
        fleet.lock_faults.clear();
        fleet.stops.clear();
        schedule.faults.clear();
        let fires = HEAD_START + rng.seconds(0, 10);
        let rejected = fires + rng.seconds(5, 40);
        let dies = rejected + rng.seconds(1, 12);
        let again = dies + rng.seconds(20, 180);
        let approved = dies + TAKEN_OVER_BY + rng.seconds(1, 60);
        let (down, back) = (approved - dies, Back::WithItsJournal);
        let death = Death { at: dies, after_send: None, ask_again: None, grace: None, down };
        let skew_seconds = |index: usize| fleet.replicas.get(index).map_or(0, |replica| replica.skew_seconds);
        fleet.replicas = vec![
            Replica {
                skew_seconds: skew_seconds(0),
                deaths: vec![(death, back)],
                alerts: vec![(fires, 0)],
                people: vec![(rejected, Person::Reject)],
                ..Replica::default()
            },
            Replica {
                starts: Duration::from_secs(5),
                skew_seconds: skew_seconds(1),
                alerts: vec![(fires, 0), (again, 0)],
                people: vec![(approved, Person::Approve)],
                ..Replica::default()
            },
        ];
        schedule.repaired_at = approved + Duration::from_secs(30);
    }

    pub fn fault_names(&self) -> Vec<String> {
        let name = |debug: String| debug.split([' ', '{']).next().unwrap_or_default().to_owned();
        let mut names = vec![format!("replicas:{}", self.replicas.len())];
        names.push(if self.lock.in_target { "lock:target" } else { "lock:apart" }.to_owned());
        names.extend(self.lock_faults.iter().map(|(_, fault)| format!("lock:{}", name(format!("{fault:?}")))));
        names.extend(self.stops.iter().map(|(_, stop)| format!("SIGSTOP:{:?}", stop.place)));
        for replica in &self.replicas {
            names.extend(replica.deaths.iter().map(|(death, back)| {
                let how = if death.grace.is_some() { "Sigterm" } else { "Crash" };
                format!("{how}:{back:?}")
            }));
            names.extend(replica.people.iter().map(|(_, person)| name(format!("{person:?}"))));
        }
        names
    }
}

fn moment(rng: &mut Rng) -> Duration {
    let within = if rng.percent(60) { 40_000 } else { WITHIN_SECS * 1000 - 40_000 };
    HEAD_START - Duration::from_secs(4) + rng.millis(0, within)
}

fn draw_replica(rng: &mut Rng, index: usize) -> Replica {
    let starts = if index == 0 { Duration::ZERO } else { rng.millis(0, 4_000) };
    let count = match rng.below(100) {
        0..=44 => 0,
        45..=84 => 1,
        _ => 2,
    };
    let mut deaths: Vec<_> = (0..count).map(|_| draw_death(rng)).collect();
    deaths.sort_by_key(|(death, _)| death.at);
    let skew = if rng.percent(70) { rng.between(19, 21) } else { rng.between(0, 40) };
    Replica { starts, skew_seconds: i64::try_from(skew).unwrap() - 20, deaths, ..Replica::default() }
}

fn draw_death(rng: &mut Rng) -> (Death, Back) {
    let death = Death {
        at: moment(rng),
        after_send: rng.percent(45).then(|| if rng.percent(50) { rng.millis(0, 20) } else { rng.millis(0, 2_000) }),
        ask_again: rng.percent(40).then(|| rng.millis(0, 3_000)),
        grace: rng.percent(35).then(|| rng.seconds(1, 60)),
        down: if rng.percent(50) { rng.millis(50, 2_000) } else { rng.millis(50, 60_000) },
    };
    let back = match rng.below(100) {
        0..=69 => Back::WithItsJournal,
        70..=84 => Back::WithAnEmptyJournal,
        _ => Back::Never,
    };
    (death, back)
}

fn draw_lock_fault(rng: &mut Rng, replicas: usize) -> LockFault {
    let time = if rng.percent(50) { rng.seconds(1, 15) } else { rng.seconds(10, 100) };
    match rng.below(11) {
        0..=2 => LockFault::Cut { replica: rng.index(replicas), time },
        3 => LockFault::Down { time, refreshes: rng.percent(70) },
        4 => LockFault::Slow { most: *rng.pick(&[1, 8, 30].map(Duration::from_secs)), time },
        5 => LockFault::Lossy { permille: rng.between(100, 900), time },
        6 => LockFault::Full { time },
        9 | 10 => LockFault::Peers { replica: rng.index(replicas), answers_only: rng.percent(40), time },
        _ => LockFault::Stall { time },
    }
}

fn draw_stop(rng: &mut Rng, replicas: usize) -> Stop {
    let place = match rng.below(10) {
        0..=5 => Place::Now,
        6 => Place::AfterSend,
        7 => Place::BeforePermit,
        _ => Place::BetweenPermitAndSend,
    };
    let time = match rng.below(10) {
        0..=2 => rng.millis(10, 5_000),
        3..=5 => rng.seconds(5, 40),
        _ => rng.seconds(40, 150),
    };
    Stop { replica: rng.index(replicas), place, time }
}

/// Alertmanager notifies all replicas or one, sometimes twice, sometimes late; operators use any one.
fn spread(schedule: &Schedule, replicas: &mut [Replica], rng: &mut Rng) {
    let mut moments: Vec<_> = schedule.requests.clone();
    // For what is done after a takeover.
    for _ in 0..rng.between(1, 3) {
        moments.push(HEAD_START + rng.seconds(0, WITHIN_SECS));
    }
    let to_all = rng.percent(60);
    for (number, at) in moments.iter().enumerate() {
        let only = rng.index(replicas.len());
        for (index, replica) in replicas.iter_mut().enumerate() {
            if to_all || index == only {
                let late = if rng.percent(25) { rng.seconds(0, 20) } else { rng.millis(0, 50) };
                replica.alerts.push((*at + HEAD_START + late, number));
                if rng.percent(20) {
                    replica.alerts.push((*at + HEAD_START + late + rng.seconds(1, 60), number));
                }
            }
        }
    }
    // Replicas that read another configuration at other times are no matter here.
    let people = schedule.people.iter().filter(|(_, person)| !matches!(person, Person::Reload { .. }));
    for (at, person) in people {
        let replica = rng.index(replicas.len());
        let (at, person) = (*at + HEAD_START, person.clone());
        // An operator resumes every cluster that may have been paused.
        let everywhere = matches!(person, Person::Resume);
        // What is resolved is resolved for all that heard of it.
        if everywhere || (matches!(person, Person::Resolve { .. }) && to_all) {
            for replica in replicas.iter_mut() {
                replica.people.push((at, person.clone()));
            }
        } else {
            replicas[replica].people.push((at, person));
        }
    }
    if rng.percent(15) {
        let asked = HEAD_START + rng.seconds(0, WITHIN_SECS);
        let index = rng.index(replicas.len());
        replicas[index].people.push((asked, Person::Run));
    }
    for replica in replicas {
        replica.alerts.sort();
        replica.people.sort_by_key(|(at, _)| *at);
    }
}
