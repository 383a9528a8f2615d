//! Listens for every member, each at its own address, and answers as [`crate::answers`] says.
//!
//! It must be cheap: it shares the machine's processors with the program that is measured.

use std::{
    convert::Infallible,
    net::SocketAddr,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Version, body::Incoming, header::HeaderValue, service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    answers::Speaker,
    pki::Pki,
    plan::{Fault, MEMBERS, Plan},
    wire::Message,
};

/// How long a restarting member is down.
const AWAY: Duration = Duration::from_millis(200);

type Body = UnsyncBoxBody<Bytes, Infallible>;

struct Member {
    speaker: Speaker,
    address: SocketAddr,
    fault: Fault,
    tls: Option<Arc<ServerConfig>>,
    plan: Arc<Plan>,
    /// Connections that carried a gRPC call.
    grpc_connections: AtomicUsize,
}

/// The running members. Dropping it ends them.
pub struct Fleet {
    members: Vec<(Arc<Member>, Option<AbortHandle>)>,
    tasks: JoinSet<()>,
    // Bound and never accepted from: to their clients, these are frozen processes.
    _frozen: Vec<TcpListener>,
}

impl Fleet {
    /// Starts all members of the plan. With TLS, writes what a client needs to `dir`: `ca.crt`, `client.crt` and
    /// `client.key`.
    pub async fn start(plan: Plan, dir: &Path) -> Result<Self> {
        Self::start_part(plan, dir, 0..usize::MAX).await
    }

    /// The same of some of the clusters: a process may open only so many files.
    pub async fn start_part(plan: Plan, dir: &Path, part: Range<usize>) -> Result<Self> {
        let pki = if plan.tls { Some(Pki::create(dir)?) } else { None };
        let plan = Arc::new(plan);
        let (mut members, mut tasks, mut frozen) = (Vec::new(), JoinSet::new(), Vec::new());
        let clusters = (0..plan.clusters).filter(|cluster| part.contains(cluster));
        for (cluster, member) in clusters.flat_map(|cluster| (0..MEMBERS).map(move |m| (cluster, m))) {
            let address = SocketAddr::from((Plan::address(cluster, member), plan.port));
            let fault = plan.fault(cluster, member);
            let tls = match &pki {
                Some(pki) if fault != Fault::Refusing => Some(pki.server(address.ip())?),
                _ => None,
            };
            let speaker = Speaker { cluster, member };
            let (plan, grpc_connections) = (Arc::clone(&plan), AtomicUsize::default());
            let member = Arc::new(Member { speaker, address, fault, tls, plan, grpc_connections });
            let handle = match fault {
                Fault::Refusing => None,
                Fault::Frozen => {
                    frozen.push(bind(address).await?);
                    None
                }
                Fault::None | Fault::Busy => Some(tasks.spawn(serve(bind(address).await?, Arc::clone(&member)))),
            };
            members.push((member, handle));
        }
        Ok(Self { members, tasks, _frozen: frozen })
    }

    /// How many connections with gRPC calls a member has accepted.
    pub fn grpc_connections(&self, cluster: usize, member: usize) -> usize {
        self.members[cluster * MEMBERS + member].0.grpc_connections.load(Ordering::Relaxed)
    }

    /// Restarts one member after the other, for ever: its connections break, for a moment its port is closed, and then it
    /// is there again. Members with a fault keep it.
    pub async fn restart_members(&mut self, every: Duration) -> Result<()> {
        let well: Vec<usize> =
            (0..self.members.len()).filter(|index| self.members[*index].0.fault == Fault::None).collect();
        for index in well.into_iter().cycle() {
            sleep(every).await;
            if let Some(handle) = self.members[index].1.take() {
                handle.abort();
                // Its port is closed when its task has ended, for which a busy machine may need longer than it is away.
                while !handle.is_finished() {
                    sleep(Duration::from_millis(5)).await;
                }
            }
            while self.tasks.try_join_next().is_some() {}
            sleep(AWAY).await;
            let member = Arc::clone(&self.members[index].0);
            let listener = bind(member.address).await?;
            self.members[index].1 = Some(self.tasks.spawn(serve(listener, member)));
        }
        Ok(())
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

async fn serve(listener: TcpListener, member: Arc<Member>) {
    // Ends with this task, and its connections with it.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else { continue };
        let member = Arc::clone(&member);
        // Without it, the answer to the second call on a connection waits for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        connections.spawn(async move {
            match &member.tls {
                None => talk(stream, Arc::clone(&member)).await,
                Some(tls) => {
                    if let Ok(stream) = TlsAcceptor::from(Arc::clone(tls)).accept(stream).await {
                        talk(stream, Arc::clone(&member)).await;
                    }
                }
            }
        });
    }
}

async fn talk<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: I, member: Arc<Member>) {
    let is_counted = AtomicBool::default();
    let service = service_fn(move |request: Request<Incoming>| {
        if request.version() == Version::HTTP_2 && !is_counted.swap(true, Ordering::Relaxed) {
            member.grpc_connections.fetch_add(1, Ordering::Relaxed);
        }
        answer(Arc::clone(&member), request)
    });
    // An error: the client is gone, or restarts are what this fleet is for.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(member: Arc<Member>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (speaker, busy) = (member.speaker, member.fault == Fault::Busy);
    let path = request.uri().path().to_owned();
    // Read to the end, as a server does; what is asked is known by the path.
    let _ = request.into_body().collect().await;
    Ok(match path.as_str() {
        "/etcdserverpb.Cluster/MemberList" => grpc(speaker.member_list(&member.plan)),
        "/etcdserverpb.Maintenance/Status" | "/etcdserverpb.KV/Range" | "/etcdserverpb.Maintenance/Alarm" if busy => {
            std::future::pending().await
        }
        "/etcdserverpb.Maintenance/Status" => grpc(speaker.status()),
        "/etcdserverpb.KV/Range" | "/etcdserverpb.Maintenance/Alarm" => grpc(speaker.nothing()),
        "/metrics" => Response::new(Full::new(speaker.page(busy)).boxed_unsync()),
        _ => {
            let mut unknown = Response::new(Full::new(Bytes::from_static(b"not simulated\n")).boxed_unsync());
            *unknown.status_mut() = StatusCode::NOT_FOUND;
            unknown
        }
    })
}

fn grpc(message: Message) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message.framed()).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}
