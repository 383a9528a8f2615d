//! `defragd run` beside a running `defragd serve`: the server runs it, and a run of its own is refused.

use std::{path::Path, process::Output};

use serde_json::{Value, json};
use testkit::{Defragd, EtcdVersion, until};

use crate::rig::{MINUTE, Rig, TOKEN, binary, ended_run, firing};

/// `defragd run` with these flags and variables, as an operator of the server types it.
async fn run(rig: &Rig, defragd: &Defragd, flags: &[&str]) -> Output {
    command(rig, &[&["run", "--server", defragd.url()], flags].concat()).await
}

async fn command(rig: &Rig, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(binary());
    command.args(args).env("DEFRAGD_TOKEN_FILE", rig.path("token")).env("USER", "ann");
    command.kill_on_drop(true).output().await.unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout))
}

async fn cluster(defragd: &Defragd) -> anyhow::Result<Value> {
    Ok(defragd.json("/api/v1/clusters").await?["clusters"][0].clone())
}

/// The connection flags, and a data directory.
fn own(rig: &Rig, data_dir: &Path) -> Vec<String> {
    let mut flags = rig.cluster.connection_flags();
    flags.push(format!("--data-dir={}", data_dir.display()));
    flags
}

async fn act(rig: &Rig, defragd: &Defragd, args: &[&str]) {
    let done = command(rig, &[args, &["--server", defragd.url()]].concat()).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
}

async fn run_beside(defragd: &Defragd, flags: &[String]) -> Output {
    let mut command = tokio::process::Command::new(binary());
    command.arg("run").args(flags).env("DEFRAGD_SERVER", defragd.url()).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_beside_a_server_is_run_by_the_server() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=enforce"]).await;

    // With the server's journal and no --server: it is found by the data directory.
    let flags = own(&rig, &rig.path("journal"));
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let done = command(&rig, &[&["run"], &*flags].concat()).await;
    let said = text(&done);
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("the server at {} runs it (cluster demo, mode enforce)", defragd.url())), "{said}");
    for line in ["order: ", "defragmenting etcd-3 (", "etcd-3 defragmented: ", "the cluster is healthy", "Succeeded."] {
        assert!(said.contains(line), "{line} is missing: {said}");
    }
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    rig.assert_tight().await;
    let recorded = ended_run(&defragd, 1).await;
    assert_eq!((&recorded["trigger"], &recorded["approved"]["by"]), (&json!("manual"), &json!("ann")), "{recorded}");

    // With --server alone, as JSON; there is nothing left to do.
    let again = run(&rig, &defragd, &["-o", "json"]).await;
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&again["run"]["id"], &again["run"]["outcome"]), (&json!(2), &json!("nothing_to_do")), "{again}");

    // A process of its own is refused, with what to type instead.
    for data_dir in [rig.path("journal"), rig.path("other")] {
        let mut flags = own(&rig, &data_dir);
        flags.push("--standalone".to_owned());
        let alone = run_beside(&defragd, &flags).await;
        let said = text(&alone);
        assert_eq!(alone.status.code(), Some(3), "{said}");
        assert!(said.contains(&format!("defragd run --server {} --cluster demo", defragd.url())), "{said}");
    }

    // Flags that the server would ignore are refused.
    let ignored = run(&rig, &defragd, &["--cooldown=1h"]).await;
    assert_eq!(ignored.status.code(), Some(2), "{}", text(&ignored));
    assert!(text(&ignored).contains("--cooldown has no effect on a server"), "{}", text(&ignored));

    // A file that says observe is not the server's mode, and must not change anything.
    let mut observes = rig.cluster_keys(&json!([]));
    observes["policy"]["mode"] = json!("observe");
    let file = rig.path("observes.yaml");
    std::fs::write(&file, json!({"clusters": [observes]}).to_string()).unwrap();
    let refused = run_beside(&defragd, &[format!("--config={}", file.display())]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("but the mode here is observe"), "{}", text(&refused));

    // A server from the environment that does not have the cluster is not replaced by etcd's default address.
    let other = run_beside(&defragd, &["--cluster=other".to_owned()]).await;
    assert_eq!(other.status.code(), Some(2), "{}", text(&other));
    assert!(text(&other).contains("starts no runs of cluster \"other\"; it serves: demo"), "{}", text(&other));
    assert_eq!(rig.defrags().await, [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_through_a_paused_server_waits_and_can_be_withdrawn() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=enforce"]).await;
    act(&rig, &defragd, &["pause", "--cluster=demo", "--reason=rack upgrade"]).await;
    let held = run(&rig, &defragd, &["--wait=0s"]).await;
    let said = text(&held);
    assert_eq!(held.status.code(), Some(3), "{said}");
    assert!(said.contains("Run 1 is requested and has not started: paused by ann: rack upgrade"), "{said}");
    assert!(said.contains(&format!("defragd cancel --cluster demo --server {}", defragd.url())), "{said}");
    assert_eq!(cluster(&defragd).await.unwrap()["queued_run"], 1);
    let plan = command(&rig, &["plan", "--as-manual", "--server", defragd.url()]).await;
    let said = text(&plan);
    assert_eq!(plan.status.code(), Some(3), "{said}");
    assert!(said.contains("cluster demo, as the server at ") && said.contains("rack upgrade"), "{said}");
    // Again: the same request is followed.
    let again = run(&rig, &defragd, &["--wait=0s", "-o=json"]).await;
    let shown: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&shown["run"]["id"], &shown["waiting_for"]["code"]), (&json!(1), &json!("paused")), "{shown}");
    act(&rig, &defragd, &["cancel", "--cluster=demo"]).await;
    assert_eq!(ended_run(&defragd, 1).await["reason"]["code"], "cancelled");
    act(&rig, &defragd, &["resume", "--cluster=demo"]).await;
    assert_eq!(rig.defrags().await, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_while_the_servers_own_run_settles_follows_that_one() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=enforce", "--pause-between-members=15s"]).await;
    let answer = defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    until("one member is done, and the run settles", MINUTE, || async {
        let run = defragd.json("/api/v1/runs/1").await?;
        anyhow::ensure!(
            !run["members"].as_array().unwrap().is_empty() || run["progress"].to_string().contains("defragmenting"),
            "{run}"
        );
        Ok(())
    })
    .await
    .unwrap();
    let flags = own(&rig, &rig.path("other"));
    let output = tokio::process::Command::new(binary())
        .arg("run")
        .args(&flags)
        .env("DEFRAGD_SERVER", defragd.url())
        .env("DEFRAGD_TOKEN_FILE", rig.path("token"))
        .output()
        .await
        .unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("run 1 was requested before; following it") && said.contains("Succeeded."), "{said}");
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    assert_eq!(defragd.json("/api/v1/runs").await.unwrap()["runs"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observing_server_changes_nothing_and_leaves_a_run_by_hand_alone() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=observe"]).await;
    let observed = run(&rig, &defragd, &[]).await;
    let said = text(&observed);
    assert_eq!(observed.status.code(), Some(3), "{said}");
    assert!(said.contains("The mode is observe, so nothing was changed; it would have defragmented"), "{said}");
    assert!(said.contains("set `mode: enforce` in the server's configuration"), "{said}");
    assert_eq!(rig.defrags().await, [0, 0, 0]);
    let by_hand = rig.path("by-hand");
    let mut flags = own(&rig, &by_hand);
    flags.extend(["--mode=enforce", "--min-reclaimable=4MiB", "--pause-between-members=1s"].map(str::to_owned));
    let output = run_beside(&defragd, &flags).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    // Also where the server is named: it is asked, and the flags say where the cluster is.
    let named = ["--cluster-name=demo".to_owned(), "--cluster=demo".to_owned(), format!("--server={}", defragd.url())];
    flags.extend(named);
    let output = run_beside(&defragd, &flags).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("Nothing to do"), "{}", text(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_server_a_run_says_so_and_works_alone_with_standalone() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let mut flags = own(&rig, &rig.path("journal"));
    flags.extend(["--min-reclaimable=4MiB", "--pause-between-members=1s"].map(str::to_owned));
    for (extra, code, says) in
        [(None, 1, "To run in this process instead: --standalone"), (Some("--standalone"), 0, "this process runs it")]
    {
        let mut command = tokio::process::Command::new(binary());
        command.arg("run").args(&flags).args(extra).env("DEFRAGD_SERVER", "http://127.0.0.1:1");
        let output = command.kill_on_drop(true).output().await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains(says), "{}", text(&output));
    }
    assert_eq!(rig.defrags().await, [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_following_and_not_the_run() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=enforce", "--pause-between-members=5s"]).await;
    let mut command = tokio::process::Command::new(binary());
    command.args(["run", "--server", defragd.url()]).env("DEFRAGD_TOKEN_FILE", rig.path("token"));
    let progress = rig.path("progress");
    command.stderr(std::fs::File::create(&progress).unwrap());
    let child = command.kill_on_drop(true).spawn().unwrap();
    // By its own output: the run may begin before the command knows that it has been accepted.
    until("the command to follow the run", MINUTE, || async {
        let said = std::fs::read_to_string(&progress)?;
        anyhow::ensure!(said.contains("] defragmenting "), "{said}");
        Ok(())
    })
    .await
    .unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait_with_output().await.unwrap().status;
    let said = std::fs::read_to_string(&progress).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    let cancel = format!("To stop it: defragd cancel --cluster demo --server {}", defragd.url());
    assert!(said.contains("run 1 continues on the server") && said.contains(&cancel), "{said}");
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "succeeded");
    assert_eq!(rig.defrags().await, [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_run_is_not_requested_again_by_the_same_alert() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=approve"]).await;
    let alert = firing();
    let post = || defragd.post_alerts(&alert, Some(TOKEN));
    assert_eq!(post().await.unwrap().status, 202);
    let url = defragd.url();
    let without = command(&rig, &["reject", "1", "--server", url]).await;
    assert_eq!(without.status.code(), Some(2), "a reason is needed: {}", text(&without));
    let rejected = command(&rig, &["reject", "1", "--reason=release tonight", "--server", url]).await;
    assert_eq!(rejected.status.code(), Some(0), "{}", text(&rejected));
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "stopped");
    assert_eq!(run["reason"]["code"], "rejected");
    assert_eq!(run["reason"]["message"], "rejected by ann: release tonight");
    // Alertmanager sends it again.
    let answer: Value = serde_json::from_str(&post().await.unwrap().body).unwrap();
    assert_eq!(answer["alerts"][0]["decision"], "duplicate", "{answer}");
    assert_eq!(answer["alerts"][0]["reason"]["code"], "rejected", "{answer}");
    let twice = command(&rig, &["reject", "1", "--reason=x", "--server", url]).await;
    assert!(text(&twice).contains("run 1 is not waiting for approval: it is stopped"), "{}", text(&twice));
    // It fires anew.
    let mut anew = firing();
    anew["alerts"][0]["startsAt"] = json!("2026-11-24T10:00:00Z");
    let answer: Value = serde_json::from_str(&defragd.post_alerts(&anew, Some(TOKEN)).await.unwrap().body).unwrap();
    assert_eq!(
        (&answer["alerts"][0]["decision"], &answer["alerts"][0]["run"]),
        (&json!("accepted"), &json!(2)),
        "{answer}"
    );
    assert_eq!(rig.defrags().await, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_named_members_are_defragmented_here_and_through_a_server() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let here = rig.command("run", &["--member=etcd-2", "--compaction=keep-revisions=10"]).await;
    let said = text(&here);
    assert_eq!(here.status.code(), Some(0), "{said}");
    assert!(said.contains("etcd-1 is skipped: not among the requested members"), "{said}");
    assert!(said.contains("compacting up to revision"), "{said}");
    assert_eq!(rig.defrags().await, [0, 1, 0]);

    let defragd = rig.serve(&["--mode=enforce"]).await;
    let unknown = run(&rig, &defragd, &["--member=etcd-9"]).await;
    let said = text(&unknown);
    assert_eq!(unknown.status.code(), Some(3), "{said}");
    assert!(said.contains("there is no member etcd-9; the cluster has: etcd-1, etcd-2, etcd-3"), "{said}");
    // The first one, without a server, is in the same journal.
    assert_eq!(ended_run(&defragd, 2).await["outcome"], "refused");
    let done = run(&rig, &defragd, &["--member=etcd-1", "--member=etcd-2"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    // The second is compact already.
    assert_eq!(rig.defrags().await, [1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_through_a_server_shows_what_etcd_says_in_the_same_shape() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=observe"]).await;
    until("the server has observed its members", MINUTE, || async {
        let seen = defragd.json("/api/v1/clusters/demo/members").await?;
        anyhow::ensure!(seen["members"].as_array().is_some_and(|members| members.len() == 3), "{seen}");
        Ok(())
    })
    .await
    .unwrap();
    let through = ["status", "--server", defragd.url()];
    let table = command(&rig, &through).await;
    let said = text(&table);
    assert_eq!(table.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("As the server at {} sees it:\n", defragd.url())), "{said}");
    for part in ["MEMBER", "FRAG", "etcd-1", "etcd-3"] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    // Debian's 3.5.16.
    assert!(EtcdVersion::wanted().is_some() || said.contains("(#20271)"), "{said}");
    // Without an endpoint it is found by its journal, as for `plan`.
    let found = command(&rig, &["status", &format!("--data-dir={}", rig.path("journal").display())]).await;
    assert!(text(&found).contains(&format!("As the server at {}", defragd.url())), "{}", text(&found));

    let json = |output: &Output| serde_json::from_slice::<Value>(&output.stdout).unwrap()["clusters"][0].clone();
    let theirs = json(&command(&rig, &[&through[..], &["-o", "json"]].concat()).await);
    let ours = json(&rig.command("status", &["-o", "json"]).await);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&theirs), keys(&ours));
    for (theirs, ours) in theirs["members"].as_array().unwrap().iter().zip(ours["members"].as_array().unwrap()) {
        assert_eq!(keys(theirs), keys(ours));
        for key in ["member", "member_id", "is_leader", "version", "db_size_bytes", "db_quota_bytes", "endpoint"] {
            assert_eq!(theirs[key], ours[key], "{key}: {theirs}");
        }
    }
    let unknown = defragd.get("/api/v1/clusters/other/members").await.unwrap();
    assert_eq!(unknown.status, 404, "{}", unknown.body);
}
