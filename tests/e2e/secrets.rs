//! Canaries in every place of a configuration that holds a secret, sent to a server that repeats whatever it
//! receives, in runs whose gates pass and whose gates fail: none appears anywhere in defragd's output.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};
use testkit::{Defragd, EtcdVersion, wrap};

use crate::{
    gated::{checked, defragd, said},
    pods::good,
    rig::{Rig, binary, ended_run, firing},
    site::{Answer, Site, pod_list},
};

const ETCD: &str = "canary-of-etcd-7f3a";
const WRONG_ETCD: &str = "canary-of-nobody-5c1e";
const WEBHOOK: &str = "canary-of-the-webhook-91bd";
const ALERTMANAGER: &str = "canary-of-alertmanager-e04c";
const BEARER: &str = "canary-of-bearer-2d68";
const HEADER: &str = "canary-of-header-b7f5";
const KUBERNETES: &str = "canary-of-kubernetes-38ca";
/// In the paths and queries of URLs; the second, the third and the last are in files.
const URLS: [&str; 5] = [
    "canary-of-a-webhook-50ab",
    "canary-of-a-url-file-8e17",
    "canary-of-grafana-4c92",
    "canary-of-a-gate-1d3f",
    "canary-of-a-gate-s-file-60ce",
];
/// With what JSON and URLs write otherwise.
const BASIC: &str = r#"canary"of\basic+auth/66e1"#;
/// What is sent of it: `defragd:` and the password, in base64.
const BASIC_SENT: &str = "ZGVmcmFnZDpjYW5hcnkib2ZcYmFzaWMrYXV0aC82NmUx";

/// Repeats what it received: with `bad`, in every way in which a server can refuse, otherwise in a good answer.
fn echo(head: &str, bad: bool) -> Answer {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let received = |name: &str| {
        let of = |line: &str| line.to_lowercase().starts_with(name).then(|| line[name.len()..].trim().to_owned());
        head.lines().find_map(of).unwrap_or_default()
    };
    let authorization = received("authorization:");
    let json = |status: u16, body: &Value| Answer {
        headers: "Content-Type: application/json\r\n".to_owned(),
        ..Answer::new(status, body.to_string())
    };
    let error = json!({"status": "error", "errorType": "bad_data", "error": format!("denied: {head}")});
    match (path.split('?').next().unwrap_or_default(), bad) {
        ("/api/v1/pods", false) => pod_list(&[("web", good())]),
        ("/api/v1/pods", true) => json(
            403,
            &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 403,
                "reason": "Forbidden", "message": format!("forbidden: {authorization} may not: {head}")}),
        ),
        ("/api/v1/query", false) => {
            let metric = json!({"__name__": "up", "received": authorization});
            let result = json!([{"metric": metric, "value": [1, "1"]}]);
            json(200, &json!({"status": "success", "data": {"resultType": "vector", "result": result}}))
        }
        ("/api/v1/query", true) => {
            let metric = json!({"__name__": "up", "received": authorization});
            let result = json!([{"metric": metric, "value": [1, "-1"]}]);
            json(200, &json!({"status": "success", "data": {"resultType": "vector", "result": result}}))
        }
        ("/denied/api/v1/query", true) => json(422, &error),
        ("/denied/api/v1/query", false) => {
            json(200, &json!({"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}}))
        }
        ("/api/v2/alerts" | "/denied/api/v2/alerts", false) => json(200, &json!([])),
        ("/api/v2/alerts", true) => json(
            200,
            &json!([{"fingerprint": "f", "startsAt": "2026-11-24T00:00:00Z", "status": {"state": "active"},
                "labels": {"alertname": format!("received-{authorization}"), "severity": "critical"}}]),
        ),
        ("/denied/api/v2/alerts", true) => json(400, &json!(format!("bad filter: {head}"))),
        ("/away", _) => {
            let to = authorization.replace(' ', "/");
            let headers = format!("Location: https://elsewhere.example/{to}?token={to}\r\n");
            Answer { headers, ..Answer::new(if bad { 307 } else { 302 }, head) }
        }
        ("/json", _) => json(if bad { 500 } else { 200 }, &json!({"headers": head, "path": path})),
        _ => Answer::new(if bad { 500 } else { 200 }, head.replace("\r\n", "\n")),
    }
}

struct Planted {
    rig: Rig,
    site: Site,
    config: PathBuf,
    binary: PathBuf,
    canaries: Vec<String>,
    /// Everything that defragd wrote or answered, with where.
    heard: Vec<(String, String)>,
}

/// The gates, each with its secret.
fn gates(rig: &Rig, site: &Site) -> Value {
    let file = |name: &str, secret: &str| {
        fs::write(rig.path(name), format!("{secret}\n")).unwrap();
        rig.path(name)
    };
    let (url, client) = (&site.url, site.pki.client());
    let tls = json!({"ca_file": site.pki.ca(), "cert_file": client.cert, "key_file": client.key});
    let (bearer, header) = (file("bearer", BEARER), file("header", HEADER));
    let basic = json!({"username": "defragd", "password_file": file("basic", BASIC)});
    let http = |path: &str, key: &str, secret: &Value| json!({"url": format!("{url}{path}"), "tls": tls, "attempts": 1, key: secret});
    let other = |path: &str, key: &str, secret: &Value, more: &Value| {
        let mut check = http(path, key, secret);
        check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        check
    };
    let header = json!({"X-Api-Key": header});
    let url_file = file("gate.url", &format!("{url}/x/{}?y", URLS[4]));
    let kubeconfig = site.kubeconfig(rig.path("kubeconfig"), KUBERNETES);
    let (above, critical) =
        (json!({"query": "up", "expect": {"above": 0}}), json!({"matchers": ["severity=critical"]}));
    json!([
        {"name": "bearer", "on_failure": "warn", "http": http("/", "bearer_token_file", &json!(bearer))},
        {"name": "basic", "on_failure": "warn", "http": http("/", "basic_auth", &basic)},
        {"name": "basic-json", "on_failure": "warn", "http": http("/json", "basic_auth", &basic)},
        {"name": "header", "on_failure": "warn", "http": http(&format!("/x/{}?y", URLS[3]), "header_files", &header)},
        {"name": "filed", "on_failure": "warn", "http": {"url_file": url_file, "tls": tls, "attempts": 1}},
        {"name": "away", "on_failure": "warn",
            "http": other("/away", "bearer_token_file", &json!(bearer), &json!({"expect_status": [302]}))},
        {"name": "query", "on_failure": "warn", "promql": other("", "bearer_token_file", &json!(bearer), &above)},
        {"name": "query-denied", "on_failure": "warn", "promql": other("/denied", "header_files", &header, &above)},
        {"name": "alerts", "on_failure": "warn", "alertmanager": other("", "basic_auth", &basic, &critical)},
        {"name": "alerts-denied", "on_failure": "warn",
            "alertmanager": other("/denied", "bearer_token_file", &json!(bearer), &critical)},
        {"name": "pods", "kubernetes_pods": {"kubeconfig": kubeconfig, "grace": "1s"}},
    ])
}

/// The targets of notifications, each with a URL that is a secret.
fn targets(rig: &Rig, site: &Site) -> Value {
    let [query, path, grafana, ..] = URLS;
    let file = |name: &str, path: String| {
        fs::write(rig.path(name), format!("{}{path}\n", site.url)).unwrap();
        rig.path(name)
    };
    let (tls, client) = (json!({"ca_file": site.pki.ca()}), site.pki.client());
    let with = |key: &str, url: Value| {
        let mut access = json!({"tls": tls, key: url});
        access["tls"]["cert_file"] = json!(client.cert);
        access["tls"]["key_file"] = json!(client.key);
        access
    };
    json!([
        {"name": "query", "webhook": with("url", json!(format!("{}/hook?room={query}", site.url)))},
        {"name": "path", "webhook": with("url_file", json!(file("path.url", format!("/services/T0/{path}"))))},
        {"name": "graphs", "grafana": with("url_file", json!(file("graphs.url", format!("/{grafana}/"))))},
    ])
}

/// Lines of a private key.
fn lines_of(key: &Path) -> Vec<String> {
    let text = fs::read_to_string(key).unwrap();
    let lines: Vec<_> =
        text.lines().filter(|line| line.len() > 30 && !line.contains("---")).map(str::to_owned).collect();
    assert!(!lines.is_empty());
    lines
}

impl Planted {
    async fn new(bad: &Arc<AtomicBool>) -> Self {
        let rig = Rig::fragmented(EtcdVersion::V3_5).await;
        rig.cluster.enable_auth(ETCD).await.unwrap();
        let bad = Arc::clone(bad);
        let site = Site::start(&rig.path("site"), move |head| echo(head, bad.load(Ordering::SeqCst))).await;
        let mut cluster = rig.cluster_keys(&gates(&rig, &site));
        fs::write(rig.path("password"), ETCD).unwrap();
        cluster["auth"] = json!({"username": "root", "password_file": rig.path("password")});
        let config = rig.path("config.yaml");
        fs::write(&config, json!({"clusters": [cluster], "notify": targets(&rig, &site)}).to_string()).unwrap();
        fs::write(rig.path("alertmanager-token"), ALERTMANAGER).unwrap();
        // A variable that makes many programs tell all they know.
        let chatty = rig.path("defragd");
        wrap(binary(), "RUST_LOG=trace", &chatty).unwrap();

        let mut canaries: Vec<_> =
            [ETCD, WRONG_ETCD, WEBHOOK, ALERTMANAGER, BEARER, HEADER, KUBERNETES, BASIC_SENT, BASIC]
                .map(str::to_owned)
                .to_vec();
        // As JSON and Debug write it.
        canaries.push(BASIC.replace('\\', r"\\").replace('"', "\\\""));
        canaries.extend(URLS.map(str::to_owned));
        canaries.extend(lines_of(&site.pki.client().key));
        canaries.extend(lines_of(&rig.cluster.pki().unwrap().client().key));
        Self { rig, site, config, binary: chatty, canaries, heard: Vec::new() }
    }

    async fn serve(&self, log: &str) -> Defragd {
        let level = ["--log.level=debug".to_owned(), format!("--log.format={log}")];
        let alertmanager = [
            format!("--alertmanager.url={}", self.site.url),
            format!("--alertmanager.bearer-token-file={}", self.rig.path("alertmanager-token").display()),
            format!("--alertmanager.ca-file={}", self.site.pki.ca().display()),
        ];
        let mut args = self.rig.serve_args(&self.config, &[]);
        args.extend(level.into_iter().chain(alertmanager));
        fs::write(self.rig.path("token"), WEBHOOK).unwrap();
        Defragd::start(&self.binary, &args, &self.rig.path(&format!("{log}.log"))).await.unwrap()
    }

    /// Requests everything that a server can show.
    async fn ask(&mut self, defragd: &Defragd) {
        for path in [
            "/",
            "/metrics",
            "/api/v1/clusters",
            "/api/v1/runs",
            "/api/v1/runs/1",
            "/api/v1/runs/2",
            "/api/v1/runs/x",
            "/-/ready",
            "/-/healthy",
            "/config",
            "/configuration",
            "/clusters/demo",
            "/runs/1",
            "/runs/2",
            "/api/v1/config",
            "/debug",
            "/nothing",
        ] {
            let answer = defragd.get(path).await.unwrap();
            self.heard.push((format!("GET {path}"), answer.body));
        }
        for (body, token) in [("{", WEBHOOK), ("{}", "canary-of-nobody-5c1e")] {
            let answer = defragd.post_raw(body, Some(token)).await.unwrap();
            self.heard.push(("POST /api/v1/alerts".to_owned(), answer.body));
        }
        self.heard.push(("the log".to_owned(), defragd.log().unwrap()));
    }

    /// Every command that reads the cluster, the gates or the journal.
    async fn command(&mut self) {
        let dir = format!("--data-dir={}", self.rig.path("journal").display());
        for command in [
            &["status"][..],
            &["status", "-o", "json"],
            &["plan"],
            &["plan", "-o", "json"],
            &["gates"],
            &["gates", "-o", "json"],
            &["gates", "--moment=between"],
            &["check-config"],
        ] {
            let done = self.rig.with_file(&self.config, command).await;
            self.heard.push((command.join(" "), said(&done)));
        }
        for command in
            [&["runs"][..], &["runs", "-o", "json"], &["runs", "show", "1"], &["runs", "show", "1", "-o", "json"]]
        {
            let args: Vec<_> = command.iter().copied().chain([dir.as_str()]).map(str::to_owned).collect();
            self.heard.push((command.join(" "), said(&defragd(&args).await)));
        }
    }

    /// The journal, byte by byte.
    fn read_files(&mut self) {
        for entry in fs::read_dir(self.rig.path("journal")).unwrap().flatten() {
            let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
            self.heard.push((entry.path().display().to_string(), text));
        }
    }

    fn assert_nothing_came_out(&self) {
        for (place, text) in &self.heard {
            for canary in &self.canaries {
                let at = text.find(canary.as_str()).map(|at| text[..at].chars().rev().take(300).collect::<Vec<_>>());
                let before = at.map(|chars| chars.into_iter().rev().collect::<String>());
                assert!(before.is_none(), "{canary} is in {place}, after: {}", before.unwrap());
            }
        }
    }

    /// Proves that the canaries were in places from which they could have leaked.
    fn assert_all_were_sent(&self) {
        let asked = self.site.asked().join("\n");
        let headers = [ALERTMANAGER, BEARER, HEADER, KUBERNETES, BASIC_SENT, "client-certificate: shown"];
        for canary in headers.into_iter().chain(URLS) {
            assert!(asked.contains(canary), "{canary} was never sent");
        }
        let all: String = self.heard.iter().map(|(_, text)| text.as_str()).collect();
        let headers = ["authorization: Bearer ***", "authorization: Basic ***", "x-api-key: ***", "received-Basic ***"];
        for masked in headers.into_iter().chain(["POST *** HTTP", "GET *** HTTP"]) {
            assert!(all.contains(masked), "nothing was said back: {masked:?} is nowhere");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_comes_out_of_runs_whose_gates_pass_and_fail() {
    let bad = Arc::new(AtomicBool::new(false));
    let mut planted = Planted::new(&bad).await;

    let first = planted.serve("logfmt").await;
    first.post_alerts(&firing(), Some(WEBHOOK)).await.unwrap();
    let run = ended_run(&first, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    for gate in
        ["bearer", "basic", "header", "filed", "away", "query", "query-denied", "alerts", "alerts-denied", "pods"]
    {
        assert!(checked(&run, gate).iter().all(|(_, passed)| *passed), "{gate}: {run}");
    }
    planted.ask(&first).await;
    planted.command().await;
    assert!(first.terminate(crate::rig::MINUTE).await.unwrap().success());

    planted.rig.fragment().await;
    bad.store(true, Ordering::SeqCst);
    let second = planted.serve("json").await;
    let mut again = firing();
    again["alerts"][0]["startsAt"] = json!("2026-11-23T12:00:00Z");
    second.post_alerts(&again, Some(WEBHOOK)).await.unwrap();
    let run = ended_run(&second, 2).await;
    assert_eq!((&run["outcome"], &run["reason"]["gate"]), (&json!("refused"), &json!("pods")), "{run}");
    for gate in
        ["bearer", "basic", "header", "filed", "away", "query", "query-denied", "alerts", "alerts-denied", "pods"]
    {
        assert_eq!(checked(&run, gate), [("before".to_owned(), false)], "{gate}: {run}");
    }
    planted.ask(&second).await;
    planted.command().await;
    planted.read_files();
    // Attempts to notify continue for a while.
    second.logs("a notification failed; retrying", crate::rig::MINUTE).await.unwrap();
    assert!(second.terminate(crate::rig::MINUTE).await.unwrap().success());
    planted.heard.push(("the whole log".to_owned(), second.log().unwrap()));
    let done = planted.rig.with_file(&planted.config, &["run"]).await;
    planted.heard.push(("run".to_owned(), said(&done)));

    // An etcd that rejects the password.
    fs::write(planted.rig.path("password"), WRONG_ETCD).unwrap();
    let wrong = planted.rig.with_file(&planted.config, &["status"]).await;
    assert!(said(&wrong).contains("authentication failed"), "{}", said(&wrong));
    planted.heard.push(("status with a wrong password".to_owned(), said(&wrong)));

    planted.assert_nothing_came_out();
    planted.assert_all_were_sent();
}
