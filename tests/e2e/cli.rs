//! The commands of an operator.

use serde_json::Value;
use testkit::{EtcdSpec, EtcdVersion};

use crate::rig::{Rig, binary};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_plan_run_and_runs_tell_the_same_story() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let status = rig.command("status", &[]).await;
    assert_eq!(status.status.code(), Some(0), "{}", text(&status.stderr));
    let table = text(&status.stdout);
    for column in ["MEMBER", "ROLE", "DB SIZE", "IN USE", "FRAG", "QUOTA", "EXPECTED", "VERSION", "ENDPOINT"] {
        assert!(table.contains(column), "no column {column} in\n{table}");
    }
    let lines: Vec<_> = table.lines().take_while(|line| line.starts_with(['+', '|'])).collect();
    let widths: std::collections::BTreeSet<_> = lines.iter().map(|line| line.chars().count()).collect();
    assert!(widths.len() == 1 && widths.iter().all(|width| *width <= 120), "{widths:?}:\n{table}");
    let names: Vec<_> = lines.iter().filter(|line| line.contains("https://")).map(|line| &line[..10]).collect();
    assert!(names.len() == 3 && names.is_sorted(), "sorted by name:\n{table}");
    assert_eq!(table.matches("| leader ").count(), 1, "{table}");
    // Debian's 3.5.16.
    assert!(EtcdVersion::wanted().is_some() || table.contains("(#20271)"), "{table}");
    let wide = text(&rig.command("status", &["-o", "wide"]).await.stdout);
    for column in ["ENDPOINT", "ID", "VERSION", "RAFT TERM", "RAFT INDEX", "RAFT APPLIED INDEX"] {
        assert!(wide.contains(column), "no column {column} in\n{wide}");
    }
    let like_etcdctl = text(&rig.command("status", &["-w", "json"]).await.stdout);
    assert!(like_etcdctl.starts_with('{'), "{like_etcdctl}");

    let status: Value = serde_json::from_slice(&rig.command("status", &["-o", "json"]).await.stdout).unwrap();
    let members = status["clusters"][0]["members"].as_array().unwrap().clone();
    for real in rig.cluster.statuses().await.unwrap() {
        let shown = members.iter().find(|m| m["member_id"] == format!("{:x}", real.id)).unwrap();
        assert_eq!(shown["db_size_bytes"], real.size);
        assert_eq!(shown["is_leader"], real.is_leader);
        assert_eq!(shown["db_quota_bytes"], 2_147_483_648_u64, "learned from the member's own metrics");
    }

    let plan: Value = serde_json::from_slice(&rig.command("plan", &["-o", "json"]).await.stdout).unwrap();
    let steps = plan["plans"][0]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3);
    assert_eq!(steps[2]["is_leader"], true);
    assert!(steps.iter().all(|step| step["decision"] == "defragment"), "{plan}");
    assert_eq!(rig.defrags().await, [0, 0, 0], "a plan touches nothing");

    let run = rig.command("run", &["-o", "json"]).await;
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let progress = text(&run.stderr);
    assert_eq!(progress.matches("] defragmenting ").count(), 3, "{progress}");
    let result: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(result["run"]["outcome"], "succeeded");
    for member in result["run"]["members"].as_array().unwrap() {
        assert!(member["after"]["db_size_bytes"].as_u64() < member["before"]["db_size_bytes"].as_u64(), "{member}");
    }
    assert_eq!(rig.defrags().await, [1, 1, 1]);
    rig.assert_tight().await;

    let again = rig.command("run", &[]).await;
    assert_eq!(again.status.code(), Some(0));
    assert!(text(&again.stdout).contains("Nothing to do"), "{}", text(&again.stdout));
    assert_eq!(rig.defrags().await, [1, 1, 1]);

    let journal = format!("--data-dir={}", rig.path("journal").display());
    let runs = std::process::Command::new(binary()).args(["runs", &journal, "-o", "json"]).output().unwrap();
    let runs: Value = serde_json::from_slice(&runs.stdout).unwrap();
    let outcomes: Vec<_> = runs["runs"].as_array().unwrap().iter().map(|run| run["outcome"].clone()).collect();
    assert_eq!(outcomes, ["nothing_to_do", "succeeded"], "newest first");

    // What an operator reads: each member is announced before it is touched, the leader last.
    let show = |id: &str| std::process::Command::new(binary()).args(["runs", "show", id, &journal]).output().unwrap();
    let story = text(&show("1").stdout);
    let leader = rig.cluster.member(rig.cluster.leader().await.unwrap()).name().to_owned();
    let at = |what: &str| story.find(what).unwrap_or_else(|| panic!("{what:?} is not in:\n{story}"));
    let lines = [
        "(follower) next",
        &format!("{leader} (leader) next"),
        &format!("{leader} defragmented in"),
        "ended: succeeded",
    ];
    let places: Vec<_> = lines.iter().map(|line| at(line)).collect();
    assert!(places.is_sorted(), "{story}");
    let unknown = show("77");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("no run 77"), "{}", text(&unknown.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_every_member_publishes_is_not_taken_for_any_of_them() {
    // etcd lists a member's URLs in alphabetical order: this one is the first.
    let shared = "https://127.0.0.1:1";
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).publishes_also(shared)).await;
    let listed = rig.cluster.client(0).await.unwrap().member_list().await.unwrap();
    assert!(listed.members().iter().all(|member| member.client_urls()[0] == shared), "{listed:?}");
    let status = rig.command("status", &["-o", "json"]).await;
    assert_eq!(status.status.code(), Some(0), "{}", text(&status.stdout));
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    for member in status["clusters"][0]["members"].as_array().unwrap() {
        assert_ne!(member["endpoint"], shared, "{member}");
        assert!(member["db_size_bytes"].is_u64(), "{member}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_refuses_beside_a_serve_with_the_same_journal() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=observe"]).await;
    let run = rig.command("run", &["--standalone"]).await;
    let said = text(&run.stdout);
    assert_eq!(run.status.code(), Some(3), "{said}");
    let uses = format!("the server at {} uses the journal in {}", defragd.url(), rig.path("journal").display());
    assert!(said.contains(&uses), "{said}");
    assert!(said.contains(&format!("defragd run --server {} --cluster NAME", defragd.url())), "{said}");
}

#[test]
fn mistakes_on_the_command_line_are_answered_with_what_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.yaml");
    std::fs::write(&bad, "clusters: [{name: a, endpoints: [], policy: {min_fragmentation_ratio: 45}}]").unwrap();
    let bad = bad.to_str().unwrap();
    let data = format!("--data-dir={}", dir.path().display());
    let here = "--endpoints=http://127.0.0.1:1";
    for (args, expected) in [
        (vec!["serve", "--web.listen-address=0.0.0.0:0", here, &data], "--web.bearer-token-file"),
        (vec!["serve", "--web.listen-address=nonsense", here, &data], "ADDRESS:PORT"),
        (vec!["serve", "--web.telemetry-path=/configuration", here, &data], "a plain path that is not used otherwise"),
        (vec!["serve", &data], "pass --config FILE, or --endpoints URL"),
        (vec!["serve", here, &data, "--cluster-name=a\u{1b}[31m"], "must not contain control characters"),
        (vec!["status", "--user=root"], "--password-file"),
        (vec!["status", "--user=root:pw"], "--password-file"),
        (vec!["status", "--cert=/nowhere.crt"], "--key: is missing; it is required with --cert"),
        (vec!["status", "--cacert=/nowhere.crt"], "/nowhere.crt"),
        (vec!["status", "--config=/nowhere.yaml"], "/nowhere.yaml"),
        (vec!["status", "--config", bad, "--cacert=/x"], "--config and --cacert cannot be used together"),
        (vec!["check-config", bad], "clusters[0].endpoints"),
        (vec!["check-config", bad], "clusters[0].policy.min_fragmentation_ratio"),
        (vec!["plan", "--mode=yolo"], "possible values"),
        (vec!["runs", "--data-dir=/nowhere"], "there is no journal"),
    ] {
        let output = std::process::Command::new(binary()).args(&args).output().unwrap();
        let error = text(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{args:?}");
        assert!(error.contains(expected), "{args:?} says\n{error}");
        assert!(!error.contains("panicked"), "{args:?} says\n{error}");
    }
}
