//! Reloads while Prometheus scrapes: every scrape is complete, and clusters that did not change keep their connections. The
//! members are simulated (`benches/fleet`).

use std::{
    collections::BTreeSet,
    fmt::Write,
    future::ready,
    sync::atomic::{AtomicBool, Ordering},
};

use fleet::{Fleet, Plan, plan::MEMBERS};
use testkit::{Defragd, Exposition, Home, Port, until};

use crate::rig::{MINUTE, TOKEN, home};

const CLUSTERS: usize = 6;
/// It comes and goes.
const GUEST: usize = CLUSTERS - 1;
/// Its endpoints are listed in another order.
const MOVED: usize = 0;
/// Its policy changes.
const CHANGED: usize = 1;

/// The configuration of this step: the guest is there in every second one.
fn configure(home: &Home, plan: &Plan, step: usize) {
    let mut config = "clusters:\n".to_owned();
    for cluster in (0..CLUSTERS).filter(|cluster| *cluster != GUEST || step.is_multiple_of(2)) {
        let mut urls: Vec<_> = (0..MEMBERS).map(|member| plan.url(cluster, member)).collect();
        if cluster == MOVED {
            urls.rotate_left(step % MEMBERS);
        }
        let hours = if cluster == CHANGED { step + 1 } else { 1 };
        let name = Plan::name(cluster);
        writeln!(config, "  - {{name: {name}, endpoints: {urls:?}, policy: {{cooldown: {hours}h}}}}").unwrap();
    }
    home.write("config.yaml", config).unwrap();
}

/// Every series once, and each member of every cluster up; of the guest all or none. Returns whether the guest is there.
fn check(page: &Exposition) -> bool {
    let samples = page.text().lines().filter(|line| !line.starts_with('#'));
    let mut series = BTreeSet::new();
    for sample in samples.filter_map(|line| line.rsplit_once(' ')) {
        assert!(series.insert(sample.0), "{} is there twice", sample.0);
    }
    let up = |cluster: usize| {
        let name = Plan::name(cluster);
        let of_cluster = page.samples("defragd_member_up").filter(move |(labels, _)| labels["etcd_cluster"] == name);
        of_cluster.filter(|(_, value)| *value > 0.5).count()
    };
    for cluster in (0..CLUSTERS).filter(|cluster| *cluster != GUEST) {
        assert_eq!(up(cluster), MEMBERS, "cluster {cluster} in\n{}", page.text());
    }
    assert!([0, MEMBERS].contains(&up(GUEST)), "the guest in\n{}", page.text());
    up(GUEST) > 0
}

/// Scrapes until this is done, and once at least.
async fn scraped_during<T>(defragd: &Defragd, work: impl Future<Output = T>) -> T {
    let done = AtomicBool::new(false);
    let work = async {
        let result = work.await;
        done.store(true, Ordering::Relaxed);
        result
    };
    let scrapes = async {
        loop {
            check(&defragd.metrics().await.unwrap());
            if done.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    tokio::join!(work, scrapes).0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_loses_no_scrape_and_no_connection_of_a_cluster_that_stays() {
    const RELOADS: usize = 20;
    let home = home();
    let mut port = Port::reserve().unwrap();
    let plan = Plan::new(CLUSTERS, port.number(), false, 0, 0);
    port.release();
    let fleet = Fleet::start(plan.clone(), &home.path("")).await.unwrap();
    configure(&home, &plan, 0);
    let defragd = home.serve(&[home.flag("--config", "config.yaml")]).await.unwrap();
    assert!(check(&defragd.metrics().await.unwrap()));
    let connections = |cluster| [0, 1, 2].map(|member| fleet.grpc_connections(cluster, member));
    let before: Vec<_> = (0..CLUSTERS).map(connections).collect();

    for step in 1..=RELOADS {
        configure(&home, &plan, step);
        let answer = scraped_during(&defragd, defragd.post("/-/reload", "", Some(TOKEN))).await.unwrap();
        assert_eq!(answer.status, 200, "reload {step}: {}", answer.body);
    }
    for (cluster, before) in before.iter().enumerate() {
        let stays = cluster != GUEST && cluster != MOVED;
        assert_eq!(connections(cluster) == *before, stays, "cluster {cluster}: {before:?}, {:?}", connections(cluster));
    }

    // A signal may come while the guest is still ending its tasks, too.
    configure(&home, &plan, 1);
    assert_eq!(defragd.post("/-/reload", "", Some(TOKEN)).await.unwrap().status, 200);
    configure(&home, &plan, 2);
    defragd.signal_hup().unwrap();
    let is_back = || async {
        let is_there = check(&defragd.metrics().await?);
        ready(is_there.then_some(()).ok_or_else(|| anyhow::anyhow!("the guest is not there"))).await
    };
    until("the guest to be back", MINUTE, is_back).await.unwrap();
    defragd.terminate(MINUTE).await.unwrap();
}
