//! Two real defragd on one real etcd, with the lock in that etcd: one acts, whichever gets the request.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{DefragWatch, Defragd, EtcdSpec, EtcdVersion, Port, exhaust_quota, until};
use tokio::time::Instant;

use crate::{
    faults::{hold, newest, received},
    rig::{MIB, MINUTE, Rig, TOKEN, binary, firing},
};

/// The least that the configuration allows.
pub(crate) const TTL: Duration = Duration::from_secs(10);
/// A run begins half a minute after its replica has got the lock, and takes some seconds.
const LONG: Duration = Duration::from_mins(3);

pub(crate) struct Replica {
    name: &'static str,
    pub(crate) defragd: Defragd,
    _port: Port,
}

impl Replica {
    pub(crate) async fn start(rig: &Rig, name: &'static str) -> Self {
        Self::start_with_ttl(rig, name, TTL).await
    }

    async fn start_with_ttl(rig: &Rig, name: &'static str, ttl: Duration) -> Self {
        let kind = "--lock.kind=etcd".to_owned();
        Self::start_with_lock(rig, name, vec![kind, format!("--lock.ttl={}s", ttl.as_secs())]).await
    }

    /// The lock is the one of these flags; with a file among them, so is the cluster.
    pub(crate) async fn start_with_lock(rig: &Rig, name: &'static str, lock: Vec<String>) -> Self {
        let mut port = Port::reserve().unwrap();
        let token = rig.path("token");
        std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
        let token = token.display().to_string();
        let mut args = Vec::new();
        if !lock.iter().any(|flag| flag.starts_with("--config=")) {
            args.extend(rig.flags().into_iter().filter(|flag| !flag.starts_with("--data-dir")));
            args.extend(["--cluster-name=demo".to_owned(), "--mode=enforce".to_owned()]);
        }
        if !lock.iter().any(|flag| flag.starts_with("--lock.token-file=")) {
            args.push(format!("--lock.token-file={token}"));
        }
        args.extend(lock);
        args.extend([
            format!("--data-dir={}", rig.path(name).display()),
            format!("--web.listen-address={}", port.address()),
            format!("--web.bearer-token-file={token}"),
            format!("--lock.name={name}"),
            format!("--lock.url=http://{}", port.address()),
        ]);
        port.release();
        let defragd = Defragd::start(binary(), &args, &rig.path(&format!("{name}.log"))).await.unwrap();
        Self { name, defragd, _port: port }
    }

    async fn lock(&self) -> anyhow::Result<Value> {
        Ok(self.defragd.json("/api/v1/clusters").await?["clusters"][0]["lock"].clone())
    }

    pub(crate) async fn holds(&self) {
        until(&format!("{} to hold the lock", self.name), MINUTE, || async {
            let lock = self.lock().await?;
            anyhow::ensure!(lock["held"] == true, "{lock}");
            let metrics = self.defragd.metrics().await?;
            let held = metrics.count("defragd_cluster_lock_held", &[("etcd_cluster", "demo")]);
            anyhow::ensure!(held == Some(1), "{held:?}, by the metrics");
            Ok(())
        })
        .await
        .unwrap();
    }

    pub(crate) async fn follows(&self, holder: &str) {
        until(&format!("{} to see {holder}", self.name), MINUTE, || async {
            let lock = self.lock().await?;
            anyhow::ensure!(lock["held"] == false && lock["holder"] == holder, "{lock}");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// An alert of its own each time.
    pub(crate) async fn post(&self, number: u32) -> i64 {
        let mut alert = firing();
        alert["alerts"][0]["startsAt"] = format!("2026-11-23T10:00:00.{number:03}Z").into();
        let answer = self.defragd.post_alerts(&alert, Some(TOKEN)).await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        body["alerts"][0]["run"].as_i64().unwrap_or_else(|| panic!("{body}"))
    }

    /// Waits until a member is in the middle of a defrag, and gives which: the first run of a holder begins late.
    pub(crate) async fn first_defrag(rig: &Rig, is_meant: impl Fn(usize) -> bool) -> usize {
        until("a defrag to be under way", LONG, || async {
            let busy = (0..3).find(|index| is_meant(*index) && rig.cluster.member(*index).has_defrag_file());
            busy.ok_or_else(|| anyhow::anyhow!("none is"))
        })
        .await
        .unwrap()
    }

    pub(crate) async fn ended(&self, run: i64) -> Value {
        until("the run to end", LONG, || async {
            let run = self.defragd.json(&format!("/api/v1/runs/{run}")).await?;
            anyhow::ensure!(run["outcome"].is_string(), "it is under way: {run}");
            Ok(run)
        })
        .await
        .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_at_the_follower_is_a_run_of_the_holder_and_a_killed_holder_is_succeeded() {
    let rig = Rig::fragmented(newest()).await;
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let one = Replica::start(&rig, "one").await;
    one.holds().await;
    let two = Replica::start(&rig, "two").await;
    two.follows("one").await;

    let run = two.post(1).await;
    let ended = two.ended(run).await;
    assert_eq!(
        (&ended["outcome"], &ended["reason"]["code"], &ended["reason"]["holder"]),
        (&json!("stopped"), &json!("forwarded"), &json!("one")),
        "{ended}"
    );
    let served = one.ended(ended["reason"]["run"].as_i64().unwrap()).await;
    assert_eq!(served["outcome"], "succeeded", "{served}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    rig.assert_tight().await;

    // A command at a candidate is forwarded to the holder.
    let pause = json!({"by": "ann", "reason": "upgrade"}).to_string();
    let answer = two.defragd.post("/api/v1/clusters/demo/pause", pause, Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let paused = one.defragd.json("/api/v1/clusters").await.unwrap()["clusters"][0]["paused"].clone();
    assert_eq!(paused["by"], "ann", "{paused}");

    // Without warning. `app/lock_tests.rs` tests in virtual time how soon the other takes over.
    one.defragd.kill().await.unwrap();
    let died = Instant::now();
    two.holds().await;
    eprintln!(
        "another replica held the lock {:.1} s after kill -9, with a TTL of {} s",
        died.elapsed().as_secs_f64(),
        TTL.as_secs()
    );
    assert_eq!(watch.stop().await.max_in_flight(), 1);
}

/// The shipped configurations of Alertmanager send each alert to every replica.
#[tokio::test(flavor = "multi_thread")]
async fn an_alert_at_every_replica_is_one_run_of_the_holder() {
    let rig = Rig::fragmented(newest()).await;
    let one = Replica::start(&rig, "one").await;
    one.holds().await;
    let two = Replica::start(&rig, "two").await;
    two.follows("one").await;

    let (at_two, at_one) = tokio::join!(two.post(1), one.post(1));
    let forwarded = two.ended(at_two).await;
    assert_eq!((&forwarded["reason"]["code"], &forwarded["reason"]["run"]), (&json!("forwarded"), &json!(at_one)));
    assert_eq!(one.ended(at_one).await["outcome"], "succeeded");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    let runs = one.defragd.json("/api/v1/runs").await.unwrap();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "{runs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_hands_the_lock_over_at_once() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    // Far longer than the test waits for the successor: it does not come by the lease's end.
    let ttl = MINUTE * 20;
    let one = Replica::start_with_ttl(&rig, "one", ttl).await;
    one.holds().await;
    let two = Replica::start_with_ttl(&rig, "two", ttl).await;
    two.follows("one").await;
    // An operator's command is a candidate like any replica.
    let run =
        rig.command("run", &["--lock.kind=etcd", "--lock.ttl=10s", "--lock.name=cli", "--cluster-name=demo"]).await;
    let said = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(3), "{said}");
    assert!(said.contains("replica one holds the cluster's lock"), "{said}");
    let instead = format!("What to do: defragd run --server {} --cluster demo", one.defragd.url());
    assert!(said.contains(&instead), "{said}");
    let status = one.defragd.terminate(MINUTE).await.unwrap();
    assert!(status.success());
    two.holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_space_a_candidate_still_takes_over_and_recovers_the_cluster() {
    let rig = Rig::with(EtcdSpec::new(newest()).quota_bytes(48 * MIB)).await;
    let one = Replica::start(&rig, "one").await;
    one.holds().await;
    let two = Replica::start(&rig, "two").await;
    two.follows("one").await;
    exhaust_quota(&rig.cluster, 4 * MIB).await.unwrap();
    // Long enough for both to renew under NOSPACE.
    tokio::time::sleep(TTL * 2).await;
    one.holds().await;
    one.defragd.kill().await.unwrap();
    two.holds().await;
    let run = two.post(1).await;
    let ended = two.ended(run).await;
    assert_eq!(ended["outcome"], "succeeded", "{ended}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    assert!(rig.cluster.alarms().await.unwrap().is_empty());
    // The dead replica comes back as a candidate.
    let one = Replica::start(&rig, "one").await;
    one.follows("two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_stopped_past_the_ttl_in_a_run_starts_no_member_when_it_wakes() {
    let rig = Rig::fragmented(newest()).await;
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let held = hold(&rig).await;
    let one = Replica::start(&rig, "one").await;
    one.holds().await;
    let two = Replica::start(&rig, "two").await;
    two.follows("one").await;
    let (first, second) = (one.post(1).await, two.post(1).await);
    Replica::first_defrag(&rig, |_| true).await;
    one.defragd.pause().unwrap();
    two.holds().await;
    drop(held);
    // Long enough for it to be at work itself when the old holder wakes.
    until("the new holder to act", LONG, || async {
        anyhow::ensure!(received(&rig.cluster).iter().sum::<usize>() > 1, "only the old one has");
        Ok(())
    })
    .await
    .unwrap();
    one.defragd.resume().unwrap();
    let ended = one.ended(first).await;
    assert_eq!((&ended["outcome"], &ended["reason"]["code"]), (&json!("stopped"), &json!("lock_lost")), "{ended}");
    let ended = two.ended(second).await;
    assert_eq!(ended["outcome"], "succeeded", "{ended}");
    assert_eq!(received(&rig.cluster), [1, 1, 1], "what the first one did needs nothing more");
    assert_eq!(watch.stop().await.max_in_flight(), 1);
    rig.assert_tight().await;
}
