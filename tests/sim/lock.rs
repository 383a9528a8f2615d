//! The lock's server: leases that expire, a queue of candidates, the oldest holds the lock. And each replica's connection
//! to it.
//!
//! Existing leases can be renewed even if nothing new can be written (NOSPACE); renewals hang while the leader of the
//! cluster with the lock is defragmented under writes, as `etcd-facts.md` says.

use std::{future::pending, sync::Arc, time::Duration};

use defragd::{
    core::{
        cluster::{AlarmKind, Fact, Unknown, UnknownKind},
        lock::{Holder, LockAnswer, Term},
    },
    ports::lock::LockStore,
};
use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};

use crate::{
    fleet::{LockFault, LockPlan},
    model::{Happening, World},
    sim::Sim,
    stopped::Outside,
};

#[derive(Debug)]
pub struct LockServer {
    plan: LockPlan,
    row: Vec<Candidate>,
    revision: u64,
    instances: u64,
    note: Option<String>,
    down_until: Duration,
    /// It was down, and its new leader gives every lease its whole time.
    to_refresh: bool,
    full_until: Duration,
    stalled_until: Duration,
    slow: (Duration, Duration),
    lossy: (u64, Duration),
    cut_until: Vec<Duration>,
    /// Of the replicas among each other: all of it, or the answers alone.
    peers_cut_until: Vec<[Duration; 2]>,
    /// Of raft, where the lock is in the cluster that is defragmented.
    raft_term: u64,
    /// Who was seen in front.
    front: Option<(usize, Term)>,
}

#[derive(Clone, Debug)]
struct Candidate {
    term: Term,
    holder: Holder,
    replica: usize,
    instance: u64,
    ends: Duration,
}

impl LockServer {
    pub fn new(plan: LockPlan, replicas: usize) -> Self {
        Self {
            plan,
            row: Vec::new(),
            revision: 0,
            instances: 0,
            note: None,
            down_until: Duration::ZERO,
            to_refresh: false,
            full_until: Duration::ZERO,
            stalled_until: Duration::ZERO,
            slow: (Duration::ZERO, Duration::ZERO),
            lossy: (0, Duration::ZERO),
            cut_until: vec![Duration::ZERO; replicas],
            peers_cut_until: vec![[Duration::ZERO; 2]; replicas],
            raft_term: 0,
            front: None,
        }
    }

    fn lease(&self) -> Duration {
        self.plan.ttl - self.plan.ttl * self.plan.fast_permille / 1000
    }
}

impl World {
    pub fn lock_server(&mut self) -> &mut LockServer {
        self.lock.as_mut().expect("only with several replicas")
    }

    pub fn strike_lock(&mut self, fault: LockFault) {
        let now = self.now;
        let server = self.lock_server();
        let until = match fault {
            LockFault::Cut { replica, time } => {
                server.cut_until[replica] = now + time;
                now + time
            }
            LockFault::Down { time, refreshes } => {
                (server.down_until, server.to_refresh) = (now + time, refreshes);
                now + time
            }
            LockFault::Peers { replica, answers_only, time } => {
                server.peers_cut_until[replica][usize::from(answers_only)] = now + time;
                return;
            }
            LockFault::Slow { most, time } => {
                server.slow = (most, now + time);
                return;
            }
            LockFault::Lossy { permille, time } => {
                server.lossy = (permille, now + time);
                return;
            }
            LockFault::Full { time } => {
                server.full_until = now + time;
                now + time
            }
            LockFault::Stall { time } => {
                server.stalled_until = now + time;
                now + time
            }
        };
        // What hangs looks again then.
        self.plan(until, Happening::LockChanges);
    }

    /// What the network does to a call between two replicas: its ways, whether it arrives, and whether its answer does.
    pub fn peer_fate(&mut self, one: usize, other: usize) -> (Duration, Duration, bool, bool) {
        let (there, back) = (self.rng.millis(0, 5), self.rng.millis(0, 5));
        let now = self.now;
        let server = self.lock_server();
        let [cut, lost] = [0, 1].map(|kind| [one, other].iter().any(|end| now < server.peers_cut_until[*end][kind]));
        (there, back, cut, !cut && lost)
    }

    pub fn repair_lock(&mut self) {
        let Some(server) = &mut self.lock else { return };
        let none = Duration::ZERO;
        (server.down_until, server.full_until, server.stalled_until) = (none, none, none);
        (server.slow, server.lossy) = ((none, none), (0, none));
        server.cut_until.fill(none);
        server.peers_cut_until.fill([none; 2]);
    }

    pub fn lock_serves(&self, renewal: bool) -> bool {
        let Some(server) = &self.lock else { return false };
        let stalled = if server.plan.in_target {
            let Some(leader) = self.leader.filter(|_| self.quorum()) else { return false };
            self.nodes[leader].defragmenting() && self.load > 0.0
        } else {
            false
        };
        self.now >= server.down_until && !(renewal && (stalled || self.now < server.stalled_until))
    }

    fn lock_is_full(&self) -> bool {
        let Some(server) = &self.lock else { return false };
        self.now < server.full_until || (server.plan.in_target && !self.alarms.is_empty())
    }

    /// Leases run out, where there is a leader to see to it.
    fn settle_lock(&mut self) {
        if !self.lock_serves(false) {
            return;
        }
        let (now, raft_term) = (self.now, self.term);
        let server = self.lock_server();
        let elected = server.plan.in_target && std::mem::replace(&mut server.raft_term, raft_term) != raft_term;
        let lease = server.lease();
        if elected || std::mem::take(&mut server.to_refresh) {
            server.row.iter_mut().for_each(|candidate| candidate.ends = candidate.ends.max(now + lease));
        }
        server.row.retain(|candidate| candidate.ends > now);
        let front = server.row.first().map(|first| (first.replica, first.term));
        if server.front != front {
            server.front = front;
            self.watch.note(now, || format!("lock: held by {front:?} (replica, term)"));
        }
    }

    /// Who has the lock by the server's word: the replica and the term.
    pub fn lock_holder(&mut self) -> Option<(usize, Term)> {
        self.settle_lock();
        let now = self.now;
        // An expired lease has no owner, even before the server has removed it.
        self.lock_server().row.first().filter(|first| first.ends > now).map(|first| (first.replica, first.term))
    }

    /// There is no candidate and there can be none: under NOSPACE nothing new is written, and only an operator can fix it.
    pub fn locked_out(&mut self) -> bool {
        self.settle_lock();
        let in_target = self.lock_server().plan.in_target;
        in_target
            && self.alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace)
            && self.lock_server().row.is_empty()
    }
}

/// One process's way to the lock.
pub struct SimLock {
    sim: Arc<Sim>,
    me: Holder,
    /// Another after each start: the lease of the process before is not ours.
    instance: u64,
}

/// The store of this replica, where there are several.
pub fn lock_of(sim: &Arc<Sim>) -> Option<(Arc<dyn LockStore>, String)> {
    let replica = sim.replica();
    let mut world = sim.world();
    let server = world.lock.as_mut()?;
    server.instances += 1;
    let me = Holder { name: format!("replica-{replica}"), url: Some(format!("http://replica-{replica}")) };
    let name = me.name.clone();
    Some((Arc::new(SimLock { sim: Arc::clone(sim), me, instance: server.instances }), name))
}

fn no_answer() -> Unknown {
    Unknown::new(UnknownKind::TimedOut, "the lock's server does not answer")
}

fn full() -> Unknown {
    Unknown::new(UnknownKind::Other, "etcdserver: mvcc: database space exceeded")
}

impl SimLock {
    /// One call. It continues at the server while this process is stopped.
    async fn call<T: Send + 'static>(
        &self,
        renewal: bool,
        serve: impl FnOnce(&mut World) -> Fact<T> + Send + 'static,
    ) -> Fact<T> {
        let sim = Arc::clone(&self.sim);
        let (there, back, cut, lost, limit) = {
            let mut world = sim.world();
            let (now, replica) = (world.now, sim.replica());
            let server = world.lock_server();
            let (most, lossy, cut) = (server.slow, server.lossy, now < server.cut_until[replica]);
            let limit = server.plan.call_limit;
            let most = if now < most.1 { u64::try_from(most.0.as_millis()).unwrap() } else { 5 };
            let (there, back) = (world.rng.millis(0, most), world.rng.millis(0, most));
            (there, back, cut, now < lossy.1 && world.rng.permille(lossy.0), limit)
        };
        let at_the_server = Outside::of(async move {
            sleep(there).await;
            if cut {
                pending::<()>().await;
            }
            let answer = loop {
                let changed = sim.changed.notified();
                {
                    let mut world = sim.world();
                    world.settle_lock();
                    if world.lock_serves(renewal) {
                        break serve(&mut world);
                    }
                }
                changed.await;
            };
            sleep(back).await;
            if lost { Err(no_answer()) } else { answer }
        });
        timeout(limit, at_the_server.answer()).await.unwrap_or_else(|_| Err(no_answer()))
    }

    async fn elsewhere(&self, refusal: Unknown) -> Fact<LockAnswer> {
        if refusal.kind == UnknownKind::TimedOut {
            return Err(refusal);
        }
        let first = self.call(false, |world| Ok(world.lock_server().row.first().cloned())).await?;
        let other = first.filter(|first| first.holder != self.me).ok_or(refusal)?;
        Ok(LockAnswer::Elsewhere { holder: other.holder })
    }

    async fn stand_now(&self) -> Fact<LockAnswer> {
        let (instance, replica, me) = (self.instance, self.sim.replica(), self.me.clone());
        let renewed = self.call(true, move |world| {
            let (now, lease) = (world.now, world.lock_server().lease());
            let ours = world.lock_server().row.iter_mut().find(|candidate| candidate.instance == instance);
            Ok(ours.map(|candidate| {
                candidate.ends = now + lease;
                candidate.term
            }))
        });
        let mine = match renewed.await? {
            Some(term) => term,
            None => {
                let stands = self.call(false, move |world| {
                    if world.lock_is_full() {
                        return Err(full());
                    }
                    let now = world.now;
                    let server = world.lock_server();
                    server.revision += 1;
                    let (term, ends) = (Term(server.revision), now + server.lease());
                    server.row.push(Candidate { term, holder: me, replica, instance, ends });
                    world.settle_lock();
                    Ok(term)
                });
                match stands.await {
                    Ok(term) => term,
                    // Whose it is can be read all the same.
                    Err(refusal) => return self.elsewhere(refusal).await,
                }
            }
        };
        let first = self.call(false, |world| Ok(world.lock_server().row.first().cloned()));
        let ttl = self.sim.world().lock_server().plan.ttl;
        match first.await? {
            Some(first) if first.term == mine => Ok(LockAnswer::Held { term: mine, ttl }),
            Some(first) => Ok(LockAnswer::Elsewhere { holder: first.holder }),
            None => Err(Unknown::new(UnknownKind::Other, "our lease ran out meanwhile")),
        }
    }
}

impl LockStore for SimLock {
    fn renew_candidacy(&self) -> BoxFuture<'_, Fact<LockAnswer>> {
        Box::pin(async {
            let standing = self.stand_now().await;
            if let Ok(LockAnswer::Held { term, .. }) = &standing {
                self.sim.world().on_lock_held(*term);
            }
            self.sim.lock_changed.notify_waiters();
            standing
        })
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let instance = self.instance;
            let released = self.call(false, move |world| {
                world.lock_server().row.retain(|candidate| candidate.instance != instance);
                world.settle_lock();
                Ok(())
            });
            let _ = released.await;
        })
    }

    fn write_note<'a>(&'a self, term: Term, note: &'a str) -> BoxFuture<'a, Fact<()>> {
        let note = note.to_owned();
        Box::pin(self.call(false, move |world| {
            if world.lock_is_full() {
                return Err(full());
            }
            let server = world.lock_server();
            if server.row.first().is_none_or(|first| first.term != term) {
                return Err(Unknown::new(UnknownKind::Other, "the lock is another's"));
            }
            server.note = Some(note.clone());
            world.on_note(&note);
            Ok(())
        }))
    }

    fn read_note(&self) -> BoxFuture<'_, Fact<Option<String>>> {
        Box::pin(self.call(false, |world| Ok(world.lock_server().note.clone())))
    }
}
