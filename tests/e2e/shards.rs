//! Shards on a real etcd: an alert at the wrong shard becomes a run of the right one, by whichever of its replicas holds
//! the lock.

use serde_json::{Value, json};
use testkit::{Defragd, Port};

use crate::{
    faults::{newest, received},
    fleet::entry,
    replicas::{Replica, TTL},
    rig::{Rig, TOKEN, binary, firing},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_at_the_wrong_shard_is_a_run_of_the_replica_that_holds_the_lock_in_the_right_one() {
    let rig = Rig::fragmented(newest()).await;
    std::fs::write(rig.path("token"), format!("{TOKEN}\n")).unwrap();
    // Shard N listens there, too.
    let mut port = Port::reserve().unwrap();
    let at = |shard| format!("127.98.{shard}.1:{}", port.number());
    // With two shards, `demo` belongs to shard 1, and `events`, which is not there, to shard 0.
    let mut absent = entry("events", &rig.cluster);
    absent["endpoints"] = json!(["https://127.0.0.1:1"]);
    let shards = json!({"total": 2, "url": format!("http://{}", at("{shard}")), "token_file": rig.path("token")});
    let lock =
        json!({"kind": "etcd", "ttl": format!("{}s", TTL.as_secs()), "peers": {"token_file": rig.path("token")}});
    let config = json!({"clusters": [entry("demo", &rig.cluster), absent], "shards": shards, "lock": lock});
    std::fs::write(rig.path("config.yaml"), config.to_string()).unwrap();
    let config = format!("--config={}", rig.path("config.yaml").display());
    let (of_first, of_second) = (at("0"), at("1"));
    port.release();

    let holder = Replica::start_with_lock(&rig, "one", vec![config.clone(), "--shard=1".to_owned()]).await;
    holder.holds().await;
    // The other shards reach this replica, which forwards in turn.
    let flags = vec![config.clone(), "--shard=1".to_owned(), format!("--web.listen-address={of_second}")];
    let follower = Replica::start_with_lock(&rig, "two", flags).await;
    follower.follows("one").await;
    let wrong = [
        config,
        "--shard=0".to_owned(),
        format!("--data-dir={}", rig.path("wrong").display()),
        format!("--web.bearer-token-file={}", rig.path("token").display()),
        format!("--web.listen-address={of_first}"),
    ];
    let wrong = Defragd::start(binary(), &wrong, &rig.path("wrong.log")).await.unwrap();

    let answer = wrong.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let decision = &body["alerts"][0];
    assert_eq!((&decision["decision"], &decision["shard"]), (&json!("forwarded"), &json!(1)), "{body}");
    let run = decision["answer"]["run"].as_i64().unwrap();
    let ended = follower.ended(run).await;
    assert_eq!((&ended["reason"]["code"], &ended["reason"]["holder"]), (&json!("forwarded"), &json!("one")), "{ended}");
    let served = holder.ended(ended["reason"]["run"].as_i64().unwrap()).await;
    assert_eq!(served["outcome"], "succeeded", "{served}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    // The wrong shard does not touch the cluster, nor its lock.
    let (runs, metrics) = (wrong.json("/api/v1/runs").await.unwrap(), wrong.metrics().await.unwrap());
    assert_eq!(runs["runs"], json!([]));
    assert!(!metrics.text().contains("etcd_cluster=\"demo\""));
    assert!(metrics.text().contains("defragd_cluster_up{etcd_cluster=\"events\"} 0"), "{}", metrics.text());
}
