//! The notifications of `notify:`, as a server receives them, while another target never answers. There is no etcd: the
//! run is refused, which is an end like any other.

use std::{
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use anyhow::ensure;
use axum::{Json, Router, extract::State, http::HeaderMap, http::Uri, routing::any};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::until;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::Child,
    time::timeout,
};

use crate::rig::{MINUTE, binary, home};

/// Path, bearer token, body.
type Heard = Arc<Mutex<Vec<(String, String, Value)>>>;

async fn listener() -> (Heard, String) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let heard = Heard::default();
    let hear = |State(heard): State<Heard>, uri: Uri, headers: HeaderMap, Json(body): Json<Value>| async move {
        let token = headers.get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
        heard.lock().unwrap().push((uri.to_string(), token, body));
        "thank you, in no JSON"
    };
    let router = Router::new().fallback(any(hear)).with_state(Arc::clone(&heard));
    tokio::spawn(async move { axum::serve(socket, router).await });
    (heard, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_and_grafana_hear_of_a_run_while_another_target_hangs() {
    let home = home();
    let (heard, url) = listener().await;
    // It takes connections, and that is all.
    let hung = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token = home.write("notify-token", "a-secret-of-the-target\n").unwrap();
    let config = format!(
        "clusters: [{{name: demo, endpoints: [\"http://127.0.0.1:1\"]}}]\nnotify:\n\
         - {{name: hung, webhook: {{url: \"http://{}/\", timeout: 1m}}}}\n\
         - {{name: chat, webhook: {{url: \"{url}/hook?room=7\", bearer_token_file: {token:?}}}}}\n\
         - {{name: graphs, grafana: {{url: \"{url}/grafana/\"}}}}\n",
        hung.local_addr().unwrap(),
    );
    home.write("config.yaml", config).unwrap();
    let flags = [
        home.flag("--config", "config.yaml"),
        "--web.external-url=https://ops.example.org/defragd".to_owned(),
        "--web.route-prefix=/".to_owned(),
        // Nothing but the limit on the last notifications ends the wait for the hung target.
        "--shutdown-grace=10m".to_owned(),
    ];
    let defragd = home.serve(&flags).await.unwrap();
    let alert = json!({"status": "firing", "labels": {"etcd_cluster": "demo"}, "startsAt": "2026-11-23T10:00:00Z", "fingerprint": "f"});
    let accepted = defragd.post_alerts(&json!({"version": "4", "alerts": [alert]}), None).await.unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.body);

    until("all targets to be notified", MINUTE, || async {
        let heard = heard.lock().unwrap().clone();
        ensure!(heard.len() == 3, "{heard:?}");
        Ok(())
    })
    .await
    .unwrap();
    let heard = heard.lock().unwrap().clone();
    let hooks: Vec<_> = heard.iter().filter(|(path, ..)| path == "/hook?room=7").collect();
    assert!(hooks.iter().all(|(_, token, _)| token == "Bearer a-secret-of-the-target"), "{heard:?}");
    assert_eq!(hooks[0].2["event"], "run_started");
    let end = &hooks[1].2;
    assert_eq!((&end["event"], &end["cluster"], &end["run"]), (&json!("run_finished"), &json!("demo"), &json!(1)));
    assert_eq!((&end["outcome"], &end["reason_code"]), (&json!("refused"), &json!("cluster_unreachable")));
    assert_eq!(end["link"], "https://ops.example.org/defragd/runs/1");
    let (_, _, graph) = heard.iter().find(|(path, ..)| path == "/grafana/api/annotations").unwrap();
    assert!(graph["time"].as_i64().unwrap() <= graph["timeEnd"].as_i64().unwrap(), "{graph}");
    assert_eq!(graph["tags"], json!(["defragd", "etcd_cluster:demo", "outcome:refused"]));

    // One is counted when its answer has come, which is after it was heard here.
    until("the notifications to be counted", MINUTE, || async {
        let metrics = defragd.metrics().await?;
        let sent = |target| metrics.count("defragd_notifications_total", &[("target", target), ("result", "sent")]);
        let sent = ["chat", "graphs", "hung"].map(sent);
        ensure!(sent == [Some(2), Some(1), Some(0)], "{sent:?}");
        Ok(())
    })
    .await
    .unwrap();
    let run = defragd.json("/api/v1/runs/1").await.unwrap();
    assert_eq!(run["outcome"], "refused", "the hung target holds nothing up: {run}");
    assert!(!defragd.log().unwrap().contains("a-secret-of-the-target"));
    // All attempts at the hung target would take several minutes.
    assert!(defragd.terminate(MINUTE).await.unwrap().success(), "nor the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_in_a_file_is_read_for_each_notification_and_a_bad_one_is_not_repeated() {
    let home = home();
    let (heard, url) = listener().await;
    home.write("chat-url", format!("{url}/services/first-s3cret\n")).unwrap();
    home.write("graphs-url", format!("{url}/grafana-s3cret/")).unwrap();
    let config = "clusters: [{name: demo, endpoints: [\"http://127.0.0.1:1\"]}]\nnotify:\n\
                  - {name: chat, webhook: {url_file: chat-url}}\n- {name: graphs, grafana: {url_file: graphs-url}}\n";
    home.write("config.yaml", config).unwrap();
    let defragd = home.serve(&[home.flag("--config", "config.yaml")]).await.unwrap();
    let alert = async |fingerprint: &str| {
        let alert = json!({"status": "firing", "labels": {"etcd_cluster": "demo"}, "startsAt": "2026-11-23T10:00:00Z",
            "fingerprint": fingerprint});
        let accepted = defragd.post_alerts(&json!({"version": "4", "alerts": [alert]}), None).await.unwrap();
        assert_eq!(accepted.status, 202, "{}", accepted.body);
    };
    let paths = || heard.lock().unwrap().iter().map(|(path, ..)| path.clone()).collect::<Vec<_>>();
    let come = async |path: &str, times: usize| {
        until(path, MINUTE, || async {
            ensure!(paths().iter().filter(|heard| *heard == path).count() >= times, "{:?}", paths());
            Ok(())
        })
        .await
        .unwrap();
    };
    alert("a").await;
    come("/services/first-s3cret", 2).await;
    come("/grafana-s3cret/api/annotations", 1).await;
    home.write("chat-url", format!("{url}/services/second-s3cret")).unwrap();
    alert("b").await;
    come("/services/second-s3cret", 2).await;
    home.write("chat-url", "not-a-url/third-s3cret").unwrap();
    alert("c").await;
    defragd.logs("cannot read the URL in", MINUTE).await.unwrap();

    let shown = defragd.json("/config").await.unwrap();
    assert_eq!(shown["notify"][0]["webhook"]["url_file"], "chat-url", "{shown}");
    defragd.terminate(MINUTE).await.unwrap();
    let log = defragd.log().unwrap();
    assert!(log.contains("chat-url") && !log.contains("s3cret"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_the_path_of_a_url_is_not_shown_and_a_changed_one_needs_a_restart() {
    let home = home();
    let write = |path: &str| {
        let config = format!(
            "clusters: [{{name: demo, endpoints: [\"http://127.0.0.1:1\"]}}]\nnotify:\n\
             - {{name: chat, webhook: {{url: \"http://127.0.0.1:1/services/{path}?thread=s3cret\"}}}}\n"
        );
        home.write("config.yaml", config).unwrap();
    };
    write("s3cret");
    let defragd = home.serve(&[home.flag("--config", "config.yaml")]).await.unwrap();
    let shown = defragd.json("/config").await.unwrap();
    assert_eq!(shown["notify"][0]["webhook"]["url"], "http://127.0.0.1:1/***", "{shown}");
    let page = defragd.get("/configuration").await.unwrap().body;
    assert!(page.contains("http://127.0.0.1:1/***") && !page.contains("s3cret"), "{page}");
    assert_eq!(defragd.post("/-/reload", "", None).await.unwrap().status, 200);
    write("other-s3cret");
    let refused = defragd.post("/-/reload", "", None).await.unwrap();
    assert!(refused.status == 500 && refused.body.contains("notify: restart defragd"), "{}", refused.body);
    assert!(!refused.body.contains("s3cret") && !defragd.log().unwrap().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_server_is_reported_and_says_which_targets_it_cannot_use() {
    let home = home();
    let (heard, url) = listener().await;
    // Grafana hears of the end only. The attempts at one notification take 6 s; those at two take 12, of the 15 s after
    // which the program gives up with other words.
    let config = format!(
        "clusters: [{{name: demo, policy: {{mode: enforce}}, endpoints: [\"http://127.0.0.1:1\"]}}]\nnotify:\n\
         - {{name: chat, webhook: {{url: \"{url}/hook\"}}}}\n\
         - {{name: gone, grafana: {{url: \"http://127.0.0.1:1/services/s3cret\"}}}}\n\
         - {{name: broken, webhook: {{url_file: no-such-file}}}}\n"
    );
    home.write("config.yaml", config).unwrap();
    let flags = [home.flag("--config", "config.yaml"), home.flag("--data-dir", "data"), "--standalone".to_owned()];
    let done = Command::new(binary()).arg("run").args(flags).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(3), "{said}");
    let heard = heard.lock().unwrap().clone();
    let events: Vec<_> = heard.iter().map(|(_, _, body)| (&body["event"], &body["run"], &body["trigger"])).collect();
    let of = |event: &str| (json!(event), json!(1), json!("manual"));
    assert_eq!(events, [of("run_started"), of("run_finished")].each_ref().map(|(event, run, by)| (event, run, by)));
    assert_eq!(heard[1].2["reason_code"], "cluster_unreachable", "{heard:?}");
    for says in
        ["warning: notify broken: cannot read the URL in", "warning: could not deliver a notification to gone: "]
    {
        assert!(said.contains(says), "no {says:?} in {said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
}

/// Starts `defragd run` on a member that takes connections and never answers, with a target that does the same.
async fn run_on_what_hangs(home: &testkit::Home) -> (Child, TcpListener, TcpListener) {
    let (member, target) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let config = format!(
        "clusters: [{{name: demo, policy: {{mode: enforce}}, endpoints: [\"http://{}\"]}}]\nnotify:\n\
         - {{name: hung, webhook: {{url: \"http://{}/\", timeout: 1m}}}}\n",
        member.local_addr().unwrap(),
        target.local_addr().unwrap(),
    );
    home.write("config.yaml", config).unwrap();
    let flags = [home.flag("--config", "config.yaml"), home.flag("--data-dir", "data"), "--standalone".to_owned()];
    let mut command = tokio::process::Command::new(binary());
    command.arg("run").args(flags).kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    (command.spawn().unwrap(), member, target)
}

fn send(run: &Child, signal: Signal) {
    let pid = Pid::from_raw(run.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_run_without_waiting_for_a_target_that_hangs() {
    let home = home();
    let (run, member, _target) = run_on_what_hangs(&home).await;
    // It has asked the member, and is waiting for the answer.
    let (_connection, _) = timeout(MINUTE, member.accept()).await.unwrap().unwrap();
    send(&run, Signal::INT);
    send(&run, Signal::TERM);
    let ended = timeout(MINUTE, run.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("second signal: exiting now") && !said.contains("notifications"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_after_a_run_ends_the_wait_for_a_target_that_hangs() {
    let home = home();
    let (mut run, member, _target) = run_on_what_hangs(&home).await;
    drop(member);
    let mut result = String::new();
    let mut output = BufReader::new(run.stdout.take().unwrap());
    timeout(MINUTE, output.read_line(&mut result)).await.unwrap().unwrap();
    send(&run, Signal::TERM);
    let ended = timeout(MINUTE, run.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(3), "{result}{said}");
    assert!(said.contains("stopped by a signal; the last notifications may be missing"), "{said}");
}
