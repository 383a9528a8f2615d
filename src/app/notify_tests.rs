use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::*;
use crate::{
    app::{
        cluster::tests::{cluster_in, key, serve_for, shared},
        fake::FakeJournal,
    },
    core::{
        history::Trigger,
        policy::{Mode, Policy},
    },
    ports::{journal::Journal, notifier::Undelivered},
    telemetry::counters::Counters,
};

/// A target that hangs, fails or receives.
struct Target {
    name: &'static str,
    answer: fn(usize) -> Option<Result<(), Undelivered>>,
    tries: AtomicUsize,
    heard: Mutex<Vec<Notice>>,
}

impl Target {
    fn new(name: &'static str, answer: fn(usize) -> Option<Result<(), Undelivered>>) -> Arc<Self> {
        Arc::new(Self { name, answer, tries: AtomicUsize::new(0), heard: Mutex::default() })
    }
}

impl Notifier for Target {
    fn name(&self) -> &str {
        self.name
    }

    fn wants(&self, _: &Notice) -> bool {
        true
    }

    fn deliver<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), Undelivered>> {
        Box::pin(async move {
            match (self.answer)(self.tries.fetch_add(1, Ordering::Relaxed)) {
                None => std::future::pending().await,
                Some(answer) => {
                    self.heard.lock().push(notice.clone());
                    answer
                }
            }
        })
    }
}

fn no(may_pass: bool) -> Result<(), Undelivered> {
    Err(Undelivered { detail: "no".to_owned(), may_pass })
}

fn world(targets: &[&Arc<Target>]) -> Arc<crate::app::cluster::Shared<FakeJournal>> {
    let mut world = Arc::into_inner(shared(1)).expect("nobody else has it");
    let targets = targets.iter().map(|target| Arc::clone(*target) as Arc<dyn Notifier>);
    let external = Url::parse("https://ops.example.org/defragd/").ok();
    world.notifications = Notifications::start(targets, world.counters.notifications(), external.as_ref());
    Arc::new(world)
}

fn counted(counters: &Counters, target: &str, result: &str) -> bool {
    let mut page = String::new();
    counters.render(Vec::new(), &mut page).expect("metrics");
    page.contains(&format!("defragd_notifications_total{{target=\"{target}\",result=\"{result}\"}} 1"))
}

#[tokio::test(start_paused = true)]
async fn a_target_that_hangs_holds_up_no_run_and_others_hear_of_it() {
    let took = |targets: Vec<Arc<Target>>| async move {
        let world = world(&targets.iter().collect::<Vec<_>>());
        let policy = Policy { mode: Mode::Enforce, ..Policy::default() };
        let cluster = cluster_in(&world, "a", policy);
        cluster.request(key("f")).await.expect("taken");
        let begun = Instant::now();
        serve_for(&cluster, Duration::from_mins(10)).await;
        let runs = world.journal.runs(9).await.expect("runs");
        assert_eq!(runs[0].outcome, Some(Outcome::Succeeded));
        let taken = runs[0].finished_at.expect("ended").duration_since(runs[0].started_at.expect("begun"));
        assert!(begun.elapsed() >= Duration::try_from(taken).expect("forward"));
        (taken, world)
    };
    let (alone, _) = took(Vec::new()).await;
    let (hung, good) = (Target::new("hung", |_| None), Target::new("good", |_| Some(Ok(()))));
    let (with_them, world) = took(vec![Arc::clone(&hung), Arc::clone(&good)]).await;
    assert_eq!(alone, with_them, "not a moment longer");
    assert_eq!(hung.tries.load(Ordering::Relaxed), 1, "it still hangs in the first");
    let heard = good.heard.lock().clone();
    assert_eq!(heard.iter().map(|notice| notice.event).collect::<Vec<_>>(), ["run_started", "run_finished"]);
    let end = heard[1].end.as_ref().expect("an end");
    assert_eq!((end.outcome, end.members.len()), ("succeeded", 3));
    assert!(end.reclaimed_bytes > 0, "{end:?}");
    assert_eq!(heard[1].link.as_deref(), Some("https://ops.example.org/defragd/runs/1"));
    // Nor does the end of the process wait for it longer than its limit.
    let begun = Instant::now();
    let undelivered = world.notifications.finish(Duration::from_secs(3)).await;
    assert_eq!(undelivered, ["could not deliver all notifications to hung within 3 s"]);
    assert!(begun.elapsed() <= Duration::from_secs(4));
}

fn notice(run: i64) -> Notice {
    Notice {
        event: "run_started",
        cluster: "a".to_owned(),
        run: RunId(run),
        trigger: Trigger::Alert,
        alerts: Vec::new(),
        started_at: Timestamp::UNIX_EPOCH,
        link: None,
        end: None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_three_times_and_what_cannot_once() {
    let (busy, gone) = (Target::new("busy", |_| Some(no(true))), Target::new("gone", |_| Some(no(false))));
    let late = Target::new("late", |tries| Some(if tries < 2 { no(true) } else { Ok(()) }));
    let world = world(&[&busy, &gone, &late]);
    world.notifications.enqueue(&notice(1));
    sleep(Duration::from_mins(1)).await;
    let tries = [&busy, &gone, &late].map(|target| target.tries.load(Ordering::Relaxed));
    assert_eq!(tries, [3, 1, 3]);
    for (target, result) in [("busy", "failed"), ("gone", "failed"), ("late", "sent")] {
        assert!(counted(&world.counters, target, result), "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_each_target_that_missed_something_is_named_although_one_hangs() {
    let (hung, gone) = (Target::new("hung", |_| None), Target::new("gone", |_| Some(no(false))));
    let good = Target::new("good", |_| Some(Ok(())));
    let world = world(&[&gone, &hung, &good]);
    world.notifications.enqueue(&notice(1));
    let undelivered = world.notifications.finish(Duration::from_secs(3)).await;
    let expected =
        ["could not deliver a notification to gone: no", "could not deliver all notifications to hung within 3 s"];
    assert_eq!(undelivered, expected);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_what_is_new_and_counts_it() {
    let hung = Target::new("hung", |_| None);
    let world = world(&[&hung]);
    world.notifications.enqueue(&notice(0));
    // It is taken out of the queue, and hangs.
    sleep(Duration::from_secs(1)).await;
    for run in 0..=i64::try_from(QUEUE).expect("small") {
        world.notifications.enqueue(&notice(run));
    }
    assert!(counted(&world.counters, "hung", "dropped"));
}
