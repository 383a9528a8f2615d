//! The OpenAPI document against the answers of a real cluster, field by field; and schemathesis, which makes requests of
//! the document. `tests/program/api.rs` holds the document against the routes.

use std::process::Output;

use serde_json::{Value, json};
use testkit::{EtcdVersion, OpenApi, until};
use tokio::process::Command;

use crate::rig::{MINUTE, Rig, TOKEN, ended_run, firing, notification};

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_about_a_real_run_is_as_the_openapi_document_says() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=approve"]).await;
    let api = OpenApi::of(&defragd).await.unwrap();
    let get = async |path: &str| -> Value {
        let answer = defragd.get(path).await.unwrap();
        api.allows("get", path.split('?').next().unwrap(), &answer).unwrap();
        serde_json::from_str(&answer.body).unwrap()
    };
    let post = async |path: &str, body: Value| -> (u16, Value) {
        let answer = defragd.post(path, body.to_string(), Some(TOKEN)).await.unwrap();
        api.allows("post", path, &answer).unwrap();
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    };
    let unknown = notification("firing", &[("etcd_cluster", "other")], "u");
    for (alerts, decision) in [(firing(), "accepted"), (firing(), "duplicate"), (unknown, "ignored")] {
        let (status, answer) = post("/api/v1/alerts", alerts).await;
        assert_eq!((status, &answer["alerts"][0]["decision"]), (202, &json!(decision)), "{answer}");
    }
    // Waiting for approval, with a plan.
    until("the plan of the waiting run", MINUTE, || async {
        let run = get("/api/v1/runs/1").await;
        anyhow::ensure!(run["plan"]["steps"][0]["sizes"].is_object(), "{run:#}");
        Ok(())
    })
    .await
    .unwrap();
    let clusters = get("/api/v1/clusters").await;
    assert_eq!(clusters["clusters"][0]["activity"], "waiting_for_approval", "{clusters:#}");
    assert_eq!(post("/api/v1/runs/1/approve", json!({"by": "ann"})).await.0, 200);
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "succeeded");
    let run = get("/api/v1/runs/1").await;
    let kinds: Vec<_> =
        run["records"].as_array().unwrap().iter().map(|record| record["kind"].as_str().unwrap()).collect();
    for kind in ["accepted", "approved", "started", "intent", "result", "finished"] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
    assert_eq!(run["members"][0]["result"], "defragmented", "{run:#}");

    let pause = json!({"by": "ann", "reason": "maintenance", "for": "2h"});
    assert_eq!(post("/api/v1/clusters/demo/pause", pause).await.1["cluster"]["activity"], "paused");
    let plan = get("/api/v1/clusters/demo/plan").await;
    let holds = plan["holds"].as_array().unwrap();
    assert!(holds.iter().any(|hold| hold["reason"]["code"] == "paused"), "{plan:#}");
    assert_eq!(post("/api/v1/clusters/demo/run", json!({"by": "ann"})).await.0, 202);
    assert_eq!(post("/api/v1/clusters/demo/cancel", json!({"by": "ann", "reason": "not now"})).await.0, 200);
    assert_eq!(ended_run(&defragd, 2).await["outcome"], "stopped");
    assert_eq!(get("/api/v1/runs/2").await["cancelled"]["reason"], "not now");
    assert_eq!(post("/api/v1/clusters/demo/resume", json!({})).await.0, 200);
    assert_eq!(get("/api/v1/runs?limit=1").await["runs"].as_array().unwrap().len(), 1);
}

const SETTINGS: &str = r#"
[checks]
not_a_server_error.enabled = false
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415]
[[operations]]
include-path = "/probe"
checks.positive_data_acceptance.enabled = false
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs schemathesis: `make check-api`"]
async fn schemathesis_finds_no_answer_that_the_openapi_document_does_not_allow() {
    let program = std::env::var_os("DEFRAGD_SCHEMATHESIS").expect("the program that `make check-api` installs");
    let rig = Rig::new(EtcdVersion::V3_5).await;
    // Whatever it requests, nothing is changed in etcd.
    let defragd = rig.serve(&["--mode=observe"]).await;
    // A probe needs a module, which this configuration does not have; a body above its limit is a 413 whatever is in it.
    let settings = rig.path("schemathesis.toml");
    std::fs::write(&settings, SETTINGS).unwrap();
    let mut command = Command::new(program);
    command.arg("--config-file").arg(settings);
    command.args(["run", "--seed=1", "--max-examples=25", "--generation-database=none", "--no-color"]);
    // A plan of a cluster, or a reload without a file, may fail, as the document says: 503 and 500.
    command.args(["--request-timeout=20"]);
    command.arg(format!("--header=Authorization: Bearer {TOKEN}"));
    command.arg(format!("{}/api/v1/openapi.json", defragd.url()));
    let Output { status, stdout, stderr } =
        command.current_dir(rig.dir.path()).kill_on_drop(true).output().await.unwrap();
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(status.success(), "{said}");
    println!("{said}");
    defragd.ensure_running().unwrap();
    assert!(!defragd.log().unwrap().contains("panicked"));
}
