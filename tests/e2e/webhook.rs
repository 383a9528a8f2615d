//! What the receiver answers, and that nothing but a valid firing alert of a known cluster touches a member.

use testkit::{EtcdVersion, until};

use crate::rig::{MIB, MINUTE, Rig, TOKEN, ended_run, firing, notification};

#[tokio::test(flavor = "multi_thread")]
async fn only_a_firing_alert_of_a_known_cluster_with_the_token_touches_a_member() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=enforce"]).await;
    let known = [("etcd_cluster", "demo")];
    let too_long = "x".repeat(usize::try_from(17 * MIB).unwrap());

    for (what, body, token, code, decision) in [
        (
            "resolved",
            notification("resolved", &known, "r").to_string(),
            Some(TOKEN),
            202,
            Some(("ignored", "resolved")),
        ),
        (
            "unknown cluster",
            notification("firing", &[("etcd_cluster", "other")], "u").to_string(),
            Some(TOKEN),
            202,
            Some(("ignored", "unknown_cluster")),
        ),
        (
            "an address in a label",
            notification("firing", &[("instance", "127.0.0.1:2379")], "i").to_string(),
            Some(TOKEN),
            202,
            Some(("ignored", "unknown_cluster")),
        ),
        ("malformed", "{\"alerts\": 7}".to_owned(), Some(TOKEN), 400, None),
        ("not JSON", "hello".to_owned(), Some(TOKEN), 400, None),
        ("empty", String::new(), Some(TOKEN), 400, None),
        ("too long", too_long, Some(TOKEN), 413, None),
        ("no token", firing().to_string(), None, 401, None),
        ("wrong token", firing().to_string(), Some("0123456789abcdef-wrong-token"), 401, None),
    ] {
        let answer = defragd.post_raw(body, token).await.unwrap();
        assert_eq!(answer.status, code, "{what}: {}", answer.body);
        let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        if let Some((decision, code)) = decision {
            assert_eq!(answer["alerts"][0]["decision"], decision, "{what}: {answer}");
            assert_eq!(answer["alerts"][0]["reason"]["code"], code, "{what}: {answer}");
        } else {
            assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{what}: {answer}");
        }
    }

    let metrics = defragd.metrics().await.unwrap();
    let requests = |code| metrics.count("defragd_webhook_requests_total", &[("code", code)]);
    assert_eq!(
        [requests("202"), requests("400"), requests("401"), requests("413")],
        [Some(3), Some(3), Some(2), Some(1)]
    );
    let ignored =
        |reason| metrics.count("defragd_webhook_alerts_total", &[("decision", "ignored"), ("reason", reason)]);
    assert_eq!([ignored("resolved"), ignored("unknown_cluster")], [Some(1), Some(2)]);
    assert_eq!(rig.defrags().await, [0, 0, 0], "a member was touched");
    assert_eq!(defragd.json("/api/v1/runs").await.unwrap()["runs"], serde_json::json!([]));

    // The proof that the receiver was not simply dead.
    let answer = defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let again = defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    assert!(again.body.contains("duplicate_alert"), "{}", again.body);
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "succeeded");
    assert_eq!(rig.defrags().await, [1, 1, 1]);

    // One that fires after that is answered by measuring, not by the cooldown.
    let late = notification("firing", &known, "f2");
    let answer = defragd.post_alerts(&late, Some(TOKEN)).await.unwrap();
    assert!(answer.body.contains("accepted"), "{}", answer.body);
    assert_eq!(ended_run(&defragd, 2).await["outcome"], "nothing_to_do");
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    assert!(!defragd.log().unwrap().contains(TOKEN), "the token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn observe_mode_says_what_it_would_do_and_touches_no_member() {
    let rig = Rig::steady(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&[]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "observed");
    let leader = rig.cluster.member(rig.cluster.leader().await.unwrap()).name().to_owned();
    assert_eq!(run["members"], serde_json::json!([]));
    let log = defragd.log().unwrap();
    let order = log.lines().find(|line| line.contains("planned")).unwrap();
    assert!(order.ends_with(&leader), "{order}");
    assert_eq!(rig.defrags().await, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_survives_a_kill_and_is_served_by_the_next_start() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    // A member that hangs holds up the first observation, so the kill comes before anything is begun.
    rig.cluster.pause(0).unwrap();
    let defragd = rig.serve(&["--mode=enforce"]).await;
    assert_eq!(defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap().status, 202);
    defragd.kill().await.unwrap();
    rig.cluster.resume(0).unwrap();
    rig.cluster.ready().await.unwrap();

    let defragd = rig.serve(&["--mode=enforce"]).await;
    let run = ended_run(&defragd, 1).await;
    // Killed between the 202 and the start, or after the start: the run is started, or resumed.
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    until("exactly one run in the journal", MINUTE, || async {
        let runs = defragd.json("/api/v1/runs").await?;
        anyhow::ensure!(runs["runs"].as_array().is_some_and(|runs| runs.len() == 1), "{runs}");
        Ok(())
    })
    .await
    .unwrap();
}
