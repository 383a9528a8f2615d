//! Responses of other servers: a member's metrics page, and Prometheus' and Alertmanager's API through the real client.

use std::sync::{Arc, Mutex};

use defragd::{
    adapters::etcd::read_gauges,
    app::gates::gates,
    config::Settings,
    core::gate::Moment,
    ports::gate::{CheckContext, Gate},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::Target;

pub(crate) fn gauges() -> Target {
    const WORDS: [&str; 14] = [
        "etcd_disk_defrag_inflight ",
        "etcd_server_quota_backend_bytes ",
        "etcd_mvcc_db_total_size_in_bytes ",
        "etcd_mvcc_db_total_size_in_use_in_bytes ",
        "# HELP ",
        "# TYPE ",
        "{a=\"b\"} ",
        "+Inf",
        "-1",
        "1e308",
        "-0",
        "2.147483648e+09",
        " 1700000000000",
        "# EOF\n",
    ];
    let page = "# HELP etcd_disk_defrag_inflight x\n# TYPE etcd_disk_defrag_inflight gauge\netcd_disk_defrag_inflight 1\n\
                etcd_server_quota_backend_bytes 2.147483648e+09\netcd_mvcc_db_total_size_in_bytes 1.48e+09 1700000000000\n\
                etcd_mvcc_db_total_size_in_use_in_bytes{a=\"b\"} 12\n";
    let seeds = vec![page.as_bytes().to_vec()];
    let judge = |bytes: &[u8]| {
        let gauges = read_gauges(&String::from_utf8_lossy(bytes));
        let written = String::from_utf8_lossy(bytes);
        match gauges.quota {
            Some(_) if !written.contains("etcd_server_quota_backend_bytes") => Err("a quota from nowhere".to_owned()),
            _ => Ok(()),
        }
    };
    Target { name: "gauges", seeds, trees: Vec::new(), words: &WORDS, cost: 1, judge: Box::new(judge) }
}

#[test]
fn whatever_a_metrics_page_says_its_sizes_are_sizes_or_not_known() {
    gauges().attack();
    let long = "etcd_disk_defrag_inflight 0\n".repeat(300_000);
    assert_eq!(read_gauges(&long).defrag_in_flight, Some(false));
}

/// A server that answers everything with the same bytes, and gates that ask it.
struct Oracle {
    runtime: tokio::runtime::Runtime,
    body: Arc<Mutex<Vec<u8>>>,
    gates: Vec<Gate>,
}

impl Oracle {
    fn new(gates_of: impl Fn(&str) -> String) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let body = Arc::new(Mutex::new(Vec::new()));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = Arc::clone(&body);
        runtime.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => request.push(byte),
                            Err(_) => return,
                        }
                    }
                    let body = answer.lock().unwrap().clone();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = stream.write_all(&body).await;
                });
            }
        });
        let text = format!("clusters: [{{name: a, endpoints: ['127.0.0.1:1'], gates: [{}]}}]", gates_of(&url));
        let settings = Settings::from_text(&text).unwrap();
        let gates = gates(&settings.clusters[0].gates).map_err(|_| "gates").unwrap();
        Self { runtime, body, gates }
    }

    /// Each gate's verdict on these bytes. Its evidence fits in a log.
    fn judge(&self, bytes: &[u8]) -> Result<Vec<bool>, String> {
        *self.body.lock().unwrap() = bytes.to_vec();
        let mut verdicts = Vec::new();
        for gate in &self.gates {
            let reading =
                self.runtime.block_on(gate.probe.check(CheckContext { moment: Moment::Before, baseline: None }));
            let evidence = serde_json::to_string(&reading.evidence).map_err(|error| error.to_string())?;
            if reading.detail.len() > 5_000 || evidence.len() > 20_000 || reading.detail.contains('\n') {
                return Err(format!("{} bytes of evidence, and says {:?}", evidence.len(), reading.detail));
            }
            verdicts.push(reading.passed);
        }
        Ok(verdicts)
    }
}

pub(crate) fn promql() -> Target {
    const WORDS: [&str; 18] = [
        "status",
        "success",
        "error",
        "data",
        "resultType",
        "vector",
        "scalar",
        "string",
        "matrix",
        "result",
        "metric",
        "value",
        "values",
        "warnings",
        "infos",
        "1",
        "+Inf",
        "PromQL info",
    ];
    let vector = json!({"status": "success", "data": {"resultType": "vector", "result": [
        {"metric": {"__name__": "up", "job": "x"}, "value": [1_700_000_000.123, "1"]}, {"metric": {}, "value": [1, "NaN"]}]}});
    let empty = json!({"status": "success", "data": {"resultType": "vector", "result": []}});
    let scalar = json!({"status": "success", "warnings": [], "data": {"resultType": "scalar", "result": [1, "0.5"]}});
    let matrix = json!({"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "2"]]}]}});
    let error = json!({"status": "error", "errorType": "bad_data", "error": "x"});
    let trees = vec![vector, empty, scalar, matrix, error];
    let seeds = trees.iter().map(|tree| tree.to_string().into_bytes()).collect();
    let oracle = Oracle::new(|url| {
        let tries = "attempts: 1, timeout: 10s";
        format!(
            "{{name: none, promql: {{url: '{url}', query: up, {tries}}}}}, \
             {{name: above, promql: {{url: '{url}', query: up, expect: {{above: 0.5}}, {tries}}}}}"
        )
    });
    let understood = |bytes: &[u8]| {
        let json: Result<Value, _> = serde_json::from_slice(bytes);
        json.is_ok_and(|json| json["status"] == "success" && json["data"]["result"].is_array())
    };
    let judge = move |bytes: &[u8]| {
        let passed = oracle.judge(bytes)?;
        if passed.contains(&true) && !understood(bytes) {
            return Err(format!("passed {passed:?}"));
        }
        // No sample, and a sample above: not both.
        if passed == [true, true] { Err("both pass".to_owned()) } else { Ok(()) }
    };
    Target { name: "promql", seeds, trees, words: &WORDS, cost: 4, judge: Box::new(judge) }
}

#[test]
fn whatever_prometheus_answers_a_gate_passes_only_for_what_is_understood() {
    promql().attack();
}

pub(crate) fn alertmanager() -> Target {
    const WORDS: [&str; 10] = [
        "labels",
        "alertname",
        "status",
        "state",
        "active",
        "suppressed",
        "fingerprint",
        "startsAt",
        "inhibitedBy",
        "Watchdog",
    ];
    let alerts = json!([{"labels": {"alertname": "Down", "severity": "critical"}, "annotations": {}, "fingerprint": "a",
        "startsAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z", "endsAt": "2026-01-01T00:00:00Z",
        "receivers": [{"name": "x"}], "status": {"state": "active", "silencedBy": [], "inhibitedBy": []}}]);
    let trees = vec![alerts, json!([])];
    let seeds = trees.iter().map(|tree| tree.to_string().into_bytes()).collect();
    let oracle = Oracle::new(|url| {
        format!(
            "{{name: a, alertmanager: {{url: '{url}', matchers: ['severity=\"critical\"'], attempts: 1, timeout: 10s}}}}"
        )
    });
    let judge = move |bytes: &[u8]| {
        let passed = oracle.judge(bytes)?;
        let is_list = serde_json::from_slice::<Value>(bytes).is_ok_and(|json| json.is_array());
        if passed == [true] && !is_list { Err("passed".to_owned()) } else { Ok(()) }
    };
    Target { name: "alertmanager", seeds, trees, words: &WORDS, cost: 4, judge: Box::new(judge) }
}

#[test]
fn whatever_alertmanager_answers_a_gate_passes_only_for_a_list() {
    alertmanager().attack();
}
