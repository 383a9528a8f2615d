//! Members that answer while they defragment, as with etcd's feature gate `NonBlockingDefrag`: no release has it yet, so
//! a proxy in front of each real member answers in its place while it is busy.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri, Version,
    body::{Bytes, Incoming},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use testkit::{EtcdSpec, EtcdVersion, HeldDefrags, Transport, until};
use tokio::{net::TcpListener, task::JoinSet};
use tower::service_fn;

use crate::{
    faults::{self, received},
    rig::{MINUTE, Rig, TOKEN, ended_run, firing},
};

const METRICS: &str = "/metrics";
/// With what a member that does not block would answer meanwhile.
const ANSWERS: [&str; 3] =
    ["/etcdserverpb.Maintenance/Status", "/etcdserverpb.KV/Range", "/etcdserverpb.Maintenance/Alarm"];

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// In front of one member.
struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    member: OnceLock<String>,
    data_dir: OnceLock<PathBuf>,
    /// Its metrics page cannot be read.
    hides_page: AtomicBool,
    /// The last answers by path, for the time that the member itself has none.
    answers: Mutex<HashMap<String, Answer>>,
}

impl Shared {
    /// By the copy that a defragmentation makes: that is quicker than to read the metrics page. An answer must not take
    /// so long on a busy machine that the member counts as unavailable.
    fn defragments(&self) -> bool {
        let entries = self.data_dir.get().and_then(|dir| std::fs::read_dir(dir.join("member/snap")).ok());
        entries.into_iter().flatten().flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("db.tmp"))
    }
}

#[derive(Clone)]
struct Answer {
    head: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn response(self) -> Response<Body> {
        let trailers = self.trailers.map(Ok);
        let mut response = Response::new(Full::new(self.body).with_trailers(async { trailers }).boxed());
        *response.headers_mut() = self.head;
        response
    }
}

impl Front {
    async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::<Shared>::default());
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                let service = service_fn(move |request| pass(Arc::clone(&shared), request));
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service)).await;
                });
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn hide_page(&self, hides: bool) {
        self.shared.hides_page.store(hides, Ordering::SeqCst);
    }
}

async fn pass(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let Some(member) = shared.member.get() else { return Ok(unavailable()) };
    if path == METRICS {
        return Ok(page(&shared, member).await);
    }
    let Some(answer) = forward(&shared, member, &path, request).await else { return Ok(unavailable()) };
    Ok(answer.response())
}

/// The member's own page, with the gate.
async fn page(shared: &Shared, member: &str) -> Response<Body> {
    if shared.hides_page.load(Ordering::SeqCst) {
        return unavailable();
    }
    let Ok(page) = page_of(member).await else { return unavailable() };
    let gate = "etcd_server_feature_enabled{name=\"NonBlockingDefrag\",stage=\"BETA\"} 1\n";
    Response::new(Full::new(Bytes::from(page + gate)).boxed())
}

async fn page_of(member: &str) -> anyhow::Result<String> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let answer = client.get(format!("{member}{METRICS}").parse()?).await?;
    Ok(String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())?)
}

/// The member's answer; where it has none because it defragments, its last one.
async fn forward(shared: &Shared, member: &str, path: &str, request: Request<Incoming>) -> Option<Answer> {
    let (mut parts, body) = request.into_parts();
    parts.uri = format!("{member}{path}").parse::<Uri>().ok()?;
    parts.version = Version::HTTP_2;
    let body = body.collect().await.ok()?.to_bytes();
    let client: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build(HttpConnector::new());
    let asked = async {
        let answer = client.request(Request::from_parts(parts, Full::new(body))).await.ok()?;
        let (head, body) = answer.into_parts();
        let whole = body.collect().await.ok()?;
        let trailers = whole.trailers().cloned();
        Some(Answer { head: head.headers, body: whole.to_bytes(), trailers })
    };
    if !ANSWERS.contains(&path) {
        return asked.await;
    }
    tokio::pin!(asked);
    loop {
        tokio::select! {
            answer = &mut asked => {
                let answer = answer?;
                shared.answers.lock().unwrap().insert(path.to_owned(), answer.clone());
                return Some(answer);
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                let known = shared.answers.lock().unwrap().get(path).cloned();
                if let Some(known) = known && shared.defragments() {
                    return Some(known);
                }
            }
        }
    }
}

fn unavailable() -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// Three fragmented members, each behind a front that its clients know it by.
async fn fronted(version: EtcdVersion) -> (Rig, Vec<Front>) {
    let mut fronts = Vec::new();
    for _ in 0..3 {
        fronts.push(Front::new().await);
    }
    let urls: Vec<_> = fronts.iter().map(Front::url).collect();
    let spec = EtcdSpec::new(version).transport(Transport::Plain).published_as(&urls);
    let rig = Rig::with(spec).await;
    for (index, front) in fronts.iter().enumerate() {
        let member = rig.cluster.member(index);
        front.shared.member.set(member.client_url().to_owned()).unwrap();
        front.shared.data_dir.set(member.data_dir().to_owned()).unwrap();
    }
    rig.fragment().await;
    (rig, fronts)
}

async fn nothing_is_in_the_way(rig: &Rig) {
    until("nothing to be in the way", MINUTE, || async {
        let reported = plan(rig).await;
        anyhow::ensure!(!reported.contains("Refused"), "{reported}");
        Ok(())
    })
    .await
    .unwrap();
}

/// With what the journal holds.
async fn plan(rig: &Rig) -> String {
    let journal = format!("--data-dir={}", rig.path("journal").display());
    let output = rig.command("plan", &["--cluster-name=demo", &journal]).await;
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_it_took_and_how_long_the_member_was_unavailable_are_reported_separately() {
    let (rig, _fronts) = fronted(faults::newest()).await;
    let held = HeldDefrags::start_for(&rig.cluster, Duration::from_secs(3)).await.unwrap();
    let defragd = rig.serve(&["--mode=enforce"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    drop(held);
    assert_eq!(run["outcome"], "succeeded", "{run}");
    for member in run["members"].as_array().unwrap() {
        let seconds = |key: &str| member[key].as_f64().unwrap();
        assert!(member["non_blocking"].as_bool().unwrap(), "{member}");
        assert!(seconds("unavailable_seconds") < seconds("took_seconds") / 2.0, "{member}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_may_still_be_at_it_keeps_the_next_one_from_beginning() {
    let (rig, fronts) = fronted(EtcdVersion::V3_5).await;
    let held = faults::hold(&rig).await;
    let defragd = rig.serve(&["--mode=enforce", "--defrag-deadline=2s"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let member = faults::defragmenting(&rig.cluster).await;
    let name = rig.cluster.member(member).name();
    fronts[member].hide_page(true);
    let run = ended_run(&defragd, 1).await;
    assert_eq!((&run["outcome"], &run["reason"]["code"]), (&"failed".into(), &"defrag_unknown".into()), "{run}");
    let reported = plan(&rig).await;
    assert!(reported.contains(&format!("cannot determine whether member {name} is being defragmented")), "{reported}");
    // The page tells that it still is, and then that it no longer is.
    fronts[member].hide_page(false);
    let reported = plan(&rig).await;
    assert!(reported.contains(&format!("member {name} is being defragmented already")), "{reported}");
    drop(held);
    nothing_is_in_the_way(&rig).await;
    let mut once = vec![0; 3];
    once[member] = 1;
    assert_eq!(received(&rig.cluster), once, "nobody else was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_page_of_a_member_that_answers_meanwhile_tells_that_it_is_done() {
    let (rig, fronts) = fronted(EtcdVersion::V3_5).await;
    let held = faults::hold(&rig).await;
    let defragd = rig.serve(&["--mode=enforce", "--defrag-deadline=2s"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let member = faults::defragmenting(&rig.cluster).await;
    fronts[member].hide_page(true);
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["reason"]["code"], "defrag_unknown", "{run}");
    drop(held);
    assert!(plan(&rig).await.contains("cannot determine whether member"), "what happened meanwhile is not known");
    until("the member's own log to say that it is done", MINUTE, || async {
        let log = rig.cluster.member(member).defrag_log()?;
        anyhow::ensure!(log.finished == 1, "{log:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(plan(&rig).await.contains("cannot determine whether member"), "defragd reads no logs");
    fronts[member].hide_page(false);
    nothing_is_in_the_way(&rig).await;
}
