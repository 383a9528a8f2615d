//! A request stands until its work is done, whatever ends a run before: no alert is sent a second time in these tests.

use std::time::Duration;

use etcd_client::{CompactionOptions, DeleteOptions};
use serde_json::{Value, json};
use testkit::{
    Defragd, EtcdCluster, EtcdSpec, EtcdVersion, KubeApiserver, Transport, exhaust_quota, fragment, on_each_version,
    until,
};
use tokio::net::TcpListener;

use crate::{
    faults::{self, received},
    lock_stores::{NAMESPACE, grant_leases, kubeconfig},
    replicas::{Replica, TTL},
    rig::{MIB, MINUTE, Rig, TOKEN, ended_run, firing, members_of, notification},
};

/// Small, so that it is used up soon.
const QUOTA: u64 = 48 * MIB;
/// A run begins half a minute after its replica has got the lock, and takes some seconds.
const LONG: Duration = Duration::from_mins(3);

async fn summary(defragd: &Defragd) -> anyhow::Result<Value> {
    Ok(defragd.json("/api/v1/clusters").await?["clusters"][0].clone())
}

/// The request waits, and shows this reason.
async fn waits_for(defragd: &Defragd, code: &str) -> Value {
    until(&format!("the request to wait for {code}"), MINUTE, || async {
        let cluster = summary(defragd).await?;
        anyhow::ensure!(cluster["waiting_for"]["code"] == code, "{cluster}");
        Ok(cluster)
    })
    .await
    .unwrap()
}

/// An alert that began at this time.
fn firing_since(starts_at: &str) -> Value {
    let mut alert = firing();
    alert["alerts"][0]["startsAt"] = starts_at.into();
    alert
}

async fn post(defragd: &Defragd, alert: &Value) -> Value {
    let answer = defragd.post_alerts(alert, Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    answer["alerts"][0].clone()
}

async fn act(defragd: &Defragd, what: &str, body: Value) {
    let answer = defragd.post(&format!("/api/v1/clusters/demo/{what}"), body.to_string(), Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

on_each_version! { row_1_after_a_sigterm_the_next_start_does_the_rest_on _ => sigterm }

/// In the middle of the first member. The cooldown is the default one, of hours.
async fn sigterm(version: EtcdVersion) {
    let rig = Rig::fragmented(version).await;
    let held = faults::hold(&rig).await;
    let defragd = rig.serve(&["--mode=enforce", "--shutdown-grace=5m"]).await;
    post(&defragd, &firing()).await;
    faults::defragmenting(&rig.cluster).await;
    defragd.signal_term().unwrap();
    defragd.logs("stopping: starting no further member", MINUTE).await.unwrap();
    drop(held);
    assert!(defragd.ended(MINUTE).await.unwrap().success());
    assert_eq!(received(&rig.cluster).iter().sum::<usize>(), 1);

    let defragd = rig.serve(&["--mode=enforce"]).await;
    let run = ended_run(&defragd, 2).await;
    assert_eq!((&run["outcome"], &run["trigger"]), (&json!("succeeded"), &json!("retry")), "{run}");
    assert_eq!(members_of(&run).len(), 2, "the rest: {run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    rig.assert_tight().await;
    // What is done now holds automation back, and what still fires is answered by measuring.
    let decided = post(&defragd, &firing_since("2026-11-23T12:00:00Z")).await;
    assert_eq!(decided["decision"], "accepted", "{decided}");
    let run = ended_run(&defragd, 3).await;
    assert_eq!(run["outcome"], "nothing_to_do", "{run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
}

on_each_version! { row_2_the_successor_of_a_holder_that_ends_in_a_run_does_the_rest_on _ => succession }

#[tokio::test(flavor = "multi_thread")]
async fn row_2_the_successor_of_a_holder_that_ends_in_a_run_does_the_rest_with_a_lease_of_kubernetes() {
    let rig = Rig::new(faults::newest()).await;
    if rig.tools.kube_apiserver().is_none() {
        testkit::skipped("no kube-apiserver here; `make tools-kube` builds one");
        return;
    }
    let api = KubeApiserver::start(&rig.tools, &rig.cluster, &rig.path("kube-apiserver.log")).await.unwrap();
    let kubeconfig = kubeconfig(&api, rig.dir.path()).await;
    grant_leases(&api).await;
    rig.fragment().await;
    let lock = json!({"kind": "kubernetes", "kubernetes": {"kubeconfig": kubeconfig, "namespace": NAMESPACE}});
    let config = rig.path("config.yaml");
    std::fs::write(&config, json!({"lock": lock, "clusters": [rig.cluster_keys(&json!([]))]}).to_string()).unwrap();
    succeeded_in(&rig, vec![format!("--config={}", config.display())]).await;
}

async fn succession(version: EtcdVersion) {
    let rig = Rig::fragmented(version).await;
    succeeded_in(&rig, vec!["--lock.kind=etcd".to_owned()]).await;
}

/// Only the holder has heard of the alert, and it ends in an orderly way in the middle of the first member.
async fn succeeded_in(rig: &Rig, mut lock: Vec<String>) {
    lock.push(format!("--lock.ttl={}s", TTL.as_secs()));
    let held = faults::hold(rig).await;
    let one = Replica::start_with_lock(rig, "one", lock.clone()).await;
    one.holds().await;
    let two = Replica::start_with_lock(rig, "two", lock).await;
    two.follows("one").await;
    one.post(1).await;
    faults::defragmenting(&rig.cluster).await;
    one.defragd.signal_term().unwrap();
    one.defragd.logs("stopping: starting no further member", MINUTE).await.unwrap();
    drop(held);
    assert!(one.defragd.ended(MINUTE).await.unwrap().success());
    assert_eq!(received(&rig.cluster).iter().sum::<usize>(), 1);

    until("the successor to have the request", LONG, || async {
        let cluster = summary(&two.defragd).await?;
        anyhow::ensure!(!cluster["queued_run"].is_null() || !cluster["active_run"].is_null(), "{cluster}");
        Ok(())
    })
    .await
    .unwrap();
    let run = two.ended(1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    rig.assert_tight().await;
}

on_each_version! { row_4_nospace_waits_for_no_cooldown_and_no_daily_limit_on _ => no_space_in_cooldown }

async fn no_space_in_cooldown(version: EtcdVersion) {
    let rig = Rig::with(EtcdSpec::new(version).quota_bytes(QUOTA)).await;
    rig.fragment().await;
    let defragd = rig.serve(&["--mode=enforce", "--max-runs-per-day=1"]).await;
    post(&defragd, &firing()).await;
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "succeeded");
    // Enough to gain, but no emergency: it waits, and says so.
    fragment(&rig.cluster, 30 * MIB, 8 * MIB).await.unwrap();
    post(&defragd, &firing_since("2026-11-23T11:00:00Z")).await;
    waits_for(&defragd, "cooldown").await;
    assert_eq!(received(&rig.cluster), [1, 1, 1]);

    // It looks once a minute, and would begin as soon as the alarm is armed for the first time: in the middle of this.
    defragd.pause().unwrap();
    exhaust_quota(&rig.cluster, 8 * MIB).await.unwrap();
    defragd.resume().unwrap();
    // The other alert causes an observation now, not within the minute.
    let mut no_space = firing_since("2026-11-23T12:00:00Z");
    no_space["alerts"][0]["fingerprint"] = "f2".into();
    post(&defragd, &no_space).await;
    let run = until("the run to end", LONG, || async {
        let run = defragd.json("/api/v1/runs/2").await?;
        anyhow::ensure!(run["outcome"].is_string(), "{run}");
        Ok(run)
    })
    .await
    .unwrap();
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(received(&rig.cluster), [2, 2, 2]);
    assert_eq!(rig.cluster.alarms().await.unwrap(), []);
}

/// Leaves a file with more than a megabyte to gain, also where nothing can be put any more.
async fn delete_all(cluster: &EtcdCluster) {
    let mut client = cluster.client(0).await.unwrap();
    let deleted = client.delete("fragment/", Some(DeleteOptions::new().with_prefix())).await.unwrap();
    client.compact(deleted.header().unwrap().revision(), Some(CompactionOptions::new().with_physical())).await.unwrap();
    until("the deleted keys' pages to be free", MINUTE, || async {
        let mut client = cluster.client(0).await?;
        // A member counts them when it commits, and it accepts these without space.
        client.role_add("committed").await?;
        client.role_delete("committed").await?;
        let sizes = testkit::sizes(cluster).await?;
        anyhow::ensure!(sizes.iter().any(|size| size.size - size.in_use > 2 * MIB), "{sizes:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn row_5_nospace_is_disarmed_after_a_member_that_failed_too_if_every_file_is_small() {
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).quota_bytes(QUOTA)).await;
    exhaust_quota(&rig.cluster, 8 * MIB).await.unwrap();
    for index in 0..3 {
        rig.cluster.client(index).await.unwrap().defragment().await.unwrap();
    }
    // Deletions are taken without space, too: there is something to gain in small files.
    Box::pin(delete_all(&rig.cluster)).await;
    let before = received(&rig.cluster);
    let held = faults::hold(&rig).await;
    let defragd = rig.serve(&["--mode=enforce", "--defrag-deadline=2s"]).await;
    post(&defragd, &firing()).await;
    defragd.logs("code=deadline_exceeded", MINUTE).await.unwrap();
    drop(held);
    let run = ended_run(&defragd, 1).await;
    assert_eq!((&run["outcome"], &run["reason"]["code"]), (&json!("failed"), &json!("deadline_exceeded")), "{run}");
    assert_eq!(received(&rig.cluster).iter().sum::<usize>(), before.iter().sum::<usize>() + 1, "no other member");
    assert_eq!(rig.cluster.alarms().await.unwrap(), [], "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_7_a_pause_in_a_run_and_a_resume_and_the_rest_is_done() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let held = faults::hold(&rig).await;
    let defragd = rig.serve(&["--mode=enforce"]).await;
    post(&defragd, &firing()).await;
    faults::defragmenting(&rig.cluster).await;
    act(&defragd, "pause", json!({"by": "ann", "reason": "upgrade"})).await;
    drop(held);
    let run = ended_run(&defragd, 1).await;
    assert_eq!((&run["outcome"], &run["reason"]["code"]), (&json!("stopped"), &json!("paused")), "{run}");
    let cluster = waits_for(&defragd, "paused").await;
    assert_eq!(cluster["queued_run"], 2, "{cluster}");
    assert_eq!(received(&rig.cluster).iter().sum::<usize>(), 1);
    act(&defragd, "resume", json!({"by": "ann"})).await;
    let run = ended_run(&defragd, 2).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_8_a_run_that_began_in_another_mode_waits_for_its_approval() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    // It accepts, and never answers.
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", hangs.local_addr().unwrap());
    let gate = json!([{"name": "site", "http": {"url": url, "timeout": "60s"}}]);
    let mut keys = rig.cluster_keys(&gate);
    keys["policy"]["mode"] = "observe".into();
    let config = rig.path("config.yaml");
    std::fs::write(&config, json!({"clusters": [keys]}).to_string()).unwrap();
    let defragd = rig.serve_file(&config, &[]).await;
    post(&defragd, &firing()).await;
    let asked = tokio::time::timeout(MINUTE, hangs.accept()).await.expect("the gate is asked").unwrap();
    let run = defragd.json("/api/v1/runs/1").await.unwrap();
    assert!(run["started_at"].is_string(), "{run}");
    defragd.kill().await.unwrap();
    drop((asked, hangs));

    keys["policy"]["mode"] = "approve".into();
    keys["gates"] = json!([]);
    std::fs::write(&config, json!({"clusters": [keys]}).to_string()).unwrap();
    let defragd = rig.serve_file(&config, &[]).await;
    waits_for(&defragd, "awaiting_approval").await;
    assert_eq!(received(&rig.cluster), [0, 0, 0]);
    let answer = defragd.post("/api/v1/runs/1/approve", r#"{"by": "ann"}"#, Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let run = ended_run(&defragd, 1).await;
    assert_eq!((&run["outcome"], &run["approved"]["by"]), (&json!("succeeded"), &json!("ann")), "{run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_9_a_journal_from_the_future_holds_nothing_back() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=enforce"]).await;
    post(&defragd, &firing()).await;
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "succeeded");
    defragd.terminate(MINUTE).await.unwrap();
    let journal = rusqlite::Connection::open(rig.path("journal/journal.db")).unwrap();
    journal.execute("UPDATE entry SET at = '2099' || substr(at, 5)", []).unwrap();
    drop(journal);
    rig.fragment().await;
    let defragd = rig.serve(&["--mode=enforce"]).await;
    let decided = post(&defragd, &firing_since("2026-11-23T11:00:00Z")).await;
    assert_eq!(decided["decision"], "accepted", "{decided}");
    assert_eq!(ended_run(&defragd, 2).await["outcome"], "succeeded");
    assert_eq!(received(&rig.cluster), [2, 2, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_10_one_alert_in_two_spellings_is_one_and_one_that_fires_again_is_served() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=enforce"]).await;
    act(&defragd, "pause", json!({"by": "ann", "reason": "upgrade"})).await;
    let webhook = post(&defragd, &firing_since("2026-11-23T10:00:00.12Z")).await;
    let api = post(&defragd, &firing_since("2026-11-23T10:00:00.120Z")).await;
    assert_eq!((&webhook["decision"], &api["decision"]), (&json!("accepted"), &json!("duplicate")), "{api}");
    assert_eq!(api["run"], webhook["run"]);
    let run = defragd.json("/api/v1/runs/1").await.unwrap();
    assert_eq!(run["alerts"].as_array().unwrap().len(), 1, "{run}");
    let labels = [("alertname", "EtcdFragmentationHigh"), ("etcd_cluster", "demo")];
    let mut resolved = notification("resolved", &labels, "f1");
    resolved["alerts"][0]["startsAt"] = "2026-11-23T10:00:00.120Z".into();
    post(&defragd, &resolved).await;
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["reason"]["code"], "resolved", "{run}");
    let again = post(&defragd, &firing_since("2026-11-23T10:00:00.12Z")).await;
    assert_eq!((&again["decision"], &again["run"]), (&json!("accepted"), &json!(2)), "{again}");
    act(&defragd, "resume", json!({"by": "ann"})).await;
    assert_eq!(ended_run(&defragd, 2).await["outcome"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_11_a_short_pause_by_one_person_does_not_end_that_of_another() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=enforce"]).await;
    act(&defragd, "pause", json!({"by": "ann", "reason": "upgrade"})).await;
    act(&defragd, "pause", json!({"by": "bob", "reason": "lunch", "for": "1s"})).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cluster = summary(&defragd).await.unwrap();
    assert_eq!(cluster["paused"]["by"], "ann", "{cluster}");
    act(&defragd, "resume", json!({"by": "bob"})).await;
    assert!(summary(&defragd).await.unwrap()["paused"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn row_13_a_notification_with_ten_thousand_alerts_is_taken() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=enforce"]).await;
    let labels = [("alertname", "EtcdFragmentationHigh"), ("etcd_cluster", "demo"), ("padding", &"x".repeat(400))];
    let mut all = firing();
    let alerts: Vec<_> = (0..10_000).map(|number| notification("firing", &labels, &format!("{number:016x}"))).collect();
    all["alerts"] = alerts.iter().map(|one| one["alerts"][0].clone()).collect();
    assert!(all.to_string().len() > 6 << 20);
    let decided = post(&defragd, &all).await;
    assert_eq!(decided["decision"], "accepted", "{decided}");
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_14_a_request_that_the_holder_does_not_take_says_so_and_is_handed_over_once_it_does() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let token = rig.path("peers-token");
    std::fs::write(&token, "another token than the one that is asked for\n").unwrap();
    let kind = vec!["--lock.kind=etcd".to_owned(), format!("--lock.ttl={}s", TTL.as_secs())];
    let one = Replica::start_with_lock(&rig, "one", kind.clone()).await;
    one.holds().await;
    let wrong = [kind, vec![format!("--lock.token-file={}", token.display())]].concat();
    let two = Replica::start_with_lock(&rig, "two", wrong).await;
    two.follows("one").await;
    let run = two.post(1).await;
    let cluster = waits_for(&two.defragd, "not_forwarded").await;
    let reported = cluster["waiting_for"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(reported.contains("replica one") && reported.contains("401"), "{cluster}");
    // Once, however often it is tried.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let log = two.defragd.log().unwrap();
    assert_eq!(log.matches("code=not_forwarded").count(), 1, "{log}");

    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let ended = two.ended(run).await;
    assert_eq!(ended["reason"]["code"], "forwarded", "{ended}");
    assert_eq!(one.ended(1).await["outcome"], "succeeded");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_12_the_journal_is_rid_of_what_is_past_its_retention_and_gives_the_space_back() {
    const KEPT: i64 = 500;
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).transport(Transport::Plain)).await;
    rig.serve(&["--mode=observe"]).await.terminate(MINUTE).await.unwrap();
    let file = rig.path("journal/journal.db");
    let journal = rusqlite::Connection::open(&file).unwrap();
    // As an hourly alert leaves them, but each with a result of its own.
    let fill = "BEGIN;
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
            INSERT INTO run (cluster, open) SELECT 'demo', 0 FROM n;
        INSERT INTO entry (run, at, body) SELECT id, '2026-11-23T00:00:00Z',
            '{\"kind\":\"accepted\",\"cluster\":\"demo\",\"trigger\":\"alert\",\"alerts\":[]}' FROM run;
        INSERT INTO entry (run, at, body) SELECT id, '2026-11-23T00:00:01Z',
            '{\"kind\":\"finished\",\"outcome\":\"observed\",\"members\":[\"etcd-' || id || '\"]}' FROM run;
        COMMIT; PRAGMA wal_checkpoint(TRUNCATE);";
    journal.execute_batch(fill).unwrap();
    let size = || std::fs::metadata(&file).unwrap().len();
    let before = size();
    let defragd = rig.serve(&["--mode=observe", &format!("--journal.max-runs={KEPT}")]).await;
    until("the old runs to be gone, and the file to be smaller", MINUTE, || async {
        let left: i64 = journal.query_row("SELECT count(*) FROM run", [], |row| row.get(0))?;
        anyhow::ensure!(left == KEPT, "{left} runs");
        anyhow::ensure!(size() * 10 < before, "{} bytes of {before}", size());
        Ok(())
    })
    .await
    .unwrap();
    defragd.ensure_running().unwrap();
}
