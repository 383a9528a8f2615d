//! The etcd port over the model: what a client sees of it, through a network that may fail.

use std::{future::pending, sync::Arc, time::Duration};

use bytesize::ByteSize;
use defragd::{
    core::{
        cluster::{Alarm, AlarmKind, Fact, Gauges, Member, MemberId, Status, Unknown, UnknownKind},
        run::DefragError,
        verify::DataHash,
    },
    ports::etcd::{Etcd, Membership, Permit, Visit},
};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use super::{
    Door, JobState, World,
    node::{since_3_6, whole},
};
use crate::{fleet::Place, sim::Sim, stopped::Outside};

/// As the adapter has it.
const IDENTITY_CHECK: Duration = Duration::from_secs(2);
/// More calls than any schedule makes: one that makes more is in a busy loop.
const MOST_CALLS: u64 = 2_000_000;

/// The port's end at defragd; the servers are in the world.
#[derive(Clone)]
pub struct SimEtcd {
    sim: Arc<Sim>,
    /// The only endpoint, where not every member is one.
    endpoint: Option<MemberId>,
}

/// What the network does to one call.
struct Fate {
    there: Duration,
    back: Duration,
    /// The request never arrives, without an error.
    dropped: bool,
    /// The answer does not arrive: the connection breaks.
    lost: bool,
}

/// What a server makes of a call.
enum Served<T> {
    Answer(T),
    /// Not now: look again when something has changed.
    NotYet,
    Refusal(Unknown),
}

impl<T> Served<T> {
    /// With a code that says nothing else of the member.
    fn no(text: &str) -> Self {
        Self::Refusal(Unknown::new(UnknownKind::Other, text))
    }

    /// What a learner of this version says to all but `Status`.
    fn learner(version: &str) -> Self {
        Self::Refusal(not_for_learners(version))
    }
}

impl World {
    fn fate(&mut self) -> Fate {
        self.calls += 1;
        self.watch.calls += 1;
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

    fn is_denied(&self) -> bool {
        self.now < self.denied_until
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

fn denied() -> Unknown {
    Unknown::new(UnknownKind::Denied, "etcdserver: permission denied")
}

fn reset() -> Unknown {
    Unknown::new(UnknownKind::Unreachable, "connection reset by peer")
}

/// For the network's delay, which is negligible for most answers.
async fn travel(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

impl SimEtcd {
    /// With every member as an endpoint.
    pub fn new(sim: Arc<Sim>) -> Self {
        Self { sim, endpoint: None }
    }

    /// With one member as its endpoint. Only the comparison with real etcd asks one alone.
    #[allow(dead_code, reason = "used by tests/model")]
    pub fn with_endpoint(sim: Arc<Sim>, endpoint: MemberId) -> Self {
        Self { sim, endpoint: Some(endpoint) }
    }

    /// `Status` without a note that defragd has seen it.
    async fn ask_status(&self, member: &Member) -> Fact<Status> {
        self.call(member, |world: &mut World, node| {
            if world.nodes[node].blocked() {
                return Served::NotYet;
            }
            let errors = world.errors(node);
            Served::Answer(world.nodes[node].status(errors))
        })
        .await
    }

    /// One call to one member. `serve` is called again whenever something has changed at the servers.
    async fn call<T: Send + 'static>(
        &self,
        member: &Member,
        serve: impl Fn(&mut World, usize) -> Served<T> + Send + 'static,
    ) -> Fact<T> {
        let (fate, several) = {
            let mut world = self.sim.world();
            (world.fate(), world.lock.is_some())
        };
        let sent = carry(Arc::clone(&self.sim), member.clone(), fate, serve);
        // A process that is stopped has sent it all the same.
        if several { Outside::of(sent).answer().await } else { sent.await }
    }
}

/// To the member and back, wherever the caller is meanwhile.
async fn carry<T>(
    sim: Arc<Sim>,
    member: Member,
    fate: Fate,
    serve: impl Fn(&mut World, usize) -> Served<T>,
) -> Fact<T> {
    if fate.dropped {
        pending::<()>().await;
    }
    travel(fate.there).await;
    let mut connection = None;
    let answer = loop {
        let changed = sim.changed.notified();
        {
            let mut world = sim.world();
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
                Door::Open if world.is_denied() => return Err(denied()),
                Door::Open => match serve(&mut world, node) {
                    Served::Answer(answer) => break answer,
                    Served::Refusal(unknown) => return Err(unknown),
                    Served::NotYet => {}
                },
            }
        }
        changed.await;
    };
    travel(fate.back).await;
    if fate.lost { Err(reset()) } else { Ok(answer) }
}

/// A linearizable request: hangs while the member defragments or has no quorum behind it.
fn through_raft<T>(world: &mut World, node: usize, answer: impl FnOnce(&mut World) -> T) -> Served<T> {
    if world.serves(node) { Served::Answer(answer(world)) } else { Served::NotYet }
}

/// Up to 3.5 with gRPC's code "unavailable", which a client takes for an unreachable member.
fn not_for_learners(version: &str) -> Unknown {
    let kind = if since_3_6(version) { UnknownKind::Other } else { UnknownKind::Unreachable };
    Unknown::new(kind, "etcdserver: rpc not supported for learner")
}

impl Etcd for SimEtcd {
    async fn members(&self) -> Fact<Membership> {
        self.sim.world().forget_observation();
        let fate = self.sim.world().fate();
        if fate.dropped {
            pending::<()>().await;
        }
        travel(fate.there).await;
        if self.sim.world().is_denied() {
            return Err(denied());
        }
        let membership = loop {
            let changed = self.sim.changed.notified();
            {
                let mut world = self.sim.world();
                let asked = |node: &usize| self.endpoint.is_none_or(|only| world.nodes[*node].id() == only);
                let current: Vec<_> = world.current().into_iter().filter(asked).collect();
                let open: Vec<_> = current.iter().filter(|n| world.nodes[**n].door() == Door::Open).copied().collect();
                let learner = |node: &usize| world.nodes[*node].member.is_learner;
                let (learners, open): (Vec<_>, Vec<_>) = open.into_iter().partition(learner);
                if learners.len() == current.len()
                    && let Some(learner) = learners.first()
                {
                    return Err(not_for_learners(&world.nodes[*learner].version));
                }
                if !open.is_empty() {
                    // The first answer counts, and a member that is cut off has an old list.
                    let node = *world.rng.pick(&open);
                    let members = world.member_lists[world.nodes[node].member_list].clone();
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
        self.sim.world().observe_members(&membership);
        Ok(membership)
    }

    async fn status(&self, member: &Member) -> Fact<Status> {
        let answer = self.ask_status(member).await;
        self.sim.world().observe_status(member.id, &answer);
        answer
    }

    async fn linearizable_read(&self, member: &Member) -> Fact<()> {
        let answer = self
            .call(member, |world, node| {
                if world.nodes[node].member.is_learner {
                    return Served::learner(&world.nodes[node].version);
                }
                through_raft(world, node, |_| ())
            })
            .await;
        self.sim.world().observe_read(member.id, answer.is_ok());
        answer
    }

    async fn gauges(&self, member: &Member, _: Visit) -> Fact<Gauges> {
        self.sim.world().request_page(member.id);
        let answer = self
            .call(member, |world, node| {
                let now = world.now;
                let node = &world.nodes[node];
                if !node.has_page {
                    return Served::no("404 Not Found");
                }
                Served::Answer(Gauges {
                    defrag_in_flight: node.has_gauge.then_some(node.defragmenting()),
                    quota: Some(ByteSize(node.quota)),
                    db_size: Some(ByteSize(node.size)),
                    db_size_in_use: Some(ByteSize(node.reported_in_use())),
                    open_snapshots: Some(u64::from(node.snapshot_until > now)),
                    non_blocking_defrag: node.non_blocking().then_some(true),
                    stop_grpc_on_defrag: None,
                })
            })
            .await;
        self.sim.world().observe_gauges(member.id, &answer);
        answer
    }

    async fn alarms(&self, via: &Member) -> Fact<Vec<Alarm>> {
        let answer = self
            .call(via, |world, node| {
                if world.nodes[node].member.is_learner {
                    return Served::learner(&world.nodes[node].version);
                }
                // 3.4 touches the file only for writes, so that without any the list comes even from a busy member.
                if world.nodes[node].version.starts_with("3.4.")
                    && world.nodes[node].defragmenting()
                    && world.idle(node)
                {
                    return Served::Answer(world.alarms.clone());
                }
                through_raft(world, node, |world| world.alarms.clone())
            })
            .await;
        self.sim.world().observe_alarms(&answer);
        answer
    }

    async fn disarm(&self, via: &Member, alarm: Alarm) -> Fact<()> {
        self.sim.world().check_disarm(alarm);
        self.call(via, move |world, node| {
            if world.nodes[node].member.is_learner {
                return Served::learner(&world.nodes[node].version);
            }
            through_raft(world, node, |world| {
                world.alarms.retain(|armed| *armed != alarm);
                // The request itself is committed.
                world.nodes.iter_mut().for_each(|node| node.stale_in_use = None);
            })
        })
        .await
    }

    async fn compact(&self, via: &Member, revision: u64) -> Fact<()> {
        self.sim.world().check_compact(revision);
        let answer = self
            .call(via, move |world, node| {
                if world.alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
                    return Served::no("etcdserver: corrupt cluster");
                }
                if world.nodes[node].member.is_learner {
                    return Served::learner(&world.nodes[node].version);
                }
                if revision > whole(world.committed) {
                    return Served::no("etcdserver: mvcc: required revision is a future revision");
                }
                through_raft(world, node, |world| world.compact(revision))
            })
            .await;
        if answer.is_ok() {
            self.sim.world().compacted();
        }
        self.sim.planned.notify_one();
        answer
    }

    async fn move_leader(&self, leader: &Member, to: &Member) -> Fact<()> {
        let to = to.id;
        self.sim.world().check_transfer(leader.id, to);
        let answer = self
            .call(leader, move |world, node| {
                if world.nodes[node].member.is_learner {
                    return Served::learner(&world.nodes[node].version);
                }
                if world.leader != Some(node) {
                    return Served::no("etcdserver: not leader");
                }
                match world.find(to) {
                    Some(to) if world.nodes[to].voter() && world.nodes[to].connected() => {
                        world.lead(to);
                        Served::Answer(())
                    }
                    _ => Served::no("etcdserver: bad leader transferee"),
                }
            })
            .await;
        self.sim.planned.notify_one();
        answer
    }

    async fn hash(&self, member: &Member, revision: u64) -> Fact<DataHash> {
        let answer = self
            .call(member, move |world, node| {
                let this = &world.nodes[node];
                if this.blocked() {
                    return Served::NotYet;
                }
                if this.member.is_learner {
                    return Served::learner(&this.version);
                }
                let applied = whole(this.applied);
                if revision > applied {
                    return Served::no("etcdserver: mvcc: required revision is a future revision");
                }
                if revision < world.compacted.min(applied) {
                    return Served::no("etcdserver: mvcc: required revision has been compacted");
                }
                let hash = 1 + u32::from(this.differs) + 2 * u32::from(this.hash_wrong_once);
                let compact_revision = i64::try_from(world.compacted.min(applied)).unwrap();
                world.nodes[node].hash_wrong_once = false;
                Served::Answer(DataHash { hash, compact_revision })
            })
            .await;
        self.sim.world().observe_hash(member.id, &answer);
        answer
    }

    async fn defragment(&self, member: &Member, permit: &dyn Permit) -> Result<(), DefragError> {
        let look = {
            let mut world = self.sim.world();
            world.rely_on_observation();
            world.schedule.look_before_defrag
        };
        if look {
            timeout(IDENTITY_CHECK, self.ask_status(member))
                .await
                .map_err(|_| DefragError::NotSent(Unknown::timed_out("Status right before it", IDENTITY_CHECK)))?
                .map_err(DefragError::NotSent)?;
        }
        let held_up = self.sim.world().comes_by(Place::BeforePermit);
        if held_up {
            yield_now().await;
        }
        if let Some(reason) = permit.refusal() {
            return Err(DefragError::Withheld(reason));
        }
        let stray = self.sim.world().comes_by(Place::BetweenPermitAndSend);
        if stray {
            // Nothing more is polled until it wakes.
            yield_now().await;
        }
        let (node, job, fate, connection) = {
            let mut world = self.sim.world();
            let node = world.find(member.id).filter(|node| world.nodes[*node].cluster == world.cluster);
            let Some(node) = node else {
                let wrong = Unknown::new(UnknownKind::WrongMember, "another member answered");
                return Err(DefragError::NotSent(wrong));
            };
            let job = world.new_job(node, true);
            (world.jobs[job].stray, world.jobs[job].held_up) = (stray, held_up);
            world.check_send(job);
            let mut fate = world.fate();
            let often = if world.lock.is_some() { 25 } else { 5 };
            if world.now < world.schedule.repaired_at && world.rng.percent(often) {
                // A lost packet: TCP sends it again, even for a process that is gone by then.
                fate.there = world.rng.millis(0, 2_500);
            }
            if world.is_denied() {
                world.jobs[job].state = JobState::Gone;
                return Err(DefragError::Denied("etcdserver: permission denied".to_owned()));
            }
            if fate.dropped {
                world.jobs[job].state = JobState::Gone;
            }
            (node, job, fate, world.nodes[node].connections)
        };
        self.sim.changed.notify_waiters();
        if fate.dropped {
            pending::<()>().await;
        }
        // Past this point the request is in the network: it arrives whether or not a caller still waits for it.
        let sim = Arc::clone(&self.sim);
        tokio::spawn(async move { deliver(&sim, node, job, fate.there).await });
        if self.sim.world().comes_by(Place::AfterSend) {
            yield_now().await;
        }
        loop {
            let changed = self.sim.changed.notified();
            {
                let world = self.sim.world();
                if world.nodes[node].connections != connection {
                    return Err(DefragError::Lost("connection reset by peer".to_owned()));
                }
                let reachable = world.nodes[node].door() == Door::Open;
                match world.jobs[job].state {
                    JobState::Done | JobState::DiskFull if reachable => break,
                    JobState::Refused => return Err(refusal_of_learner(&world.nodes[node].version)),
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
        let state = self.sim.world().jobs[job].state;
        match state {
            JobState::DiskFull => Err(DefragError::DiskFull("no space left on device".to_owned())),
            _ => {
                self.sim.world().answered();
                Ok(())
            }
        }
    }
}

/// How the adapter distinguishes refusals from lost answers.
fn refusal_of_learner(version: &str) -> DefragError {
    let unknown = not_for_learners(version);
    match unknown.kind {
        UnknownKind::Other => DefragError::Answered(unknown.detail),
        _ => DefragError::Lost(unknown.detail),
    }
}

/// Brings a Defragment to the member, after the time it is on its way.
async fn deliver(sim: &Sim, node: usize, job: usize, there: Duration) {
    // TCP sends what was lost again, also for a process that is gone. In the field TCP_USER_TIMEOUT bounds it.
    let longest = sim.world().schedule.longest_way;
    travel(there.min(longest)).await;
    let connection = sim.world().nodes[node].connections;
    let lingers = std::mem::take(&mut sim.world().jobs[job].lingers);
    travel(lingers).await;
    {
        let mut world = sim.world();
        let broken = !lingers.is_zero() && world.nodes[node].connections != connection;
        if world.nodes[node].deaf.is_some() || broken {
            world.jobs[job].state = JobState::Gone;
        } else if world.nodes[node].member.is_learner {
            world.jobs[job].state = JobState::Refused;
        } else {
            world.arrive(job);
        }
    }
    sim.changed.notify_waiters();
    sim.planned.notify_one();
}
