//! Notifications as Events, on a real kube-apiserver with real RBAC. Skipped without one, as `pods`.

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::{Home, until};

use crate::{
    pods::{Kubernetes, apply},
    rig::{MINUTE, binary, notification},
};

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/defragd/events";

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_events_and_a_target_without_the_right_to_create_them_changes_no_run() {
    let Some(kubernetes) = Kubernetes::start().await else { return };
    let api = &kubernetes.api;
    let token = apply(api, include_str!("../../deploy/rbac/events.yaml")).await;
    let allowed = api.kubeconfig(kubernetes.dir.path().join("allowed"), &token).unwrap();
    // An account that may do nothing.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "powerless"}});
    api.create("/api/v1/namespaces/defragd/serviceaccounts", &account).await.unwrap();
    let powerless = api.token("defragd", "powerless").await.unwrap();
    let denied = api.kubeconfig(kubernetes.dir.path().join("denied"), &powerless).unwrap();

    let regarding = json!({"api_version": "apps/v1", "kind": "Deployment", "name": "defragd", "namespace": "defragd"});
    let target = |name: &str, kubeconfig| json!({"name": name, "kubernetes_event": {"kubeconfig": kubeconfig, "regarding": regarding, "timeout": "30s"}});
    let config = json!({
        "clusters": [
            {"name": "demo", "endpoints": kubernetes.etcd.endpoints(), "policy": {"allow_without_quorum_slack": true}},
            {"name": "down", "endpoints": ["http://127.0.0.1:1"]},
        ],
        "notify": [target("denied", denied), target("events", allowed)],
    });
    // The API server takes a new right into account a moment after it was given; a refused notification is lost.
    let create = json!({"namespace": "defragd", "verb": "create", "group": "events.k8s.io", "resource": "events"});
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": create}});
    until("the right to create Events", MINUTE, || async {
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = api.call(Method::POST, path, &token, "application/json", review.to_string()).await?;
        let allowed = serde_json::from_str::<Value>(&answer.body)?["status"]["allowed"] == true;
        ensure!(allowed, "{}", answer.body);
        Ok(())
    })
    .await
    .unwrap();
    let home = Home::new(binary()).unwrap();
    home.write("config.yaml", config.to_string()).unwrap();
    let flags = [
        home.flag("--config", "config.yaml"),
        "--web.external-url=https://ops.example.org/defragd".to_owned(),
        "--web.route-prefix=/".to_owned(),
    ];
    let defragd = home.serve(&flags).await.unwrap();
    for cluster in ["demo", "down"] {
        let accepted =
            defragd.post_alerts(&notification("firing", &[("etcd_cluster", cluster)], cluster), None).await.unwrap();
        assert_eq!(accepted.status, 202, "{}", accepted.body);
    }
    until("the Events", MINUTE, || async {
        let found = api.get(EVENTS).await?;
        ensure!(found["items"].as_array().is_some_and(|items| items.len() == 4), "{found}");
        Ok(())
    })
    .await
    .unwrap();

    let found = api.get(EVENTS).await.unwrap();
    let about = |cluster: &str, reason: &str| -> Value {
        let is_it = |event: &&Value| {
            event["reason"] == reason && event["note"].as_str().unwrap().contains(&format!("the cluster {cluster} "))
        };
        let mut those = found["items"].as_array().unwrap().iter().filter(is_it);
        let event = those.next().unwrap_or_else(|| panic!("no {reason} of {cluster}: {found}"));
        assert!(those.next().is_none(), "one each: {found}");
        event.clone()
    };
    for cluster in ["demo", "down"] {
        assert_eq!(about(cluster, "RunStarted")["type"], "Normal");
    }
    let (finished, failed) = (about("demo", "RunFinished"), about("down", "RunFailed"));
    assert_eq!((&finished["type"], &failed["type"]), (&json!("Normal"), &json!("Warning")));
    let words = failed["note"].as_str().unwrap();
    assert!(words.starts_with("Run ") && words.contains("was refused, and nothing was changed: "), "{words}");
    assert!(words.contains(" https://ops.example.org/defragd/runs/"), "{words}");
    for event in [&finished, &failed] {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "defragd", "namespace": "defragd"});
        assert_eq!(event["regarding"], object);
        assert_eq!((&event["reportingController"], &event["action"]), (&json!("defragd"), &json!("Defragment")));
        assert!(event["eventTime"].is_string(), "{event}");
        // By the user agent, which is in audit logs, too.
        assert_eq!(event["metadata"]["managedFields"][0]["manager"], "defragd");
    }

    // The other target learned nothing, and that is all.
    until("all deliveries", MINUTE, || async {
        let metrics = defragd.metrics().await?;
        let count =
            |target, result| metrics.count("defragd_notifications_total", &[("target", target), ("result", result)]);
        let counts = [count("events", "sent"), count("denied", "failed")];
        ensure!(counts == [Some(4), Some(4)], "{counts:?}");
        Ok(())
    })
    .await
    .unwrap();
    let log = defragd.log().unwrap();
    let why = "the permission to create events in the namespace defragd is missing: events.events.k8s.io is forbidden";
    assert_eq!(log.matches(why).count(), 4, "{log}");
    assert!(!log.contains(&token) && !log.contains(&powerless), "a token is in the log");
}
