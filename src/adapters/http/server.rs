//! Accepts connections, with limits on everything, and shuts down gracefully.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::util::ServiceExt;
use tracing::{Instrument, Span, debug, error_span, warn};

use super::{
    auth::Proof,
    connections::{ConnectionPermit, ConnectionSlot},
    head::{self, MAX_HEADER_BYTES, MAX_HEADERS},
    web::Web,
};

/// How often an HTTP/2 client must show that it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Per HTTP/2 connection; Prometheus needs one.
pub(super) const MAX_STREAMS: u32 = 32;
/// How long answers in progress may take when the process ends.
const DRAIN: Duration = Duration::from_secs(5);

/// An address on which the server cannot listen.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct ListenError {
    address: SocketAddr,
    cause: std::io::Error,
}

/// An extension of each request: it ends or changes when the server ends, so that long-lived connections are closed.
#[derive(Clone)]
pub(super) struct Stopped(pub(super) watch::Receiver<()>);

pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds. Port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let listener = TcpListener::bind(address).await.map_err(|cause| ListenError { address, cause })?;
        let address = listener.local_addr().map_err(|cause| ListenError { address, cause })?;
        Ok(Self { listener, address })
    }

    /// Uses a socket that another process has bound.
    pub fn inherited(listener: std::net::TcpListener) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready, then lets answers in progress finish.
    pub async fn serve(self, router: Router, web: Arc<Web>, stop: impl Future<Output = ()>) {
        let limiter = Arc::clone(&web.connections);
        let (stopping, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            // Cancel-safe: a connection that was not accepted stays in the kernel's queue, a finished task in the set.
            let accepted = tokio::select! {
                accepted = async { limiter.room().await; self.listener.accept().await } => accepted,
                Some(_) = connections.join_next() => continue,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most likely no file descriptors are left: give clients time to close some.
                    warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            // All connections wait for answers: this one is closed, and the client may retry.
            let Some(permit) = limiter.enter() else { continue };
            let (router, web, stopped) = (router.clone(), Arc::clone(&web), stopped.clone());
            // At the highest level, so that it is there whatever is logged: the log limits the lines of each peer.
            let span = error_span!("connection", peer = %SocketAddr::new(peer.ip().to_canonical(), peer.port()));
            connections.spawn(async move { greet(stream, &permit, router, &web, stopped).await }.instrument(span));
        }
        drop(self.listener);
        drop(stopping);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(DRAIN, drained).await.is_err() {
            warn!("shutting down with unfinished answers");
        }
    }
}

/// Runs the requests of an HTTP/2 connection, each in a task of its own, in that connection's span.
#[derive(Clone)]
struct InSpan(Span);

impl<F> Executor<F> for InSpan
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, request: F) {
        tokio::spawn(request.instrument(self.0.clone()));
    }
}

/// Serves one connection until it ends.
async fn greet(
    stream: TcpStream,
    permit: &ConnectionPermit,
    router: Router,
    web: &Arc<Web>,
    stopped: watch::Receiver<()>,
) {
    let active = web.current().await;
    let Some(tls) = &active.tls else {
        return talk(stream, &permit.slot, router, Proof::default(), false, stopped).await;
    };
    let accepted = tokio::select! {
        accepted = TlsAcceptor::from(Arc::clone(tls)).accept(stream) => accepted,
        () = permit.slot.over() => return,
    };
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => return debug!(%error, "TLS handshake failed"),
    };
    let connection = stream.get_ref().1;
    let certificate = active.identifies_clients && connection.peer_certificates().is_some();
    let http2 = connection.alpn_protocol() == Some(b"h2");
    talk(stream, &permit.slot, router, Proof { certificate, password: false }, http2, stopped).await;
}

async fn talk<I>(
    stream: I,
    slot: &Arc<ConnectionSlot>,
    router: Router,
    proof: Proof,
    http2: bool,
    mut stopped: watch::Receiver<()>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stopping = Stopped(stopped.clone());
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let busy = slot.begin();
        let mut request: Request = request.map(|body| axum::body::Body::new(slot.receive(body)));
        if let Some(problem) = head::problem(&request) {
            request.extensions_mut().insert(problem);
        }
        request.extensions_mut().insert(proof);
        request.extensions_mut().insert(stopping.clone());
        request.extensions_mut().insert(Arc::clone(slot));
        let router = router.clone();
        async move {
            let answer = router.oneshot(request).await;
            drop(busy);
            answer.map_err(|never: Infallible| never)
        }
    });
    let mut builder = auto::Builder::new(InSpan(Span::current()));
    // Chosen by ALPN, not guessed from the first bytes: the server would wait forever for a client that sends none.
    builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    // The slot limits the time: see its module.
    builder.http1().header_read_timeout(None).max_buf_size(MAX_HEADER_BYTES as usize).max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(PING_INTERVAL);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let over = slot.over();
    tokio::pin!(over);
    let mut asked_to_end = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%error, "connection ended");
                }
                return;
            }
            () = &mut over => return debug!("closed a connection that was idle or slow for too long, or whose place was needed"),
            // An error: the sender has been dropped, which is the signal.
            _ = stopped.changed(), if !asked_to_end => {
                asked_to_end = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::{Instant, timeout},
    };

    use super::{super::connections::ConnectionLimiter, *};

    /// The client's end of a new connection, and the sender that ends the server when it is dropped.
    fn connect(limiter: &Arc<ConnectionLimiter>) -> (DuplexStream, watch::Sender<()>) {
        let (client, stream) = duplex(4096);
        let (stopping, stopped) = watch::channel(());
        let permit = limiter.enter().expect("a place");
        let router = Router::new().route("/", get(|| async { "ok" }));
        tokio::spawn(async move { talk(stream, &permit.slot, router, Proof::default(), false, stopped).await });
        (client, stopping)
    }

    async fn request(client: &mut DuplexStream) {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("open");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            assert_ne!(client.read_buf(&mut answer).await.expect("open"), 0, "closed: {answer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_scraper_keeps_its_connection_between_scrapes_a_minute_apart() {
        let (mut client, _stopping) = connect(&Arc::default());
        for _ in 0..5 {
            request(&mut client).await;
            sleep(Duration::from_mins(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn headers_byte_by_byte_end_a_connection_whether_it_has_been_served_or_not() {
        for (has_been_served, seconds) in [(false, 10), (true, 120)] {
            let (mut client, _stopping) = connect(&Arc::default());
            if has_been_served {
                request(&mut client).await;
            }
            let before = Instant::now();
            client.write_all(b"GET / HTTP/1.1\r\nx: ").await.expect("open");
            // Until it is closed.
            while client.write_all(b"a").await.is_ok() {
                let mut rest = Vec::new();
                let _ = timeout(Duration::from_secs(1), client.read_to_end(&mut rest)).await;
            }
            assert_eq!(before.elapsed().as_secs() / 10 * 10, seconds);
        }
    }
}
