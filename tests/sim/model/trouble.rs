//! How faults begin and end in the world.

use std::time::Duration;

use defragd::core::cluster::{Alarm, AlarmKind, ClusterId, Member, MemberId};

use super::{Deaf, Happening, JobState, Net, Node, Process, World, node};
use crate::faults::Fault;

/// A new member's file has this much in use.
const LEAST_IN_USE: u64 = 16 << 10;

impl World {
    /// A fault's index names one of the members of now.
    fn target(&self, node: usize) -> Option<usize> {
        let current = self.current();
        (!current.is_empty()).then(|| current[node % current.len()])
    }

    /// A member that defragments, because of defragd if possible.
    fn busy(&self) -> Option<usize> {
        let running = |node: &usize| self.nodes[*node].running.map(|running| self.jobs[running.job].ours);
        let current = self.current();
        current
            .iter()
            .find(|node| running(node) == Some(true))
            .or_else(|| current.iter().find(|n| running(n).is_some()))
            .copied()
    }

    pub fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { node, down } => self.on(node, |world, node| world.kill(node, Some(down))),
            Fault::KillRunning { down } => {
                if let Some(node) = self.busy() {
                    self.kill(node, Some(down));
                }
            }
            Fault::Freeze { node, time } => self.on(node, |world, node| world.freeze(node, time)),
            Fault::FreezeRunning { time } => {
                if let Some(node) = self.busy() {
                    self.freeze(node, time);
                }
            }
            Fault::Cut { node, time } => self.on(node, |world, node| {
                world.nodes[node].cut = true;
                world.plan_in(time, Happening::Rejoin { node });
            }),
            Fault::Unreachable { node, time, refused } => self.on(node, |world, node| {
                world.nodes[node].deaf = Some(if refused { Deaf::Refusing } else { Deaf::Silent });
                world.nodes[node].connections += u64::from(refused);
                world.plan_in(time, Happening::Reachable { node });
            }),
            Fault::BreakConnections { node } => self.on(node, |world, node| world.nodes[node].connections += 1),
            Fault::LoseRunningReply => {
                if let Some(node) = self.busy() {
                    self.nodes[node].connections += 1;
                }
            }
            Fault::Election => self.leader = None,
            Fault::OperatorMoveLeader { to } => self.on(to, |world, to| {
                if world.leader.is_some() && world.nodes[to].voter() && world.nodes[to].connected() {
                    world.lead(to);
                }
            }),
            Fault::OperatorDefrag { node } => self.on(node, |world, node| {
                if world.nodes[node].voter() && world.nodes[node].process == Process::Running {
                    let job = world.new_job(node, false);
                    world.arrive(job);
                }
            }),
            Fault::DiskFull { node } => self.on(node, |world, node| world.nodes[node].disk_full = true),
            Fault::SlowDisk { node, factor, time } => self.on(node, |world, node| {
                world.nodes[node].slow = factor;
                world.plan_in(time, Happening::DiskFast { node });
            }),
            Fault::PageLost { node, time } => self.on(node, |world, node| {
                if std::mem::take(&mut world.nodes[node].has_page) {
                    world.plan_in(time, Happening::PageBack { node });
                }
            }),
            Fault::Corrupt { node, named, time } => self.on(node, |world, node| {
                let member = named.then(|| world.nodes[node].id());
                world.alarms.push(Alarm { kind: AlarmKind::Corrupt, member });
                world.plan_in(time, Happening::CorruptCleared);
            }),
            Fault::AddMember { learner } => self.add_member(learner),
            Fault::RemoveMember { node } => self.on(node, World::remove_member),
            Fault::ReplaceCluster => {
                self.cluster = ClusterId(self.cluster.0 + 1);
                self.leader = None;
                self.election = None;
                self.alarms.clear();
                self.found_cluster();
            }
            Fault::OperatorCompact => self.compact(node::whole(self.committed)),
            Fault::Load { entries, time } => {
                let before = self.load;
                self.load = f64::from(u32::try_from(entries).unwrap());
                self.plan_in(time, Happening::CalmLoad { load: before });
            }
            Fault::SlowNet { permille, time } => {
                self.net.slow = permille;
                self.plan_in(time, Happening::CalmNet);
            }
            Fault::LossyNet { drop, lose, time } => {
                (self.net.drop, self.net.lose) = (drop, lose);
                self.plan_in(time, Happening::CalmNet);
            }
            Fault::Denied { time } => self.denied_until = (self.now + time).min(self.schedule.repaired_at),
            Fault::Snapshot { node, time } => self.on(node, |world, node| {
                let until = (world.now + time).min(world.schedule.repaired_at);
                world.nodes[node].snapshot_until = world.nodes[node].snapshot_until.max(until);
            }),
            Fault::Upgrade { to, down } => self.upgrade_next(to, down),
            Fault::Downgrade { to, time } => {
                for node in self.current() {
                    self.nodes[node].downgrade_to = Some(to.to_owned());
                }
                self.plan_in(time, Happening::DowngradeOver);
            }
            Fault::NoShrink { node } => self.on(node, |world, node| world.nodes[node].no_shrink = true),
            Fault::DataDiffers { node } => self.on(node, |world, node| world.nodes[node].differs = true),
            Fault::HashWrongOnce { node } => self.on(node, |world, node| world.nodes[node].hash_wrong_once = true),
            Fault::Fragments { node } => self.on(node, |world, node| {
                let node = &mut world.nodes[node];
                // Below what NOSPACE and the emergency begin at.
                node.size = node.size.max(node.quota / 2);
                node.in_use = node.in_use.min(node.size / 10);
            }),
            other => self.strike_elsewhere(other),
        }
    }

    /// What is no fault of the servers or of the network to them.
    fn strike_elsewhere(&mut self, fault: Fault) {
        match fault {
            Fault::JournalDown { time, reads } => {
                let until = self.now + time;
                let journal = &mut self.host_mut().journal;
                journal.down_until = until;
                journal.reads_down_until = if reads { until } else { Duration::ZERO };
            }
            Fault::JournalOnce => self.host_mut().journal.fail_next = true,
            Fault::JournalSlow { each, time } => {
                let until = self.now + time;
                let journal = &mut self.host_mut().journal;
                (journal.slow_until, journal.each) = (until, each);
            }
            Fault::ClockStep { seconds } => self.host_mut().clock_offset_seconds += seconds,
            Fault::ClockStops { time } => {
                let until = self.now + time;
                let host = self.host_mut();
                if host.clock_stops.is_none() {
                    host.clock_stops = Some((until - time, until));
                }
            }
            Fault::SlotsTaken { time } => self.slots_taken_until = (self.now + time).min(self.schedule.repaired_at),
            _ => unreachable!("{fault:?} strikes the servers"),
        }
    }

    fn on(&mut self, node: usize, strike: impl FnOnce(&mut Self, usize)) {
        if let Some(node) = self.target(node) {
            strike(self, node);
        }
    }

    /// Restarts the first member of another version with this one.
    fn upgrade_next(&mut self, to: &str, down: Duration) {
        let next = self.current().into_iter().find(|node| self.nodes[*node].version != to);
        if let Some(node) = next {
            self.kill(node, Some(down));
            to.clone_into(&mut self.nodes[node].version);
        }
    }

    /// Whether a metrics page is lost for a time: it returns when that is over, also after the end of all other faults.
    pub fn a_page_is_to_return(&self) -> bool {
        self.events.values().any(|happening| matches!(happening, Happening::PageBack { .. }))
    }

    fn end_downgrade(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.downgrade_to = None);
    }

    /// Everything in memory is gone; the file is as it was before.
    pub fn kill(&mut self, node: usize, down: Option<Duration>) {
        let this = &mut self.nodes[node];
        this.process = Process::Down;
        this.snapshot_until = Duration::ZERO;
        this.connections += 1;
        let running = this.running.take().map(|running| running.job);
        let lost: Vec<_> = running.into_iter().chain(this.queue.drain(..)).chain(this.buffer.drain(..)).collect();
        for job in lost {
            self.jobs[job].state = JobState::Gone;
            self.on_defrag_end(job);
        }
        if let Some(down) = down {
            self.plan_in(down, Happening::Restart { node });
        }
    }

    fn freeze(&mut self, node: usize, time: Duration) {
        let now = self.now;
        let this = &mut self.nodes[node];
        if this.process != Process::Running {
            return;
        }
        this.process = Process::Frozen;
        if let Some(running) = &mut this.running {
            running.left = (running.since + running.left).saturating_sub(now);
        }
        self.plan_in(time, Happening::Thaw { node });
    }

    pub fn thaw(&mut self, node: usize) {
        let now = self.now;
        let this = &mut self.nodes[node];
        if this.process != Process::Frozen {
            return;
        }
        this.process = Process::Running;
        let resumed = this.running.as_mut().map(|running| {
            running.since = now;
            (running.job, running.left)
        });
        if let Some((job, left)) = resumed {
            self.plan_in(left, Happening::DefragEnds { node, job });
        }
        // What waited in the socket is served now, even if no client waits for the answer.
        for job in std::mem::take(&mut self.nodes[node].buffer) {
            self.arrive(job);
        }
        self.greet(node);
    }

    pub fn restart(&mut self, node: usize) {
        if self.nodes[node].process == Process::Down && !self.nodes[node].removed {
            self.nodes[node].process = Process::Running;
            self.nodes[node].view.0 = None;
            if self.nodes[node].member.name.is_empty() {
                // A member that was added publishes its name and its address when it starts.
                self.nodes[node].member.name = format!("etcd-new-{node}");
                self.nodes[node].member.client_urls = vec![format!("http://etcd-new-{node}:2379")];
                self.nodes[node].applied = self.committed;
                self.new_member_list();
            }
            self.greet(node);
        }
    }

    fn add_member(&mut self, learner: bool) {
        let id = MemberId((self.nodes.len() + 1) as u64);
        let Some(like) = self.current().first().copied() else { return };
        let like = &self.nodes[like];
        let node = Node {
            cluster: self.cluster,
            member: Member { id, name: String::new(), client_urls: Vec::new(), is_learner: learner },
            version: like.version.clone(),
            downgrade_to: like.downgrade_to.clone(),
            process: Process::Down,
            cut: false,
            deaf: None,
            removed: false,
            has_page: true,
            has_gauge: true,
            size: like.size,
            in_use: like.in_use,
            quota: like.quota,
            view: (None, self.term),
            index: 0.0,
            applied: 0.0,
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
        };
        self.nodes.push(node);
        self.new_member_list();
        let starts = self.rng.millis(500, 20_000);
        self.plan_in(starts, Happening::Restart { node: self.nodes.len() - 1 });
    }

    fn remove_member(&mut self, node: usize) {
        let voters = self.current().into_iter().filter(|node| self.nodes[*node].voter()).count();
        // etcd refuses to remove the last voter, and without a quorum nothing is decided.
        if voters > 1 && self.quorum() {
            let id = self.nodes[node].id();
            self.kill(node, None);
            self.nodes[node].removed = true;
            self.alarms.retain(|alarm| alarm.member != Some(id));
            if self.leader == Some(node) {
                self.leader = None;
            }
            self.new_member_list();
        }
    }

    /// The history goes: the same pages become free on each member, in its own time.
    pub(super) fn compact(&mut self, revision: u64) {
        if revision <= self.compacted {
            return;
        }
        self.compacted = revision;
        let percent = std::mem::replace(&mut self.history_percent, 0);
        for node in self.current() {
            let free = self.nodes[node].in_use / 100 * percent;
            let settles = self.rng.millis(10, 8_000);
            self.plan_in(settles, Happening::CompactionSettles { node, free });
        }
    }

    pub(super) fn pass(&mut self, happening: Happening) {
        match happening {
            Happening::Restart { node } => self.restart(node),
            Happening::Thaw { node } => self.thaw(node),
            Happening::Rejoin { node } => {
                self.nodes[node].cut = false;
                self.greet(node);
            }
            Happening::Reachable { node } => self.nodes[node].deaf = None,
            Happening::PageBack { node } => self.nodes[node].has_page = true,
            Happening::DiskFast { node } => self.nodes[node].slow = 1,
            Happening::CorruptCleared => self.alarms.retain(|alarm| alarm.kind != AlarmKind::Corrupt),
            Happening::CompactionSettles { node, free } => {
                // Without writes nothing is committed after it, and in-use is counted at a commit.
                let stale =
                    self.schedule.stale_sizes && self.alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace);
                let this = &mut self.nodes[node];
                if stale {
                    this.stale_in_use.get_or_insert(this.in_use);
                }
                this.in_use = this.in_use.saturating_sub(free).max(LEAST_IN_USE);
            }
            Happening::CalmLoad { load } => self.load = load,
            Happening::CalmNet => self.net = Net::default(),
            Happening::DowngradeOver => self.end_downgrade(),
            Happening::Repair => self.repair(),
            _ => {}
        }
    }

    fn repair(&mut self) {
        self.net = Net::default();
        for host in &mut self.hosts {
            host.journal = super::JournalHealth { life: host.journal.life, ..super::JournalHealth::default() };
            host.clock_offset_seconds = host.skew_seconds;
            host.clock_stops = None;
        }
        self.repair_lock();
        self.end_downgrade();
        if let Some(to) = self.schedule.upgrades_to() {
            for node in self.current() {
                to.clone_into(&mut self.nodes[node].version);
            }
        }
        self.alarms.retain(|alarm| alarm.kind != AlarmKind::Corrupt);
        // Also of clusters that are no longer observed: their requests come to an end.
        for node in 0..self.nodes.len() {
            self.nodes[node].disk_full = false;
            self.nodes[node].no_shrink = false;
            self.nodes[node].differs = false;
            self.nodes[node].hash_wrong_once = false;
            self.nodes[node].slow = 1;
            self.nodes[node].deaf = None;
            self.nodes[node].cut = false;
            self.thaw(node);
            self.restart(node);
            self.greet(node);
        }
        self.load = self.load.min(1_000.0);
    }
}
