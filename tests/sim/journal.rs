//! A journal in memory that outlives defragd, can fail, and can be slow.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use defragd::{
    core::{
        history::{Entry, Record, Request, RunId, RunView, Trigger},
        ledger::Ledger,
        note::SuccessionNote,
        order::{Order, OrderRecord},
    },
    ports::{
        clock::Clock,
        journal::{Journal, JournalError},
    },
};
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use crate::{due::check_once, model::World, policy::STILL_SENT, sim::Sim, stopped::while_stopped};

/// More than any schedule writes.
const MOST_RECORDS: usize = 3_000;

#[derive(Clone)]
pub struct SimJournal {
    sim: Arc<Sim>,
    records: Arc<Mutex<Vec<Record>>>,
    orders: Arc<Mutex<Vec<OrderRecord>>>,
    /// What other holders of the lock left.
    inherited: Arc<Mutex<Option<SuccessionNote>>>,
    /// Which schedule the cluster has, and since when.
    schedule: Arc<Mutex<Option<(String, Timestamp)>>>,
    /// Which life of defragd holds it: what an earlier one left under way dies with that.
    life: u64,
}

impl SimJournal {
    pub fn new(sim: Arc<Sim>) -> Self {
        Self {
            sim,
            records: Arc::default(),
            orders: Arc::default(),
            inherited: Arc::default(),
            schedule: Arc::default(),
            life: 0,
        }
    }

    /// The journal of a new life.
    pub fn reopened(&self) -> Self {
        let mut world = self.sim.world();
        world.host_mut().journal.life += 1;
        let journal = &mut world.host_mut().journal;
        (journal.end_unanswered, journal.request_unanswered) = (None, None);
        Self { life: world.host().journal.life, ..self.clone() }
    }

    /// A task of a process that is gone does nothing more, and one of a process that is stopped nothing for now.
    async fn alive(&self) {
        while_stopped(&self.sim).await;
        if self.sim.world().host().journal.life != self.life {
            std::future::pending::<()>().await;
        }
    }

    pub fn views(&self) -> Vec<RunView> {
        RunView::fold(self.records.lock().unwrap().clone())
    }

    /// Since when it knows the schedule.
    pub fn known_schedule(&self) -> Option<Timestamp> {
        self.schedule.lock().unwrap().as_ref().map(|(_, since)| *since)
    }

    /// What it holds, as the page and the API are shown it.
    pub fn ledger(&self) -> Ledger {
        let (orders, inherited) = (self.orders.lock().unwrap().clone(), self.inherited.lock().unwrap().clone());
        Ledger { runs: self.views(), orders, inherited }
    }

    /// Durable at some moment between the call and its answer, so that a crash in between leaves either.
    async fn write(&self, run: Option<RunId>, entry: Entry) -> Result<RunId, JournalError> {
        let (before, after) = {
            let mut world = self.sim.world();
            // It is decided now; writing it may take any time.
            world.on_journal_wanted(run, &entry);
            let mut each = Duration::ZERO;
            if world.now < world.host().journal.slow_until {
                each = world.host().journal.each;
            } else if world.rng.percent(25) {
                each = world.rng.millis(1, 20);
            }
            let early = world.rng.percent(50);
            if early { (Duration::ZERO, each) } else { (each, Duration::ZERO) }
        };
        if !before.is_zero() {
            sleep(before).await;
        }
        self.alive().await;
        let (begins, ends) = (matches!(entry, Entry::Accepted(_)), matches!(entry, Entry::Finished(_)));
        let written = self.put(run, entry);
        if !after.is_zero() {
            let run = written.as_ref().ok().copied();
            let await_answer = |to: Option<RunId>| {
                let mut world = self.sim.world();
                let journal = &mut world.host_mut().journal;
                if ends && run.is_some() {
                    journal.end_unanswered = to;
                }
                if begins && run.is_some() {
                    journal.request_unanswered = to;
                }
            };
            await_answer(run);
            sleep(after).await;
            await_answer(None);
        }
        written
    }

    fn put(&self, run: Option<RunId>, entry: Entry) -> Result<RunId, JournalError> {
        let mut world = self.sim.world();
        let of_a_step = matches!(entry, Entry::Step(_));
        if world.now < world.host().journal.down_until
            || std::mem::take(&mut world.host_mut().journal.fail_next)
            || (of_a_step && std::mem::take(&mut world.host_mut().journal.fail_step))
        {
            // What joins a run from outside and is not written is answered with 503; the run is not concerned.
            let of_the_run = !matches!(
                entry,
                Entry::Joined { .. } | Entry::Resolved { .. } | Entry::Approved { .. } | Entry::Cancelled(_)
            );
            world.on_journal_failure(run.filter(|_| of_the_run));
            return Err(JournalError::Write("no space left on device".to_owned()));
        }
        let mut records = self.records.lock().unwrap();
        if records.len() > MOST_RECORDS {
            world.violate("liveness", format!("busy loop: more than {MOST_RECORDS} records"));
            return Err(JournalError::Write("full".to_owned()));
        }
        let next = records.iter().map(|record| record.run.0).max().unwrap_or(0) + 1;
        let run = run.unwrap_or(RunId(next));
        let views = RunView::fold(records.iter().cloned());
        check_requests(&mut world, run, &entry, &views);
        check_once(&mut world, run, &entry, &views);
        world.on_journal_entry(run, &entry);
        let at = wall_clock(&world);
        // As the real one: what cannot be read back must fail here, too.
        let written = serde_json::to_string(&entry).unwrap();
        let entry = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
        records.push(Record { run, at, entry });
        Ok(run)
    }

    /// What was true at some moment between the call and its answer: others write meanwhile.
    async fn read<T>(&self, look: impl FnOnce(&Self) -> T) -> Result<T, JournalError> {
        let (before, after) = {
            let mut world = self.sim.world();
            let slow = world.now < world.host().journal.slow_until || world.rng.percent(10);
            match slow.then(|| world.rng.millis(1, 30)) {
                None => (Duration::ZERO, Duration::ZERO),
                Some(each) if world.rng.percent(50) => (Duration::ZERO, each),
                Some(each) => (each, Duration::ZERO),
            }
        };
        if !before.is_zero() {
            sleep(before).await;
        }
        self.alive().await;
        let down = {
            let world = self.sim.world();
            world.now < world.host().journal.reads_down_until
        };
        let read = if down { Err(JournalError::Read("input/output error".to_owned())) } else { Ok(look(self)) };
        if !after.is_zero() {
            sleep(after).await;
        }
        read
    }
}

/// L4: there is one request at a time, and none is started after its need is gone.
fn check_requests(world: &mut World, run: RunId, entry: &Entry, views: &[RunView]) {
    if let Entry::Accepted(Request { alerts, .. }) | Entry::Joined { alerts } = entry {
        let (now, orders) = (world.now, &mut world.watch.orders);
        orders.recorded.extend(alerts.iter().map(|key| (key.fingerprint.clone(), now)));
    }
    match entry {
        Entry::Resolved { alerts } => {
            let recorded = &mut world.watch.orders.recorded;
            recorded.retain(|fingerprint, _| alerts.iter().all(|key| key.fingerprint != *fingerprint));
        }
        Entry::Accepted(_) => {
            if let Some(open) = views.iter().find(|view| view.outcome.is_none()) {
                world.violate("L4", format!("run {run} is accepted while run {} is open", open.id));
            }
        }
        Entry::Started { .. } if world.lock.is_none() => {
            let Some(view) = views.iter().find(|view| view.id == run && view.started_at.is_none()) else { return };
            let (now, orders) = (world.now, &world.watch.orders);
            let alerts = &view.request.alerts;
            let gone = alerts.iter().all(|key| orders.over_since(key).is_some_and(|since| now > since + STILL_SENT));
            // What its members hold is compared all the same.
            if view.request.trigger != Trigger::Manual && gone && !world.watch.uncompared {
                world.violate("withdrawn", format!("run {run} begins although none of its alerts fires: {alerts:?}"));
            }
        }
        _ => {}
    }
}

impl Journal for SimJournal {
    async fn accept(&self, request: Request) -> Result<RunId, JournalError> {
        self.write(None, Entry::Accepted(request)).await
    }

    async fn append(&self, run: RunId, entry: Entry) -> Result<(), JournalError> {
        self.write(Some(run), entry).await.map(|_| ())
    }

    async fn runs(&self, limit: usize) -> Result<Vec<RunView>, JournalError> {
        let mut runs = self.read(Self::views).await?;
        Ok(runs.split_off(runs.len().saturating_sub(limit)))
    }

    async fn runs_of(&self, _cluster: &str, limit: usize) -> Result<Vec<RunView>, JournalError> {
        self.runs(limit).await
    }

    async fn order(&self, cluster: &str, order: Order) -> Result<(), JournalError> {
        self.alive().await;
        let mut world = self.sim.world();
        if world.now < world.host().journal.down_until || std::mem::take(&mut world.host_mut().journal.fail_next) {
            world.on_journal_failure(None);
            return Err(JournalError::Write("no space left on device".to_owned()));
        }
        let now = world.now;
        world.watch.note(now, || format!("journal: {order:?}"));
        if matches!(order, Order::Resume { .. }) {
            world.on_resume();
        }
        let record = OrderRecord { cluster: cluster.to_owned(), at: wall_clock(&world), order };
        self.orders.lock().unwrap().push(record);
        Ok(())
    }

    async fn orders(&self, _cluster: &str) -> Result<Vec<OrderRecord>, JournalError> {
        self.read(|journal| journal.orders.lock().unwrap().clone()).await
    }

    async fn inherit(&self, _cluster: &str, digest: SuccessionNote) -> Result<(), JournalError> {
        self.alive().await;
        let mut world = self.sim.world();
        if world.now < world.host().journal.down_until || std::mem::take(&mut world.host_mut().journal.fail_next) {
            return Err(JournalError::Write("no space left on device".to_owned()));
        }
        world.on_inherited(&digest);
        *self.inherited.lock().unwrap() = Some(digest);
        Ok(())
    }

    async fn inherited(&self, _cluster: &str) -> Result<Option<SuccessionNote>, JournalError> {
        self.read(|journal| journal.inherited.lock().unwrap().clone()).await
    }

    async fn scheduled_since(&self, _cluster: &str, schedule: &str) -> Result<Timestamp, JournalError> {
        self.alive().await;
        let world = self.sim.world();
        if world.now < world.host().journal.down_until {
            return Err(JournalError::Write("no space left on device".to_owned()));
        }
        let now = wall_clock(&world);
        let mut known = self.schedule.lock().unwrap();
        let since =
            known.as_ref().filter(|(before, since)| before == schedule && *since <= now).map(|(_, since)| *since);
        Ok(known.insert((schedule.to_owned(), since.unwrap_or(now))).1)
    }

    async fn run(&self, run: RunId) -> Result<Option<RunView>, JournalError> {
        Ok(self.read(Self::views).await?.into_iter().find(|view| view.id == run))
    }

    async fn records(&self, run: RunId) -> Result<Vec<Record>, JournalError> {
        let of_run = |journal: &Self| {
            journal.records.lock().unwrap().iter().filter(|record| record.run == run).cloned().collect()
        };
        self.read(of_run).await
    }

    async fn open_runs(&self) -> Result<Vec<RunView>, JournalError> {
        Ok(self.read(Self::views).await?.into_iter().filter(|view| view.outcome.is_none()).collect())
    }
}

/// The wall clock of the schedule: it steps when the schedule says so.
pub struct SimClock(pub Arc<Sim>);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        wall_clock(&self.0.world())
    }
}

/// When every schedule begins.
pub const EPOCH_SECOND: i64 = 1_790_000_000;

pub fn wall_clock(world: &crate::model::World) -> Timestamp {
    let stopped = world.host().clock_stops.map_or(Duration::ZERO, |(since, until)| world.now.min(until) - since);
    let elapsed = SignedDuration::try_from(world.now - stopped).unwrap()
        + SignedDuration::from_secs(world.host().clock_offset_seconds);
    Timestamp::from_second(EPOCH_SECOND).unwrap() + elapsed
}
