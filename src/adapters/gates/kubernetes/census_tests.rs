use serde_json::{Value, json};

use super::*;

/// A pod of a Deployment, `StatefulSet`, Job or none, created this many seconds after a fixed time.
fn pod(owner: (&str, &str), name: &str, made: i64, status: &Value) -> Pod {
    let made = Timestamp::from_second(1_795_000_000 + made).expect("in range").to_string();
    let mut pod = json!({"metadata": {"name": name, "namespace": "n", "creationTimestamp": made}, "status": status});
    if !owner.0.is_empty() {
        pod["metadata"]["ownerReferences"] = json!([{"kind": owner.0, "name": owner.1, "controller": true}]);
    }
    serde_json::from_value(pod).expect("a pod")
}

fn good() -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
}

fn bad() -> Value {
    json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]})
}

fn restarted() -> Value {
    let last = json!({"exitCode": 1, "startedAt": "2026-11-24T09:00:00Z", "finishedAt": "2026-11-24T09:55:00Z"});
    let mut status = good();
    status["containerStatuses"] = json!([{"ready": true, "restartCount": 1,
        "state": {"running": {"startedAt": "2026-11-24T09:55:00Z"}}, "lastState": {"terminated": last}}]);
    status
}

fn census(pods: &[Pod]) -> Census {
    let mut census = Census::new("2026-11-24T10:00:00Z".parse().expect("a time"));
    for pod in pods {
        census.count(pod);
    }
    census
}

const WEB: (&str, &str) = ("ReplicaSet", "web");
const DB: (&str, &str) = ("StatefulSet", "db");
const JOB: (&str, &str) = ("Job", "backup-29391230");

/// The workloads that are worse, with how many pods are unhealthy now and were before.
fn worse(before: &[Pod], after: &[Pod]) -> Vec<(String, usize, usize)> {
    let written = serde_json::to_string(&census(before).baseline()).expect("JSON");
    let baseline: Baseline = serde_json::from_str(&written).expect("the same again");
    let worse = census(after).worse_than(&baseline).into_iter();
    worse.map(|worse| (worse.workload, worse.now, worse.before)).collect()
}

#[test]
fn what_was_unhealthy_before_is_no_new_trouble_and_what_begins_to_be_is() {
    let was = [pod(WEB, "web-a", 0, &bad()), pod(WEB, "web-b", 0, &good()), pod(DB, "db-0", 0, &good())];
    assert_eq!(worse(&was, &was), []);
    let one_more = [pod(WEB, "web-a", 0, &bad()), pod(WEB, "web-b", 0, &bad()), pod(DB, "db-0", 0, &good())];
    assert_eq!(worse(&was, &one_more), [("n/ReplicaSet/web".to_owned(), 2, 1)]);
    let db = [pod(WEB, "web-a", 0, &bad()), pod(DB, "db-0", 0, &bad())];
    assert_eq!(worse(&was, &db), [("n/Pod/db-0".to_owned(), 1, 0)]);
    assert_eq!(worse(&[], &db).len(), 2);
}

#[test]
fn a_bad_pod_under_a_new_name_is_the_same_trouble() {
    let was = [pod(WEB, "web-a", 0, &bad())];
    assert_eq!(worse(&was, &[pod(WEB, "web-z", 9, &bad())]), []);
    // But where names are kept, another pod is another problem.
    let was = [pod(DB, "db-0", 0, &bad()), pod(DB, "db-1", 0, &good())];
    let moved = [pod(DB, "db-0", 0, &good()), pod(DB, "db-1", 0, &bad())];
    assert_eq!(worse(&was, &moved), [("n/Pod/db-1".to_owned(), 1, 0)]);
}

#[test]
fn what_restarted_lately_is_unhealthy_in_a_baseline_only() {
    let pause = [pod(DB, "db-0", 0, &restarted())];
    assert_eq!(census(&pause).unhealthy(), (0, 0));
    assert_eq!(worse(&pause, &[pod(DB, "db-0", 0, &bad())]), []);
    assert_eq!(worse(&[pod(DB, "db-0", 0, &good())], &pause), []);
}

#[test]
fn a_failed_pod_does_not_count_once_a_younger_one_of_its_workload_is_fine() {
    let (failed, done) = (json!({"phase": "Failed", "reason": "Evicted"}), json!({"phase": "Succeeded"}));
    let tried_again = [pod(JOB, "b-1", 1, &failed), pod(JOB, "b-2", 2, &failed), pod(JOB, "b-3", 3, &done)];
    assert_eq!(worse(&[], &tried_again), []);
    let evicted = [pod(WEB, "web-a", 1, &failed), pod(WEB, "web-b", 2, &good())];
    assert_eq!(worse(&[], &evicted), []);
    let older_is_fine = [pod(WEB, "web-a", 2, &failed), pod(WEB, "web-b", 1, &good())];
    assert_eq!(worse(&[], &older_is_fine), [("n/ReplicaSet/web".to_owned(), 1, 0)]);
    assert_eq!(worse(&[], &[pod(("", ""), "alone", 0, &failed)]), [("n/Pod/alone".to_owned(), 1, 0)]);
}

#[test]
fn a_job_that_is_tried_again_and_again_is_one_trouble_and_the_next_one_of_its_cron_job_the_same() {
    let failed = json!({"phase": "Failed"});
    let was = [pod(JOB, "b-1", 1, &failed)];
    assert_eq!(worse(&was, &[pod(JOB, "b-1", 1, &failed), pod(JOB, "b-2", 2, &failed)]), []);
    assert_eq!(worse(&was, &[pod(("Job", "backup-29391290"), "b-9", 9, &failed)]), []);
    assert_eq!(worse(&[], &was), [("n/CronJob/backup".to_owned(), 1, 0)]);
    // One that waits to be started counts besides.
    assert_eq!(worse(&was, &[pod(JOB, "b-1", 1, &failed), pod(JOB, "b-2", 2, &bad())]).len(), 1);
}

#[test]
fn new_trouble_is_named_before_the_old_one_and_names_are_bounded() {
    let was = [pod(WEB, "web-a", 0, &bad())];
    let after = census(&[pod(WEB, "web-a", 0, &bad()), pod(WEB, "web-b", 0, &bad())]);
    let worse = after.worse_than(&census(&was).baseline());
    assert_eq!(worse[0].pods[0].in_words(&worse[0].workload), "n/web-b: CrashLoopBackOff");
    assert_eq!(after.names(1), ["n/web-a: CrashLoopBackOff"]);
    let many: Vec<_> = (0..1_000).map(|n| pod(WEB, &format!("web-{n}"), n, &bad())).collect();
    let many = census(&many);
    assert_eq!((many.pods, many.unhealthy(), many.names(99).len()), (1_000, (1_000, 1), MAX_NAMES));
    assert!(serde_json::to_string(&many.baseline()).expect("JSON").len() < 300);
}
