//! What the users of an API server notice while its etcd is defragmented: `tests/testkit/kube/users`.

use std::process::Stdio;

use anyhow::Context;
use serde_json::{Value, json};
use testkit::{fragment, until};
use tokio::process::{Child, Command};

use crate::rig::{MIB, MINUTE, Rig};

/// A controller with client-go's leader election, a writer and a watcher.
pub(crate) struct Users(Child);

impl Users {
    /// Starts them, and waits until the controller leads and the writer writes.
    pub(crate) async fn start(rig: &Rig) -> Self {
        let program =
            rig.lab.tools().node_program("kube-users").context("there is no kube-users here: make tools-kube");
        let mut command = Command::new(program.unwrap());
        command.arg("--kubeconfig").arg(rig.lab.kubeconfig()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let users = Self(command.kill_on_drop(true).spawn().unwrap());
        until("the users to be at work", MINUTE, || async {
            let lease = ["get", "lease", "users", "-o=jsonpath={.spec.holderIdentity}"];
            anyhow::ensure!(rig.lab.kubectl(&lease).await? == "users", "no leader");
            let written = ["get", "configmap", "users", "-o=jsonpath={.data.writes}"];
            anyhow::ensure!(!rig.lab.kubectl(&written).await?.is_empty(), "nothing is written");
            Ok(())
        })
        .await
        .unwrap();
        users
    }

    /// Ends them, and prints their figures, which depend on the machine.
    pub(crate) async fn stop(self) {
        // They end when their standard input does.
        let output = self.0.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
        println!("what the API server's users noticed: {figures}");
        for done in ["elected", "writes", "watch_events"] {
            assert!(figures[done].as_u64().unwrap() > 0, "they were not served: {figures}");
        }
    }
}

/// A roll of the control plane's etcd with thirty times the data of the night.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside"]
async fn a_large_roll() {
    let rig = Rig::of_the_control_plane().await;
    fragment(rig.etcd(), 400 * MIB, 150 * MIB).await.unwrap();
    rig.install(&rig.values()).await;
    let url = rig.url().await;
    let users = Users::start(&rig).await;
    rig.alert(&url).await;
    let run = rig.run_when(&url, "the run to end", |run| run["outcome"].is_string()).await;
    users.stop().await;
    assert_eq!((&run["outcome"], run["members"].as_array().unwrap().len()), (&json!("succeeded"), 3), "{run}");
    for member in run["members"].as_array().unwrap() {
        println!("{} took {} s", member["member"], member["took_seconds"]);
    }
}
