//! A model of an etcd cluster as `etcd-facts.md` describes it, in virtual time.
//!
//! The world changes only in [`World::settle`] (continuous changes), in its own events ([`World::process_due`]),
//! and through requests. It knows nothing about defragd.

mod client;
mod node;
mod trouble;

use std::{collections::BTreeMap, time::Duration};

use defragd::core::{
    cluster::{Alarm, AlarmKind, ClusterId, Member, MemberId},
    history::RunId,
};

pub use self::{
    client::SimEtcd,
    node::{Deaf, Door, Node, Process, Running, minor, since_3_6, whole},
};
use crate::{
    faults::{Fault, Schedule},
    fleet::{Place, Stop},
    invariants::Watch,
    lock::LockServer,
    rng::Rng,
    truth::Steady,
};

/// Bytes that an entry adds to the store.
const BYTES_AN_ENTRY: f64 = 200.0;
/// When the first holder of a lock begins to act, or soon after.
const FIRST_HOLDER_ACTS: Duration = Duration::from_secs(32);
/// Entries a second that a member applies when it has some to catch up.
const CATCH_UP: f64 = 8_000.0;

/// One Defragment, from any client.
#[derive(Clone, Debug)]
pub struct Job {
    pub node: usize,
    /// Sent by defragd, not by another client.
    pub ours: bool,
    pub state: JobState,
    pub leader_at_start: bool,
    /// Which replica sent it.
    pub replica: usize,
    /// Since when an observer of the member can see it.
    pub arrived_at: Option<Duration>,
    /// Its sender was stopped between the permit and the sending.
    pub stray: bool,
    /// … or just before the permit, which may be its to have all the same when it wakes.
    pub held_up: bool,
    /// It is on its way for so much longer, because its sender died with it in the socket.
    pub lingers: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// On its way.
    Flying,
    /// In the socket of a frozen process.
    Buffered,
    /// Waits for the one under way.
    Queued,
    Running,
    Done,
    DiskFull,
    /// By a learner.
    Refused,
    /// It never came to an end: the process died, or the request never arrived.
    Gone,
}

impl JobState {
    pub fn open(self) -> bool {
        matches!(self, Self::Flying | Self::Buffered | Self::Queued | Self::Running)
    }
}

/// What happens at the servers at a time.
#[derive(Clone, Debug)]
pub enum Happening {
    Fault(usize),
    DefragEnds {
        node: usize,
        job: usize,
    },
    /// The members notice that there is no leader.
    LeaderMissed {
        election: u64,
    },
    Elect {
        election: u64,
    },
    /// A member learns of the leader of this term.
    View {
        node: usize,
        leader: MemberId,
        term: u64,
    },
    Restart {
        node: usize,
    },
    Thaw {
        node: usize,
    },
    Rejoin {
        node: usize,
    },
    Reachable {
        node: usize,
    },
    PageBack {
        node: usize,
    },
    DiskFast {
        node: usize,
    },
    CorruptCleared,
    CompactionSettles {
        node: usize,
        free: u64,
    },
    CalmLoad {
        load: f64,
    },
    CalmNet,
    DowngradeOver,
    Repair,
    /// NOSPACE, if it would otherwise be armed before there is a candidate for the lock.
    ArmNoSpace,
    LockFault(usize),
    /// Calls of the lock that hang look again.
    LockChanges,
    Stop(usize),
}

/// The state of the network, in shares of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Net {
    pub slow: u64,
    pub drop: u64,
    pub lose: u64,
}

pub struct World {
    pub now: Duration,
    pub rng: Rng,
    pub schedule: Schedule,
    pub cluster: ClusterId,
    /// Of all clusters that ever were.
    pub nodes: Vec<Node>,
    /// All versions of the member list; the last one is in force.
    pub member_lists: Vec<Vec<Member>>,
    pub leader: Option<usize>,
    pub term: u64,
    pub committed: f64,
    /// The revision up to which the history is gone.
    pub compacted: u64,
    /// The part of what is in use that a compaction frees.
    pub history_percent: u64,
    pub load: f64,
    pub alarms: Vec<Alarm>,
    /// etcd denies all calls until then.
    pub denied_until: Duration,
    /// Other clusters' runs take the slots until then.
    pub slots_taken_until: Duration,
    /// When there last was an emergency.
    pub emergency_at: Option<Duration>,
    pub steady: Steady,
    /// When the configuration was given another mode.
    pub mode_changed_at: Option<Duration>,
    pub jobs: Vec<Job>,
    pub net: Net,
    /// Where the replicas of defragd run.
    pub hosts: Vec<Host>,
    /// The lock's server, with several replicas.
    pub lock: Option<LockServer>,
    pub watch: Watch,
    pub calls: u64,
    pub(crate) election: Option<u64>,
    elections: u64,
    events: BTreeMap<(Duration, u64), Happening>,
    sequence: u64,
}

/// Where one replica of defragd runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    pub journal: JournalHealth,
    pub clock_offset_seconds: i64,
    /// What of that is not a fault.
    pub skew_seconds: i64,
    /// Since when the clock is stopped, and until when.
    pub clock_stops: Option<(Duration, Duration)>,
    /// SIGSTOP, until then.
    pub stopped_until: Duration,
    /// To be stopped when it next comes there, for so long.
    pub stops: [Option<Duration>; 3],
}

/// What the schedule does to the journal.
#[derive(Clone, Copy, Debug, Default)]
pub struct JournalHealth {
    pub down_until: Duration,
    pub reads_down_until: Duration,
    pub fail_next: bool,
    /// The record of the next step other than Defragment: between that and what came before is next to no time.
    pub fail_step: bool,
    pub slow_until: Duration,
    /// Which life of defragd holds it.
    pub life: u64,
    pub each: Duration,
    /// The run whose end is on the disk, and whose process still waits for the answer to that write.
    pub end_unanswered: Option<RunId>,
    /// The same of a request that is accepted: nobody knows yet.
    pub request_unanswered: Option<RunId>,
}

impl World {
    pub fn new(schedule: Schedule, watch: Watch) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            rng: Rng::new(schedule.seed ^ 0xdead_beef),
            cluster: ClusterId(0xc1),
            nodes: Vec::new(),
            member_lists: Vec::new(),
            leader: None,
            term: 7,
            committed: 50_000.0,
            compacted: 0,
            history_percent: 0,
            load: f64::from(u32::try_from(schedule.load).unwrap()),
            alarms: Vec::new(),
            denied_until: Duration::ZERO,
            slots_taken_until: Duration::ZERO,
            emergency_at: None,
            steady: Steady::default(),
            mode_changed_at: None,
            jobs: Vec::new(),
            net: Net::default(),
            hosts: vec![Host::default()],
            lock: None,
            watch,
            calls: 0,
            election: None,
            elections: 0,
            events: BTreeMap::new(),
            sequence: 0,
            schedule,
        };
        world.history_percent = world.schedule.history_percent;
        world.found_cluster();
        for index in 0..world.schedule.faults.len() {
            let at = world.schedule.faults[index].0;
            world.plan(at, Happening::Fault(index));
        }
        let repaired_at = world.schedule.repaired_at;
        world.plan(repaired_at, Happening::Repair);
        world.settle_fleet();
        let fail_step = world.schedule.a_step_is_not_written();
        world.hosts.iter_mut().for_each(|host| host.journal.fail_step = fail_step);
        world
    }

    /// Where the replicas run, their lock, and what befalls them.
    fn settle_fleet(&mut self) {
        let Some(fleet) = self.schedule.fleet.clone() else { return };
        let skewed = |seconds| Host { skew_seconds: seconds, clock_offset_seconds: seconds, ..Host::default() };
        self.hosts = fleet.replicas.iter().map(|replica| skewed(replica.skew_seconds)).collect();
        self.watch.count_replicas(self.hosts.len());
        self.lock = Some(LockServer::new(fleet.lock, self.hosts.len()));
        for (index, (at, _)) in fleet.lock_faults.iter().enumerate() {
            self.plan(*at, Happening::LockFault(index));
        }
        for (index, (at, _)) in fleet.stops.iter().enumerate() {
            self.plan(*at, Happening::Stop(index));
        }
    }

    /// Of the replica that acts.
    pub fn host(&self) -> &Host {
        &self.hosts[self.watch.acting]
    }

    pub fn host_mut(&mut self) -> &mut Host {
        &mut self.hosts[self.watch.acting]
    }

    fn stop_replica(&mut self, stop: Stop) {
        match stop.place {
            Place::Now => self.stop_now(stop.replica, stop.time),
            Place::BetweenPermitAndSend => self.hosts[stop.replica].stops[0] = Some(stop.time),
            Place::AfterSend => self.hosts[stop.replica].stops[1] = Some(stop.time),
            Place::BeforePermit => self.hosts[stop.replica].stops[2] = Some(stop.time),
        }
    }

    /// SIGSTOP for so long, but not past the end of all faults.
    pub fn stop_now(&mut self, replica: usize, time: Duration) {
        let now = self.now;
        let until = (now + time).min(self.schedule.repaired_at);
        if until <= now {
            return;
        }
        self.hosts[replica].stopped_until = until;
        self.watch.note(now, || format!("SIGSTOP to replica {replica} until {:.3}", until.as_secs_f64()));
        self.on_replica_stopped(replica);
    }

    /// The replica comes by a place where it may have to be stopped.
    pub fn comes_by(&mut self, place: Place) -> bool {
        let index = match place {
            Place::BetweenPermitAndSend => 0,
            Place::AfterSend => 1,
            Place::BeforePermit => 2,
            Place::Now => return false,
        };
        let Some(time) = self.host_mut().stops[index].take() else { return false };
        if self.now >= self.schedule.repaired_at {
            return false;
        }
        self.stop_now(self.watch.acting, time);
        true
    }

    /// kill -9: what is still in its sockets may be on its way for as long as TCP tries.
    pub fn on_killed(&mut self, replica: usize) {
        self.hosts[replica].stopped_until = Duration::ZERO;
        for job in 0..self.jobs.len() {
            let flies = self.jobs[job].state == JobState::Flying && self.jobs[job].ours;
            if flies && self.jobs[job].replica == replica && self.rng.percent(80) {
                self.jobs[job].lingers = self.rng.millis(2_000, 17_000);
            }
        }
    }

    /// A cluster of new members as the schedule describes them.
    pub fn found_cluster(&mut self) {
        let first = self.nodes.len();
        self.cluster = ClusterId(self.cluster.0 + first as u64);
        for (index, seedling) in self.schedule.members.clone().iter().enumerate() {
            let id = MemberId((first + index + 1) as u64);
            let member = Member {
                id,
                name: format!("etcd-{}", index + 1),
                client_urls: vec![format!("http://etcd-{}:2379", index + 1)],
                is_learner: seedling.learner,
            };
            self.nodes.push(Node {
                cluster: self.cluster,
                member,
                version: seedling.version.to_owned(),
                downgrade_to: None,
                process: Process::Running,
                cut: false,
                deaf: None,
                removed: false,
                has_page: seedling.has_page,
                has_gauge: seedling.has_gauge,
                size: seedling.size,
                in_use: seedling.in_use,
                quota: self.schedule.quota,
                view: (None, self.term),
                index: self.committed,
                applied: self.committed,
                member_list: 0,
                running: None,
                queue: std::collections::VecDeque::new(),
                buffer: Vec::new(),
                slow: 1,
                disk_full: false,
                no_shrink: false,
                differs: false,
                hash_wrong_once: false,
                stale_in_use: None,
                snapshot_until: Duration::ZERO,
                connections: 0,
            });
        }
        self.new_member_list();
        if self.schedule.no_space && self.schedule.fleet.is_none() {
            self.arm_no_space(first);
        } else if self.schedule.no_space && first == 0 {
            self.plan(FIRST_HOLDER_ACTS, Happening::ArmNoSpace);
        }
        let leader = first + self.schedule.leader;
        self.leader = Some(leader);
        let id = self.nodes[leader].id();
        for node in self.current() {
            self.nodes[node].view = (Some(id), self.term);
        }
    }

    /// Names the client that was writing when it was full.
    fn arm_no_space(&mut self, node: usize) {
        let member = Some(self.nodes[node].id());
        self.alarms.push(Alarm { kind: AlarmKind::NoSpace, member });
    }

    /// The indices of the members of the cluster that the endpoints lead to.
    pub fn current(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].cluster == self.cluster && !self.nodes[*n].removed).collect()
    }

    /// The current list; connected members know it at once.
    pub fn new_member_list(&mut self) {
        self.member_lists.push(self.current().iter().map(|node| self.nodes[*node].member.clone()).collect());
        self.spread_member_list();
    }

    pub fn spread_member_list(&mut self) {
        let newest = self.member_lists.len() - 1;
        for node in self.current() {
            if self.nodes[node].connected() {
                self.nodes[node].member_list = newest;
            }
        }
    }

    pub fn find(&self, id: MemberId) -> Option<usize> {
        (0..self.nodes.len()).find(|node| self.nodes[*node].id() == id)
    }

    pub fn fault(&self, index: usize) -> Fault {
        self.schedule.faults[index].1.clone()
    }

    pub fn plan(&mut self, at: Duration, happening: Happening) {
        self.sequence += 1;
        self.events.insert((at.max(self.now), self.sequence), happening);
    }

    pub fn plan_in(&mut self, after: Duration, happening: Happening) {
        self.plan(self.now + after, happening);
    }

    pub fn next_event_at(&self) -> Option<Duration> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// Lets everything happen that is due.
    pub fn process_due(&mut self, now: Duration) {
        while let Some(((at, _), _)) = self.events.first_key_value()
            && *at <= now
        {
            let at = *at;
            let (_, happening) = self.events.pop_first().unwrap();
            self.settle(at);
            let quiet = matches!(&happening, Happening::DefragEnds { .. } | Happening::View { .. });
            if !quiet {
                match &happening {
                    Happening::Fault(index) => {
                        let fault = self.fault(*index);
                        self.watch.note(at, || format!("FAULT {fault:?}"));
                    }
                    other => self.watch.note(at, || format!("world: {other:?}")),
                }
            }
            self.happen(happening);
            self.reconsider_leader();
            self.check_now();
        }
        self.settle(now);
    }

    /// Moves what moves steadily: the log, the appliers, the files.
    pub fn settle(&mut self, now: Duration) {
        if self.is_emergency() {
            self.emergency_at = Some(self.now);
        }
        let seconds = now.saturating_sub(self.now).as_secs_f64();
        self.now = self.now.max(now);
        if seconds <= 0.0 {
            return;
        }
        let writing = self.leader.is_some() && self.load > 0.0 && self.alarms.is_empty();
        if writing {
            self.committed += self.load * seconds;
        }
        let (committed, reach) = (self.committed, (CATCH_UP + self.load) * seconds);
        for node in self.nodes.iter_mut().filter(|node| node.cluster == self.cluster && node.connected()) {
            node.index = committed;
            if !node.blocked() && node.applied < committed {
                let step = (committed - node.applied).min(reach);
                node.applied += step;
                node.in_use += node::whole(step * BYTES_AN_ENTRY);
                node.stale_in_use = None;
                node.size = node.size.max(node.in_use);
            }
        }
        if writing {
            // A write meets a member above its quota: that member arms the alarm, and writes end.
            for node in self.current() {
                let node = &self.nodes[node];
                let alarm = Alarm { kind: AlarmKind::NoSpace, member: Some(node.id()) };
                if node.connected() && node.size > node.quota && !self.alarms.contains(&alarm) {
                    self.alarms.push(alarm);
                }
            }
        }
    }

    pub fn quorum(&self) -> bool {
        let voters: Vec<_> = self.current().into_iter().filter(|node| self.nodes[*node].voter()).collect();
        let connected = voters.iter().filter(|node| self.nodes[**node].connected()).count();
        connected > voters.len() / 2
    }

    /// A linearizable request through the member can be served.
    pub fn serves(&self, node: usize) -> bool {
        let this = &self.nodes[node];
        this.connected()
            && !this.blocked()
            && self.quorum()
            && self.leader.is_some_and(|leader| this.view == (Some(self.nodes[leader].id()), self.term))
    }

    /// The member has a quorum and a leader behind it, and nothing to apply.
    pub fn idle(&self, node: usize) -> bool {
        let this = &self.nodes[node];
        let follows = self.leader.is_some_and(|leader| this.view == (Some(self.nodes[leader].id()), self.term));
        this.connected() && self.quorum() && follows && this.applied >= self.committed
    }

    pub fn reconsider_leader(&mut self) {
        let lost = self.leader.is_some_and(|leader| !self.nodes[leader].connected()) || !self.quorum();
        if lost {
            self.leader = None;
        }
        if self.leader.is_none() && self.election.is_none() {
            self.elections += 1;
            self.election = Some(self.elections);
            let (missed, elected) = (self.rng.millis(900, 2_000), self.rng.millis(2_000, 3_000));
            self.plan_in(missed, Happening::LeaderMissed { election: self.elections });
            self.plan_in(elected, Happening::Elect { election: self.elections });
        }
    }

    pub fn lead(&mut self, leader: usize) {
        self.leader = Some(leader);
        self.term += 1;
        self.election = None;
        let (id, term) = (self.nodes[leader].id(), self.term);
        self.nodes[leader].view = (Some(id), term);
        for node in self.current() {
            if node != leader && self.nodes[node].connected() {
                let delay = self.rng.millis(1, 300);
                self.plan_in(delay, Happening::View { node, leader: id, term });
            }
        }
    }

    fn elect(&mut self) {
        let candidates: Vec<_> = self
            .current()
            .into_iter()
            .filter(|node| self.nodes[*node].voter() && self.nodes[*node].connected())
            .collect();
        if self.quorum() {
            let leader = *self.rng.pick(&candidates);
            self.lead(leader);
        } else {
            self.election = None;
        }
    }

    /// A member is connected again: it learns of the leader and of the member list.
    pub fn greet(&mut self, node: usize) {
        self.spread_member_list();
        if let Some(leader) = self.leader
            && self.nodes[node].cluster == self.cluster
        {
            let delay = self.rng.millis(1, 1_000);
            let (leader, term) = (self.nodes[leader].id(), self.term);
            self.plan_in(delay, Happening::View { node, leader, term });
        }
    }

    /// A Defragment reaches the member. Returns the number of the job.
    pub fn arrive(&mut self, job: usize) {
        let node = self.jobs[job].node;
        self.jobs[job].arrived_at = Some(self.now);
        match self.nodes[node].process {
            Process::Down => self.jobs[job].state = JobState::Gone,
            Process::Frozen => {
                self.jobs[job].state = JobState::Buffered;
                self.nodes[node].buffer.push(job);
            }
            Process::Running => {
                self.jobs[job].state = JobState::Queued;
                self.nodes[node].queue.push_back(job);
                self.pump(node);
            }
        }
    }

    pub fn new_job(&mut self, node: usize, ours: bool) -> usize {
        let (replica, lingers) = (self.watch.acting, Duration::ZERO);
        let state = JobState::Flying;
        self.jobs.push(Job {
            node,
            ours,
            state,
            leader_at_start: false,
            replica,
            arrived_at: None,
            stray: false,
            held_up: false,
            lingers,
        });
        self.jobs.len() - 1
    }

    /// Begins the next defragmentation of a member, if one waits.
    pub fn pump(&mut self, node: usize) {
        if self.nodes[node].running.is_some() || self.nodes[node].process != Process::Running {
            return;
        }
        let Some(job) = self.nodes[node].queue.pop_front() else { return };
        // Upstream's rule is 1 s per 100 MB of what is in use, and it varies.
        let share = self.rng.between(50, 150);
        let this = &mut self.nodes[node];
        let millis = 50 + (this.in_use >> 20) * 10 * share / 100 * u64::from(this.slow);
        // On a repaired cluster no deadline is too short, so that a run there has no excuse.
        let millis = if self.now > self.schedule.repaired_at { millis.min(4_000) } else { millis };
        let left = Duration::from_millis(if this.disk_full { millis / 3 + 1 } else { millis });
        this.running = Some(Running { job, left, since: self.now });
        self.jobs[job].state = JobState::Running;
        self.jobs[job].leader_at_start = self.leader == Some(node);
        self.plan_in(left, Happening::DefragEnds { node, job });
        self.on_defrag_start(job);
        self.check_now();
    }

    fn defrag_ends(&mut self, node: usize, job: usize) {
        let this = &mut self.nodes[node];
        let Some(running) = this.running.filter(|running| running.job == job) else { return };
        // Frozen in between, it ends later and has an event for that.
        if this.process != Process::Running || running.since + running.left > self.now {
            return;
        }
        // It closes the old file when no transaction reads from it any more.
        if this.snapshot_until > self.now {
            let until = this.snapshot_until;
            self.plan(until, Happening::DefragEnds { node, job });
            return;
        }
        this.running = None;
        if this.disk_full {
            this.disk_full = false;
            self.jobs[job].state = JobState::DiskFull;
        } else {
            if !std::mem::take(&mut this.no_shrink) {
                this.size = this.size.min(this.in_use + (1 << 20));
            }
            this.stale_in_use = None;
            self.jobs[job].state = JobState::Done;
        }
        self.on_defrag_end(job);
        self.pump(node);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Fault(index) => {
                // Of a replica, where it concerns one.
                self.watch.acting = index % self.hosts.len();
                self.strike(self.fault(index));
            }
            Happening::LockFault(index) => {
                if let Some(fleet) = &self.schedule.fleet {
                    self.strike_lock(fleet.lock_faults[index].1.clone());
                }
            }
            Happening::Stop(index) => {
                if let Some(fleet) = &self.schedule.fleet {
                    self.stop_replica(fleet.stops[index].1);
                }
            }
            Happening::ArmNoSpace => {
                if let Some(node) = self.current().first() {
                    self.arm_no_space(*node);
                }
            }
            Happening::DefragEnds { node, job } => self.defrag_ends(node, job),
            Happening::LeaderMissed { election } => {
                if self.election == Some(election) {
                    for node in self.current() {
                        if self.nodes[node].connected() {
                            self.nodes[node].view.0 = None;
                        }
                    }
                }
            }
            Happening::Elect { election } => {
                if self.election == Some(election) {
                    self.elect();
                }
            }
            Happening::View { node, leader, term } => {
                if term == self.term && self.nodes[node].connected() {
                    self.nodes[node].view = (Some(leader), term);
                }
            }
            other => self.pass(other),
        }
    }
}
