//! Members that are down before a run, and that die in it.

use std::time::Duration;

use testkit::{DefragWatch, EtcdVersion, Exposition};

use crate::{
    faults,
    rig::{Rig, TOKEN, ended_run, firing},
};

fn runs(metrics: &Exposition, outcome: &str) -> Option<u64> {
    metrics.count("defragd_runs_total", &[("etcd_cluster", "demo"), ("trigger", "alert"), ("outcome", outcome)])
}

fn decisions(metrics: &Exposition, decision: &str, reason: &str) -> Option<u64> {
    metrics.count("defragd_decisions_total", &[("decision", decision), ("reason", reason)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_down_before_the_run_refuses_it() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=enforce"]).await;
    let down = (rig.cluster.leader().await.unwrap() + 1) % 3;
    rig.cluster.kill(down).await.unwrap();

    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "refused", "{run}");
    assert_eq!(run["reason"]["code"], "member_unreachable");
    let name = rig.cluster.member(down).name();
    assert_eq!(run["reason"]["member"], name);
    assert_eq!(rig.defrags().await, [0, 0, 0], "a member was touched");

    let log = defragd.log().unwrap();
    let line = log.lines().find(|line| line.contains("run ended")).unwrap();
    assert!(line.contains("member_unreachable") && line.contains(name) && line.contains("refused"), "{line}");
    let metrics = defragd.metrics().await.unwrap();
    assert_eq!(runs(&metrics, "refused"), Some(1));
    assert_eq!(decisions(&metrics, "refuse", "member_unreachable"), Some(1));
    let up = |member| metrics.value("defragd_member_up", &[("member", member)]);
    assert_eq!(up(name), Some(0.0));
    assert_eq!(metrics.value("defragd_cluster_up", &[]), Some(1.0));

    let plan = rig.command("plan", &[]).await;
    assert_eq!(plan.status.code(), Some(3));
    let text = String::from_utf8(plan.stdout).unwrap();
    assert!(text.contains("An automatic run is held now:\n- ") && text.contains(name), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_dies_in_the_run_stops_it_and_the_rest_is_left_alone() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let leader = rig.cluster.leader().await.unwrap();
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let defragd = rig.serve(&["--mode=enforce", "--recovery-timeout=4s"]).await;
    // The first member is held in its Defragment until the other is dead: no pause is long enough on every machine.
    let held = faults::hold(&rig).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let first = faults::defragmenting(&rig.cluster).await;
    let dies = (0..3).find(|index| *index != first && *index != leader).unwrap();
    rig.cluster.kill(dies).await.unwrap();
    drop(held);

    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "failed", "{run}");
    assert_eq!(run["reason"]["code"], "not_recovered");
    let name = rig.cluster.member(dies).name();
    assert!(run["reason"]["detail"].as_str().unwrap().contains(name), "{run}");
    assert_eq!(watch.stop().await.order(), [first], "only the first member was touched");

    let log = defragd.log().unwrap();
    assert!(log.lines().any(|line| line.contains("run ended") && line.contains("not_recovered")), "{log}");
    let metrics = defragd.metrics().await.unwrap();
    assert_eq!(runs(&metrics, "failed"), Some(1));
    assert_eq!(decisions(&metrics, "stop", "not_recovered"), Some(1));
    // The two that are left still serve.
    rig.cluster.client(leader).await.unwrap().put("after", "x", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_member_neither_fails_nor_delays_a_scrape_beyond_its_timeout() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    // Half of the scrape's time is for the members and half for a busy machine. `app/observer.rs` tests in virtual time
    // that the members get no more of it.
    let defragd = rig.serve(&["--timeout-offset=5"]).await;
    let client = reqwest::Client::new();
    let frozen = (rig.cluster.leader().await.unwrap() + 1) % 3;
    defragd.metrics().await.unwrap();
    rig.cluster.pause(frozen).unwrap();
    let begun = std::time::Instant::now();
    let page = client
        .get(format!("{}/metrics", defragd.url()))
        .header("X-Prometheus-Scrape-Timeout-Seconds", "10")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let took = begun.elapsed();
    rig.cluster.resume(frozen).unwrap();
    // The contract is the scrape's own timeout, not speed.
    assert!(took < Duration::from_secs(10), "{took:?}");
    let metrics = Exposition::new(page);
    let up = |index: usize| metrics.value("defragd_member_up", &[("member", rig.cluster.member(index).name())]);
    for index in 0..3 {
        assert_eq!(up(index), Some(if index == frozen { 0.0 } else { 1.0 }));
    }
}
