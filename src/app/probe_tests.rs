use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{app::fake::FakeEtcd, config::Settings};

fn modules(text: &str) -> BTreeMap<String, ModuleSettings> {
    Settings::from_text(&format!("modules: {text}")).expect("valid").modules
}

fn lab() -> BTreeMap<String, ModuleSettings> {
    modules("{lab: {scheme: http, allowed_targets: [10.0.0.0/8]}, other: {allowed_targets: [a.example]}}")
}

fn ask(target: &str) -> ProbeRequest {
    let targets = target.split(',').map(str::to_owned).collect();
    ProbeRequest { module: "lab".to_owned(), targets, cluster: None }
}

/// Probes of fakes, and how often one was connected to.
fn probes(hang: &'static [u64]) -> (Probes<FakeEtcd>, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let connector: Connector<FakeEtcd> = Arc::new(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        let etcd = FakeEtcd::new(3);
        for id in hang {
            etcd.hang(*id);
        }
        Ok(etcd)
    });
    (Probes::new(lab(), connector), made)
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_probe_shows_the_cluster_and_nothing_of_this_process() {
    let (probes, _) = probes(&[]);
    let page = probes.probe(ask("10.0.0.1:2379"), SECOND).await.expect("a page");
    for line in [
        "defragd_probe_success 1",
        "defragd_cluster_up{etcd_cluster=\"10.0.0.1:2379\"} 1",
        "defragd_cluster_members{etcd_cluster=\"10.0.0.1:2379\",role=\"voter\"} 3",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert_eq!(page.matches("\ndefragd_member_up{").count(), 3, "{page}");
    assert!(page.contains("defragd_probe_duration_seconds 0.") && page.ends_with("# EOF\n"), "{page}");
    for foreign in ["process_", "runtime_", "build_info", "_run", "queue_depth", "_paused", "breaker", "scrape"] {
        let shown = page.lines().any(|line| !line.starts_with('#') && line.contains(foreign));
        assert!(!shown, "{foreign} is in\n{page}");
    }
    let named = ProbeRequest { cluster: Some("prod \"a\"".to_owned()), ..ask("10.0.0.1:2379") };
    let page = probes.probe(named, SECOND).await.expect("a page");
    assert!(page.contains("defragd_cluster_up{etcd_cluster=\"prod \\\"a\\\"\"} 1"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn what_hangs_costs_no_more_than_the_budget_and_is_shown_as_down() {
    let (probes, _) = probes(&[2]);
    let began = Instant::now();
    let page = probes.probe(ask("10.0.0.1:2379"), 9 * SECOND).await.expect("a page");
    assert!(began.elapsed() <= 9 * SECOND);
    assert!(page.contains("defragd_probe_success 1") && page.matches("\ndefragd_member_up{").count() == 3, "{page}");

    let (probes, _) = self::probes(&[1, 2, 3]);
    let began = Instant::now();
    let page = probes.probe(ask("10.0.0.1:2379"), 9 * SECOND).await.expect("a page");
    assert!(began.elapsed() <= 9 * SECOND);
    assert!(page.contains("defragd_probe_success 0") && page.contains("} 0.0\n"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn connections_are_kept_for_the_next_scrape_and_closed_when_unused() {
    let (probes, made) = probes(&[]);
    let probes = Arc::new(probes);
    for target in ["10.0.0.1:2379,10.0.0.2:2379", "10.0.0.2:2379,10.0.0.1:2379", "http://10.0.0.1:2379,10.0.0.2:2379"] {
        probes.probe(ask(target), SECOND).await.expect("a page");
    }
    assert_eq!(made.load(Ordering::Relaxed), 1, "it is one cluster");
    let sweeper = tokio::spawn({
        let probes = Arc::clone(&probes);
        async move { probes.sweep().await }
    });
    sleep(KEPT_FOR / 2).await;
    assert_eq!(probes.cache.lock().len(), 1);
    sleep(KEPT_FOR).await;
    assert_eq!(probes.cache.lock().len(), 0);
    sweeper.abort();

    probes.probe(ask("10.0.0.1:2379"), SECOND).await.expect("a page");
    probes.follow(lab());
    probes.probe(ask("10.0.0.1:2379"), SECOND).await.expect("a page");
    assert_eq!(made.load(Ordering::Relaxed), 3, "a reload reads the files again");
}

#[tokio::test(start_paused = true)]
async fn ever_new_targets_displace_the_oldest_but_none_that_is_being_queried() {
    let (probes, made) = probes(&[]);
    probes.probe(ask("10.9.9.9:2379"), SECOND).await.expect("a page");
    let held = Arc::clone(&probes.cache.lock().values().next().expect("kept").target);
    for host in 0..=MAX_KEPT {
        tokio::time::advance(Duration::from_millis(1)).await;
        probes.probe(ask(&format!("10.0.{}.{}:2379", host / 250, host % 250)), SECOND).await.expect("a page");
        assert!(probes.cache.lock().len() <= MAX_KEPT);
    }
    let before = made.load(Ordering::Relaxed);
    probes.probe(ask("10.9.9.9:2379"), SECOND).await.expect("a page");
    assert_eq!(made.load(Ordering::Relaxed), before, "it was in use");
    probes.probe(ask("10.0.0.0:2379"), SECOND).await.expect("a page");
    assert_eq!(made.load(Ordering::Relaxed), before + 1, "it was the oldest");
    drop(held);

    let busy: Vec<_> = probes.cache.lock().values().map(|kept| Arc::clone(&kept.target)).collect();
    assert_eq!(busy.len(), MAX_KEPT);
    let refused = probes.probe(ask("10.8.8.8:2379"), SECOND).await;
    assert_eq!(refused.expect_err("all are busy"), ProbeRefusal::Full);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_dialled_that_a_module_does_not_list_and_every_refusal_says_why() {
    let (probes, made) = probes(&[]);
    let refused = async |request| probes.probe(request, SECOND).await.expect_err("refused").to_string();
    let unknown = ProbeRequest { module: "prod".to_owned(), ..ask("10.0.0.1:2379") };
    assert_eq!(refused(unknown).await, "there is no module \"prod\"; configured modules: lab, other");
    for (target, says) in [
        ("192.0.2.1:2379", "module lab: its host is not among the module's allowed_targets"),
        ("10.0.0.1:2379,192.0.2.1:2379", "target \"192.0.2.1:2379\""),
        ("10.0.0.1:22", "allowed_ports: 2379"),
        ("10.0.0.1", "it has no port"),
        ("", "it is not an address"),
        ("root:secret@10.0.0.1:2379", "it contains a user"),
    ] {
        let error = refused(ask(target)).await;
        assert!(error.contains(says) && !error.contains("secret"), "{target}: {error}");
    }
    assert_eq!(made.load(Ordering::Relaxed), 0);
    let error = Probes::<FakeEtcd>::none().probe(ask("10.0.0.1:2379"), SECOND).await.expect_err("refused");
    assert!(error.to_string().contains("the configuration has no `modules`"), "{error}");

    let broken: Connector<FakeEtcd> = Arc::new(|_, _| anyhow::bail!("cannot read /ca.crt"));
    let error = Probes::new(lab(), broken).probe(ask("10.0.0.1:2379"), SECOND).await.expect_err("refused");
    assert_eq!(error.to_string(), "module lab: cannot read /ca.crt");
}
