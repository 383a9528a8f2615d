//! Against HTTP/2 servers that do what etcd seldom does.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use h2::server::SendResponse;
use hyper::{HeaderMap, StatusCode};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{super::names::Names, *};
use crate::core::cluster::MemberId;

fn request() -> Request<Body> {
    Request::builder().uri("/etcdserverpb.Maintenance/Status").body(Body::empty()).expect("a request")
}

fn dial(address: SocketAddr) -> Dial {
    let url = format!("http://{address}").parse().expect("an address");
    Dial::plain(url, Names::default()).expect("it has a host")
}

/// One call on the existing connection, or on a new one.
async fn call(link: &Link) -> Result<Response<Body>, Status> {
    let pipe = link.pipe().await.map_err(broken)?;
    pipe.calls(None).call(request()).await
}

fn answer(mut respond: SendResponse<Bytes>) {
    let head = Response::builder().status(StatusCode::OK).body(()).expect("an answer");
    let mut stream = respond.send_response(head, false).expect("sent");
    stream.send_data(Bytes::from_static(b"data"), false).expect("sent");
    stream.send_trailers(HeaderMap::from_iter([("grpc-status".parse().expect("a name"), US)])).expect("sent");
}

/// Serves connections one after the other; `serve` says for each request of a connection whether the connection stays.
async fn server(mut serve: impl FnMut(usize, SendResponse<Bytes>) -> bool + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((socket, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(socket).await.expect("a handshake");
            while let Some(Ok((_, respond))) = connection.accept().await {
                number += 1;
                if !serve(number, respond) {
                    break;
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn an_answer_comes_with_its_data_and_its_trailers() {
    let address = server(|_, respond| {
        answer(respond);
        true
    })
    .await;
    let link = Link::new(dial(address));
    let collected = call(&link).await.expect("answered").into_body().collect().await.expect("whole");
    assert_eq!(collected.trailers().and_then(|trailers| trailers.get("grpc-status")), Some(&US));
    assert_eq!(&collected.to_bytes()[..], b"data");
}

#[tokio::test]
async fn a_request_on_a_connection_that_breaks_fails_and_is_not_sent_again_and_the_next_gets_a_new_one() {
    let (reported, mut seen) = mpsc::unbounded_channel();
    let address = server(move |number, respond| {
        let _ = reported.send(number);
        if number == 2 {
            return false;
        }
        answer(respond);
        true
    })
    .await;
    let link = Link::new(dial(address));
    call(&link).await.expect("answered");
    let failed = call(&link).await.expect_err("its connection broke");
    assert!(StdError::source(&failed).is_some(), "it must not pass for an answer of the member: {failed}");
    // The third request that the server sees is the third call, on another connection.
    call(&link).await.expect("answered");
    let mut numbers = Vec::new();
    while let Ok(number) = seen.try_recv() {
        numbers.push(number);
    }
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn a_member_that_is_not_there_is_said_to_be_unreachable_and_tried_again() {
    let mut port = testkit::Port::reserve().expect("a port");
    port.release();
    let address = port.address();
    let link = Link::new(dial(address));
    let failed = call(&link).await.expect_err("nobody listens");
    let said = super::super::error::chain(StdError::source(&failed).expect("a cause"));
    assert!(said.contains("refused"), "{said}");
    let _listener = TcpListener::bind(address).await.expect("bound");
    // It accepts, but says nothing: the handshake of HTTP/2 does not wait for it, the call does.
    assert!(timeout(Duration::from_millis(200), call(&link)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_fails_its_calls_and_an_idle_one_is_not_pinged() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let nowhere = Arc::new(dial(SocketAddr::from(([127, 0, 0, 1], 1))));
    let pipe = Pipe::begin(ours, nowhere).await.expect("begun");
    // From here on the server's side is not read.
    let _theirs = theirs;
    sleep(10 * KEEPALIVE_INTERVAL).await;
    assert!(!pipe.is_over(), "it was pinged without a call");
    let begun = Instant::now();
    let full = Request::builder().uri("http://member/path").body(()).expect("a request");
    let sender = pipe.0.sender.clone().ready().await.expect("ready");
    assert!(pipe.send(sender, full, Body::empty()).await.is_err());
    let took = begun.elapsed();
    assert!(took >= KEEPALIVE_TIMEOUT && took <= KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT, "{took:?}");
    assert!(pipe.is_over());
}

#[tokio::test]
async fn a_call_on_a_connection_that_is_over_is_not_sent_on_another_and_says_so() {
    let (reported, mut seen) = mpsc::unbounded_channel();
    let address = server(move |number, respond| {
        let _ = reported.send(number);
        answer(respond);
        false
    })
    .await;
    let link = Link::new(dial(address));
    let pipe = link.pipe().await.expect("connected");
    let on_pipe = pipe.calls(None);
    let _ = on_pipe.clone().call(request()).await;
    while !pipe.is_over() {
        sleep(Duration::from_millis(1)).await;
    }
    let failed = on_pipe.call(request()).await.expect_err("it is over");
    assert!(was_not_sent(&etcd_client::Error::GRpcStatus(failed)));
    assert_eq!(seen.recv().await, Some(1));
    assert!(seen.try_recv().is_err(), "the server saw one request");
    assert!(!pipe.leads_to(MemberId(7)));
    let next = link.pipe().await.expect("another connection");
    next.answered_by(MemberId(7));
    assert!(next.leads_to(MemberId(7)) && link.pipe().await.expect("the same").leads_to(MemberId(7)));
    assert!(!pipe.leads_to(MemberId(7)), "what is known of one connection is not of another");
}
