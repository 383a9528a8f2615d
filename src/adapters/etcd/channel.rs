//! One HTTP/2 connection to one address, for all calls to it: opened when first used, and reopened after it broke.
//!
//! A call is sent only on the connection that its caller holds ([`Pipe`]): a new connection to the same address may
//! lead to another member, which must be identified first.
//!
//! In place of tonic's own channel, which has two queues of 32 requests and two tasks for each connection, and needs more
//! wake-ups for each call: at 1,000 clusters, 247 instead of 170 µs of processor time per member and scrape
//! (benches/FLEET.md). Here a call goes straight to h2. What has been written to a connection is never sent again:
//! whether a Defragment was begun is for the caller to find out.

use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use etcd_client::Channel;
use futures_util::{
    FutureExt, TryFutureExt,
    future::{BoxFuture, Either, Shared, poll_fn, select},
};
use h2::{RecvStream, SendStream, client::SendRequest};
use http_body_util::BodyExt;
use hyper::{
    Request, Response, Uri,
    body::{Body as HttpBody, Bytes, Frame},
    header::{HeaderName, HeaderValue, USER_AGENT},
};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::{sleep, timeout},
};
use tonic::{Status, body::Body};
use tower::{Service, util::BoxCloneSyncService};

use super::dial::{BoxError, Dial};
use crate::core::cluster::MemberId;

/// The header in which etcd expects the token of a login.
const TOKEN: HeaderName = HeaderName::from_static("token");
/// Our name in the logs of proxies.
const US: HeaderValue = HeaderValue::from_static(concat!("defragd/", env!("CARGO_PKG_VERSION")));
/// A member that accepts no connection within this time is down; includes all handshakes.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// etcd's servers drop clients that ping more often than every 5 s, or without a call in progress.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// A peer that answers no ping within this time is down, however long its RPC may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Enough for a status with its text and details; a longer one does not come from etcd.
const MAX_HEADERS_BYTES: u32 = 64 << 10;

/// Why there is no connection: one attempt may fail many calls. As an error of a call it means that nothing was sent.
#[derive(Clone, Debug, Error)]
#[error(transparent)]
pub(super) struct Failure(Arc<dyn StdError + Send + Sync>);

impl From<Failure> for etcd_client::Error {
    fn from(failure: Failure) -> Self {
        Self::GRpcStatus(broken(failure))
    }
}

/// Whether a call failed before any of it was sent.
pub(super) fn was_not_sent(error: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = error else { return false };
    StdError::source(status).is_some_and(<dyn StdError>::is::<Failure>)
}

fn nothing_sent(error: h2::Error) -> Status {
    broken(Failure(Arc::new(error)))
}

/// A failed call in the form of tonic's clients: with the cause, which shows that it is not an answer of the member.
fn broken(cause: impl Into<BoxError>) -> Status {
    let cause = cause.into();
    let mut status = Status::unavailable(cause.to_string());
    status.set_source(cause.into());
    status
}

type Opening = Shared<BoxFuture<'static, Result<Pipe, Failure>>>;

pub(super) struct Link {
    dial: Arc<Dial>,
    current: Mutex<Option<Opening>>,
}

impl Link {
    /// Dialled when first used.
    pub(super) fn new(dial: Dial) -> Self {
        Self { dial: Arc::new(dial), current: Mutex::default() }
    }

    /// The existing connection, or the one being opened: by one task for all calls, and to the end, even if all callers
    /// that wait for it give up earlier.
    fn opening(&self) -> Opening {
        // A panic elsewhere leaves it consistent.
        let mut current = self.current.lock();
        let serves = |opening: &&Opening| match opening.peek() {
            Some(Ok(pipe)) => !pipe.is_over(),
            Some(Err(_)) => false,
            None => true,
        };
        if let Some(opening) = current.as_ref().filter(serves) {
            return opening.clone();
        }
        let opening = open(Arc::clone(&self.dial)).boxed().shared();
        tokio::spawn(opening.clone());
        *current = Some(opening.clone());
        opening
    }

    /// A connection that accepts calls, unless it broke a moment ago.
    pub(super) async fn pipe(&self) -> Result<Pipe, Failure> {
        let pipe = self.opening().await?;
        if pipe.0.sender.clone().ready().await.is_ok() {
            return Ok(pipe);
        }
        // It was closed while it was unused.
        pipe.0.traffic.over.store(true, Ordering::Relaxed);
        self.opening().await
    }
}

async fn open(dial: Arc<Dial>) -> Result<Pipe, Failure> {
    let opened = timeout(CONNECT_TIMEOUT, async {
        if !dial.is_tls() {
            return Pipe::begin(dial.socket().await?, Arc::clone(&dial)).await;
        }
        let secured = dial.handshake().await?;
        if secured.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("the server does not offer HTTP/2, as etcd does".into());
        }
        Pipe::begin(secured, Arc::clone(&dial)).await
    });
    let opened = opened.await.unwrap_or_else(|_| {
        let detail = format!("no connection within {:.1} s", CONNECT_TIMEOUT.as_secs_f64());
        Err(io::Error::new(io::ErrorKind::TimedOut, detail).into())
    });
    opened.map_err(|error| Failure(error.into()))
}

/// Calls on one connection, with a user's token.
#[derive(Clone)]
pub(super) struct OnPipe {
    pipe: Pipe,
    token: Option<HeaderValue>,
}

impl OnPipe {
    async fn call(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (mut parts, body) = request.into_parts();
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme = Some(self.pipe.0.dial.scheme.clone());
        uri.authority = Some(self.pipe.0.dial.authority.clone());
        parts.uri = Uri::from_parts(uri).map_err(broken)?;
        parts.headers.insert(USER_AGENT, US);
        if let Some(token) = self.token {
            parts.headers.insert(TOKEN, token);
        }
        let request = Request::from_parts(parts, ());
        let sender = self.pipe.0.sender.clone().ready().await.map_err(nothing_sent)?;
        self.pipe.send(sender, request, body).await
    }
}

impl From<OnPipe> for Channel {
    fn from(calls: OnPipe) -> Self {
        Self::Custom(BoxCloneSyncService::new(calls))
    }
}

impl Service<Request<Body>> for OnPipe {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().call(request).map_err(Into::into))
    }
}

/// State shared by the task of a connection and its calls.
#[derive(Default)]
struct Traffic {
    calls: AtomicUsize,
    /// The first of several calls has begun.
    begun: Notify,
    over: AtomicBool,
    /// The id of the member that has answered on it; 0 as long as none has.
    peer: AtomicU64,
}

/// A connection. It is closed when the last handle and the last call are gone.
#[derive(Clone)]
pub(super) struct Pipe(Arc<Handle>);

/// Shared, because to clone h2's part takes the connection's lock, and tonic's clients are cloned often.
struct Handle {
    dial: Arc<Dial>,
    sender: SendRequest<Bytes>,
    traffic: Arc<Traffic>,
}

impl Pipe {
    async fn begin<T>(socket: T, dial: Arc<Dial>) -> Result<Self, BoxError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut settings = h2::client::Builder::new();
        settings.enable_push(false).max_header_list_size(MAX_HEADERS_BYTES);
        // Header compression remembers no headers: each would keep the whole buffer it was read into, to save a few
        // bytes.
        settings.header_table_size(0);
        let (sender, mut connection) = settings.handshake(socket).await?;
        let traffic = Arc::new(Traffic::default());
        let (pings, shared) = (connection.ping_pong(), Arc::clone(&traffic));
        let silence = Box::pin(silence(pings, Arc::clone(&traffic)));
        // Not an async block with `select!`: that would hold the connection twice, and there is one for each member.
        tokio::spawn(select(connection, silence).map(move |ended| {
            match ended {
                Either::Left((Ok(()), _)) => {}
                Either::Left((Err(error), _)) => tracing::debug!(%error, "a connection to a member broke"),
                Either::Right(((), connection)) => {
                    tracing::debug!("a member answers no ping: closing the connection");
                    // All its calls fail with it.
                    drop(connection);
                }
            }
            shared.over.store(true, Ordering::Relaxed);
        }));
        Ok(Self(Arc::new(Handle { dial, sender, traffic })))
    }

    /// For calls on this very connection. When it has ended, they fail and nothing is sent.
    pub(super) fn calls(&self, token: Option<HeaderValue>) -> OnPipe {
        OnPipe { pipe: self.clone(), token }
    }

    pub(super) fn url(&self) -> String {
        format!("{}://{}", self.0.dial.scheme, self.0.dial.authority)
    }

    /// Whether this member has answered on this very connection.
    pub(super) fn leads_to(&self, member: MemberId) -> bool {
        self.0.traffic.peer.load(Ordering::Relaxed) == member.0
    }

    /// Records that this member has answered on it.
    pub(super) fn answered_by(&self, member: MemberId) {
        self.0.traffic.peer.store(member.0, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.0.traffic.over.load(Ordering::Relaxed)
    }

    async fn send(
        &self,
        mut sender: SendRequest<Bytes>,
        request: Request<()>,
        body: Body,
    ) -> Result<Response<Body>, Status> {
        let call = Call::begin(&self.0.traffic);
        let (answer, stream) = sender.send_request(request, body.is_end_stream()).map_err(nothing_sent)?;
        if !body.is_end_stream() {
            let mut sending = Box::pin(send_body(body, stream));
            // For most calls this is everything. Streams continue beside the answer.
            if sending.as_mut().now_or_never().is_none() {
                tokio::spawn(sending);
            }
        }
        let (parts, stream) = answer.await.map_err(broken)?.into_parts();
        Ok(Response::from_parts(parts, Body::new(Answer { stream, data_is_over: false, _call: call })))
    }
}

/// A call in progress, until its answer is read or dropped.
struct Call(Arc<Traffic>);

impl Call {
    fn begin(traffic: &Arc<Traffic>) -> Self {
        if traffic.calls.fetch_add(1, Ordering::Relaxed) == 0 {
            traffic.begun.notify_one();
        }
        Self(Arc::clone(traffic))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns when the member has not answered a ping in time. Sends pings only while calls are in progress.
async fn silence(pings: Option<h2::PingPong>, traffic: Arc<Traffic>) {
    // The first caller always gets one.
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        if traffic.calls.load(Ordering::Relaxed) == 0 {
            traffic.begun.notified().await;
        }
        sleep(KEEPALIVE_INTERVAL).await;
        if traffic.calls.load(Ordering::Relaxed) == 0 {
            continue;
        }
        match timeout(KEEPALIVE_TIMEOUT, pings.ping(h2::Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection broke, and reports that itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Requests to etcd are small: h2 buffers what exceeds the connection's window.
async fn send_body(mut body: Body, mut stream: SendStream<Bytes>) {
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            // The member has ended the call.
            _ = poll_fn(|context| stream.poll_reset(context)) => return,
        };
        let (data, last) = match frame {
            None => (Bytes::new(), true),
            // Clients send no trailers.
            Some(Ok(frame)) => (frame.into_data().unwrap_or_default(), body.is_end_stream()),
            Some(Err(_)) => return stream.send_reset(h2::Reason::CANCEL),
        };
        if stream.send_data(data, last).is_err() || last {
            return;
        }
    }
}

/// The body of an answer: its data, then its trailers, which contain the status.
struct Answer {
    stream: RecvStream,
    data_is_over: bool,
    _call: Call,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.data_is_over {
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) => {
                    // Received and consumed: the member may send more.
                    let released = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(released.map(|()| Frame::data(data)).map_err(broken)));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(broken(error)))),
                None => self.data_is_over = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(context));
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).map_err(broken).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.data_is_over && self.stream.is_end_stream()
    }
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
