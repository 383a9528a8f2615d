//! The lives of defragd in one schedule: it starts, serves, is stopped or killed, and starts again.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use defragd::{
    app::{
        cluster::{Cluster, ClusterChange, Shared, stop_channel},
        notify::Notifications,
        service::App,
    },
    config::ClusterSettings,
    core::{
        cluster::AlarmKind,
        history::{AlertKey, Labels, Outcome, RunView},
        hold::{Hold, RequestView},
        ledger::Ledger,
        policy::Policy,
        reason::Reason,
    },
    ports::{
        peers::Peers,
        service::{Command, CommandOutcome, Service},
    },
    telemetry::counters::Counters,
};
use jiff::Timestamp;
use tokio::{
    sync::Semaphore,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    due::{UNTIL_MISSED, is_kept},
    faults::{Death, Schedule},
    finale::{finale, may_end_so},
    gates::gates,
    invariants::{Own, Violation, Watch},
    journal::{SimClock, SimJournal, wall_clock},
    lock::lock_of,
    model::{SimEtcd, World},
    peers::number as number_of,
    people::Person,
    replicas::all_replicas,
    sim::Sim,
    succession::How,
    truth,
};

/// A run that is not over by then hangs: 6 deadlines of 10 min, waits for a recovery, and as much again.
pub const BOUND: Duration = Duration::from_hours(4);
/// Starts that may be needed at the end until every request has its outcome.
const STARTS_TO_CLOSE: u32 = 4;
/// How long Alertmanager waits before it sends again what was not taken.
pub const RESEND: Duration = Duration::from_secs(10);

/// Longer than any outage of a schedule.
const TRIES_TO_RESUME: u32 = 60;
/// The first number of an alert that fires again after a start.
pub const AGAIN: usize = 100;

pub type Defragd = (Arc<Cluster<SimEtcd, SimJournal>>, Arc<App<SimEtcd, SimJournal>>);

/// What one schedule came to.
#[derive(Debug)]
pub struct Report {
    pub violation: Option<Violation>,
    pub outcomes: Vec<(&'static str, &'static str)>,
    pub sends: u64,
    pub calls: u64,
    pub leases_lost: u64,
    pub compactions: u64,
    pub transfers: u64,
    pub disarms: u64,
    pub digest: u64,
    pub virtual_time: Duration,
    pub trace: Vec<String>,
    /// Starts beyond the first that were needed at the end to close every run.
    pub extra_starts: u32,
    /// The kinds of faults in its schedule.
    pub faults: Vec<String>,
    /// With several replicas.
    pub fleet: Option<FleetReport>,
}

/// What came of the lock.
#[derive(Debug)]
pub struct FleetReport {
    pub ttl: Duration,
    pub gains: Vec<(How, Duration)>,
    pub acts: Vec<(How, Duration)>,
    /// Stray Defragments, those without the lock, overlaps, and those on old facts.
    pub strays: [u64; 4],
    /// Pauses that were acknowledged, and those that got into a note.
    pub pauses: [u64; 3],
    pub locked_out: bool,
}

/// Plays the schedule of a seed from its beginning to its end.
pub fn play(seed: u64, traced: bool, replicas_percent: u64) -> Report {
    let schedule = Schedule::draw(seed).with_replicas(replicas_percent);
    let faults = schedule.fault_names();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut watch = Watch::new(traced);
        watch.note(Duration::ZERO, || format!("{schedule:#?}"));
        let sim = Sim::new(World::new(schedule, watch));
        let moving = tokio::spawn(Arc::clone(&sim).run());
        let watching = tokio::spawn(truth::watch(Arc::clone(&sim)));
        let journals = RefCell::default();
        let extra_starts = live(&sim, &journals).await;
        moving.abort();
        watching.abort();
        let mut world = sim.world();
        if let Some(trace) = &mut world.watch.trace {
            trace.push("end".to_owned());
        }
        Report {
            violation: world.watch.violation.clone(),
            outcomes: journals
                .borrow()
                .iter()
                .flat_map(SimJournal::views)
                .filter_map(|view| view.outcome)
                .map(|outcome| (outcome.label(), outcome.reason().map_or("none", Reason::label)))
                .collect(),
            sends: of_all(&world, |own| own.sends),
            calls: world.calls,
            leases_lost: world.watch.leases_lost,
            compactions: of_all(&world, |own| own.orders.compactions),
            transfers: of_all(&world, |own| own.orders.transfers),
            disarms: of_all(&world, |own| own.orders.disarms),
            digest: world.watch.digest,
            virtual_time: world.now,
            trace: world.watch.trace.take().unwrap_or_default(),
            extra_starts,
            faults,
            fleet: fleet_report(&world),
        }
    })
}

fn of_all(world: &World, count: impl Fn(&Own) -> u64) -> u64 {
    world.watch.all().iter().map(count).sum()
}

fn fleet_report(world: &World) -> Option<FleetReport> {
    let succession = &world.watch.succession;
    Some(FleetReport {
        ttl: world.schedule.fleet.as_ref()?.lock.ttl,
        gains: succession.gains.clone(),
        acts: succession.acts.clone(),
        strays: [succession.strays, succession.strays_without_lock, succession.overlaps, succession.stale],
        pauses: world.pauses(),
        locked_out: succession.locked_out,
    })
}

/// `peers` are the other replicas, where there are some.
pub fn boot(sim: &Arc<Sim>, journal: &SimJournal, peers: Option<Arc<dyn Peers>>) -> Defragd {
    sim.world().watch.stop_asked = None;
    sim.world().watch.quotas.clear();
    let now = sim.now();
    sim.world().watch.note(now, || "defragd starts".to_owned());
    let clock = Arc::new(SimClock(Arc::clone(sim)));
    let mut shared = Shared::new(journal.reopened(), Counters::new(["a"]), clock, Notifications::default(), 1);
    shared.slots = shared_slots(sim);
    let shared = Arc::new(shared);
    let cluster =
        Cluster::new(settings(sim), SimEtcd::new(Arc::clone(sim)), Arc::clone(&shared)).with_gates(gates(sim));
    let cluster = Arc::new(match lock_of(sim) {
        Some((lock, name)) => match peers {
            Some(peers) => cluster.with_lock(lock, &name).with_peers(peers),
            None => cluster.with_lock(lock, &name),
        },
        None => cluster,
    });
    (Arc::clone(&cluster), Arc::new(App::new(vec![cluster], shared)))
}

/// The configuration of now.
fn settings(sim: &Sim) -> ClusterSettings {
    ClusterSettings {
        name: "a".to_owned(),
        // No alert concerns it by its labels.
        matches: Some(Vec::new()),
        policy: sim.world().schedule.policy.clone(),
        ..ClusterSettings::default()
    }
}

/// The slots of the process, which other clusters' runs sometimes occupy.
fn shared_slots(sim: &Arc<Sim>) -> Arc<Semaphore> {
    let slots = Arc::new(Semaphore::new(1));
    let (sim, others) = (Arc::clone(sim), Arc::downgrade(&slots));
    tokio::spawn(async move {
        loop {
            sim.changed.notified().await;
            let Some(slots) = others.upgrade() else { return };
            let until = sim.world().slots_taken_until;
            if until > sim.now() {
                let _taken = slots.acquire_owned().await;
                sleep_until(sim.at(until)).await;
            }
        }
    });
    slots
}

pub fn broken(sim: &Sim) -> bool {
    sim.world().watch.violation.is_some()
}

/// The alerts that were sent, over all lives.
#[derive(Default)]
pub struct Asked {
    /// How many of the schedule's requests were taken.
    pub of_schedule: Cell<usize>,
    /// How many of the operators' actions are done.
    pub of_people: Cell<usize>,
    /// One that is to come after the next start.
    pub again: Cell<Option<Duration>>,
    /// How many of those came.
    pub fired: Cell<usize>,
}

/// Ends soon after the first violation: what comes after it proves nothing.
async fn until_broken(sim: &Sim) {
    while !broken(sim) {
        sim.changed.notified().await;
    }
}

async fn live(sim: &Arc<Sim>, journals: &RefCell<Vec<SimJournal>>) -> u32 {
    let fleet = sim.world().schedule.fleet.clone();
    let lives = async {
        if let Some(fleet) = fleet {
            all_replicas(sim, &fleet, journals).await;
            return 0;
        }
        let journal = SimJournal::new(Arc::clone(sim));
        journals.borrow_mut().push(journal.clone());
        Box::pin(all_lives(sim, &journal)).await
    };
    tokio::select! {
        biased;
        extra = Box::pin(lives) => extra,
        () = until_broken(sim) => 0,
    }
}

async fn all_lives(sim: &Arc<Sim>, journal: &SimJournal) -> u32 {
    let (deaths, repaired_at) = {
        let world = sim.world();
        (world.schedule.deaths.clone(), world.schedule.repaired_at)
    };
    let asked = Rc::new(Asked::default());
    for (number, death) in deaths.into_iter().enumerate() {
        if sim.now() >= death.at {
            continue;
        }
        let (stop, stopped) = stop_channel();
        let mut serving = Box::pin(serve(sim, journal, stopped, Rc::clone(&asked)));
        tokio::select! {
            biased;
            () = until(sim, &death) => {}
            () = &mut serving => {}
        }
        let now = sim.now();
        if let Some(grace) = death.grace {
            sim.world().watch.note(now, || "SIGTERM to defragd".to_owned());
            sim.world().watch.stop_asked = Some(now);
            stop.send_replace(Some(Reason::ShuttingDown));
            // In defragd only the work ends by itself; here the alerts stop being heard with it.
            let _ = timeout(grace, &mut serving).await;
        }
        let now = sim.now();
        sim.world().watch.note(now, || "defragd is gone".to_owned());
        asked.again.set(death.ask_again);
        // With everything that was under way in it; the servers continue.
        drop(serving);
        let _ = journal.reopened();
        sleep(death.down).await;
        let mode = sim.world().schedule.modes.get(number).copied();
        if let Some(mode) = mode {
            sim.world().change_mode(mode);
        }
    }
    // The last life lasts past the end of all faults, and with a schedule long enough to miss a due time.
    let lasts = if sim.world().schedule.cadence.is_some() { UNTIL_MISSED } else { Duration::from_secs(5) };
    let mut extra = 0;
    loop {
        let (_stop, stopped) = stop_channel();
        let serving = serve(sim, journal, stopped, Rc::clone(&asked));
        let closed = async {
            sleep_until(sim.at(repaired_at + lasts)).await;
            settle(sim, journal).await
        };
        let closed = tokio::select! {
            biased;
            closed = closed => closed,
            () = serving => false,
        };
        // As above: what was under way in it is gone.
        let _ = journal.reopened();
        if closed {
            break;
        }
        extra += 1;
        if extra > STARTS_TO_CLOSE {
            sim.world().violate("I6", format!("requests without an outcome after {extra} starts"));
            return extra;
        }
    }
    finale(sim, journal).await;
    extra
}

/// The moment of a death. One that waits for a Defragment waits at most until everything is repaired.
pub async fn until(sim: &Sim, death: &Death) {
    sleep_until(sim.at(death.at)).await;
    let Some(after) = death.after_send else { return };
    let sends = sim.world().watch.sends;
    let repaired_at = sim.world().schedule.repaired_at;
    let sent = async {
        loop {
            let changed = sim.changed.notified();
            if sim.world().watch.sends > sends {
                return sleep(after).await;
            }
            changed.await;
        }
    };
    tokio::select! {
        biased;
        () = sent => {}
        () = sleep_until(sim.at(repaired_at)) => {}
    }
}

/// One life: recovers, serves, and receives the alerts of the schedule.
async fn serve(sim: &Arc<Sim>, journal: &SimJournal, stopped: defragd::app::driver::Stop, asked: Rc<Asked>) {
    let defragd = started(sim, journal, None).await;
    let cluster = &defragd.0;
    let requests = sim.world().schedule.requests.clone();
    let alerts = async {
        if let Some(after) = asked.again.take() {
            sleep(after).await;
            let fired = asked.fired.replace(asked.fired.get() + 1);
            // Not sent again where the journal refuses it: the others are.
            alert(sim, cluster, AGAIN + fired).await;
        }
        while asked.of_schedule.get() < requests.len() {
            let number = asked.of_schedule.get();
            sleep_until(sim.at(requests[number])).await;
            if alert(sim, cluster, number).await {
                asked.of_schedule.set(number + 1);
            } else {
                sleep(RESEND).await;
            }
        }
    };
    let done = |number: usize| asked.of_people.set(number + 1);
    let all = sim.world().schedule.people.clone();
    let people = people(sim, journal, &defragd, (&all, asked.of_people.get()), done);
    let outside = async { tokio::join!(alerts, people) };
    tokio::pin!(outside);
    let watched = holds_are_shown(sim, journal, cluster);
    let kept = is_kept(sim, journal);
    let work = async {
        tokio::select! {
            biased;
            () = cluster.work(stopped) => {}
            never = cluster.keep_schedule() => match never {},
            () = watched => {}
            () = kept => {}
        }
    };
    tokio::pin!(work);
    tokio::select! {
        biased;
        () = &mut work => {}
        _ = &mut outside => work.await,
    }
}

/// A process that has resumed what the one before left.
pub async fn started(sim: &Arc<Sim>, journal: &SimJournal, peers: Option<Arc<dyn Peers>>) -> Defragd {
    loop {
        let (cluster, app) = boot(sim, journal, peers.clone());
        match app.recover().await {
            Ok(()) => return (cluster, app),
            // The process ends with an error, and its supervisor starts it again.
            Err(_) => sleep(Duration::from_secs(5)).await,
        }
    }
}

/// The operators' actions during the schedule. They repeat what a crash interrupted.
pub async fn people(
    sim: &Arc<Sim>,
    journal: &SimJournal,
    (cluster, app): &Defragd,
    (people, from): (&[(Duration, Person)], usize),
    done: impl Fn(usize),
) {
    for (number, (at, person)) in people.iter().cloned().enumerate().skip(from) {
        sleep_until(sim.at(at)).await;
        let now = sim.now();
        sim.world().watch.note(now, || format!("a person: {person:?}"));
        match person {
            Person::Pause { by, lasts } => {
                let pause = Command::Pause { reason: "r".to_owned(), lasts };
                match app.command("a", by.to_owned(), pause, false).await {
                    Ok(CommandOutcome::Done(_)) => sim.world().on_paused(by, lasts.map(|lasts| now + lasts)),
                    Ok(CommandOutcome::Forwarded { holder, .. }) => {
                        let holder = sim.of_replica(number_of(&holder));
                        holder.world().on_paused(by, lasts.map(|lasts| now + lasts));
                    }
                    Err(_) => {}
                }
            }
            Person::Resume => resume(sim, app).await,
            Person::Cancel => {
                let cancel = Command::Cancel { reason: "r".to_owned() };
                if let Ok(outcome) = app.command("a", "p".to_owned(), cancel, false).await {
                    sim.world().watch.orders.withdrawn = true;
                    match outcome {
                        CommandOutcome::Done(_) => sim.world().on_cancelled(),
                        CommandOutcome::Forwarded { holder, .. } => {
                            sim.of_replica(number_of(&holder)).world().on_cancelled();
                        }
                    }
                }
            }
            Person::Reload { mode } => {
                sim.world().change_mode(mode);
                let settings = settings(sim);
                cluster.follow(ClusterChange { settings, gates: gates(sim), etcd: None });
            }
            Person::Approve => approve(journal, app).await,
            Person::Reject => {
                let waiting = journal.views().into_iter().rev().find(|view| view.outcome.is_none());
                if let Some(view) = waiting
                    && app.reject(view.id, "p".to_owned(), "r".to_owned(), false).await.is_ok()
                {
                    // What fires is sent again.
                    for key in view.open_alerts().filter(|key| key.due().is_none()) {
                        send(sim, cluster, key.clone()).await;
                    }
                }
            }
            Person::Run => {
                let _ = app.command("a", "p".to_owned(), Command::Run { members: Vec::new() }, false).await;
            }
            Person::Resolve { alert } => {
                // It is sent again or not: a later notification would be of another alert.
                let key = key_in_other_words(alert);
                sim.world().watch.orders.resolving.insert(key.fingerprint.clone());
                let known = cluster.resolve(vec![key.clone()]).await.is_ok();
                let mut world = sim.world();
                let now = world.now;
                world.watch.orders.resolving.remove(&key.fingerprint);
                if known {
                    world.watch.orders.resolved.insert(key.fingerprint, now);
                }
            }
        }
        done(number);
    }
}

pub async fn resume(sim: &Sim, app: &Arc<App<SimEtcd, SimJournal>>) {
    sim.world().on_resume();
    // The operator who paused also ends the pause.
    // If the lock is out of reach for good, no replica can take it.
    for _ in 0..TRIES_TO_RESUME {
        let order = Command::Resume { reason: "r".to_owned() };
        if app.command("a", "p".to_owned(), order, false).await.is_ok() {
            return;
        }
        sleep(RESEND).await;
    }
}

pub async fn approve(journal: &SimJournal, app: &Arc<App<SimEtcd, SimJournal>>) {
    let waiting = journal.views().into_iter().rev().find(|view| view.outcome.is_none());
    if let Some(view) = waiting {
        let _ = app.approve(view.id, "p".to_owned(), false).await;
    }
}

pub fn key(number: usize) -> AlertKey {
    key_since(number, "2026-09-21T14:00:00.12Z")
}

/// The same as another Alertmanager writes it.
fn key_in_other_words(number: usize) -> AlertKey {
    key_since(number, "2026-09-21T14:00:00.120Z")
}

fn key_since(number: usize, starts_at: &str) -> AlertKey {
    let labels = Labels::from([("alertname".to_owned(), format!("Alert{number}"))]);
    AlertKey::new(format!("alert-{number}"), starts_at).described(&labels, "much is free")
}

/// Sends an alert once or twice, as the schedule has it.
pub async fn alert(sim: &Sim, cluster: &Arc<Cluster<SimEtcd, SimJournal>>, number: usize) -> bool {
    let taken = send(sim, cluster, key(number)).await;
    let twice = sim.world().schedule.sent_twice;
    if taken && twice {
        let soon = sim.world().rng.millis(1, 2_000);
        sleep(soon).await;
        // Also if the first one says meanwhile that it is over: for this one it fires.
        send(sim, cluster, key_in_other_words(number)).await;
    }
    taken
}

async fn send(sim: &Sim, cluster: &Arc<Cluster<SimEtcd, SimJournal>>, key: AlertKey) -> bool {
    let fingerprint = key.fingerprint.clone();
    let resolved = sim.world().watch.orders.resolved.remove(&fingerprint);
    let taken = cluster.request(vec![key]).await.is_ok();
    if let Some(at) = resolved.filter(|_| !taken) {
        sim.world().watch.orders.resolved.insert(fingerprint, at);
    }
    taken
}

/// What is left of the requests, as the page and the API show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Nothing,
    /// Work that is under way, or due.
    Work,
    /// It continues by itself within `BOUND`.
    Waits,
    /// Only an operator shortens this.
    ForAnOperator,
}

pub fn left(sim: &Sim, journal: &SimJournal) -> Left {
    let (policy, now) = {
        let world = sim.world();
        (world.schedule.policy.clone(), wall_clock(&world))
    };
    let ledger = journal.ledger();
    check_limits(sim, &ledger, &policy, now);
    let within_bound = |at: Timestamp| at.duration_since(now).as_secs_f64() < BOUND.as_secs_f64();
    let Some(open) = ledger.runs.iter().find(|run| run.outcome.is_none()) else {
        return match ledger.next_attempt(now) {
            None => Left::Nothing,
            Some(next) if next.at <= now => Left::Work,
            Some(next) if within_bound(next.at) => Left::Waits,
            Some(_) => Left::ForAnOperator,
        };
    };
    match hold(sim, &ledger, open, &policy, now) {
        Some(Hold::Wait { until: Some(until), .. }) if within_bound(until) => Left::Waits,
        Some(Hold::Wait { .. }) => Left::ForAnOperator,
        Some(Hold::End(_)) | None => Left::Work,
    }
}

/// What holds an open request: nothing, once its run is under way, for it keeps the mode in which it began. NOSPACE waits
/// for no window, cooldown or limit.
fn hold(sim: &Sim, ledger: &Ledger, open: &RunView, policy: &Policy, now: Timestamp) -> Option<Hold> {
    if sim.world().is_under_way(open.id) {
        return None;
    }
    let no_space = sim.world().alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace);
    let emergency = policy.emergency && no_space;
    let hold = ledger.hold(open, policy, emergency, now);
    if let Some(Hold::Wait { reason, .. }) = &hold
        && emergency
        && matches!(reason.label(), "cooldown" | "retry_pending" | "daily_limit" | "outside_window")
    {
        sim.world().violate("L2", format!("run {} waits without space: {reason}", open.id));
    }
    hold
}

/// L2: no limit outlives its cause.
fn check_limits(sim: &Sim, ledger: &Ledger, policy: &Policy, now: Timestamp) {
    const SLACK: Duration = Duration::from_mins(1);
    const LONGEST_RETRY: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);
    let cooldown = match ledger.cooldown(policy, now) {
        Some(Reason::Cooldown { until }) => Some(("cooldown", until, policy.cooldown)),
        _ => None,
    };
    let daily = match ledger.daily_limit(policy, now) {
        Some(Reason::DailyLimit { until, .. }) => Some(("daily limit", until, DAY)),
        _ => None,
    };
    let retry = ledger.next_attempt(now).map(|next| ("next run", next.at, LONGEST_RETRY));
    if let Some((_, until, cooldown)) = cooldown {
        let from = |run: &&RunView| run.finished_at.is_some_and(|ended| ended + cooldown == until);
        let failed = |run: &&RunView| matches!(run.outcome, Some(Outcome::Failed { .. } | Outcome::Interrupted { .. }));
        if let Some(run) = ledger.runs.iter().filter(from).find(failed) {
            sim.world().violate("L2", format!("a cooldown follows run {}, which left its request unserved", run.id));
        }
    }
    for (what, until, longest) in [cooldown, daily, retry].into_iter().flatten() {
        if until.duration_since(now).as_secs_f64() > (longest + SLACK).as_secs_f64() {
            sim.world().violate("L2", format!("the {what} lasts until {until}, at {now}"));
        }
    }
}

/// L3: what the page and the API show is what holds the request.
async fn holds_are_shown(sim: &Sim, journal: &SimJournal, cluster: &Cluster<SimEtcd, SimJournal>) {
    let mut wrong = 0;
    loop {
        sleep(Duration::from_secs(15)).await;
        let another = shows_another_hold(sim, journal, cluster);
        wrong = if another.is_some() { wrong + 1 } else { 0 };
        // The worker looks once a minute, if nothing else wakes it.
        if let (Some(what), 6..) = (another, wrong) {
            sim.world().violate("L3", what);
        }
    }
}

fn shows_another_hold(sim: &Sim, journal: &SimJournal, cluster: &Cluster<SimEtcd, SimJournal>) -> Option<String> {
    let (policy, now) = {
        let world = sim.world();
        (world.schedule.policy.clone(), wall_clock(&world))
    };
    let (mut ledger, request) = (journal.ledger(), cluster.summary().request);
    let wrong = shows_another(sim, &ledger, request.as_ref(), &policy, now);
    // Until the write of its acceptance is answered, a request is not acknowledged, and defragd may know of it or not.
    let unanswered = sim.world().host().journal.request_unanswered.filter(|_| wrong.is_some());
    let Some(unanswered) = unanswered else { return wrong };
    ledger.runs.retain(|run| run.id != unanswered);
    shows_another(sim, &ledger, request.as_ref(), &policy, now)
}

fn shows_another(
    sim: &Sim,
    ledger: &Ledger,
    request: Option<&RequestView>,
    policy: &Policy,
    now: Timestamp,
) -> Option<String> {
    let Some(open) = ledger.runs.iter().find(|run| run.outcome.is_none()) else {
        return forgets_an_alert(sim, ledger, request);
    };
    let Some(Hold::Wait { reason, .. }) = hold(sim, ledger, open, policy, now) else { return None };
    let shown = request.and_then(|request| Some(request.hold.as_ref()?.reason.label()));
    (shown != Some(reason.label())).then(|| format!("{reason} holds run {}, and {shown:?} is shown", open.id))
}

/// While no run is open: an alert that was accepted and is not resolved is shown with a hold, and no other one is.
fn forgets_an_alert(sim: &Sim, ledger: &Ledger, shown: Option<&RequestView>) -> Option<String> {
    let accepted = ledger.runs.iter().flat_map(|run| &run.request.alerts).filter(|key| key.due().is_none());
    let fires: BTreeSet<_> = accepted.filter(|key| sim.world().watch.orders.fires(key)).cloned().collect();
    let is_held = shown.is_some_and(|shown| shown.hold.is_some());
    // Until the write of its end is answered, a run is shown as in progress.
    let ending = sim.world().host().journal.end_unanswered;
    let is_ending = ending.is_some() && shown.is_some_and(|shown| shown.run == ending);
    let shown: BTreeSet<_> = shown.iter().flat_map(|shown| &shown.alerts).cloned().collect();
    // Of a request that is to be retried only its own alerts are shown.
    let is_missing = !fires.is_empty() && (shown.is_empty() || !is_held && !is_ending);
    let is_over = shown.iter().any(|key| sim.world().watch.orders.over_since(key).is_some());
    (is_missing || is_over).then(|| format!("{fires:?} fires, and {shown:?} is shown, held: {is_held}"))
}

/// Waits until every accepted request is satisfied, or needs an operator. `false` if this life of defragd does not get
/// there.
async fn settle(sim: &Arc<Sim>, journal: &SimJournal) -> bool {
    let begun = sim.now();
    let mut idle = 0;
    loop {
        let left = left(sim, journal);
        if left == Left::Nothing {
            check_forgotten(sim, journal);
        }
        if matches!(left, Left::Nothing | Left::ForAnOperator) || (left == Left::Waits && is_refused(sim, journal)) {
            return true;
        }
        // An active run writes or asks all the time; one that asks for nothing at all is forgotten.
        let calls = sim.world().calls;
        sleep(Duration::from_secs(30)).await;
        idle = if sim.world().calls == calls && left == Left::Work { idle + 1 } else { 0 };
        if sim.now() - begun > BOUND {
            let last = journal.views().pop();
            let what = format!("L1: after {} h a request still stands: {last:?}", BOUND.as_secs() / 3600);
            sim.world().violate("liveness", what);
            return true;
        }
        // Longer than any deadline: a Defragment that is out makes no calls. A wait for a time of day lasts longer
        // by as much as clocks were put back.
        let stepped = !sim.world().clock_is_steady();
        if idle > if stepped { 300 } else { 24 } {
            return false;
        }
    }
}

/// L1: a request that is over was satisfied, withdrawn or expired.
fn check_forgotten(sim: &Sim, journal: &SimJournal) {
    let views = journal.views();
    let Some(last) = views.iter().rev().find(|view| !view.request.alerts.is_empty()) else { return };
    let over = match &last.outcome {
        _ if last.cancelled.is_some() => true,
        Some(Outcome::Succeeded | Outcome::Mismatched { .. } | Outcome::NothingToDo | Outcome::Observed { .. }) => true,
        Some(Outcome::Stopped { reason }) => {
            matches!(
                reason,
                Reason::Resolved
                    | Reason::ApprovalExpired { .. }
                    | Reason::ObserveMode
                    | Reason::Cancelled { .. }
                    | Reason::Rejected { .. }
            )
        }
        _ => false,
    };
    // An operator's run without alerts may have done the work.
    let done =
        views.iter().rev().take_while(|view| view.id != last.id).any(|view| {
            matches!(view.outcome, Some(Outcome::Succeeded | Outcome::NothingToDo | Outcome::Observed { .. }))
        });
    let mut world = sim.world();
    if !over && !done && last.request.alerts.iter().any(|key| world.watch.orders.fires(key)) {
        let what = format!("L1: the request of run {} is forgotten after {:?}", last.id, last.outcome);
        world.violate("liveness", what);
    }
}

/// Whether the newest run ended for a reason that an operator must act on.
pub fn is_refused(sim: &Sim, journal: &SimJournal) -> bool {
    let Some(outcome) = journal.views().pop().and_then(|run| run.outcome) else { return false };
    may_end_so(&sim.world(), &outcome)
}
