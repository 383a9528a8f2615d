//! The lives of defragd in one schedule: it starts, serves, is stopped or killed, and starts again.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use defragd::{
    app::{
        claims::Claims,
        cluster::{Cluster, Shared, stop_channel},
        service::App,
    },
    config::ClusterSettings,
    core::{
        alert::Selector,
        history::{AlertKey, Outcome},
        policy::Mode,
        reason::Reason,
    },
    ports::service::AlertDecision,
    telemetry::counters::Counters,
};
use tokio::{
    sync::Semaphore,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    faults::{Death, Schedule, wants},
    invariants::{Violation, Watch},
    journal::{SimClock, SimJournal},
    model::{SimEtcd, World},
    sim::Sim,
};

/// A run that is not over by then hangs: 6 deadlines of 10 min, waits for a recovery, and as much again.
const BOUND: Duration = Duration::from_hours(4);
/// Starts that may be needed at the end until every request has its outcome.
const STARTS_TO_CLOSE: u32 = 4;
/// How long Alertmanager waits before it sends again what was not taken.
const RESEND: Duration = Duration::from_secs(10);

/// After the end of all faults, until all members are level.
const TO_CATCH_UP: Duration = Duration::from_mins(2);

/// The first number of an alert that fires again after a start.
const AGAIN: usize = 100;

type Defragd = (Arc<Cluster<SimEtcd, SimJournal>>, App<SimEtcd, SimJournal>);

/// What one schedule came to.
#[derive(Debug)]
pub struct Report {
    pub violation: Option<Violation>,
    pub outcomes: Vec<(&'static str, &'static str)>,
    pub sends: u64,
    pub calls: u64,
    pub digest: u64,
    pub virtual_time: Duration,
    pub trace: Vec<String>,
    /// Starts beyond the first that were needed at the end to close every run.
    pub extra_starts: u32,
    /// The kinds of faults in its schedule.
    pub faults: Vec<String>,
}

/// Plays the schedule of a seed from its beginning to its end.
pub fn play(seed: u64, traced: bool) -> Report {
    let schedule = Schedule::draw(seed);
    let faults = schedule.fault_names();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut watch = Watch::new(traced);
        watch.note(Duration::ZERO, || format!("{schedule:#?}"));
        let sim = Sim::new(World::new(schedule, watch));
        let moving = tokio::spawn(Arc::clone(&sim).run());
        let journal = SimJournal::new(Arc::clone(&sim));
        let extra_starts = live(&sim, &journal).await;
        moving.abort();
        let mut world = sim.world();
        if let Some(trace) = &mut world.watch.trace {
            trace.push("end".to_owned());
        }
        Report {
            violation: world.watch.violation.clone(),
            outcomes: journal
                .views()
                .iter()
                .filter_map(|view| view.outcome.as_ref())
                .map(|outcome| (outcome.label(), outcome.reason().map_or("none", Reason::label)))
                .collect(),
            sends: world.watch.sends,
            calls: world.calls,
            digest: world.watch.digest,
            virtual_time: world.now,
            trace: world.watch.trace.take().unwrap_or_default(),
            extra_starts,
            faults,
        }
    })
}

fn boot(sim: &Arc<Sim>, journal: &SimJournal) -> Defragd {
    let policy = sim.world().schedule.policy.clone();
    sim.world().watch.stop_asked = false;
    let now = sim.now();
    sim.world().watch.note(now, || "defragd starts".to_owned());
    let settings = ClusterSettings {
        name: "a".to_owned(),
        endpoints: Vec::new(),
        ca_file: None,
        identity_files: None,
        user: None,
        selector: Selector { cluster: "a".to_owned(), any_of: Vec::new() },
        policy,
        gates: Vec::new(),
    };
    let clock = Arc::new(SimClock(Arc::clone(sim)));
    let shared = Arc::new(Shared {
        journal: journal.clone(),
        counters: Counters::new(["a"]),
        clock,
        slots: Arc::new(Semaphore::new(1)),
        max_concurrent_runs: 1,
        claims: Claims::default(),
    });
    let cluster = Arc::new(Cluster::new(settings, SimEtcd(Arc::clone(sim)), Arc::clone(&shared)));
    (Arc::clone(&cluster), App::new(vec![cluster], shared))
}

fn broken(sim: &Sim) -> bool {
    sim.world().watch.violation.is_some()
}

/// The alerts that were sent, over all lives.
#[derive(Default)]
struct Asked {
    /// How many of the schedule's requests were taken.
    of_schedule: Cell<usize>,
    /// One that is to come after the next start.
    again: Cell<Option<Duration>>,
    /// How many of those came.
    fired: Cell<usize>,
}

/// Ends soon after the first violation: what comes after it proves nothing.
async fn until_broken(sim: &Sim) {
    while !broken(sim) {
        sim.changed.notified().await;
    }
}

async fn live(sim: &Arc<Sim>, journal: &SimJournal) -> u32 {
    tokio::select! {
        biased;
        extra = all_lives(sim, journal) => extra,
        () = until_broken(sim) => 0,
    }
}

async fn all_lives(sim: &Arc<Sim>, journal: &SimJournal) -> u32 {
    let (deaths, mended_at) = {
        let world = sim.world();
        (world.schedule.deaths.clone(), world.schedule.mended_at)
    };
    let asked = Rc::new(Asked::default());
    for death in deaths {
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
            sim.world().watch.stop_asked = true;
            stop.send_replace(Some(Reason::ShuttingDown));
            // In defragd only the work ends by itself; here the alerts stop being heard with it.
            let _ = timeout(grace, &mut serving).await;
        }
        let now = sim.now();
        sim.world().watch.note(now, || "defragd is gone".to_owned());
        asked.again.set(death.ask_again);
        // With everything that was under way in it; the servers go on.
        drop(serving);
        sleep(death.down).await;
    }
    // The last life goes on past the end of all faults.
    let mut extra = 0;
    loop {
        let (_stop, stopped) = stop_channel();
        let serving = serve(sim, journal, stopped, Rc::clone(&asked));
        let closed = async {
            sleep_until(sim.at(mended_at + Duration::from_secs(5))).await;
            settle(sim, journal).await
        };
        let closed = tokio::select! {
            biased;
            closed = closed => closed,
            () = serving => false,
        };
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

/// The moment of a death. One that waits for a Defragment waits until everything is mended at the most.
async fn until(sim: &Sim, death: &Death) {
    sleep_until(sim.at(death.at)).await;
    let Some(after) = death.after_send else { return };
    let sends = sim.world().watch.sends;
    let mended_at = sim.world().schedule.mended_at;
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
        () = sleep_until(sim.at(mended_at)) => {}
    }
}

/// One life: recovers, serves, and hears the alerts of the schedule.
async fn serve(sim: &Arc<Sim>, journal: &SimJournal, stopped: defragd::app::driver::Stop, asked: Rc<Asked>) {
    let (cluster, app) = loop {
        let (cluster, app) = boot(sim, journal);
        match app.recover().await {
            Ok(()) => break (cluster, app),
            // The process ends with an error, and its supervisor starts it again.
            Err(_) => sleep(Duration::from_secs(5)).await,
        }
    };
    let requests = sim.world().schedule.requests.clone();
    let alerts = async {
        if let Some(after) = asked.again.take() {
            sleep(after).await;
            let fired = asked.fired.replace(asked.fired.get() + 1);
            // Not sent again where the journal refuses it: the others are.
            let _ = cluster.request(vec![key(AGAIN + fired)]).await;
        }
        while asked.of_schedule.get() < requests.len() {
            let number = asked.of_schedule.get();
            sleep_until(sim.at(requests[number])).await;
            let taken = cluster.request(vec![key(number)]).await;
            match taken {
                Ok(_) => asked.of_schedule.set(number + 1),
                Err(_) => sleep(RESEND).await,
            }
        }
    };
    tokio::pin!(alerts);
    let work = cluster.work(stopped);
    tokio::pin!(work);
    tokio::select! {
        biased;
        () = &mut work => {}
        () = &mut alerts => work.await,
    }
    drop(app);
}

fn key(number: usize) -> AlertKey {
    AlertKey { fingerprint: format!("alert-{number}"), starts_at: "t".to_owned() }
}

/// Waits until every accepted request has its outcome. `false` if this life of defragd does not get there.
async fn settle(sim: &Arc<Sim>, journal: &SimJournal) -> bool {
    let begun = sim.now();
    let mut idle = 0;
    loop {
        let open = journal.views().into_iter().filter(|view| view.outcome.is_none()).count();
        if open == 0 {
            return true;
        }
        // An active run writes or asks all the time; one that asks for nothing at all is forgotten.
        let calls = sim.world().calls;
        sleep(Duration::from_secs(30)).await;
        idle = if sim.world().calls == calls { idle + 1 } else { 0 };
        if sim.now() - begun > BOUND {
            sim.world().violate("liveness", format!("a run is still under way after {} h", BOUND.as_secs() / 3600));
            return true;
        }
        // Longer than any deadline: a Defragment that is out makes no calls.
        if idle > 24 {
            return false;
        }
    }
}

/// Everything is mended and every run is over: one more request must now do the whole work.
async fn finale(sim: &Arc<Sim>, journal: &SimJournal) {
    if broken(sim) {
        return;
    }
    // What was sent to the servers, by whomever, has to end, and members that were away have to catch up: how
    // long a run waits for that is not what is asked here.
    while sim.world().jobs.iter().any(|job| job.state.open()) {
        sleep(Duration::from_secs(10)).await;
    }
    sleep(TO_CATCH_UP).await;
    let before = journal.views().len();
    let fault_free = sim.world().schedule.fault_free();
    let (_stop, stopped) = stop_channel();
    let (cluster, app) = boot(sim, journal);
    if app.recover().await.is_err() {
        return sim.world().violate("liveness", "the journal is mended but defragd does not start".to_owned());
    }
    let asked = async {
        // What was sent to servers earlier comes to its end; clocks have stepped, so a cooldown may last.
        let mut number = 1_000;
        loop {
            match cluster.request(vec![key(number)]).await {
                Ok(AlertDecision::Accepted { run, .. }) => break Some(run),
                Ok(_) if number < 2_000 => sleep(Duration::from_secs(60)).await,
                _ => break None,
            }
            number += 1;
        }
    };
    let finished = async {
        let run = asked.await;
        let begun = sim.now();
        while run.is_some_and(|run| journal.views().iter().any(|view| view.id == run && view.outcome.is_none())) {
            sleep(Duration::from_secs(1)).await;
            if sim.now() - begun > BOUND {
                break;
            }
        }
        run
    };
    let run = tokio::select! {
        biased;
        run = finished => run,
        () = cluster.work(stopped) => None,
    };
    let view = run.and_then(|run| journal.views().into_iter().find(|view| view.id == run));
    let outcome = view.and_then(|view| view.outcome);
    let mut world = sim.world();
    let Some(outcome) = outcome else {
        return world.violate("liveness", "the last run, on a mended cluster, has no end".to_owned());
    };
    judge(&mut world, &outcome, fault_free && before > 0);
}

/// What the last run has to come to.
fn judge(world: &mut World, outcome: &Outcome, fault_free: bool) {
    let policy = world.schedule.policy.clone();
    let current = world.current();
    let voters: Vec<_> = current.iter().filter(|node| world.nodes[**node].voter()).copied().collect();
    let odd = voters.iter().any(|node| ["3.5.4", "3.4.3", "banana"].contains(&world.nodes[*node].version.as_str()));
    let slack = voters.len() >= 3 || policy.allow_without_quorum_slack;
    if policy.mode == Mode::Observe {
        if !matches!(outcome, Outcome::Observed { .. } | Outcome::NothingToDo | Outcome::Refused { .. }) {
            world.violate("I10", format!("mode observe ends as {outcome:?}"));
        }
        return;
    }
    if odd || !slack {
        if !matches!(outcome, Outcome::Refused { .. }) {
            world.violate("I3", format!("a cluster that must be refused ends as {outcome:?}"));
        }
        return;
    }
    // With NOSPACE left armed by the faults, a quota that nobody tells or that is too small is for a person.
    if let Outcome::Failed { reason: Reason::QuotaUnknown { .. } | Reason::StillNearQuota { .. } }
    | Outcome::Refused { reason: Reason::QuotaUnknown { .. } | Reason::StillNearQuota { .. } } = outcome
    {
        return;
    }
    if !matches!(outcome, Outcome::Succeeded | Outcome::NothingToDo) {
        return world.violate("liveness", format!("a healthy cluster ends as {outcome:?}"));
    }
    let loose = voters.iter().find(|node| {
        let node = &world.nodes[**node];
        wants(&policy, node.size, node.in_use, node.has_page.then_some(node.quota), false)
    });
    if let Some(loose) = loose {
        let id = world.nodes[*loose].id();
        return world.violate("liveness", format!("the run ends as {outcome:?} and {id} is still fragmented"));
    }
    if fault_free {
        let led: Vec<_> = world.watch.ended.iter().map(|(_, led)| *led).collect();
        let first_run = led.iter().take(voters.len()).position(|led| *led);
        if world.alarms.is_empty() && first_run.is_some_and(|at| at + 1 < led.len()) {
            world.violate("I2", format!("without any fault the leader was not last: {led:?}"));
        }
    }
}
