//! What a client without credentials can write to the log: few lines, however much it sends, and each one short.

use std::fmt::Write;

use testkit::{Defragd, Home};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    edge::{Arena, frame},
    rig::{MINUTE, home},
};

/// Ten of one kind each minute and the line with the count, of which a slow machine may need a few.
const MOST_LINES: usize = 100;
/// A line has a few fields of 256 characters.
const MOST_BYTES: usize = 1_000;

/// The lines about clients, and how many lines the log says were left out. The process has ended.
async fn written(defragd: &Defragd, about: &str) -> (Vec<String>, u64) {
    assert!(defragd.terminate(MINUTE).await.unwrap().success());
    let log = defragd.log().unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(about)).map(str::to_owned).collect();
    let count = |line: &String| line.split_once("suppressed=")?.1.split(' ').next()?.parse::<u64>().ok();
    let suppressed = lines.iter().filter_map(count).sum();
    assert!(!lines.is_empty() && lines.len() < MOST_LINES, "{} lines about {about:?}", lines.len());
    for line in &lines {
        assert!(line.len() < MOST_BYTES, "{} bytes: {}", line.len(), &line[..MOST_BYTES]);
        assert!(line.contains("peer=127.0.0.1"), "{line}");
    }
    (lines, suppressed)
}

#[tokio::test(flavor = "multi_thread")]
async fn unsolicited_acknowledgements_of_pings_do_not_flood_the_log() {
    const ACK: u8 = 1;
    let arena = Arena::new(true).await;
    let mut stream = arena.http2().await.unwrap();
    for _ in 0..500 {
        stream.write_all(&frame(6, ACK, 0, &[7; 8]).repeat(100)).await.unwrap();
    }
    // Frames are handled in their order: an answer to this one means that all others have been seen.
    stream.write_all(&frame(6, 0, 0, b"the last")).await.unwrap();
    let mut received = Vec::new();
    while !received.windows(8).any(|bytes| bytes == b"the last") {
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "closed: {received:?}");
    }
    // The process need not end for that.
    arena.defragd.logs("suppressed=", 3 * MINUTE).await.unwrap();
    let (lines, suppressed) = written(&arena.defragd, "PING ack").await;
    let passed = lines.iter().filter(|line| !line.contains("suppressed=")).count();
    assert_eq!(passed as u64 + suppressed, 50_000, "each is there or counted: {lines:?}");
}

/// Each request of an HTTP/2 connection is served in a task of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_over_http2_is_logged_with_its_peer_too() {
    const END: u8 = 1 | 4;
    let arena = Arena::new(true).await;
    let mut stream = arena.http2().await.unwrap();
    // `POST https://x/-/reload`: method, scheme and the names of the others from HPACK's static table.
    let request = [&[0x83, 0x87, 0x04, 9], &b"/-/reload"[..], &[0x41, 1, b'x']].concat();
    stream.write_all(&frame(1, END, 1, &request)).await.unwrap();
    arena.defragd.logs("request without a valid bearer token", MINUTE).await.unwrap();
    assert_eq!(written(&arena.defragd, "path=/-/reload").await.0.len(), 1);
}

/// A TLS 1.3 `ClientHello` with nothing but this server name.
fn hello(name: &[u8]) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let names = with_length(&[&[0], &*with_length(name)].concat());
    let extensions = with_length(&[&[0, 0], &*with_length(&names)].concat());
    // Version, random bytes, no session, one cipher suite, no compression.
    let body = [&[3, 3], &[0x5a; 32][..], &[0], &[0, 2, 0x13, 1], &[1, 0], &extensions].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    [&[22, 3, 1], &*with_length(&message)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_illegal_server_name_is_cut_and_its_lines_are_counted() {
    let arena = Arena::new(true).await;
    let hello = hello(&b"not a name!".repeat(1_400));
    for _ in 0..200 {
        let mut stream = arena.tcp().await.unwrap();
        stream.write_all(&hello).await.unwrap();
        // It answers with an alert, and closes. A reset is fine.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let (lines, suppressed) = written(&arena.defragd, "Illegal SNI").await;
    assert!(suppressed > 0, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_with_long_paths_are_cut_counted_and_logged_with_their_peer() {
    let home = home();
    let hash = bcrypt::hash("correct horse", 4).unwrap();
    home.write("web.yml", format!("basic_auth_users:\n  ann: {hash}\n")).unwrap();
    let mut flags = [Home::nowhere(), home.token_flags()].concat();
    flags.push(home.flag("--web.config.file", "web.yml"));
    let defragd = home.serve(&flags).await.unwrap();
    let long = "x".repeat(60 << 10);
    let ask = async |request: &str, status: &str| {
        let mut stream = TcpStream::connect(defragd.target()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), format!("HTTP/1.1 {status}"));
    };
    for _ in 0..100 {
        ask(&format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"), "401").await;
    }
    // The token of the webhook does not allow an action.
    let mut forbidden = format!("POST /api/v1/clusters/{long}/pause HTTP/1.1\r\nhost: x\r\n");
    write!(forbidden, "authorization: Bearer {}\r\ncontent-length: 0\r\n\r\n", Home::TOKEN).unwrap();
    for _ in 0..100 {
        ask(&forbidden, "403").await;
    }
    let (lines, suppressed) = written(&defragd, "request without").await;
    for what in ["without a valid user and password", "without a valid bearer token"] {
        assert!(lines.iter().any(|line| line.contains(what) && line.contains("path=/")), "{what}: {lines:?}");
    }
    let passed = lines.iter().filter(|line| !line.contains("suppressed=")).count();
    assert_eq!(passed as u64 + suppressed, 200, "{lines:?}");
}
