//! The lives of several replicas in one schedule, each with its journal, under one lock.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use defragd::{
    app::{cluster::stop_channel, driver},
    core::{lock::Term, reason::Reason},
};
use futures_util::future::join_all;
use tokio::{
    sync::Notify,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    finale::finale,
    fleet::{Back, Fleet, Replica},
    journal::SimJournal,
    lives::{AGAIN, Asked, BOUND, Left, RESEND, alert, is_refused, left, people, resume, started, until},
    peers::{Directory, SimPeers},
    sim::Sim,
    stopped::Process,
    succession::How,
};

/// With everything repaired, the lock is held again within its TTL, some rounds, and the limits of calls that hung.
const TAKEN_OVER_WITHIN: Duration = Duration::from_mins(3);
/// Longer than any run takes on a repaired cluster.
const RETIRES_WITHIN: Duration = Duration::from_mins(30);
/// The requests of one that does not hold the lock wait.
const LOOK: Duration = Duration::from_secs(5);
/// So long without any call, nothing is under way: longer than any retry waits.
const IDLE_LOOKS: u32 = 800;

type Belief = Box<dyn Fn() -> Option<Term>>;

/// Where a replica lives.
struct SimReplica {
    sim: Arc<Sim>,
    journal: RefCell<SimJournal>,
    believes: RefCell<Option<Belief>>,
    /// Its deaths are behind it.
    settled: Cell<bool>,
    gone: Cell<bool>,
    orders: Notify,
    retires: Cell<bool>,
    directory: Directory,
}

impl SimReplica {
    fn number(&self) -> usize {
        self.sim.replica()
    }

    fn open(&self) -> usize {
        self.journal.borrow().views().iter().filter(|view| view.outcome.is_none()).count()
    }

    fn believes(&self) -> Option<Term> {
        self.believes.borrow().as_ref().and_then(|believes| believes())
    }
}

/// Lives them all. Gives the journals that are left.
pub async fn all_replicas(sim: &Arc<Sim>, fleet: &Fleet, journals: &RefCell<Vec<SimJournal>>) {
    let directory = Directory::of(fleet.replicas.len());
    let seats: Vec<_> = (0..fleet.replicas.len())
        .map(|number| {
            let sim = sim.of_replica(number);
            let journal = SimJournal::new(Arc::clone(&sim));
            SimReplica {
                sim,
                journal: RefCell::new(journal),
                believes: RefCell::default(),
                settled: Cell::default(),
                gone: Cell::default(),
                orders: Notify::new(),
                retires: Cell::default(),
                directory: directory.clone(),
            }
        })
        .collect();
    let lives = join_all(seats.iter().zip(&fleet.replicas).map(|(seat, plan)| replica(seat, plan)));
    tokio::select! {
        biased;
        _ = lives => unreachable!("the last replica is retired by the end"),
        () = beliefs(sim, &seats) => {}
        () = end(sim, &seats) => {}
    }
    // A reference cycle would never be freed.
    (0..seats.len()).for_each(|number| directory.set(number, None));
    *journals.borrow_mut() = seats.iter().map(|seat| seat.journal.borrow().clone()).collect();
}

/// Checks, at every change of the lock, which replicas believe that they hold it.
async fn beliefs(sim: &Sim, seats: &[SimReplica]) {
    loop {
        let changed = sim.lock_changed.notified();
        let believers: Vec<_> = seats.iter().filter_map(|seat| Some((seat.number(), seat.believes()?))).collect();
        sim.world().check_beliefs(&believers);
        changed.await;
    }
}

async fn replica(seat: &SimReplica, plan: &Replica) {
    let sim = &seat.sim;
    sleep_until(sim.at(plan.starts)).await;
    let asked = Rc::new(Asked::default());
    for (death, back) in &plan.deaths {
        if sim.now() >= death.at {
            continue;
        }
        let (stop, stopped) = stop_channel();
        let mut life = Box::pin(Process::of(sim, life(seat, plan, stopped, Rc::clone(&asked))));
        tokio::select! {
            biased;
            () = until(sim, death) => {}
            () = &mut life => {}
        }
        let now = sim.now();
        let mut how = How::Killed;
        if let Some(grace) = death.grace {
            sim.world().watch.note(now, || "SIGTERM to defragd".to_owned());
            // A stopped replica learns of it when it wakes.
            let heard = sim.stopped_until().unwrap_or(now);
            sim.world().watch.stop_asked = Some(heard);
            sim.world().on_holder_lost(seat.number(), How::Released);
            stop.send_replace(Some(Reason::ShuttingDown));
            if timeout(grace, &mut life).await.is_ok() {
                how = How::Released;
            }
        }
        gone(seat, how);
        asked.again.set(death.ask_again);
        drop(life);
        match back {
            Back::WithItsJournal => {}
            Back::WithAnEmptyJournal => {
                *seat.journal.borrow_mut() = SimJournal::new(Arc::clone(sim));
                sim.world().on_journal_lost();
            }
            Back::Never => {
                *seat.journal.borrow_mut() = SimJournal::new(Arc::clone(sim));
                sim.world().on_journal_lost();
                seat.gone.set(true);
                return std::future::pending().await;
            }
        }
        sleep(death.down).await;
    }
    seat.settled.set(true);
    while !seat.gone.get() {
        let (stop, stopped) = stop_channel();
        let mut life = Box::pin(Process::of(sim, life(seat, plan, stopped, Rc::clone(&asked))));
        tokio::select! {
            biased;
            () = seat.orders.notified() => {}
            () = &mut life => {}
        }
        if seat.retires.get() {
            sim.world().watch.stop_asked = Some(sim.now());
            sim.world().on_holder_lost(seat.number(), How::Released);
            stop.send_replace(Some(Reason::ShuttingDown));
            if timeout(RETIRES_WITHIN, &mut life).await.is_err() {
                sim.world().violate("liveness", "a replica does not end on a repaired cluster".to_owned());
            }
            seat.gone.set(true);
        }
        gone(seat, How::Released);
    }
    std::future::pending::<()>().await;
}

/// With everything that was under way in it; the servers continue.
fn gone(seat: &SimReplica, how: How) {
    let (sim, number) = (&seat.sim, seat.number());
    let now = sim.now();
    seat.believes.replace(None);
    seat.directory.set(number, None);
    // Closes what it left in tasks of their own.
    let _ = seat.journal.borrow().reopened();
    let mut world = sim.world();
    world.watch.note(now, || format!("defragd is gone: {how:?}"));
    if how == How::Killed {
        world.on_holder_lost(number, how);
        world.on_killed(number);
    }
}

/// One life: recovers, becomes a candidate for the lock, serves, receives what the schedule has, and releases the lock in the end.
async fn life(seat: &SimReplica, plan: &Replica, stopped: driver::Stop, asked: Rc<Asked>) {
    let sim = &seat.sim;
    let journal = seat.journal.borrow().clone();
    let peers = SimPeers { sim: Arc::clone(sim), directory: seat.directory.clone() };
    let defragd = started(sim, &journal, Some(Arc::new(peers))).await;
    let (cluster, app) = &defragd;
    seat.directory.set(seat.number(), Some(Arc::clone(app)));
    let believer = Arc::clone(cluster);
    let believes = move || believer.held_term();
    seat.believes.replace(Some(Box::new(believes)));
    let alerts = async {
        if let Some(after) = asked.again.take() {
            sleep(after).await;
            let fired = asked.fired.replace(asked.fired.get() + 1);
            alert(sim, cluster, AGAIN + fired).await;
        }
        while let Some((at, number)) = plan.alerts.get(asked.of_schedule.get()) {
            sleep_until(sim.at(*at)).await;
            if alert(sim, cluster, *number).await {
                asked.of_schedule.set(asked.of_schedule.get() + 1);
            } else {
                sleep(RESEND).await;
            }
        }
    };
    let done = |number: usize| asked.of_people.set(number + 1);
    let people = people(sim, &journal, &defragd, (&plan.people, asked.of_people.get()), done);
    let outside = async { tokio::join!(alerts, people) };
    tokio::pin!(outside);
    let mut work = std::pin::pin!(cluster.work(stopped));
    let mut keeps = std::pin::pin!(async {
        tokio::select! {
            biased;
            () = cluster.keep_lock() => {}
            never = cluster.keep_schedule() => match never {},
        }
    });
    tokio::select! {
        biased;
        () = &mut work => {}
        () = &mut keeps => unreachable!("it keeps the lock for good"),
        _ = &mut outside => tokio::select! {
            biased;
            () = &mut work => {}
            () = &mut keeps => unreachable!("it keeps the lock for good"),
        },
    }
    cluster.release_lock().await;
}

/// Everything is repaired: a replica takes the lock, serves its waiting requests, and ends; then the next one, until the
/// last has done everything that is to be done.
async fn end(sim: &Sim, seats: &[SimReplica]) {
    let repaired_at = sim.world().schedule.repaired_at;
    sleep_until(sim.at(repaired_at + Duration::from_secs(5))).await;
    while !seats.iter().all(|seat| seat.settled.get() || seat.gone.get()) {
        sleep(Duration::from_secs(1)).await;
    }
    let begun = sim.now();
    let (mut serves, mut resumed) = (0, false);
    while sim.now() - begun < BOUND {
        let Some(holder) = holder(sim, seats).await else { return };
        serves += 1;
        match serve(sim, holder, seats).await {
            Served::Lost => continue,
            // An operator sees that the cluster is paused: a resume that was given to a holder right before it died is
            // in its journal alone.
            Served::Idle if !resumed => {
                resumed = true;
                if let Some(app) = holder.directory.get(holder.number()) {
                    sim.world().watch.succession.resumed_again += 1;
                    resume(&holder.sim, &app).await;
                }
                continue;
            }
            Served::Idle => {
                sim.world().violate("liveness", "nobody does anything about the requests that are open".to_owned());
                return;
            }
            Served::All => {}
        }
        let last = seats.iter().filter(|seat| !seat.gone.get()).count() == 1;
        holder.retires.set(true);
        holder.orders.notify_one();
        while !holder.gone.get() {
            sleep(LOOK / 5).await;
        }
        if last {
            let journal = holder.journal.borrow().clone();
            // The time until the last replica is asked is not the time of a takeover.
            sim.world().watch.succession.nobody_waits();
            return finale(&holder.sim, &journal).await;
        }
    }
    sim.world().violate("liveness", format!("after {BOUND:?} and {serves} turns there still are open requests"));
}

/// The lock holder, as soon as there is one.
async fn holder<'a>(sim: &Sim, seats: &'a [SimReplica]) -> Option<&'a SimReplica> {
    let mut begun = sim.now();
    loop {
        // While a leader is defragmented under writes no lease can be renewed: not the time of a takeover.
        if !sim.world().lock_serves(true) {
            begun = sim.now();
        }
        if let Some(seat) = seats.iter().find(|seat| seat.believes().is_some()) {
            return Some(seat);
        }
        if sim.now() - begun > TAKEN_OVER_WITHIN {
            let mut world = sim.world();
            if world.locked_out() {
                world.watch.succession.locked_out = true;
            } else {
                world.violate("liveness", format!("nobody has taken the lock over within {TAKEN_OVER_WITHIN:?}"));
            }
            return None;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

enum Served {
    /// Every request has its outcome, or waits for an operator.
    All,
    /// The lock went elsewhere before.
    Lost,
    /// It does nothing about them.
    Idle,
}

async fn serve(sim: &Sim, holder: &SimReplica, seats: &[SimReplica]) -> Served {
    // Replicas without the lock keep what they forwarded until no request of it stands.
    let open = || seats.iter().filter(|seat| !seat.gone.get()).map(SimReplica::open).sum::<usize>();
    let (begun, mut idle, mut calls) = (sim.now(), 0, 0);
    // What waits for a time of day waits longer by as much as clocks were put back.
    let stepped = !sim.world().clock_is_steady();
    loop {
        if open() == 0 {
            return Served::All;
        }
        // It says so; those that do not hold the lock wait with it.
        let left = left(&holder.sim, &holder.journal.borrow());
        if left == Left::ForAnOperator || (left == Left::Waits && is_refused(&holder.sim, &holder.journal.borrow())) {
            return Served::All;
        }
        if sim.now() - begun > BOUND {
            sim.world().violate("liveness", format!("L1: after {BOUND:?} with one holder there are open requests"));
            return Served::All;
        }
        sleep(LOOK).await;
        if holder.believes().is_none() && open() > 0 {
            return Served::Lost;
        }
        let now = holder.sim.world().watch.calls;
        idle = if now == std::mem::replace(&mut calls, now) { idle + 1 } else { 0 };
        if idle > IDLE_LOOKS * if stepped { 3 } else { 1 } {
            let at = sim.now();
            holder.sim.world().watch.note(at, || "is idle with open requests".to_owned());
            return Served::Idle;
        }
    }
}
