//! The chart and defragd in a real Kubernetes. Each test is a node of its own ([`testkit::KubeLab`]), in its own namespaces;
//! needs root and `make tools-kube`, and is skipped with a message otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

mod changes;
mod install;
mod keep;
mod night;
mod replicas;
mod rig;
mod runbook;
mod users;

/// Runs a test inside, by its full name, or says why it cannot.
async fn on_a_node(test: &str) {
    if let Some(why) = testkit::in_node(test).await.unwrap() {
        testkit::skipped(why);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_under_pod_security_restricted() {
    on_a_node("install::one_replica").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_with_leases_of_kubernetes_and_with_etcd_s_lock() {
    on_a_node("replicas::two_replicas").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_with_the_control_plane_s_own_etcd() {
    on_a_node("night::a_night").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: `make test-kube-long`"]
async fn long_the_kustomize_overlay_for_kubeadm() {
    on_a_node("install::with_kustomize").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: `make test-kube-long`"]
async fn long_the_runbook_s_rows_with_what_really_fails() {
    on_a_node("runbook::rows").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: `make test-kube-long`"]
async fn long_what_users_of_the_api_server_notice_of_a_large_roll() {
    on_a_node("users::a_large_roll").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: `make test-kube-long`"]
async fn long_upgrade_and_rollback_in_a_run_and_a_renewed_certificate() {
    on_a_node("changes::upgrade_rollback_and_certificate").await;
}

/// For people: `make kube-lab`. It ends with Ctrl-C.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "stays until Ctrl-C"]
async fn keep_one_running() {
    let script = keep::script();
    let _ = std::fs::remove_file(&script);
    let say = async {
        let there = testkit::until("the node", Duration::from_mins(10), || async {
            anyhow::ensure!(script.exists(), "not yet");
            Ok(())
        });
        there.await.unwrap();
        println!(
            "The node is ready, with defragd on it. In another terminal:\n  {0} kubectl get pods -A\n  {0} sh\nCtrl-C ends it.",
            script.display()
        );
        std::future::pending::<()>().await;
    };
    let a_week = Duration::from_hours(24 * 7);
    let ended = tokio::select! {
        ended = testkit::in_node_for("keep::until_the_end", a_week) => ended.unwrap(),
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| None).unwrap(),
        () = say => None,
    };
    let _ = std::fs::remove_file(&script);
    if let Some(why) = ended {
        panic!("there is no node: {why}");
    }
}
