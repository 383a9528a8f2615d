//! What Prometheus and Alertmanager answer.

use super::*;

#[tokio::test]
async fn an_answer_of_prometheus_must_be_whole_and_as_expected() {
    let vector =
        |samples: serde_json::Value| json!({"status": "success", "data": {"resultType": "vector", "result": samples}});
    let sample = |value: &str| json!({"metric": {"__name__": "up", "job": "a"}, "value": [1.5, value]});
    let with = |mut answer: serde_json::Value, key: &str, value: serde_json::Value| {
        answer[key] = value;
        answer
    };
    let good = vector(json!([sample("1")]));
    for (answer, expect, passes, word) in [
        (good.clone(), Samples::Above(0.5), true, "1 sample, as expected"),
        (good.clone(), Samples::Below(0.5), false, "up{job=\"a\"} is 1"),
        (good.clone(), Samples::NotEmpty, true, ""),
        (good.clone(), Samples::Empty, false, "not as expected (no sample)"),
        (vector(json!([])), Samples::Empty, true, "returned 0"),
        (vector(json!([])), Samples::Above(0.5), false, "returned nothing, but must return samples above 0.5"),
        (vector(json!([])), Samples::NotEmpty, false, "returned nothing"),
        (vector(json!([sample("2"), sample("NaN")])), Samples::Above(0.5), false, "up{job=\"a\"} is NaN"),
        (vector(json!([sample("+Inf")])), Samples::Above(0.5), true, ""),
        (vector(json!([{"metric": {}, "histogram": [1, {}]}])), Samples::Above(0.5), false, "is NaN"),
        (
            json!({"status": "success", "data": {"resultType": "scalar", "result": [1, "3"]}}),
            Samples::Above(0.5),
            true,
            "",
        ),
        (
            json!({"status": "success", "data": {"resultType": "matrix", "result": []}}),
            Samples::Empty,
            false,
            "is not an instant vector",
        ),
        (
            json!({"status": "success", "data": {"resultType": "string", "result": [1, "x"]}}),
            Samples::NotEmpty,
            false,
            "is not an instant vector",
        ),
        (with(good.clone(), "warnings", json!(["a store is down"])), Samples::Above(0.5), false, "a store is down"),
        (with(good.clone(), "infos", json!(["PromQL info: x"])), Samples::Above(0.5), true, ""),
        (with(good.clone(), "warnings", json!(["PromQL info: x"])), Samples::Above(0.5), true, ""),
        (
            json!({"status": "error", "errorType": "timeout", "error": "query timed out"}),
            Samples::Empty,
            false,
            "query timed out",
        ),
        (json!({"status": "success"}), Samples::Empty, false, "has no data"),
        (
            json!({"status": "success", "data": {"resultType": "vector", "result": null}}),
            Samples::Empty,
            false,
            "cannot be parsed",
        ),
        (
            json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "x"]}]}}),
            Samples::NotEmpty,
            false,
            "has the invalid value \"x\"",
        ),
        (json!([]), Samples::Empty, false, "cannot be parsed"),
        (json!({}), Samples::Empty, false, "cannot be parsed"),
    ] {
        let site = site(200, "", &answer.to_string()).await;
        let probe = expecting(expect, site.url("/prefix"), PATIENT);
        let reading = check(&probe).await;
        assert_eq!(reading.passed, passes, "{answer} with {expect}: {reading:?}");
        assert!(reading.detail.contains(word), "{answer} with {expect}: {word:?} is not in {reading:?}");
        assert!(site.asked().concat().starts_with("GET /prefix/api/v1/query?query=up&timeout=10000ms HTTP"));
    }
    let many: Vec<_> = (0..1_000).map(|_| sample("0")).collect();
    let reading = check(&promql(site(200, "", &vector(json!(many)).to_string()).await.url("/"), PATIENT)).await;
    assert_eq!(reading.evidence["failing_samples"].as_array().map(Vec::len), Some(5));
    assert!(reading.detail.starts_with("1000 of 1000 samples"), "{reading:?}");
    let refused = json!({"status": "error", "errorType": "bad_data", "error": "parse error at char 3"}).to_string();
    let reading = check(&promql(site(400, "", &refused).await.url("/"), PATIENT)).await;
    assert!(!reading.passed && reading.detail.contains("answered 400: parse error at char 3"), "{reading:?}");
}

#[tokio::test]
async fn only_active_alerts_that_are_not_ignored_fail() {
    let alert = |name: &str, state: &str| json!({"labels": {"alertname": name}, "fingerprint": "f", "startsAt": "t", "status": {"state": state}});
    for (answer, passes, names) in [
        (json!([]), true, json!(null)),
        (json!([alert("Watchdog", "active"), alert("B", "suppressed")]), true, json!(null)),
        (json!([alert("B", "active"), alert("A", "active"), alert("A", "active")]), false, json!(["A", "B"])),
        (json!({}), false, json!(null)),
        (json!([{"labels": {}}]), false, json!(null)),
    ] {
        let site = site(200, "", &answer.to_string()).await;
        let reading = check(&alerts(site.url("/am/"), PATIENT)).await;
        assert_eq!(reading.passed, passes, "{answer}: {reading:?}");
        assert_eq!(reading.evidence.get("alerts").cloned().unwrap_or_default(), names, "{reading:?}");
        let asked = site.asked().concat();
        assert!(asked.starts_with("GET /am/api/v2/alerts?active=true&silenced=false&inhibited=false"), "{asked}");
        assert!(asked.contains("&filter=severity%3D%22critical%22 HTTP"), "{asked}");
    }
    let many: Vec<_> = (0..1_000).map(|n| alert(&format!("A{n}"), "active")).collect();
    let reading = check(&alerts(site(200, "", &json!(many).to_string()).await.url("/"), PATIENT)).await;
    assert_eq!(reading.evidence["alerts"].as_array().map(Vec::len), Some(10));
    assert!(reading.detail.starts_with("1000 active alerts") && reading.detail.ends_with(", …"), "{reading:?}");
}
