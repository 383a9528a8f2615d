use serde_json::{Value, json};

use super::*;

/// The present of every case; times in it are given as seconds before it.
const NOW: i64 = 1_795_500_000;

fn ago(seconds: i64) -> String {
    Timestamp::from_second(NOW - seconds).expect("in range").to_string()
}

fn verdict(mut pod: Value) -> Health {
    pod["metadata"]["name"] = json!("p");
    pod["metadata"]["namespace"] = json!("n");
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    judge(&pod, Timestamp::from_second(NOW).expect("in range"))
}

fn unhealthy(reason: &str) -> Health {
    Health::Unhealthy(reason.to_owned())
}

fn pod(phase: &str, containers: &Value) -> Value {
    let ready = containers.as_array().expect("a list").iter().all(|container| container["ready"] == true);
    let ready = if ready && phase == "Running" { "True" } else { "False" };
    let conditions = json!([{"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": ready, "reason": if ready == "True" { Value::Null } else { json!("ContainersNotReady") }}]);
    json!({"spec": {"restartPolicy": "Always"},
        "status": {"phase": phase, "conditions": conditions, "containerStatuses": containers}})
}

fn ready() -> Value {
    json!({"ready": true, "restartCount": 0, "state": {"running": {"startedAt": ago(86_400)}}, "lastState": {}})
}

fn waiting(reason: &str) -> Value {
    json!({"ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}, "lastState": {}})
}

fn ended(code: i32, reason: &str) -> Value {
    json!({"ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason}}})
}

/// Runs since, after a run that lasted so long and ended when this one began.
fn restarted(runs_for: i64, last_run: i64, code: i32) -> Value {
    let last = json!({"exitCode": code, "reason": "Error", "startedAt": ago(runs_for + last_run), "finishedAt": ago(runs_for)});
    json!({"ready": true, "restartCount": 3, "state": {"running": {"startedAt": ago(runs_for)}},
        "lastState": {"terminated": last}})
}

#[test]
fn pods_that_are_as_they_should_be_are_fine() {
    assert_eq!(verdict(pod("Running", &json!([ready(), ready()]))), Health::Healthy);
    assert_eq!(verdict(pod("Succeeded", &json!([ended(0, "Completed")]))), Health::Healthy);
    let mut with_init = pod("Running", &json!([ready()]));
    with_init["status"]["initContainerStatuses"] = json!([ended(0, "Completed")]);
    assert_eq!(verdict(with_init), Health::Healthy);
    let mut evicted_later = pod("Succeeded", &json!([]));
    evicted_later["metadata"]["deletionTimestamp"] = json!(ago(3_600));
    assert_eq!(verdict(evicted_later), Health::Healthy);
}

#[test]
fn a_container_that_waits_says_why() {
    let mut crashed = waiting("CrashLoopBackOff");
    crashed["restartCount"] = json!(7);
    crashed["lastState"] = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let table = [
        (waiting("CrashLoopBackOff"), "CrashLoopBackOff"),
        (crashed, "CrashLoopBackOff, OOMKilled (exit 137)"),
        (waiting("ImagePullBackOff"), "ImagePullBackOff"),
        (waiting("ErrImagePull"), "ErrImagePull"),
        (waiting("CreateContainerConfigError"), "CreateContainerConfigError"),
        (waiting("ContainerCreating"), "ContainerCreating"),
        (ended(1, "Error"), "exit 1"),
    ];
    for (container, reason) in table {
        assert_eq!(verdict(pod("Pending", &json!([container]))), unhealthy(reason));
        // Beside a good one it is the same.
        assert_eq!(verdict(pod("Running", &json!([ready(), container]))), unhealthy(reason));
    }
}

#[test]
fn init_containers_are_seen_too() {
    let with_init = |init: Value| {
        let mut pod = pod("Pending", &json!([waiting("PodInitializing")]));
        pod["status"]["initContainerStatuses"] = json!([init]);
        verdict(pod)
    };
    assert_eq!(with_init(waiting("CrashLoopBackOff")), unhealthy("Init:CrashLoopBackOff"));
    assert_eq!(with_init(waiting("ErrImagePull")), unhealthy("Init:ErrImagePull"));
    assert_eq!(with_init(ended(2, "Error")), unhealthy("Init:exit 2"));
    // The one that has done its work is not what the pod waits for.
    assert_eq!(with_init(ended(0, "Completed")), unhealthy("PodInitializing"));
}

#[test]
fn pods_without_containers_say_what_kubernetes_says_of_them() {
    let table = [
        (json!({"status": {"phase": "Pending"}}), unhealthy("Pending")),
        (
            json!({"status": {"phase": "Pending", "conditions":
            [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}}),
            unhealthy("Unschedulable"),
        ),
        (json!({"status": {"phase": "Unknown", "reason": "NodeLost"}}), unhealthy("NodeLost")),
        (json!({"status": {"phase": "Failed", "reason": "Evicted"}}), Health::Failed("Evicted".to_owned())),
        (json!({"status": {"phase": "Failed"}}), Health::Failed("Failed".to_owned())),
        (
            json!({"status": {"phase": "Running", "conditions":
            [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}}),
            unhealthy("NodeStatusUnknown"),
        ),
        (
            json!({"status": {"phase": "Running", "conditions":
            [{"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"}]}}),
            unhealthy("ReadinessGatesNotReady"),
        ),
        (json!({"status": {"phase": "Running"}}), unhealthy("not ready")),
        (json!({"status": {}}), unhealthy("Unknown")),
        (json!({}), unhealthy("Unknown")),
    ];
    for (pod, expected) in table {
        assert_eq!(verdict(pod.clone()), expected, "{pod}");
    }
    let long = "x".repeat(1_000);
    assert_eq!(verdict(json!({"status": {"phase": "Unknown", "reason": long}})), unhealthy(&"x".repeat(60)));
}

#[test]
fn a_failed_pod_says_what_was_done_to_it_before_how_its_containers_ended() {
    let mut evicted = pod("Failed", &json!([ended(137, "Error")]));
    assert_eq!(verdict(evicted.clone()), Health::Failed("exit 137".to_owned()));
    evicted["status"]["reason"] = json!("Evicted");
    assert_eq!(verdict(evicted), Health::Failed("Evicted".to_owned()));
}

#[test]
fn a_pod_that_is_deleted_has_its_own_grace_period() {
    let deleted = |seconds_ago: i64| {
        let mut pod = pod("Running", &json!([ended(0, "Completed")]));
        pod["metadata"]["deletionTimestamp"] = json!(ago(seconds_ago));
        verdict(pod)
    };
    assert_eq!(deleted(-30), Health::Healthy);
    assert_eq!(deleted(0), Health::Healthy);
    assert_eq!(deleted(1), unhealthy("Terminating"));
}

#[test]
fn a_job_whose_work_is_done_is_fine_while_a_helper_still_runs() {
    let with_policy = |policy: &str, containers: Value| {
        let mut pod = pod("Running", &containers);
        pod["spec"]["restartPolicy"] = json!(policy);
        verdict(pod)
    };
    let done = json!([ended(0, "Completed"), ready()]);
    assert_eq!(with_policy("Never", done.clone()), Health::Healthy);
    assert_eq!(with_policy("OnFailure", done.clone()), Health::Healthy);
    // This one will be started again.
    assert_eq!(with_policy("Always", done), unhealthy("not ready"));
    assert_eq!(with_policy("Never", json!([ended(1, "Error"), ready()])), unhealthy("exit 1"));
    let not_yet = json!({"ready": false, "state": {"running": {"startedAt": ago(5)}}});
    assert_eq!(with_policy("Never", json!([ended(0, "Completed"), not_yet])), unhealthy("not ready"));
}

#[test]
fn a_crash_looping_container_is_not_believed_until_it_ran_longer_than_before() {
    let running = |container: Value| verdict(pod("Running", &json!([ready(), container])));
    assert_eq!(running(restarted(3, 5, 1)), unhealthy("crash-looping, exit 1"));
    assert_eq!(running(restarted(9, 0, 1)), unhealthy("crash-looping, exit 1"));
    assert_eq!(running(restarted(80, 45, 1)), unhealthy("crash-looping, exit 1"));
    // It came through: no trouble, but not what a baseline would call healthy.
    assert_eq!(running(restarted(11, 5, 1)), Health::Restless("restarted 11 s ago".to_owned()));
    assert_eq!(running(restarted(95, 45, 1)), Health::Restless("restarted 95 s ago".to_owned()));
    // One crash after days of good service is no loop.
    assert_eq!(running(restarted(3, 86_400, 1)), Health::Restless("restarted 3 s ago".to_owned()));
    assert_eq!(running(restarted(601, 5, 1)), Health::Healthy);
    // A node whose clock is ahead.
    assert_eq!(running(restarted(-4, 5, 1)), unhealthy("crash-looping, exit 1"));
}
