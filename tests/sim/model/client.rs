//! The etcd port over the model: what a client sees of it, through a network that may fail.

use std::{future::pending, sync::Arc, time::Duration};

use bytesize::ByteSize;
use defragd::{
    core::{
        cluster::{Alarm, AlarmKind, Fact, Gauges, Member, Status, Unknown, UnknownKind},
        run::DefragError,
    },
    ports::etcd::{Etcd, Membership},
};
use tokio::time::{sleep, timeout};

use super::{Door, JobState, World};
use crate::sim::Sim;

/// As the adapter has it.
const IDENTITY_CHECK: Duration = Duration::from_secs(5);
/// More calls than any schedule makes: one that makes more is in a busy loop.
const MOST_CALLS: u64 = 2_000_000;

/// The port's end at defragd; the servers are in the world.
#[derive(Clone)]
pub struct SimEtcd(pub Arc<Sim>);

/// What the network does to one call.
struct Fate {
    there: Duration,
    back: Duration,
    /// The request never arrives, and nobody says so.
    dropped: bool,
    /// The answer does not arrive: the connection breaks.
    lost: bool,
}

/// What a server makes of a call.
enum Served<T> {
    Answer(T),
    /// Not now: look again when something has changed.
    NotYet,
    Refusal(String),
}

impl World {
    fn fate(&mut self) -> Fate {
        self.calls += 1;
        assert!(self.calls < MOST_CALLS, "busy loop: more than {MOST_CALLS} calls");
        let slow = self.net.slow > 0 && self.rng.permille(self.net.slow);
        let quick = |rng: &mut crate::rng::Rng| if rng.percent(90) { Duration::ZERO } else { rng.millis(1, 8) };
        let leg = |rng: &mut crate::rng::Rng| if slow { rng.millis(100, 6_000) } else { quick(rng) };
        let (there, back) = (leg(&mut self.rng), leg(&mut self.rng));
        let (drop, lose) = (self.net.drop, self.net.lose);
        let dropped = drop > 0 && self.rng.permille(drop);
        let lost = lose > 0 && self.rng.permille(lose);
        Fate { there, back, dropped, lost }
    }

    fn errors(&self, node: usize) -> Vec<String> {
        let mut errors = Vec::new();
        if self.nodes[node].view.0.is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        for alarm in &self.alarms {
            let member = alarm.member.map_or(0, |member| member.0);
            errors.push(format!("memberID:{member} alarm:{} ", alarm.kind.as_str()));
        }
        errors
    }
}

fn refused() -> Unknown {
    Unknown::new(UnknownKind::Unreachable, "connection refused")
}

fn reset() -> Unknown {
    Unknown::new(UnknownKind::Unreachable, "connection reset by peer")
}

/// For the time that the network takes; most answers take none that matters.
async fn travel(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

impl SimEtcd {
    /// `Status` without a note that defragd has seen it.
    async fn ask_status(&self, member: &Member) -> Fact<Status> {
        self.call(member, |world, node| {
            if world.nodes[node].defragmenting() {
                return Served::NotYet;
            }
            let errors = world.errors(node);
            Served::Answer(world.nodes[node].status(errors))
        })
        .await
    }

    /// One call to one member. `serve` is asked again whenever something has changed at the servers.
    async fn call<T>(&self, member: &Member, serve: impl Fn(&mut World, usize) -> Served<T>) -> Fact<T> {
        let fate = self.0.world().fate();
        if fate.dropped {
            pending::<()>().await;
        }
        travel(fate.there).await;
        let mut connection = None;
        let answer = loop {
            let changed = self.0.changed.notified();
            {
                let mut world = self.0.world();
                let Some(node) = world.find(member.id) else { return Err(refused()) };
                if member.client_urls.is_empty() {
                    return Err(Unknown::new(UnknownKind::Unreachable, "it has published no client URL"));
                }
                // The address of a member of a replaced cluster leads to one of the new cluster.
                if world.nodes[node].cluster != world.cluster {
                    return Err(Unknown::new(UnknownKind::WrongMember, "another member answered"));
                }
                let broken = *connection.get_or_insert(world.nodes[node].connections) != world.nodes[node].connections;
                if broken {
                    return Err(reset());
                }
                match world.nodes[node].door() {
                    Door::Refuses => return Err(refused()),
                    Door::Hangs => {}
                    Door::Open => match serve(&mut world, node) {
                        Served::Answer(answer) => break answer,
                        Served::Refusal(text) => return Err(Unknown::new(UnknownKind::Other, text)),
                        Served::NotYet => {}
                    },
                }
            }
            changed.await;
        };
        travel(fate.back).await;
        if fate.lost { Err(reset()) } else { Ok(answer) }
    }
}

/// A linearizable request: hangs while the member defragments or has no quorum behind it.
fn through_raft<T>(world: &mut World, node: usize, answer: impl FnOnce(&mut World) -> T) -> Served<T> {
    if world.serves(node) { Served::Answer(answer(world)) } else { Served::NotYet }
}

const LEARNER: &str = "etcdserver: rpc not supported for learner";

impl Etcd for SimEtcd {
    async fn members(&self) -> Fact<Membership> {
        self.0.world().forget_observation();
        let fate = self.0.world().fate();
        if fate.dropped {
            pending::<()>().await;
        }
        travel(fate.there).await;
        let membership = loop {
            let changed = self.0.changed.notified();
            {
                let mut world = self.0.world();
                let current = world.current();
                let open: Vec<_> = current.iter().filter(|n| world.nodes[**n].door() == Door::Open).copied().collect();
                if !open.is_empty() {
                    // The first that answers is believed, and one that is cut off knows an old list.
                    let node = *world.rng.pick(&open);
                    let members = world.rosters[world.nodes[node].roster].clone();
                    break Membership { cluster_id: world.nodes[node].cluster, members };
                }
                if current.iter().all(|node| world.nodes[*node].door() == Door::Refuses) {
                    return Err(refused());
                }
            }
            changed.await;
        };
        travel(fate.back).await;
        if fate.lost {
            return Err(reset());
        }
        self.0.world().observe_members(&membership);
        Ok(membership)
    }

    async fn status(&self, member: &Member) -> Fact<Status> {
        let answer = self.ask_status(member).await;
        self.0.world().observe_status(member.id, &answer);
        answer
    }

    async fn linearizable_read(&self, member: &Member) -> Fact<()> {
        let answer = self.call(member, |world, node| through_raft(world, node, |_| ())).await;
        self.0.world().observe_read(member.id, answer.is_ok());
        answer
    }

    async fn gauges(&self, member: &Member) -> Fact<Gauges> {
        let answer = self
            .call(member, |world, node| {
                let node = &world.nodes[node];
                if !node.has_page {
                    return Served::Refusal("404 Not Found".to_owned());
                }
                Served::Answer(Gauges {
                    defrag_in_flight: node.has_gauge.then_some(node.defragmenting()),
                    quota: Some(ByteSize(node.quota)),
                    db_size: Some(ByteSize(node.size)),
                    db_size_in_use: Some(ByteSize(node.in_use)),
                })
            })
            .await;
        self.0.world().observe_gauges(member.id, &answer);
        answer
    }

    async fn alarms(&self, via: &Member) -> Fact<Vec<Alarm>> {
        let answer = self
            .call(via, |world, node| {
                if world.nodes[node].member.is_learner {
                    return Served::Refusal(LEARNER.to_owned());
                }
                through_raft(world, node, |world| world.alarms.clone())
            })
            .await;
        self.0.world().observe_alarms(&answer);
        answer
    }

    async fn disarm(&self, via: &Member, alarm: Alarm) -> Fact<()> {
        self.0.world().check_disarm(alarm);
        self.call(via, |world, node| {
            if world.nodes[node].member.is_learner {
                return Served::Refusal(LEARNER.to_owned());
            }
            through_raft(world, node, |world| world.alarms.retain(|armed| *armed != alarm))
        })
        .await
    }

    async fn compact(&self, via: &Member, _revision: u64) -> Fact<()> {
        self.0.world().check_mutation("compact");
        let answer = self
            .call(via, |world, node| {
                if world.alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
                    return Served::Refusal("etcdserver: corrupt cluster".to_owned());
                }
                through_raft(world, node, World::compact)
            })
            .await;
        self.0.planned.notify_one();
        answer
    }

    async fn move_leader(&self, leader: &Member, to: &Member) -> Fact<()> {
        self.0.world().check_mutation("move_leader");
        let answer = self
            .call(leader, |world, node| {
                if world.nodes[node].defragmenting() {
                    return Served::NotYet;
                }
                if world.leader != Some(node) {
                    return Served::Refusal("etcdserver: not leader".to_owned());
                }
                match world.find(to.id) {
                    Some(to) if world.nodes[to].voter() && world.nodes[to].connected() => {
                        world.lead(to);
                        Served::Answer(())
                    }
                    _ => Served::Refusal("etcdserver: bad leader transferee".to_owned()),
                }
            })
            .await;
        self.0.planned.notify_one();
        answer
    }

    async fn defragment(&self, member: &Member) -> Result<(), DefragError> {
        let look = self.0.world().schedule.look_before_defrag;
        if look {
            let not_sent = |unknown: Unknown| DefragError::Answered(format!("not sent: {}", unknown.detail));
            timeout(IDENTITY_CHECK, self.ask_status(member))
                .await
                .map_err(|_| DefragError::Answered("not sent: no Status".to_owned()))?
                .map_err(not_sent)?;
        }
        let (node, job, fate, connection) = {
            let mut world = self.0.world();
            let node = world.find(member.id).filter(|node| world.nodes[*node].cluster == world.cluster);
            let Some(node) = node else { return Err(DefragError::Answered("not sent: wrong member".to_owned())) };
            let job = world.new_job(node, true);
            world.check_send(job);
            let mut fate = world.fate();
            if world.now < world.schedule.mended_at && world.rng.percent(5) {
                // A lost packet: TCP sends it again, even for a process that is gone by then.
                fate.there = world.rng.millis(0, 2_500);
            }
            if fate.dropped {
                world.jobs[job].state = JobState::Gone;
            }
            (node, job, fate, world.nodes[node].connections)
        };
        self.0.changed.notify_waiters();
        if fate.dropped {
            pending::<()>().await;
        }
        // Past this point the request is in the network: it arrives whether or not anybody waits for it.
        let sim = Arc::clone(&self.0);
        tokio::spawn(async move { deliver(&sim, node, job, fate.there).await });
        loop {
            let changed = self.0.changed.notified();
            {
                let world = self.0.world();
                if world.nodes[node].connections != connection {
                    return Err(DefragError::Lost("connection reset by peer".to_owned()));
                }
                let reachable = world.nodes[node].door() == Door::Open;
                match world.jobs[job].state {
                    JobState::Done | JobState::DiskFull if reachable => break,
                    JobState::Gone => return Err(DefragError::Lost("connection refused".to_owned())),
                    _ => {}
                }
            }
            changed.await;
        }
        travel(fate.back).await;
        if fate.lost {
            return Err(DefragError::Lost("connection reset by peer".to_owned()));
        }
        let state = self.0.world().jobs[job].state;
        match state {
            JobState::DiskFull => Err(DefragError::DiskFull("no space left on device".to_owned())),
            _ => {
                self.0.world().answered();
                Ok(())
            }
        }
    }
}

/// Brings a Defragment to the member, after the time it is on its way.
async fn deliver(sim: &Sim, node: usize, job: usize, there: Duration) {
    // TCP sends what was lost again, also for a process that is gone. In the field TCP_USER_TIMEOUT bounds it.
    let longest = sim.world().schedule.longest_way;
    travel(there.min(longest)).await;
    {
        let mut world = sim.world();
        if world.nodes[node].deaf.is_some() || world.nodes[node].member.is_learner {
            world.jobs[job].state = JobState::Gone;
        } else {
            world.arrive(job);
        }
    }
    sim.changed.notify_waiters();
    sim.planned.notify_one();
}
