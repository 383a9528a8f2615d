//! Whole requests to the real router: paths, queries such as that of `/probe`, cookies, forms, JSON, headers. The HTTP
//! library has parsed them already; `tests/program/edge.rs` attacks that.

use std::{cell::RefCell, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use defragd::{
    adapters::{
        clock::SystemClock,
        etcd::EtcdCluster,
        http::{AccessPolicy, Options, Web, router},
        journal::SqliteJournal,
    },
    app::{
        cluster::{Cluster, Shared},
        connect::{connect, connect_module},
        notify::Notifications,
        probe::Probes,
        service::App,
    },
    config::Settings,
    telemetry::counters::Counters,
};
use http_body_util::{BodyExt, Collected};
use tokio::{runtime::Runtime, time::timeout};
use tower::ServiceExt;

use crate::Target;

const WORDS: [&str; 48] = [
    "open ",
    "token ",
    "GET ",
    "POST ",
    "/",
    "/configuration",
    "/clusters/demo",
    "/runs/1",
    "/login",
    "/logout",
    "/metrics",
    "/probe?target=127.9.9.9:2379&module=field",
    "/api/v1/alerts",
    "/api/v1/clusters",
    "/api/v1/clusters/demo/plan?as_manual=true",
    "/api/v1/runs?limit=",
    "/api/v1/runs/1/approve",
    "/-/reload",
    "/pause",
    "/resume",
    "/cancel",
    "/run",
    "/reject",
    "?show=",
    "&sort=",
    "%00",
    "%ff",
    "host: localhost",
    "origin: http://localhost",
    "sec-fetch-site: same-origin",
    "cookie: defragd=",
    "__Host-defragd=",
    "authorization: Bearer ",
    "authorization: Basic ",
    "content-type: application/json",
    "content-type: application/x-www-form-urlencoded",
    "accept: application/openmetrics-text;version=1.0.0;q=0.5",
    "accept-encoding: gzip;q=0",
    "x-prometheus-scrape-timeout-seconds: ",
    "x-defragd-forwarded: ",
    "\n\n",
    "form=",
    "&by=",
    "&reason=",
    "&for=2h",
    "&token=",
    "{\"by\": \"ann\"}",
    "<zzz>",
];

const SEEDS: [&str; 16] = [
    "open GET /\nhost: localhost\ncookie: defragd=0123456789abcdef0123456789abcdef; a=b\n\n",
    "token GET /?show=members&sort=name&<zzz>\nhost: localhost\n\n",
    "open GET /clusters/demo?done=pause\nhost: localhost\n\n",
    "open GET /runs/1\nhost: localhost\n\n",
    "token GET /login?next=<zzz>\nhost: localhost\n\n",
    "token POST /login\nhost: localhost\norigin: http://localhost\ncontent-type: application/x-www-form-urlencoded\n\ntoken=x&by=ann",
    "open POST /clusters/demo/pause\nhost: localhost\nsec-fetch-site: same-origin\ncookie: defragd=1\ncontent-type: application/x-www-form-urlencoded\n\nform=1&by=ann&reason=<zzz>&for=2h",
    "open GET /metrics\naccept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3\naccept-encoding: gzip;q=0\nx-prometheus-scrape-timeout-seconds: 0.01\n\n",
    "open GET /probe?target=127.9.9.9:2379,[::1]:2379&module=field&cluster=x\nx-prometheus-scrape-timeout-seconds: 0.01\n\n",
    "open POST /api/v1/alerts\nhost: localhost\ncontent-type: application/json\n\n{\"version\":\"4\",\"alerts\":[{\"status\":\"firing\",\"labels\":{\"etcd_cluster\":\"demo\"},\"startsAt\":\"2026-01-01T00:00:00Z\",\"fingerprint\":\"<zzz>\"}]}",
    "open POST /api/v1/clusters/demo/pause\nhost: localhost\ncontent-type: application/json\n\n{\"by\":\"ann\",\"reason\":\"<zzz>\",\"for\":\"2h\"}",
    "open POST /api/v1/clusters/demo/run\nhost: localhost\ncontent-type: application/json\n\n{\"by\":\"ann\",\"members\":[\"<zzz>\"]}",
    "open POST /api/v1/runs/1/reject\nhost: localhost\ncontent-type: application/json\n\n{\"by\":\"ann\",\"reason\":\"no\"}",
    "token POST /api/v1/runs/1/approve\nhost: localhost\nauthorization: Bearer x\ncontent-type: application/json\n\n{\"by\":\"ann\"}",
    "open GET /api/v1/runs?limit=18446744073709551615\n\n",
    "token POST /-/reload\nhost: localhost\n\n",
];

const CONFIG: &str = "clusters: [{name: demo, endpoints: ['http://127.0.0.1:1']}]\n\
                      modules: {field: {allowed_targets: ['127.9.9.9'], allowed_ports: [1]}}\n";
/// After so many requests there are new sites: they keep what they have accepted.
const MOST_REQUESTS: u32 = 1_000;
const LONG: Duration = Duration::from_mins(1);

/// The same program twice: where clients need a token, which no input has, and where they need none.
struct Sites {
    guarded: Router,
    open: Router,
    requests: u32,
}

impl Sites {
    fn new() -> Self {
        let token = || Some("a token that is in no input".to_owned());
        let guarded = site(AccessPolicy::tokens(token(), token()));
        Self { guarded, open: site(AccessPolicy::tokens(None, None)), requests: 0 }
    }
}

fn site(access: AccessPolicy) -> Router {
    let settings = Settings::from_text(CONFIG).unwrap();
    let clock = Arc::new(SystemClock);
    let counters = Counters::new(["demo"]);
    let notifications = Notifications::start([], counters.notifications(), None);
    let journal = SqliteJournal::in_memory(clock.clone()).unwrap();
    let shared = Arc::new(Shared::new(journal, counters, clock, notifications, 1));
    let probes = Probes::<EtcdCluster>::new(settings.modules.clone(), Arc::new(connect_module));
    let cluster = settings.clusters[0].clone();
    let cluster = Cluster::new(cluster.clone(), connect(&cluster).unwrap(), Arc::clone(&shared));
    let app = App::new(vec![Arc::new(cluster)], shared).probing(Arc::new(probes));
    router(Arc::new(app), access, Arc::new(Web::plain()), Options::default())
}

/// The first line names the site, the method and the path; headers follow, and after an empty line the body. None if the
/// HTTP library would have refused it.
fn request(bytes: &[u8]) -> Option<(bool, Request<Body>)> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (site, rest) = first.split_once(' ')?;
    let (method, path) = rest.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(path);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    Some((site == "open", request.body(Body::from(bytes[end + 2..].to_vec())).ok()?))
}

fn judge(runtime: &Runtime, sites: &RefCell<Sites>, bytes: &[u8]) -> Result<(), String> {
    let Some((open, request)) = request(bytes) else { return Ok(()) };
    let path = request.uri().path().to_owned();
    // It never ends, and needs the server around it.
    if path == "/events" {
        return Ok(());
    }
    let writes = request.method() != "GET" && request.method() != "HEAD";
    let _inside = runtime.enter();
    let router = {
        let mut sites = sites.borrow_mut();
        sites.requests += 1;
        if sites.requests > MOST_REQUESTS {
            *sites = Sites::new();
        }
        if open { sites.open.clone() } else { sites.guarded.clone() }
    };
    let answered = runtime.block_on(async {
        timeout(LONG, async {
            let answer = router.oneshot(request).await.unwrap();
            let (head, body) = answer.into_parts();
            (head, body.collect().await.map(Collected::to_bytes))
        })
        .await
    });
    let (head, body) = answered.map_err(|_| "no answer")?;
    let (status, body) = (head.status.as_u16(), body.map_err(|error| error.to_string())?);
    // Without a configuration file there is nothing to reload, and 503 says what is not available.
    if status >= 500 && status != 503 && path != "/-/reload" {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
    }
    if !open && writes && status < 400 && path != "/logout" {
        return Err(format!("a stranger's {path} is answered with {status}"));
    }
    let is_page = head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page && body.windows(4).any(|part| part == b"<zzz") {
        return Err(format!("markup of the request is in the page: {}", String::from_utf8_lossy(&body)));
    }
    Ok(())
}

pub(crate) fn target() -> Target {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sites = {
        let _inside = runtime.enter();
        RefCell::new(Sites::new())
    };
    Target {
        name: "http",
        seeds: SEEDS.map(|seed| seed.as_bytes().to_vec()).to_vec(),
        trees: Vec::new(),
        words: &WORDS,
        cost: 4,
        judge: Box::new(move |bytes| judge(&runtime, &sites, bytes)),
    }
}

#[test]
fn whatever_a_stranger_requests_the_answer_is_no_error_of_ours_and_nothing_is_done() {
    target().attack();
}
