//! Several processes that divide the clusters of one configuration among themselves. There is no etcd: requests are
//! recorded and wait. `tests/e2e/shards.rs` has a run on real members.

use std::{fs, process::Command};

use anyhow::ensure;
use serde_json::{Value, json};
use testkit::{Defragd, Home, Port, until};

use crate::rig::{MINUTE, TOKEN, binary, home};

/// Owners with `--total-shards=2`, as `crates/defragd-core/src/shard.rs` computes them.
const OF_FIRST: &str = "events";
const OF_SECOND: &str = "prod-2";
const NAMES: [&str; 4] = ["prod-a", "prod-b", OF_FIRST, OF_SECOND];

/// The shared configuration. A shard listens at an address of its own, all on one port.
struct Fleet {
    homes: [Home; 2],
    port: Port,
    total: u32,
    /// In addition to the file.
    flags: Vec<String>,
}

impl Fleet {
    fn new(shards: &str) -> Self {
        let port = Port::reserve().unwrap();
        let homes = [home(), home()];
        let cluster = |(number, name): (usize, &str)| {
            format!("- {{name: {name}, endpoints: [\"http://127.0.1.{number}:1\"], policy: {{mode: approve}}}}")
        };
        let clusters: Vec<_> = NAMES.into_iter().enumerate().map(cluster).collect();
        for home in &homes {
            let url = format!("http://127.99.{{shard}}.1:{}", port.number());
            let token = home.path("token").display().to_string();
            let shards = shards.replace("URL", &url).replace("TOKEN", &token);
            home.write("config.yaml", format!("clusters:\n{}\nshards: {shards}\n", clusters.join("\n"))).unwrap();
        }
        Self { homes, port, total: 2, flags: Vec::new() }
    }

    async fn start(&mut self, ordinal: usize) -> Defragd {
        self.port.release();
        let home = &self.homes[ordinal];
        let mut flags = vec![
            home.flag("--config", "config.yaml"),
            format!("--shard={ordinal}"),
            format!("--total-shards={}", self.total),
            format!("--web.listen-address=127.99.{ordinal}.1:{}", self.port.number()),
        ];
        flags.extend(home.token_flags());
        flags.extend_from_slice(&self.flags);
        home.serve(&flags).await.unwrap()
    }
}

/// `defragd run` for a cluster of the shared file, at the first shard's host, with these flags. `server` is what the
/// environment says.
fn run(fleet: &Fleet, cluster: &str, flags: &[String], server: Option<&Defragd>) -> (Option<i32>, String) {
    let home = &fleet.homes[0];
    let common = [
        home.flag("--config", "config.yaml"),
        home.flag("--token-file", "admin"),
        format!("--cluster={cluster}"),
        "--wait=0s".to_owned(),
    ];
    let mut command = Command::new(binary());
    command.arg("run").args(common).args(flags).envs(server.map(|server| ("DEFRAGD_SERVER", server.url())));
    let run = command.output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    (run.status.code(), said.into_owned())
}

const FORWARDING: &str = "{url: \"URL\", token_file: TOKEN}";

fn alerts(clusters: &[&str]) -> Value {
    let alert = |cluster: &&str| {
        let labels = json!({"alertname": "EtcdFragmentationHigh", "etcd_cluster": cluster});
        json!({"status": "firing", "labels": labels, "startsAt": "2026-11-23T10:00:00Z", "fingerprint": cluster})
    };
    json!({"version": "4", "alerts": clusters.iter().map(alert).collect::<Vec<_>>()})
}

async fn post(defragd: &Defragd, clusters: &[&str]) -> (u16, Value) {
    let answer = defragd.post_alerts(&alerts(clusters), Some(TOKEN)).await.unwrap();
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

/// Sends alerts until all of them are recorded, as Alertmanager does: a busy shard may not answer within the 5 s that the
/// other waits for it, and the sender must retry then.
async fn deliver(defragd: &Defragd, clusters: &[&str]) -> Value {
    until("the alerts to be recorded", MINUTE, || async {
        let (status, answer) = post(defragd, clusters).await;
        ensure!(status == 202, "{answer}");
        Ok(answer)
    })
    .await
    .unwrap()
}

/// Whether the alert is recorded: now, or by an earlier attempt to deliver it.
fn is_recorded(decided: &Value) -> bool {
    ["accepted", "duplicate"].iter().any(|decision| decided["decision"] == *decision)
}

/// The clusters of which it has requests.
async fn requested(defragd: &Defragd) -> Vec<String> {
    let runs = defragd.json("/api/v1/runs").await.unwrap();
    let mut names: Vec<_> =
        runs["runs"].as_array().unwrap().iter().map(|run| run["cluster"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

async fn clusters(defragd: &Defragd) -> Vec<String> {
    let answer = defragd.json("/api/v1/clusters").await.unwrap();
    answer["clusters"].as_array().unwrap().iter().map(|cluster| cluster["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cluster_is_in_one_shard_and_an_alert_at_the_wrong_one_is_forwarded() {
    let mut fleet = Fleet::new(FORWARDING);
    let (first, second) = (fleet.start(0).await, fleet.start(1).await);
    let (of_first, of_second) = (clusters(&first).await, clusters(&second).await);
    let mut all: Vec<_> = of_first.iter().chain(&of_second).map(String::as_str).collect();
    all.sort_unstable();
    let mut expected = NAMES;
    expected.sort_unstable();
    assert_eq!(all, expected, "{of_first:?} {of_second:?}");
    assert!(of_first.iter().any(|name| name == OF_FIRST) && of_second.iter().any(|name| name == OF_SECOND));
    for (ordinal, (defragd, own)) in [("0", (&first, &of_first)), ("1", (&second, &of_second))] {
        let page = defragd.metrics().await.unwrap();
        let value = |name| page.require(name, &[]).unwrap();
        let shown = [value("defragd_shard_ordinal"), value("defragd_total_shards")].map(|value| value.to_string());
        assert_eq!(shown, [ordinal, "2"]);
        for name in NAMES {
            let has = page.text().contains(&format!("defragd_cluster_up{{etcd_cluster=\"{name}\"}}"));
            assert_eq!(has, own.iter().any(|own| own == name), "{name} in shard {ordinal}");
        }
    }

    let answer = deliver(&first, &[OF_FIRST, OF_SECOND]).await;
    let [own, other] = answer["alerts"].as_array().unwrap().as_slice() else { panic!("{answer}") };
    assert!(is_recorded(own) && own["cluster"] == OF_FIRST, "{own}");
    assert_eq!(
        (&other["decision"], &other["cluster"], &other["shard"]),
        (&json!("forwarded"), &json!(OF_SECOND), &json!(1)),
        "{other}"
    );
    assert!(is_recorded(&other["answer"]), "{other}");
    assert_eq!(requested(&first).await, [OF_FIRST]);
    assert_eq!(requested(&second).await, [OF_SECOND]);
    // Alertmanager repeats it, to whichever shard.
    let answer = deliver(&second, &[OF_FIRST, OF_SECOND]).await;
    assert_eq!(answer["alerts"][0]["answer"]["decision"], "duplicate", "{answer}");
    assert_eq!(requested(&second).await, [OF_SECOND]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_shard_is_down_the_sender_of_its_alerts_must_retry() {
    let mut fleet = Fleet::new(FORWARDING);
    let first = fleet.start(0).await;
    let (status, answer) = post(&first, &[OF_FIRST, OF_SECOND]).await;
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(
        status == 503 && error.contains(OF_SECOND) && error.contains("belongs to shard 1, at http://127.99.1.1"),
        "{answer}"
    );
    assert_eq!(requested(&first).await, [OF_FIRST], "what could be recorded is");
    let second = fleet.start(1).await;
    let answer = deliver(&first, &[OF_FIRST, OF_SECOND]).await;
    assert_eq!(answer["alerts"][0]["decision"], "duplicate", "{answer}");
    assert_eq!(requested(&second).await, [OF_SECOND]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_address_of_the_others_an_alert_of_theirs_is_not_acknowledged() {
    let mut fleet = Fleet::new("{}");
    let first = fleet.start(0).await;
    let (status, answer) = post(&first, &[OF_SECOND]).await;
    assert!(status == 503 && answer["error"].as_str().unwrap().contains("shards.url is not configured"), "{answer}");
    assert_eq!(post(&first, &[OF_FIRST]).await.0, 202);
}

/// The first one was started when there were two, and takes the second one for the owner of its cluster.
#[tokio::test(flavor = "multi_thread")]
async fn shards_that_disagree_on_their_number_do_not_forward_in_circles() {
    let mut fleet = Fleet::new(FORWARDING);
    let first = fleet.start(0).await;
    fleet.total = 1_000;
    let second = fleet.start(1).await;
    until("the second one to refuse it", MINUTE, || async {
        let (status, answer) = post(&first, &[OF_SECOND]).await;
        let error = answer["error"].as_str().unwrap_or_default();
        ensure!(status == 503 && error.contains("another shard has forwarded it here"), "{answer}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!((requested(&first).await, requested(&second).await), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_a_cluster_that_moves_to_another_shard_goes_with_it() {
    let mut fleet = Fleet::new(FORWARDING);
    fleet.total = 1;
    let only = fleet.start(0).await;
    assert_eq!(post(&only, &[OF_SECOND]).await.0, 202);
    only.terminate(MINUTE).await.unwrap();
    fleet.total = 2;
    let first = fleet.start(0).await;
    first.logs("cannot forward an open request", MINUTE).await.unwrap();
    let second = fleet.start(1).await;
    until("the request to move", MINUTE, || async {
        let runs = first.json("/api/v1/runs").await?;
        ensure!(runs["runs"][0]["reason"]["code"] == "other_shard", "{runs}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(requested(&second).await, [OF_SECOND]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_its_next_attempt_moves_with_its_cluster_and_ends_where_it_was() {
    let mut fleet = Fleet::new(FORWARDING);
    fleet.total = 1;
    // Its first run is refused: no member answers.
    fleet.flags = vec!["--mode=enforce".to_owned()];
    let only = fleet.start(0).await;
    assert_eq!(post(&only, &[OF_SECOND]).await.0, 202);
    let newest = async |defragd: &Defragd, wanted: &str| {
        until(wanted, MINUTE, || async {
            let runs = defragd.json("/api/v1/runs").await?;
            ensure!(runs["runs"][0]["reason"]["code"] == wanted, "{runs}");
            Ok(runs["runs"].as_array().unwrap().len())
        })
        .await
        .unwrap()
    };
    let before = newest(&only, "cluster_unreachable").await;
    only.terminate(MINUTE).await.unwrap();
    (fleet.total, fleet.flags) = (2, Vec::new());
    let (second, first) = (fleet.start(1).await, fleet.start(0).await);
    assert_eq!(newest(&first, "other_shard").await, before + 1, "the old attempt stays as it was");
    assert_eq!(requested(&second).await, [OF_SECOND]);
    // It does not move again.
    first.terminate(MINUTE).await.unwrap();
    let first = fleet.start(0).await;
    assert_eq!(post(&first, &[OF_FIRST]).await.0, 202);
    assert_eq!(requested(&first).await.iter().filter(|name| *name == OF_SECOND).count(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_from_the_command_line_goes_to_the_shard_that_its_cluster_belongs_to() {
    let mut fleet = Fleet::new("{total: 2, url: \"URL\", token_file: TOKEN}");
    let second = fleet.start(1).await;
    let elsewhere = fleet.homes[0].flag("--data-dir", "elsewhere");
    let (_, said) = run(&fleet, OF_SECOND, &[elsewhere], None);
    assert_eq!(requested(&second).await, [OF_SECOND], "{said}");
    assert!(!fs::exists(fleet.homes[0].path("elsewhere")).unwrap(), "it was not run here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_another_shards_cluster_does_not_begin_beside_that_shard() {
    // The number of shards is known from flags only.
    let mut fleet = Fleet::new(FORWARDING);
    let first = fleet.start(0).await;
    let [at, elsewhere] = ["journal", "elsewhere"].map(|name| fleet.homes[0].flag("--data-dir", name));
    for (flags, server) in
        [(vec![at.clone()], None), (vec![at, "--standalone".to_owned()], None), (vec![elsewhere], Some(&first))]
    {
        let expected = format!("cluster \"{OF_SECOND}\" belongs to shard 1, at http://127.99.1.1");
        // A busy server may not answer within the 3 s that the command waits for one on its machine.
        until("the refusal", MINUTE, || async {
            let (code, said) = run(&fleet, OF_SECOND, &flags, server);
            let is_refused = code == Some(2) && said.contains(&expected) && said.contains("pass --server");
            ensure!(is_refused, "{flags:?}: {said}");
            Ok(())
        })
        .await
        .unwrap();
    }
    assert!(!fs::exists(fleet.homes[0].path("elsewhere")).unwrap(), "nothing was opened");

    // The file says it, but not where the shards are, and no server is there to ask.
    let fleet = Fleet::new("{total: 2}");
    let (code, said) = run(&fleet, OF_SECOND, &[fleet.homes[0].flag("--data-dir", "elsewhere")], None);
    assert!(code == Some(2) && said.contains("belongs to shard 1 of 2") && said.contains("--standalone"), "{said}");
    assert!(!fs::exists(fleet.homes[0].path("elsewhere")).unwrap(), "nothing was opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_says_where_the_clusters_of_the_others_are() {
    let mut fleet = Fleet::new(FORWARDING);
    let first = fleet.start(0).await;
    let at = format!("cluster \"{OF_SECOND}\" belongs to shard 1, at http://127.99.1.1:{}", fleet.port.number());
    for path in ["members", "plan"] {
        let answer = first.get(&format!("/api/v1/clusters/{OF_SECOND}/{path}")).await.unwrap();
        assert!(answer.status == 421 && answer.body.contains(&at.replace('"', "\\\"")), "{path}: {}", answer.body);
    }
    let pause = json!({"reason": "upgrade"}).to_string();
    let answer = first.post(&format!("/api/v1/clusters/{OF_SECOND}/pause"), pause, Some(Home::ADMIN)).await.unwrap();
    assert!(answer.status == 421 && answer.body.contains("belongs to shard 1"), "{}", answer.body);
    let page = first.get(&format!("/clusters/{OF_SECOND}")).await.unwrap();
    assert!(page.status == 421 && page.body.contains("belongs to shard 1, at"), "{}", page.body);
    let shard = first.json("/api/v1/clusters").await.unwrap()["shard"].clone();
    assert_eq!(shard, json!({"ordinal": 0, "total": 2}));

    let status = Command::new(binary()).args(["status", &format!("--server={}", first.url())]).output().unwrap();
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(said.contains("shard 0 (--total-shards=2)"), "{said}");
    let token = fleet.homes[0].flag("--token-file", "admin");
    let server = format!("--server={}", first.url());
    let run = Command::new(binary()).args(["run", &server, &token, "--cluster", OF_SECOND]).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.code() == Some(2) && said.contains(&at) && said.contains("pass --server"), "{said}");
}

#[test]
fn check_config_counts_the_clusters_of_each_shard() {
    let home = home();
    let clusters = NAMES.map(|name| format!("{{name: {name}, endpoints: ['{name}:1']}}")).join(", ");
    let file = home.write("config.yaml", format!("clusters: [{clusters}]\nshards: {{total: 3}}\n")).unwrap();
    let checked = Command::new(binary()).arg("check-config").arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(said.ends_with("shard 0: 2 clusters\nshard 1: 1 cluster\nshard 2: 1 cluster\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_a_divided_configuration_must_know_which_shard_it_is() {
    let home = home();
    home.write("config.yaml", "clusters: [{name: a, endpoints: [x:1]}]\nshards: {total: 3}\n").unwrap();
    let config = home.flag("--config", "config.yaml");
    let data = home.flag("--data-dir", "journal");
    for (flags, expected) in [
        (vec![], "divided among 3 shards: pass --shard"),
        (vec!["--shard=3"], "--shard: is 3, but must be below the total of 3"),
    ] {
        let started = Command::new(binary()).args(["serve", &config, &data]).args(&flags).output().unwrap();
        let said = String::from_utf8_lossy(&started.stderr);
        assert!(started.status.code() == Some(2) && said.contains(expected), "{flags:?}: {said}");
    }
    assert!(!fs::exists(home.path("journal")).unwrap(), "nothing was opened");
}
