//! Two replicas over one etcd and one lock, in virtual time.

#[path = "lock_tests/forwarding.rs"]
mod forwarding;
#[path = "lock_tests/succession.rs"]
mod succession;

use std::{collections::BTreeMap, sync::Weak};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::advance};

use super::*;
use crate::{
    app::{
        cluster::{
            Cluster, Shared, stop_channel,
            tests::{cluster_of, key, shared, shared_recorded_at},
        },
        fake::{FakeEtcd, FakeJournal},
        fake_lock::{FakeLocks, TTL},
        service::App,
    },
    core::{
        alert::Notification,
        history::{AlertKey, Entry, MemberResult, Outcome, RunId, RunView, Trigger},
        policy::{Mode, Policy},
        schedule::{Line, Timetable},
    },
    ports::{
        journal::Journal,
        peers::{OfferAnswer, PeerError, PeerOrder, Peers},
        service::{AlertDecision, Command, CommandError, CommandOutcome, NotifyError, Service},
    },
};

const S: Duration = Duration::from_secs(1);

type Etcd = Arc<FakeEtcd>;

type TestApp = App<Etcd, FakeJournal>;

/// The replicas by their names: what one sends to another arrives, unless the receiver is down.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<BTreeMap<String, Weak<TestApp>>>>);

impl Net {
    fn find(&self, holder: &Holder) -> Result<Arc<TestApp>, PeerError> {
        let found = self.0.lock().get(&holder.name).and_then(Weak::upgrade);
        found.ok_or_else(|| PeerError::Unreachable { holder: holder.name.clone(), detail: "refused".to_owned() })
    }

    fn cut(&self, name: &str) -> Weak<TestApp> {
        self.0.lock().remove(name).expect("it was there")
    }
}

/// As the HTTP API would have it.
impl Peers for Net {
    fn notify<'a>(&'a self, to: &'a Holder, alerts: &'a Notification) -> BoxFuture<'a, Result<OfferAnswer, PeerError>> {
        Box::pin(async move {
            let app = self.find(to)?;
            assert!(alerts.forwarded);
            let unwritten = |error: NotifyError| PeerError::Refused {
                holder: to.name.clone(),
                status: 503,
                detail: error.to_string(),
            };
            let answers = app.notify(alerts.clone()).await.map_err(unwritten)?;
            match answers.into_iter().next().expect("an answer for each alert").decision {
                AlertDecision::Duplicate { reason: reason @ Reason::Rejected { .. }, .. } => {
                    Ok(OfferAnswer::Rejected(reason))
                }
                AlertDecision::Duplicate { run: Some(run), reason: Reason::Forwarded { .. }, .. } => {
                    Ok(OfferAnswer::Ended(run))
                }
                AlertDecision::Duplicate { run: None, reason, .. } => panic!("without a run: {reason}"),
                AlertDecision::Accepted { run, .. }
                | AlertDecision::Duplicate { run: Some(run), .. }
                | AlertDecision::Cancelled { run, .. } => Ok(OfferAnswer::Accepted(run)),
                AlertDecision::Ignored { reason, .. } if reason.label().starts_with("lock_") => {
                    Ok(OfferAnswer::NotTheHolder)
                }
                AlertDecision::Ignored { reason, .. } => Err(PeerError::Ignored(reason.to_string())),
                AlertDecision::Forwarded { shard, .. } => panic!("there is no shard {shard}"),
            }
        })
    }

    fn order<'a>(&'a self, to: &'a Holder, order: &'a PeerOrder) -> BoxFuture<'a, Result<Value, PeerError>> {
        Box::pin(async move {
            let app = self.find(to)?;
            let text = |key: &str| order.body[key].as_str().unwrap_or_default().to_owned();
            let command = match order.path[2].as_str() {
                "pause" => Command::Pause { reason: text("reason"), lasts: None },
                "resume" => Command::Resume { reason: text("reason") },
                "run" => Command::Run { members: Vec::new() },
                "cancel" => Command::Cancel { reason: text("reason") },
                "approve" => {
                    let run = RunId(order.path[1].parse().expect("a number"));
                    app.approve(run, text("by"), true).await.expect("approved");
                    return Ok(json!({ "run": run }));
                }
                other => panic!("{other}"),
            };
            match app.command(&order.path[1], text("by"), command, true).await {
                Ok(CommandOutcome::Done(run)) => Ok(json!({ "run": run })),
                Ok(other) => panic!("it is passed on again: {other:?}"),
                Err(error) => {
                    Err(PeerError::Refused { holder: to.name.clone(), status: 409, detail: error.to_string() })
                }
            }
        })
    }
}

/// What the replicas of a test share.
struct World {
    etcd: Etcd,
    locks: FakeLocks,
    net: Net,
    schedule: Timetable,
}

impl World {
    fn new(etcd: FakeEtcd) -> Self {
        Self { etcd: Arc::new(etcd), locks: FakeLocks::default(), net: Net::default(), schedule: Timetable::default() }
    }

    fn start(&self, name: &str) -> Replica {
        self.start_with(name, shared(1), Mode::Enforce)
    }

    /// Two of them: the first holds the lock and has settled, the second follows.
    async fn start_both(&self, mode: Mode) -> (Replica, Replica) {
        let first = self.start_with("one", shared(1), mode);
        sleep(S).await;
        let second = self.start_with("two", shared(1), mode);
        sleep(S * 40).await;
        (first, second)
    }

    /// Waits until one was sent.
    async fn first_defrag(&self) {
        while self.etcd.order().is_empty() {
            sleep(S / 10).await;
        }
    }

    /// With the journal of an earlier life, or a new one.
    fn start_with(&self, name: &str, shared: Arc<Shared<FakeJournal>>, mode: Mode) -> Replica {
        let policy = Policy { mode, schedule: self.schedule.clone(), ..Policy::default() };
        let cluster = cluster_of(&shared, "a", policy, Arc::clone(&self.etcd));
        let cluster =
            Arc::new(cluster.with_lock(self.locks.replica(name), name).with_peers(Arc::new(self.net.clone())));
        let app = Arc::new(App::new(vec![Arc::clone(&cluster)], Arc::clone(&shared)));
        self.net.0.lock().insert(name.to_owned(), Arc::downgrade(&app));
        let (starter, worker, keeper) = (Arc::clone(&app), Arc::clone(&cluster), Arc::clone(&cluster));
        let scheduler = Arc::clone(&cluster);
        let works = async move {
            starter.recover().await.expect("read");
            drop(starter);
            let (_stop, stopped) = stop_channel();
            worker.work(stopped).await;
        };
        let tasks = vec![
            tokio::spawn(works),
            tokio::spawn(async move { keeper.keep_lock().await }),
            tokio::spawn(async move { match scheduler.keep_schedule().await {} }),
        ];
        Replica { cluster, app, shared, tasks }
    }
}

/// A process: its state and its tasks.
struct Replica {
    cluster: Arc<Cluster<Etcd, FakeJournal>>,
    app: Arc<TestApp>,
    shared: Arc<Shared<FakeJournal>>,
    tasks: Vec<JoinHandle<()>>,
}

fn etcd() -> FakeEtcd {
    FakeEtcd::new(3)
}

/// A healthy cluster, and both of [`World::start_both`].
async fn both(mode: Mode) -> (World, Replica, Replica) {
    let world = World::new(etcd());
    let (first, second) = world.start_both(mode).await;
    (world, first, second)
}

/// The same in `enforce`, with defragmentations that take this long.
async fn both_slow(defrag: Duration) -> (World, Replica, Replica) {
    let (world, first, second) = both(Mode::Enforce).await;
    world.etcd.take(defrag);
    (world, first, second)
}

impl Replica {
    fn holds(&self) -> bool {
        self.cluster.summary().lock.is_some_and(|lock| lock.held)
    }

    fn waits_for(&self) -> Option<&'static str> {
        self.cluster.summary().waiting_for.map(|reason| reason.label())
    }

    async fn ask(&self, fingerprint: &str) {
        self.cluster.request(key(fingerprint)).await.expect("taken");
    }

    async fn runs(&self) -> Vec<RunView> {
        self.shared.journal.runs(100).await.expect("read")
    }

    async fn outcomes(&self) -> Vec<(&'static str, &'static str)> {
        let outcome = |run: &RunView| {
            let outcome = run.outcome.as_ref()?;
            Some((outcome.label(), outcome.reason().map_or("", Reason::label)))
        };
        self.runs().await.iter().map(|run| outcome(run).unwrap_or(("open", ""))).collect()
    }

    /// Like `kill -9`: all its tasks end.
    fn kill(self) -> Arc<Shared<FakeJournal>> {
        for task in &self.tasks {
            task.abort();
        }
        self.shared
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_replicas_acts_and_its_journal_says_under_which_term() {
    let world = World::new(etcd());
    let first = world.start("one");
    sleep(S).await;
    let second = world.start("two");
    sleep(S * 10).await;
    assert!(first.holds() && !second.holds());
    let lock = second.cluster.summary().lock.expect("there is one");
    assert_eq!((lock.holder.as_deref(), lock.url.as_deref()), (Some("one"), Some("http://one")));
    first.ask("1").await;
    second.ask("1").await;
    sleep(S * 5).await;
    assert_eq!(first.waits_for(), Some("lock_settling"));
    assert_eq!(second.waits_for(), Some("lock_held_elsewhere"));
    assert!(world.etcd.order().is_empty());
    sleep(S * 600).await;
    assert_eq!(world.etcd.order(), [3, 2, 1]);
    assert_eq!(first.outcomes().await, [("succeeded", "")]);
    let started = first.shared.journal.entries().into_iter().find(|entry| matches!(entry, Entry::Started { .. }));
    assert_eq!(started, Some(Entry::Started { mode: Mode::Enforce, term: Some(Term(1)), compares: false }));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_dies_is_succeeded_after_the_ttl_and_a_time_to_settle() {
    let (world, first, second) = both(Mode::Enforce).await;
    world.net.cut("one");
    first.kill();
    second.ask("1").await;
    let died = Instant::now();
    while !second.holds() {
        sleep(S / 10).await;
    }
    assert!(died.elapsed() + S * 6 >= TTL && died.elapsed() <= TTL + S * 6, "{:?}", died.elapsed());
    world.first_defrag().await;
    assert!(died.elapsed() + S * 6 >= TTL + SETTLING, "{:?}", died.elapsed());
    sleep(S * 600).await;
    assert_eq!(world.etcd.order(), [3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_hands_over_within_seconds() {
    let (_world, first, second) = both(Mode::Enforce).await;
    first.cluster.release_lock().await;
    assert!(!first.holds());
    first.kill();
    sleep(S * 6).await;
    assert!(second.holds());
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_cannot_be_renewed_stops_the_run_after_the_current_member() {
    let (world, first, second) = both_slow(S * 90).await;
    first.ask("1").await;
    world.first_defrag().await;
    world.locks.cut("one");
    sleep(S * 70).await;
    assert!(!first.holds() && second.holds());
    assert_eq!(first.outcomes().await, [("open", "")], "the current member is watched until it is done");
    sleep(S * 60).await;
    assert_eq!(world.etcd.order(), [3]);
    assert_eq!(first.outcomes().await[0], ("stopped", "lock_lost"));
    assert_eq!(world.etcd.most_in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_stopped_past_the_ttl_sends_nothing_when_it_wakes() {
    let mut fake = etcd();
    // Longer than the validity: the decision is made under a lock that has expired when the RPC would be sent.
    fake.looks_for = S * 2;
    let world = World::new(fake);
    let first = world.start("one");
    sleep(S * 40).await;
    first.ask("1").await;
    while first.runs().await[0].open_intent.is_none() {
        sleep(S / 100).await;
    }
    // The intent is recorded, and the last observation is in progress: then nothing runs for a minute.
    world.locks.cut("one");
    sleep(S / 2).await;
    advance(TTL).await;
    sleep(S * 60).await;
    assert!(world.etcd.order().is_empty());
    let runs = first.runs().await;
    assert_eq!(first.outcomes().await, [("stopped", "lock_lost"), ("open", "")], "the request waits for the lock");
    assert_eq!(runs[0].members.iter().map(MemberResult::label).collect::<Vec<_>>(), ["not_sent"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_without_an_answer_keeps_requests_waiting_and_loses_none() {
    let world = World::new(etcd());
    world.locks.cut("one");
    let first = world.start("one");
    first.ask("1").await;
    sleep(S * 600).await;
    assert_eq!(first.waits_for(), Some("lock_unknown"));
    assert!(world.etcd.order().is_empty());
    world.locks.reconnect("one");
    sleep(S * 600).await;
    assert_eq!(first.outcomes().await, [("succeeded", "")]);
}

#[tokio::test(start_paused = true)]
async fn a_candidate_from_before_takes_over_while_nothing_can_be_written() {
    let (world, first, second) = both(Mode::Enforce).await;
    world.locks.fill(true);
    first.kill();
    sleep(TTL + S * 10).await;
    assert!(second.holds());
    second.ask("1").await;
    sleep(S * 600).await;
    assert_eq!(second.outcomes().await, [("succeeded", "")]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_lost_its_lock_is_continued_by_the_new_holder() {
    let (world, first, second) = both_slow(S * 90).await;
    first.ask("1").await;
    world.first_defrag().await;
    world.locks.cut("one");
    sleep(S * 200).await;
    assert_eq!(first.outcomes().await[0], ("stopped", "lock_lost"));
    world.locks.reconnect("one");
    sleep(S * 1200).await;
    // The old holder still had the alert: after a minute it offers it to the new one.
    assert_eq!(first.outcomes().await, [("stopped", "lock_lost"), ("stopped", "forwarded")]);
    assert_eq!(second.outcomes().await, [("succeeded", "")]);
    assert_eq!(world.etcd.order(), [3, 2, 1]);
    assert_eq!(world.etcd.most_in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_loss_between_two_renewals_is_reported() {
    let locks = FakeLocks::default();
    let lock = Lock::over(locks.replica("one"), "one");
    assert_eq!(lock.round().await.change, LockChange::Gained(Term(1)));
    assert_eq!(lock.round().await.change, LockChange::Same);
    // Suspended past the validity; the other one holds the lock by now.
    advance(TTL * 2).await;
    let other = Lock::over(locks.replica("two"), "two");
    assert_eq!(other.round().await.change, LockChange::Gained(Term(2)));
    assert_eq!(lock.view().held(), None);
    assert_eq!(lock.round().await.change, LockChange::Lost(Term(1)));
    assert_eq!(lock.round().await.change, LockChange::Same);
}
