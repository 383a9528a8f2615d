//! What the users of an API server notice while its etcd is defragmented: `tests/testkit/kube/users`.

use std::process::Stdio;

use anyhow::Context;
use serde_json::Value;
use testkit::until;
use tokio::process::{Child, Command};

use crate::rig::{MINUTE, Rig};

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

    /// Ends them; their figures.
    pub(crate) async fn stop(self) -> Value {
        // They end when their standard input does.
        let output = self.0.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}
