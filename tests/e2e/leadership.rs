//! Leadership that moves during a run.

use std::time::Duration;

use etcd_client::Client;
use serde_json::Value;
use testkit::{DefragWatch, EtcdSpec, EtcdVersion, Writer, fragment};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    faults,
    rig::{MIB, MINUTE, Rig, TOKEN, ended_run, firing, members_of},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hands_over_is_a_follower_from_then_on_and_the_new_one_is_last() {
    let rig = Rig::steady(EtcdVersion::V3_5).await;
    let old = rig.cluster.leader().await.unwrap();
    let followers: Vec<_> = (0..3).filter(|index| *index != old).collect();
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    // The first follower is held until leadership has moved: the next step comes after that, however long it takes.
    let held = faults::hold(&rig).await;
    let defragd = rig.serve(&["--mode=enforce"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();

    let first = faults::defragmenting(&rig.cluster).await;
    assert!(followers.contains(&first), "a follower is first");
    let new = *followers.iter().find(|index| **index != first).unwrap();
    rig.cluster.move_leader(new).await.unwrap();
    drop(held);

    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    let timeline = watch.stop().await;
    assert_eq!(timeline.order(), [first, old, new], "the new leader last, by the servers' logs");
    assert_eq!(timeline.max_in_flight(), 1);
    let names = [first, old, new].map(|index| rig.cluster.member(index).name().to_owned());
    assert_eq!(members_of(&run), names);
    assert_eq!(run["members"][2]["is_leader"], true);
    assert_eq!(run["members"][1]["is_leader"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_6_leadership_goes_to_a_voter_that_the_rule_spares() {
    let rig = Rig::steady(EtcdVersion::V3_5).await;
    let leader = rig.cluster.leader().await.unwrap();
    for follower in (0..3).filter(|index| *index != leader) {
        rig.cluster.defragment(follower).await.unwrap();
    }
    // Only the leader meets it.
    let rule = format!("--rule=dbSizeFree > {}", 16 * MIB);
    let run = rig.command("run", &["--leader=last-after-transfer", &rule, "-o", "json"]).await;
    let progress = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{progress}");
    let run: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(members_of(&run["run"]), [rig.cluster.member(leader).name()], "{run}");
    assert_eq!(run["run"]["members"][0]["is_leader"], false, "{run}");
    rig.assert_tight().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_last_after_transfer_nobody_is_defragmented_as_the_leader() {
    let rig = Rig::steady(EtcdVersion::V3_5).await;
    let old = rig.cluster.leader().await.unwrap();
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let run = rig.command("run", &["--leader=last-after-transfer", "-o", "json"]).await;
    let progress = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{progress}");
    assert!(progress.contains("transferring leadership to"), "{progress}");

    let order = watch.stop().await.order();
    assert_eq!(order.len(), 3, "{order:?}");
    assert_eq!(order.last(), Some(&old), "the old leader is last, as a follower");
    let new = rig.cluster.leader().await.unwrap();
    assert_ne!(new, old);
    let run: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(run["run"]["members"].as_array().unwrap().iter().all(|member| member["is_leader"] == false), "{run}");
    assert_eq!(run["run"]["steps"][0]["step"], "move_leader");
    assert_eq!(run["run"]["steps"][0]["member"], rig.cluster.member(new).name());
    rig.assert_tight().await;
}

/// Runs with the leader policy `auto`, under writes. Returns its output and the run.
async fn auto(rig: &Rig, extra: &[&str]) -> (String, Value) {
    let writer = Writer::start(&rig.cluster).await.unwrap();
    let run = rig.command("run", &[&["--leader=auto", "-o", "json"], extra].concat()).await;
    let progress = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(0), "{progress}");
    faults::reads_back(writer, &rig.cluster).await;
    let run: Value = serde_json::from_slice(&run.stdout).unwrap();
    (progress, run["run"].clone())
}

fn led(run: &Value) -> usize {
    run["members"].as_array().unwrap().iter().filter(|member| member["is_leader"] == true).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_auto_a_leader_that_would_be_unavailable_for_long_hands_over_first() {
    let rig = Rig::steady(faults::newest()).await;
    let plan = rig.command("plan", &["--leader=auto", "--transfer-above=0s"]).await;
    let plan = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.contains("transfer"), "{plan}");
    let (progress, run) = auto(&rig, &["--transfer-above=0s"]).await;
    assert!(progress.contains("transferring leadership to"), "{progress}");
    assert_eq!((led(&run), run["members"].as_array().unwrap().len()), (0, 3), "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_auto_a_leader_that_is_soon_back_stays_the_leader() {
    let rig = Rig::steady(faults::newest()).await;
    let leader = rig.cluster.leader().await.unwrap();
    let (_, run) = auto(&rig, &["--transfer-above=1h"]).await;
    assert_eq!((led(&run), &run["steps"]), (1, &serde_json::json!([])), "{run}");
    assert_eq!(members_of(&run).last().map(String::as_str), Some(rig.cluster.member(leader).name()));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_auto_a_leader_that_nobody_can_relieve_is_defragmented_as_the_leader() {
    let rig = Rig::with(EtcdSpec::new(faults::newest()).members(1)).await;
    rig.fragment().await;
    let (progress, run) = auto(&rig, &["--transfer-above=0s", "--allow-without-quorum-slack"]).await;
    assert!(
        progress.contains("leadership is not transferred, the leader is defragmented as it is: no voting member can take over leadership"),
        "{progress}"
    );
    assert_eq!(led(&run), 1, "{run}");
}

/// By the last time: what was in use then, and how long it took. How near that comes is in `benches/ROLL.md`.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_time_the_expected_unavailability_is_by_the_first() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    let roll = async || {
        fragment(&rig.cluster, 100 * MIB, 24 * MIB).await.unwrap();
        auto(&rig, &["--pause-between-members=0s"]).await.1
    };
    let (first, second) = (roll().await, roll().await);
    let number = |member: &Value, keys: &[&str]| {
        keys.iter().fold(member, |value, key| &value[*key]).as_f64().unwrap_or_else(|| panic!("{keys:?} of {member}"))
    };
    for member in second["members"].as_array().unwrap() {
        let before = first["members"].as_array().unwrap().iter().find(|before| before["member"] == member["member"]);
        let before = before.unwrap();
        let in_use = ["before", "db_size_in_use_bytes"];
        let speed = number(before, &in_use) / number(before, &["took_seconds"]);
        let expected = number(member, &in_use) / speed;
        let reported = number(member, &["expected_seconds"]);
        assert!((reported / expected - 1.0).abs() < 0.01, "{reported} s, {expected} s by {before}");
        eprintln!("{}: expected {reported:.2} s, took {:.2} s", member["member"], number(member, &["took_seconds"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_a_transfer_drops_waits_for_etcds_limit_unless_its_client_tries_again() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    let (stop, stopped) = watch::channel(false);
    let (mut patient, mut impatient) = (JoinSet::new(), JoinSet::new());
    for number in 0..12 {
        let client = rig.cluster.client(number % 3).await.unwrap();
        patient.spawn(put_until(client.clone(), format!("patient/{number}"), MINUTE, stopped.clone()));
        // As long as a failover client gives a member.
        let limit = Duration::from_secs(1);
        impatient.spawn(put_until(client, format!("impatient/{number}"), limit, stopped.clone()));
    }
    let lost = async { patient.join_next().await.unwrap().unwrap() };
    let transfers = async {
        for to in (0..3).cycle() {
            // One that fails, as in an election that a busy machine causes, is followed by the next.
            if let Err(error) = rig.cluster.move_leader(to).await {
                eprintln!("{error:#}");
                sleep(BETWEEN_TRIES).await;
            }
        }
    };
    let lost = tokio::select! {
        lost = timeout(MINUTE * 3, lost) => lost,
        () = transfers => unreachable!(),
    };
    let lost = lost.expect("no put was dropped");
    assert!(lost.as_ref().is_err_and(|error| error.contains("request timed out")), "{lost:?}");
    stop.send_replace(true);
    while let Some(ended) = impatient.join_next().await {
        assert_eq!(ended.unwrap(), Ok(()), "each put succeeds, if not at the first try");
    }
}

/// What a client waits for that is answered at once, as by a member that knows of no leader.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Puts one after the other, each try with this limit, until etcd itself gives one up.
async fn put_until(
    mut client: Client,
    key: String,
    limit: Duration,
    stopped: watch::Receiver<bool>,
) -> Result<(), String> {
    let mut succeeded = Instant::now();
    while !*stopped.borrow() {
        match timeout(limit, client.put(key.clone(), "value", None)).await {
            Ok(Ok(_)) => succeeded = Instant::now(),
            Ok(Err(error)) if error.to_string().contains("request timed out") => return Err(error.to_string()),
            _ if succeeded.elapsed() > MINUTE * 2 => return Err("no try has succeeded for two minutes".to_owned()),
            // No answer, or "raft proposal dropped", at once, until the new leader is known.
            _ => sleep(BETWEEN_TRIES).await,
        }
    }
    Ok(())
}
