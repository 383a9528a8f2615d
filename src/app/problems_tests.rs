use std::{io::Write, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::{
    adapters::http::AccessPolicy,
    app::{
        cluster::{
            Cluster,
            tests::{cluster_in, key, shared},
        },
        fake::{FakeEtcd, FakeJournal},
        fake_site::site,
        problems::ObservedProblems,
    },
    config::ClusterSettings,
    core::{
        cluster::{Gauges, Unknown, UnknownKind},
        fixture,
        policy::{Mode, Policy},
    },
    ports::service::{Command, Service},
};
const MINUTES: usize = 10;
const SCRAPE_EVERY: Duration = Duration::from_secs(5);

/// The lines that are logged in this thread.
#[derive(Clone, Default)]
pub(in crate::app) struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logged {
    pub(in crate::app) fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let logged = Self::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (logged, tracing::subscriber::set_default(subscriber))
    }

    pub(in crate::app) fn lines(&self, text: &str) -> Vec<String> {
        let all = String::from_utf8_lossy(&self.0.lock()).into_owned();
        all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

#[test]
fn each_kind_of_error_of_a_metrics_page_is_logged_once_until_the_page_is_read() {
    let (logged, _guard) = Logged::begin();
    let mut problems = ObservedProblems::default();
    let mut facts = fixture::cluster(1);
    let mut reads = |gauges: Result<Gauges, UnknownKind>| {
        facts.members[0].gauges = Some(gauges.map_err(|kind| Unknown::new(kind, "detail")));
        problems.measured("a", &facts, None);
        logged.lines("cannot read the metrics page").len()
    };
    let (late, broken) = (UnknownKind::TimedOut, UnknownKind::Other);
    assert_eq!([broken, late, broken, late, broken].map(|kind| reads(Err(kind))), [1, 2, 2, 2, 2]);
    assert_eq!(reads(Ok(Gauges::default())), 2);
    assert_eq!(reads(Err(broken)), 3, "it could be read in the meantime");
}

#[test]
fn each_kind_of_problem_that_needs_an_operator_is_logged_once_until_the_member_is_observed_again() {
    let (logged, _guard) = Logged::begin();
    let mut problems = ObservedProblems::default();
    let mut facts = fixture::cluster(2);
    // Names need not be unique.
    facts.members[1].member.name = facts.members[0].member.name.clone();
    let mut lines = |status: Result<(), UnknownKind>| {
        facts.members[0].status = status.map(|()| fixture::status(7)).map_err(|kind| Unknown::new(kind, "detail"));
        problems.record("a", None, Some(&facts));
        ["cannot observe", "can be observed again"].map(|text| logged.lines(text).len())
    };
    let (tls, wrong, late) = (UnknownKind::Tls, UnknownKind::WrongMember, UnknownKind::TimedOut);
    assert_eq!([tls, wrong, tls, late, wrong, late].map(|kind| lines(Err(kind))[0]), [1, 2, 2, 2, 2, 2]);
    assert_eq!(lines(Err(late)), [2, 0], "it is still not observed");
    assert_eq!(lines(Ok(())), [2, 1]);
    assert_eq!(lines(Err(wrong)), [3, 1], "it was observed in the meantime");
}

fn cluster() -> Cluster<FakeEtcd, FakeJournal> {
    let endpoints = vec!["http://10.0.0.1:2379".to_owned()];
    let settings = ClusterSettings { name: "a".to_owned(), endpoints, ..ClusterSettings::default() };
    Cluster::new(settings, FakeEtcd::new(1), shared(1))
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_cluster_is_logged_within_5_s_of_the_start_with_endpoint_and_cause() {
    let (logged, _guard) = Logged::begin();
    let cluster = Arc::new(cluster());
    cluster.target.etcd().hang(1);
    // It never ends.
    let _ = timeout(Duration::from_secs(5), cluster.observe_at_start()).await;
    let lines = logged.lines("the cluster is unreachable");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["cluster=\"a\"", "endpoints=\"http://10.0.0.1:2379\"", "the member list: no answer within"] {
        assert!(lines[0].contains(part), "{part} is missing: {}", lines[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_cluster_is_logged_once_a_minute_however_often_it_is_scraped() {
    let (logged, _guard) = Logged::begin();
    let cluster = cluster();
    let scrapes = MINUTES * 60 / 5;
    cluster.target.etcd().hang(1);
    for _ in 0..scrapes {
        cluster.sample(Duration::from_secs(1)).await;
        sleep(SCRAPE_EVERY.saturating_sub(Duration::from_millis(500))).await;
    }
    assert_eq!(logged.lines("the cluster is unreachable").len(), MINUTES);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_comes_and_goes_is_logged_no_more_often() {
    let (logged, _guard) = Logged::begin();
    let cluster = cluster();
    for _ in 0..MINUTES * 60 / 10 {
        cluster.target.etcd().hang(1);
        cluster.sample(Duration::from_secs(1)).await;
        sleep(SCRAPE_EVERY).await;
        cluster.target.etcd().recover(1);
        cluster.sample(Duration::from_secs(1)).await;
        sleep(SCRAPE_EVERY).await;
    }
    for text in ["the cluster is unreachable", "the cluster is reachable again"] {
        let lines = logged.lines(text);
        assert!((2..=MINUTES + 1).contains(&lines.len()), "{} lines: {text}", lines.len());
    }
}

#[tokio::test(start_paused = true)]
async fn an_action_that_the_journal_does_not_record_is_not_logged_as_done() {
    let (logged, _guard) = Logged::begin();
    let cluster = Arc::new(cluster());
    cluster.request(key("1")).await.expect("accepted");
    let commands = [
        Command::Pause { reason: "upgrade".to_owned(), lasts: None },
        Command::Resume { reason: "done".to_owned() },
        Command::Run { members: Vec::new() },
        Command::Cancel { reason: "not tonight".to_owned() },
    ];
    for (is_broken, lines) in [(true, 0), (false, 1)] {
        if is_broken {
            cluster.shared.journal.break_down();
        } else {
            cluster.shared.journal.recover();
        }
        for command in commands.clone() {
            assert_eq!(cluster.command("ann".to_owned(), command).await.is_err(), is_broken);
        }
        for done in ["paused cluster", "resumed cluster", "started the waiting run", "cancelled the request"] {
            assert_eq!(logged.lines(done).len(), lines, "{done}");
        }
    }

    let world = shared(1);
    let cluster = cluster_in(&world, "a", Policy { mode: Mode::Approve, ..Policy::default() });
    for (is_broken, lines) in [(true, 0), (false, 1)] {
        world.journal.recover();
        let decision = cluster.request(key(&lines.to_string())).await.expect("recorded");
        let run = decision.about().1.expect("a run");
        if is_broken {
            world.journal.break_down();
        }
        assert_eq!(cluster.reject(run, "ann".to_owned(), String::new()).await.is_err(), is_broken);
        assert_eq!(logged.lines("rejected cluster").len(), lines);
    }
    for (is_broken, lines) in [(true, 0), (false, 1)] {
        world.journal.recover();
        let decision = cluster.request(key("9")).await.expect("recorded");
        let run = decision.about().1.expect("a run");
        if is_broken {
            world.journal.break_down();
        }
        assert_eq!(cluster.approve(run, "ann".to_owned()).await.is_err(), is_broken);
        assert_eq!(logged.lines("approved cluster").len(), lines);
    }
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_concerns_no_cluster_is_a_warning_with_its_labels() {
    let (logged, _guard) = Logged::begin();
    let (app, _) = site(&["a"], Mode::Enforce, AccessPolicy::tokens(None, None));
    for status in ["firing", "resolved"] {
        let labels = serde_json::json!({ "alertname": "X", "etcd_cluster": "b", "job": "j".repeat(300) });
        let alert = serde_json::json!({
            "status": status, "labels": labels, "startsAt": "2026-11-23T00:00:00Z", "fingerprint": "f"
        });
        let notification = serde_json::json!({ "version": "4", "alerts": [alert] });
        app.notify(serde_json::from_value(notification).expect("a notification")).await.expect("answered");
    }
    let lines = logged.lines("WARN");
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(line.contains("etcd_cluster=") && line.contains("unknown_cluster"), "{line}");
    assert!(line.contains(&"j".repeat(200)) && !line.contains(&"j".repeat(257)), "{line}");
    assert_eq!(logged.lines("alert received").len(), 2);
}

#[tokio::test]
async fn a_cluster_without_a_lock_releases_none() {
    let (logged, _guard) = Logged::begin();
    cluster().release_lock().await;
    assert_eq!(logged.lines("releasing the lock"), Vec::<String>::new());
}
