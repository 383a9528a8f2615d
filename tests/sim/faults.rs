//! What goes wrong in one schedule, and when: drawn from the seed before anything runs.

use std::time::Duration;

use bytesize::ByteSize;
use defragd::core::policy::{LeaderPolicy, Mode, Policy};

use crate::{
    due::{self, Cadence},
    fleet::Fleet,
    gates::Outages,
    people::{self, Person},
    requests,
    rng::Rng,
    servers,
};

/// One thing that goes wrong at the servers, in the network or in the journal. `node` is an index that wraps.
#[derive(Clone, Debug)]
pub enum Fault {
    /// kill -9 of an etcd member; it starts again after a while with its old file.
    Kill {
        node: usize,
        down: Duration,
    },
    /// SIGSTOP, later SIGCONT. What arrives in between waits in the socket.
    Freeze {
        node: usize,
        time: Duration,
    },
    /// The member is alone: clients reach it, its peers do not.
    Cut {
        node: usize,
        time: Duration,
    },
    /// defragd cannot reach the member; its peers can.
    Unreachable {
        node: usize,
        time: Duration,
        refused: bool,
    },
    /// All client connections to the member break; its own work continues.
    BreakConnections {
        node: usize,
    },
    /// Connections to whichever member defragments break: a lost reply.
    LoseRunningReply,
    /// Whichever member defragments is killed.
    KillRunning {
        down: Duration,
    },
    /// Whichever member defragments is frozen.
    FreezeRunning {
        time: Duration,
    },
    /// The leader steps down by itself.
    Election,
    /// An operator transfers leadership by hand.
    OperatorMoveLeader {
        to: usize,
    },
    /// Another tool defragments a member.
    OperatorDefrag {
        node: usize,
    },
    /// The next defragmentation of this member finds a full disk.
    DiskFull {
        node: usize,
    },
    /// Defragmentations of this member take this many times longer.
    SlowDisk {
        node: usize,
        factor: u32,
        time: Duration,
    },
    /// The metrics page is gone for a while.
    PageLost {
        node: usize,
        time: Duration,
    },
    /// CORRUPT is armed; `named`: whether the alarm names the member.
    Corrupt {
        node: usize,
        named: bool,
        time: Duration,
    },
    AddMember {
        learner: bool,
    },
    RemoveMember {
        node: usize,
    },
    /// The endpoints lead to a new cluster from now on.
    ReplaceCluster,
    /// Another client compacts the history: in-use falls, later and at different times.
    OperatorCompact,
    /// So many writes a second.
    Load {
        entries: u64,
        time: Duration,
    },
    /// A share of the answers is slow.
    SlowNet {
        permille: u64,
        time: Duration,
    },
    /// A share of the requests is dropped, and a share of the answers is lost.
    LossyNet {
        drop: u64,
        lose: u64,
        time: Duration,
    },
    /// Every write of the journal fails, and every read if `reads`.
    JournalDown {
        time: Duration,
        reads: bool,
    },
    /// One write fails.
    JournalOnce,
    /// Every write takes a while.
    JournalSlow {
        each: Duration,
        time: Duration,
    },
    ClockStep {
        seconds: i64,
    },
    /// The wall clock stops.
    ClockStops {
        time: Duration,
    },
    /// etcd denies the credentials.
    Denied {
        time: Duration,
    },
    /// The next defragmentation of this member succeeds, and its file is as large as before.
    NoShrink {
        node: usize,
    },
    /// Other clusters' runs take all slots.
    SlotsTaken {
        time: Duration,
    },
    /// The member's data becomes another than the others'.
    DataDiffers {
        node: usize,
    },
    /// The member's next hash is wrong, its data is not.
    HashWrongOnce {
        node: usize,
    },
    /// Clients write and delete so much at once that the member's file is fragmented again.
    Fragments {
        node: usize,
    },
    /// A client takes a snapshot of this member.
    Snapshot {
        node: usize,
        time: Duration,
    },
    /// The next member is stopped, and starts again with this version.
    Upgrade {
        to: &'static str,
        down: Duration,
    },
    /// A downgrade is enabled for a while.
    Downgrade {
        to: &'static str,
        time: Duration,
    },
}

/// The end of one life of defragd.
#[derive(Clone, Debug)]
pub struct Death {
    /// Not before.
    pub at: Duration,
    /// So long after a Defragment is sent, if one still is.
    pub after_send: Option<Duration>,
    /// An alert that fires again so long after the next start.
    pub ask_again: Option<Duration>,
    /// With SIGTERM first, and so much time to end; without it, kill -9.
    pub grace: Option<Duration>,
    pub down: Duration,
}

/// A member at the start.
#[derive(Clone, Debug)]
pub struct Seedling {
    pub learner: bool,
    pub version: &'static str,
    pub size: u64,
    pub in_use: u64,
    pub has_page: bool,
    pub has_gauge: bool,
}

#[derive(Clone, Debug)]
pub struct Schedule {
    pub seed: u64,
    pub policy: Policy,
    pub members: Vec<Seedling>,
    pub leader: usize,
    pub quota: u64,
    pub load: u64,
    /// Whether the adapter itself checks `Status` right before Defragment. The contract of the port
    /// does not promise it, so a run has to be safe without.
    pub look_before_defrag: bool,
    /// How long a Defragment is in the network, at most.
    pub longest_way: Duration,
    /// The part of what is in use that a compaction frees.
    pub history_percent: u64,
    /// NOSPACE is armed from the start.
    pub no_space: bool,
    pub requests: Vec<Duration>,
    /// Operators' actions, and alerts that resolve.
    pub people: Vec<(Duration, Person)>,
    /// What is checked outside etcd.
    pub gate: Option<Outages>,
    pub faults: Vec<(Duration, Fault)>,
    pub deaths: Vec<Death>,
    /// From then on everything is repaired, but pages that are lost for longer.
    pub repaired_at: Duration,
    /// Several replicas and their lock.
    pub fleet: Option<Fleet>,
    /// Two Alertmanagers send each alert, with two spellings of its start.
    pub sent_twice: bool,
    /// Under NOSPACE, members report an in-use size from before the compaction.
    pub stale_sizes: bool,
    /// When runs are due without an alert.
    pub cadence: Option<Cadence>,
    /// The mode after each death, where it changes.
    pub modes: Vec<Mode>,
}

const MIB: u64 = 1 << 20;
/// The time in which faults begin: most runs are over by then.
const FAULTS_WITHIN_SECS: u64 = 90;
/// A run waits 3 s for a Defragment on its way when a connection breaks.
const LONGEST_WAY: Duration = Duration::from_millis(2_500);
/// The time in which most runs have their members under way.
const BUSY_WITHIN_SECS: u64 = 25;

impl Schedule {
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let fault_free = rng.percent(8);
        let members = draw_members(&mut rng);
        let voters = members.iter().filter(|member| !member.learner).count();
        let policy = draw_policy(&mut rng, voters);
        let leader = rng.index(voters);
        let mut faults = Vec::new();
        let mut deaths = Vec::new();
        if !fault_free {
            // Few faults reach deep into a run; many meet each other.
            let count = if rng.percent(50) { rng.between(1, 2) } else { rng.between(2, 7) };
            for _ in 0..count {
                faults.push((draw_moment(&mut rng), draw_fault(&mut rng)));
            }
            faults.sort_by_key(|(at, _)| *at);
            deaths = draw_deaths(&mut rng);
        }
        let mut requests = vec![rng.millis(0, 2_000)];
        for _ in 0..rng.below(3) {
            requests.push(rng.seconds(0, FAULTS_WITHIN_SECS));
        }
        for death in &deaths {
            // Alertmanager repeats what still fires, and right after a restart is when it hurts most.
            if rng.percent(80) {
                let soon = if rng.percent(50) { 200 } else { 4_000 };
                requests.push(death.at + death.down + rng.millis(0, soon));
            }
        }
        requests.sort();
        let mut schedule = Self {
            seed,
            policy,
            longest_way: LONGEST_WAY,
            leader,
            quota: if rng.percent(15) { 1100 * MIB } else { 2048 * MIB },
            load: *rng.pick(&[0, 0, 20, 200, 1000, 3000]),
            look_before_defrag: rng.percent(30),
            members,
            requests,
            faults,
            deaths,
            repaired_at: Duration::from_secs(FAULTS_WITHIN_SECS) + rng.seconds(1, 90),
            history_percent: 0,
            no_space: false,
            people: Vec::new(),
            gate: None,
            fleet: None,
            sent_twice: false,
            stale_sizes: false,
            cadence: None,
            modes: Vec::new(),
        };
        people::draw(&mut schedule);
        requests::draw(&mut schedule);
        requests::draw_reloads(&mut schedule);
        requests::draw_cancels(&mut schedule);
        servers::draw(&mut schedule);
        requests::draw_upgrades(&mut schedule);
        due::draw(&mut schedule);
        servers::draw_data(&mut schedule);
        servers::draw_wrong_hashes(&mut schedule);
        servers::draw_backups_without_space(&mut schedule);
        servers::draw_unknown_ends(&mut schedule);
        servers::draw_fragmenting(&mut schedule);
        requests::draw_rejections(&mut schedule);
        requests::draw_resolved_between_attempts(&mut schedule);
        requests::draw_joined_between_attempts(&mut schedule);
        schedule
    }

    /// With several replicas in so many of a hundred seeds.
    pub fn with_replicas(mut self, percent: u64) -> Self {
        self.fleet = Fleet::draw(&self, percent);
        if self.fleet.is_some() {
            Fleet::put_off(&mut self);
            Fleet::draw_rejected_elsewhere(&mut self);
        }
        self
    }

    pub fn fault_names(&self) -> Vec<String> {
        let name = |fault: &Fault| format!("{fault:?}").split([' ', '{']).next().unwrap_or_default().to_owned();
        let deaths = self.deaths.iter().map(|death| if death.grace.is_some() { "Sigterm" } else { "Crash" }.to_owned());
        self.faults
            .iter()
            .map(|(_, fault)| name(fault))
            .chain(deaths)
            .chain(people::names(self))
            .chain(self.fleet.iter().flat_map(Fleet::fault_names))
            .collect()
    }

    /// Drawn by itself, so that the other draws of a seed stay what they were.
    pub fn a_step_is_not_written(&self) -> bool {
        !self.faults.is_empty() && Rng::new(self.seed ^ 0x57e9).percent(10)
    }

    /// The version that all members run in the end, where they are upgraded.
    pub fn upgrades_to(&self) -> Option<&'static str> {
        self.faults.iter().find_map(|(_, fault)| match fault {
            Fault::Upgrade { to, .. } => Some(*to),
            _ => None,
        })
    }

    pub fn fault_free(&self) -> bool {
        let policy = &self.policy;
        let undisturbed =
            self.faults.is_empty() && self.deaths.is_empty() && self.people.is_empty() && self.gate.is_none();
        undisturbed && self.fleet.is_none() && policy.windows.0.is_empty() && policy.compaction.is_none()
    }
}

/// Mostly while a run is likely to be under way.
fn draw_moment(rng: &mut Rng) -> Duration {
    let within = if rng.percent(70) { BUSY_WITHIN_SECS } else { FAULTS_WITHIN_SECS };
    rng.millis(200, within * 1000)
}

fn draw_policy(rng: &mut Rng, voters: usize) -> Policy {
    Policy {
        mode: if rng.percent(4) { Mode::Observe } else { Mode::Enforce },
        pause_between_members: *rng.pick(&[0, 1, 3, 10].map(Duration::from_secs)),
        defrag_deadline: *rng.pick(&[5, 20, 60, 600].map(Duration::from_secs)),
        recovery_timeout: *rng.pick(&[15, 60, 300].map(Duration::from_secs)),
        cooldown: *rng.pick(&[0, 5, 60].map(Duration::from_secs)),
        leader: LeaderPolicy::Last,
        allow_without_quorum_slack: voters < 3 && rng.percent(70),
        // The last run of a schedule must be taken, however many failed before it.
        max_runs_per_day: u32::MAX,
        breaker_failures: u32::MAX,
        ..Policy::default()
    }
}

fn draw_members(rng: &mut Rng) -> Vec<Seedling> {
    let (voters, learners) = match rng.below(100) {
        0..=64 => (3, 0),
        65..=74 => (5, 0),
        75..=84 => (3, 1),
        85..=89 => (4, 0),
        90..=94 => (2, 0),
        _ => (1, 0),
    };
    let version = *rng.pick(&["3.5.30", "3.5.30", "3.5.16", "3.4.23", "3.6.5", "3.5.30-custom"]);
    let odd = rng.percent(3).then(|| *rng.pick(&["3.5.4", "3.4.3", "banana"]));
    let bare = rng.percent(15);
    (0..voters + learners)
        .map(|index| {
            let in_use = rng.between(30, 500);
            let free = if rng.percent(85) { in_use + rng.between(110, 400) } else { rng.between(0, 20) };
            Seedling {
                learner: index >= voters,
                version: odd.filter(|_| index == 0).unwrap_or(version),
                size: (in_use + free) * MIB,
                in_use: in_use * MIB,
                has_page: !bare || rng.percent(50),
                has_gauge: !bare || rng.percent(30),
            }
        })
        .collect()
}

fn draw_deaths(rng: &mut Rng) -> Vec<Death> {
    let count = match rng.below(100) {
        0..=49 => 0,
        50..=84 => 1,
        _ => rng.between(2, 3),
    };
    let mut deaths: Vec<_> = (0..count)
        .map(|_| Death {
            at: draw_moment(rng),
            after_send: rng.percent(25).then(|| rng.millis(0, 2_000)),
            ask_again: rng.percent(60).then(|| rng.millis(0, 3_000)),
            grace: rng.percent(45).then(|| rng.seconds(1, 60)),
            // As quick as a supervisor restarts it: what was sent must be seen again at once.
            down: if rng.percent(50) { rng.millis(50, 500) } else { rng.millis(50, 8_000) },
        })
        .collect();
    deaths.sort_by_key(|death| death.at);
    deaths
}

fn draw_fault(rng: &mut Rng) -> Fault {
    let node = rng.index(8);
    let short = rng.millis(500, 15_000);
    let long = rng.seconds(5, 90);
    match rng.below(30) {
        0 => Fault::Kill { node, down: short },
        1 => Fault::Kill { node, down: long },
        2 | 3 => Fault::Freeze { node, time: if rng.percent(50) { short } else { long } },
        4 | 5 => Fault::Cut { node, time: if rng.percent(50) { short } else { long } },
        6 => Fault::Unreachable { node, time: long, refused: rng.percent(50) },
        7 => Fault::BreakConnections { node },
        8 | 9 => Fault::LoseRunningReply,
        10 => Fault::KillRunning { down: short },
        11 => Fault::FreezeRunning { time: long },
        12 | 13 => Fault::Election,
        14 => Fault::OperatorMoveLeader { to: node },
        15 | 16 => Fault::OperatorDefrag { node },
        17 => Fault::DiskFull { node },
        18 => Fault::SlowDisk { node, factor: u32::try_from(rng.between(5, 60)).unwrap(), time: long },
        19 => Fault::PageLost { node, time: long },
        20 => Fault::Corrupt { node, named: rng.percent(50), time: long },
        21 => Fault::AddMember { learner: rng.percent(50) },
        22 => Fault::RemoveMember { node },
        23 => match rng.below(3) {
            0 => Fault::ReplaceCluster,
            1 => Fault::OperatorCompact,
            _ => Fault::Load { entries: rng.between(0, 4_000), time: long },
        },
        24 => Fault::SlowNet { permille: rng.between(20, 400), time: long },
        25 => Fault::LossyNet { drop: rng.between(0, 60), lose: rng.between(0, 60), time: long },
        26 => Fault::JournalDown { time: short, reads: rng.percent(30) },
        27 => Fault::JournalOnce,
        28 => {
            let most = *rng.pick(&[50, 3_000, 3_000, 90_000]);
            Fault::JournalSlow { each: rng.millis(10, most), time: long }
        }
        _ => Fault::ClockStep { seconds: i64::try_from(rng.between(0, 7_200)).unwrap() - 3_600 },
    }
}

/// Whether a member's database would give back enough, by the thresholds of a policy.
pub fn wants(policy: &Policy, size: u64, in_use: u64, quota: Option<u64>, no_space: bool) -> bool {
    least_gain(policy, size, in_use, quota, no_space).is_some()
}

/// Why it would: the bytes that must be free for that need at least, and in addition after an attempt without gain.
pub fn least_gain(policy: &Policy, size: u64, in_use: u64, quota: Option<u64>, no_space: bool) -> Option<u64> {
    // Written again here and not taken from the policy, so that a fault there shows.
    let free = size.saturating_sub(in_use);
    let at_least = |limit: ByteSize| (free >= limit.0).then_some(limit.0);
    #[expect(clippy::cast_precision_loss, reason = "sizes stay below 2^52")]
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let fills = |part: f64| quota.is_some_and(|quota| quota > 0 && share(size, quota) >= part);
    let without_space = (no_space && (free >= MIB || fills(0.9))).then_some(MIB);
    let pressed = || at_least(policy.quota_min_reclaimable).filter(|_| fills(policy.quota_usage_ratio));
    let fragmented =
        || at_least(policy.min_reclaimable).filter(|_| share(free, size) >= policy.min_fragmentation_ratio);
    without_space.or_else(pressed).or_else(fragmented)
}
