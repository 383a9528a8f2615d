//! A fleet with unhealthy clusters: the others are in every scrape, and nothing piles up. The members are simulated
//! (`benches/fleet`); the cost of a scrape is measured there, not here.

use std::{fmt::Write, time::Duration};

use anyhow::ensure;
use fleet::{Fault, Fleet, Plan, plan::MEMBERS};
use testkit::{Defragd, Exposition, Home, Port, until};
use tokio::time::{Instant, timeout};

use crate::rig::{MINUTE, client, descriptors, home};

/// Ten clusters of three members, of which two hang and one is not there.
///
/// The port is theirs as long as it is kept: other tests choose theirs at random.
async fn in_trouble(home: &Home) -> (Plan, Fleet, Defragd, Port) {
    const CLUSTERS: usize = 10;
    let mut port = Port::reserve().unwrap();
    let plan = Plan::new(CLUSTERS, port.number(), false, 2, 1);
    port.release();
    let fleet = Fleet::start(plan.clone(), &home.path("")).await.unwrap();
    let mut config = "clusters:\n".to_owned();
    for cluster in 0..CLUSTERS {
        let urls: Vec<_> = (0..MEMBERS).map(|member| plan.url(cluster, member)).collect();
        writeln!(config, "  - {{name: {}, endpoints: {urls:?}}}", Plan::name(cluster)).unwrap();
    }
    home.write("config.yaml", config).unwrap();
    let flags = ["--exporter-only".to_owned(), home.flag("--config", "config.yaml")];
    let defragd = home.serve(&flags).await.unwrap();
    (plan, fleet, defragd, port)
}

async fn scrape(http: &reqwest::Client, defragd: &Defragd, timeout_seconds: &str) -> Exposition {
    let request = http
        .get(format!("{}/metrics", defragd.url()))
        .header("x-prometheus-scrape-timeout-seconds", timeout_seconds)
        .send();
    let answer = timeout(MINUTE, request).await.expect("answered at all").unwrap();
    assert!(answer.status().is_success());
    Exposition::new(answer.text().await.unwrap())
}

fn up(page: &Exposition, cluster: usize, member: usize) -> f64 {
    let (cluster, member) = (Plan::name(cluster), format!("etcd-{member}"));
    page.require("defragd_member_up", &[("etcd_cluster", &cluster), ("member", &member)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_hang_or_refuse_take_no_other_from_any_scrape() {
    let home = home();
    let (plan, _fleet, defragd, _port) = in_trouble(&home).await;
    let http = client(None).build().unwrap();
    for _ in 0..2 {
        // Far above what the others need, of which the member list has half; below the minute that ends the test.
        let page = scrape(&http, &defragd, "20").await;
        for (cluster, member) in (0..plan.clusters).flat_map(|cluster| (0..MEMBERS).map(move |m| (cluster, m))) {
            let well = plan.fault(cluster, member) == Fault::None;
            let found = up(&page, cluster, member);
            assert!((found - f64::from(u8::from(well))).abs() < 0.1, "cluster {cluster}, member {member}: {found}");
        }
        let hung: Vec<_> = (0..plan.clusters)
            .flat_map(|cluster| (0..MEMBERS).map(move |member| (cluster, member)))
            .filter(|(cluster, member)| plan.fault(*cluster, *member) == Fault::Frozen)
            .collect();
        assert!(!hung.is_empty(), "the plan has members that hang");
        // It starts no runs: counters of runs would only make the page of a large fleet longer.
        assert!(!page.text().contains("defragd_runs_total{"));
        // They never answer, so each wait was ended by the bound of 20 s: once, and noticed a little later.
        for (cluster, member) in hung {
            let (cluster, member) = (Plan::name(cluster), format!("etcd-{member}"));
            let labels = [("etcd_cluster", cluster.as_str()), ("member", member.as_str())];
            let took = page.require("defragd_member_probe_duration_seconds", &labels).unwrap();
            assert!(took < 30.0, "{cluster} {member} took {took} s");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_scrapes_while_members_restart_leave_no_file_open() {
    let home = home();
    let (_, mut fleet, defragd, _port) = in_trouble(&home).await;
    let restarts = tokio::spawn(async move { fleet.restart_members(Duration::from_millis(100)).await });
    let http = client(None).build().unwrap();
    let files = || descriptors(&defragd);
    let (begun, mut early) = (Instant::now(), 0);
    for number in 0..1_000 {
        let page = scrape(&http, &defragd, "0.06").await;
        assert!(page.text().ends_with("# EOF\n") || page.text().contains("defragd_cluster_up"));
        if number < 200 {
            early = early.max(files());
        }
        // A loaded machine makes fewer, and shows the same.
        if begun.elapsed() > Duration::from_mins(3) {
            break;
        }
    }
    assert!(!restarts.is_finished(), "the members restart all the while");
    // One for each member, and what serves; pages of members come and go, so one look alone may see more.
    until("no more files to be open than at first", MINUTE, || async {
        let late = files();
        ensure!(late <= early + 8, "{early} files were open at first, {late} in the end");
        Ok(())
    })
    .await
    .unwrap();
    restarts.abort();
}
