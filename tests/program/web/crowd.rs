//! Ten thousand clients that are idle, slow or lie. `tests/program/edge.rs` has those that attack.

use anyhow::ensure;
use reqwest::StatusCode;
use testkit::until;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Site, status};
use crate::rig::{MINUTE, client, descriptors, memory_kib};

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_slow_and_lying_clients_keep_nobody_out() {
    let site = Site::new();
    let defragd = site.start("", &[]).await;
    let before = memory_kib(&defragd);
    // A connection that was kept would be the first to give way, maybe just when the next request is sent on it.
    let client = client(None).build().unwrap();
    let healthy = format!("{}/-/healthy", defragd.url());
    let mut crowd = Vec::new();
    for number in 0..10_000 {
        let mut stream = TcpStream::connect(defragd.target()).await.unwrap();
        // Every second one begins a request and does not end it.
        if number % 2 == 0 {
            let _ = stream.write_all(b"POST /api/v1/alerts HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
        }
        crowd.push(stream);
        if crowd.len() > 900 {
            // This process has file descriptors for this many only; a client dropped here was dropped by defragd before.
            crowd.drain(..300);
        }
        if number % 1000 == 999 {
            assert_eq!(status(&client, &healthy).await, Some(StatusCode::OK), "after {number}");
            // A client that was just evicted is closed when its task next runs, which may be a moment later.
            until("connections to be closed", MINUTE, || async {
                ensure!(descriptors(&defragd) < 600, "{} descriptors", descriptors(&defragd));
                Ok(())
            })
            .await
            .unwrap();
        }
    }
    let grown = memory_kib(&defragd).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");

    let cases = [
        ("long headers", format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)), "431"),
        ("many headers", format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: x\r\n".repeat(500)), "431"),
        ("a long path", format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(32 << 10)), "404"),
        ("a request that never ends", "GET /-/healthy HT".to_owned(), ""),
        ("no HTTP", "\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
        ("HTTP/2 in the clear", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
        (
            "a body that never comes",
            "POST /api/v1/alerts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
                .to_owned(),
            "408",
        ),
        (
            "a length that lies",
            "POST /api/v1/alerts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: -1\r\n\r\n{"
                .to_owned(),
            "400",
        ),
    ];
    let mut asked = Vec::new();
    for (what, bytes, expected) in cases {
        let target = defragd.target().to_owned();
        asked.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(target).await.unwrap();
            let _ = stream.write_all(bytes.as_bytes()).await;
            let mut answer = vec![0; 64];
            let read = timeout(MINUTE, stream.read(&mut answer)).await;
            let read = read.unwrap_or_else(|_| panic!("{what}: no answer and no end")).unwrap_or(0);
            let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
            // A client that is still sending when the response comes may not see it.
            let unseen = read == 0 && (expected.is_empty() || what == "long headers");
            assert!(unseen || (!expected.is_empty() && answer.contains(expected)), "{what}: {answer}");
        }));
    }
    for case in asked {
        case.await.unwrap();
        assert_eq!(status(&client, &healthy).await, Some(StatusCode::OK));
    }
    defragd.ensure_running().unwrap();
    assert!(!defragd.log().unwrap().contains("panicked"));
}
