//! What a request must be like: the limits of its head and its body, and the answers to those that are malformed.

use http_body_util::Full;
use hyper::body::Bytes;
use testkit::Defragd;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Site, tls::connect};
use crate::rig::{MINUTE, TOKEN};

/// The beginning of a webhook request, without the end of its head.
fn webhook() -> String {
    format!(
        "POST /api/v1/alerts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n"
    )
}

/// The status and the body of the answer to these bytes.
async fn answer(defragd: &Defragd, request: &str) -> (u16, String) {
    let (head, body) = exchange(defragd, request).await;
    (head[9..12].parse().unwrap(), body)
}

/// The head and the body of the answer. The connection stays open for more.
async fn exchange(defragd: &Defragd, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(defragd.target()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let whole = async {
        loop {
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).await.unwrap();
            answer.push_str(&String::from_utf8_lossy(&bytes[..read]));
            let Some((head, body)) = answer.split_once("\r\n\r\n") else {
                assert_ne!(read, 0, "the connection ended: {answer}");
                continue;
            };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return (head.to_owned(), body.to_owned());
            }
        }
    };
    timeout(MINUTE, whole).await.unwrap_or_else(|_| panic!("no answer to {request:.200}"))
}

/// The status over HTTP/2 of a request with these headers.
async fn over_http2(site: &Site, defragd: &Defragd, headers: &[(String, String)]) -> u16 {
    let stream = connect(site, defragd, &[], &[], &["h2"]).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let mut request = hyper::Request::get(super::https(defragd, "/-/healthy"));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let error = match sender.send_request(request).await {
        Ok(answer) => return answer.status().as_u16(),
        Err(error) => error,
    };
    // What is above the limit that the server has announced is not sent at all, and the connection still works.
    let small = hyper::Request::get(super::https(defragd, "/-/healthy")).body(Full::<Bytes>::default()).unwrap();
    let answer = sender.send_request(small).await.unwrap_or_else(|_| panic!("the connection has ended: {error}"));
    assert_eq!(answer.status(), 200, "{error}");
    431
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_the_same_limits_over_http1_and_http2() {
    let site = Site::new();
    let (plain, tls) = (site.start("", &[]).await, Site::new());
    let tls_server = tls.start(&Site::tls(""), &[]).await;
    let one = |bytes: usize| vec![("x-long".to_owned(), "x".repeat(bytes))];
    let many = |count: usize| (0..count).map(|number| (format!("x-{number}"), "x".to_owned())).collect::<Vec<_>>();
    let cases = [
        ("long", one(60_000), 200),
        ("too long", one(66_000), 431),
        ("far too long", one(100_000), 431),
        ("many", many(99), 200),
        ("too many", many(101), 431),
    ];
    for (what, headers, expected) in cases {
        let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
        let http1 = answer(&plain, &format!("GET /-/healthy HTTP/1.1\r\nhost: x\r\n{lines}\r\n")).await.0;
        let http2 = over_http2(&tls, &tls_server, &headers).await;
        assert_eq!((http1, http2), (expected, expected), "{what}, over HTTP/1 and HTTP/2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_is_answered_with_what_is_wrong_with_it() {
    let site = Site::new();
    let defragd = site.start("", &[&site.home.flag("--web.bearer-token-file", "token")]).await;
    let get = |lines: &str| format!("GET /-/healthy HTTP/1.1\r\n{lines}\r\n");
    let post = |lines: &str, body: &str| format!("{}{lines}content-length: {}\r\n\r\n{body}", webhook(), body.len());
    let alert = |starts_at: &str| {
        let labels = r#"{"etcd_cluster": "demo"}"#;
        format!(r#"{{"alerts": [{{"status": "resolved", "labels": {labels}, "startsAt": "{starts_at}"}}]}}"#)
    };
    let cases = [
        ("one Host", get("host: x\r\n"), 200, "healthy"),
        ("no Host in HTTP/1.0", "GET /-/healthy HTTP/1.0\r\n\r\n".to_owned(), 200, "healthy"),
        ("no Host", get(""), 400, "Host"),
        ("two Hosts", get("host: x\r\nhost: x\r\n"), 400, "Host"),
        ("no name in Host", get("host: a b\r\n"), 400, "Host"),
        ("two Origins", get("host: x\r\norigin: http://x\r\norigin: http://x\r\n"), 400, "Origin"),
        ("a chunk without a size", format!("{}transfer-encoding: chunked\r\n\r\nx\r\n", webhook()), 400, "malformed"),
        // Not a byte of the body is sent.
        ("a length above the limit", format!("{}content-length: 16777217\r\n\r\n", webhook()), 413, "16777216 bytes"),
        ("a time", post("", &alert("2026-11-23T10:00:00Z")), 202, "ignored"),
        (
            "a cluster's name with a control character",
            post("", &alert("2026-11-23T10:00:00Z").replace("demo", "demo\\u001b[31m").replace("resolved", "firing")),
            202,
            "unknown_cluster",
        ),
        (
            "the same in a probe",
            "GET /probe?target=x:1&module=m&cluster=demo%1b HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
            400,
            "control characters",
        ),
        ("no time", post("", &alert("yesterday")), 400, "startsAt"),
        ("an array for the notification", post("", "[[], 0]"), 400, "expected an object"),
        (
            "an array for an alert",
            post("", r#"{"alerts": [["resolved", {}, {}, "2026-11-23T10:00:00Z", ""]]}"#),
            400,
            "expected an object",
        ),
        ("a compressed body", post("content-encoding: gzip\r\n", "\u{1f}"), 415, "Content-Encoding is not supported"),
        ("an uncompressed body", post("content-encoding: identity\r\n", r#"{"alerts": []}"#), 202, "alerts"),
    ];
    let mut wrong = Vec::new();
    for (what, request, status, says) in cases {
        let (got, body) = answer(&defragd, &request).await;
        if got != status || !body.contains(says) {
            wrong.push(format!("{what}: expected {status} {says:?}, and it answered {got} {body:.200}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_gets_the_configured_headers_and_is_counted_and_logged_like_other_refusals() {
    let site = Site::new();
    let flag = site.home.flag("--web.bearer-token-file", "token");
    let defragd = site.start("http_server_config:\n  headers:\n    X-Frame-Options: deny\n", &[&flag]).await;
    let hosts = "host: x\r\n".repeat(2);
    // Above the limit, which counts 32 bytes more for each header, and still within the library's buffer. What is longer
    // than that is refused by the library itself, or not, as the pieces happen to arrive.
    let long = (10..100).map(|number| format!("x-{number}: {}\r\n", "x".repeat(700))).collect::<Vec<_>>().concat();
    for (what, request, status) in [
        ("two Hosts", format!("GET /metrics HTTP/1.1\r\n{hosts}\r\n"), 400),
        ("two Hosts at the webhook", webhook().replacen("host: x\r\n", &hosts, 1) + "content-length: 0\r\n\r\n", 400),
        ("long headers at the webhook", format!("{}{long}content-length: 0\r\n\r\n", webhook()), 431),
    ] {
        let (head, body) = exchange(&defragd, &request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {head} {body}");
        assert!(head.contains("\r\nx-frame-options: deny"), "{what}: {head}");
    }
    let metrics = defragd.metrics().await.unwrap();
    let webhooks = |code| metrics.count("defragd_webhook_requests_total", &[("code", code)]);
    assert_eq!([webhooks("400"), webhooks("431")], [Some(1), Some(1)]);
    let log = defragd.log().unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("refused a request for its head")).collect();
    assert!(lines.len() == 3 && lines.iter().all(|line| line.contains("peer=127.0.0.1:")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_takes_only_an_object_that_is_not_compressed() {
    let site = Site::new();
    let defragd = site.start("", &[]).await;
    let post = |lines: &str, body: &str| {
        let head = "POST /api/v1/clusters/demo/pause HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        format!("{head}{lines}content-length: {}\r\n\r\n{body}", body.len())
    };
    let object = r#"{"by": "ann", "reason": "maintenance"}"#;
    assert_eq!(answer(&defragd, &post("", r#"["ann", "maintenance", null, []]"#)).await.0, 400);
    let (status, body) = answer(&defragd, &post("content-encoding: br\r\n", object)).await;
    assert!(status == 415 && body.contains("Content-Encoding is not supported"), "{status} {body}");
    // A pause's body has another limit than a notification's.
    let (status, body) =
        answer(&defragd, &post("", object).replace("content-length: 38", "content-length: 20000")).await;
    assert!(status == 413 && body.contains("16384 bytes"), "{status} {body}");
    let many = format!(r#"{{"reason": "maintenance", "members": [{}]}}"#, vec![r#""a""#; 101].join(", "));
    let (status, body) = answer(&defragd, &post("", &many)).await;
    assert!(status == 400 && body.contains("members is limited to 100 names"), "{status} {body}");
    assert_eq!(answer(&defragd, &post("", object)).await.0, 200);
}
