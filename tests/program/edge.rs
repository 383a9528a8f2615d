//! What the port withstands, against the real program: each attack runs while ordinary clients scrape, which must all be
//! served; afterwards it has closed its descriptors, its memory has not grown much, and nothing has panicked. There is no
//! etcd.
//!
//! `tests/program/web/crowd.rs` has ten thousand idle connections and single malformed requests.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use reqwest::Client;
use rustls::ClientConfig;
use testkit::{Defragd, Home, Pki, until};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::rig::{TOKEN, client, descriptors, home, memory_kib, roots};

/// More than the server has places for.
const CROWD: usize = 600;
/// Of each attack.
const LONG: Duration = Duration::from_secs(6);
/// The whole server needs some 20 MiB; what the attacks send adds up to gigabytes.
const MOST_GROWTH_KIB: u64 = 192 << 10;

pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

pub(crate) struct Arena {
    _home: Home,
    pki: Option<Pki>,
    pub(crate) defragd: Defragd,
    client: Client,
}

impl Arena {
    pub(crate) async fn new(with_tls: bool) -> Self {
        let home = home();
        let mut flags = Home::nowhere();
        flags.push(home.flag("--web.bearer-token-file", "token"));
        let pki = with_tls.then(|| Pki::create(&home.path("pki")).unwrap());
        if with_tls {
            home.write("web.yml", "tls_server_config: {cert_file: pki/server.crt, key_file: pki/server.key}").unwrap();
            flags.push(home.flag("--web.config.file", "web.yml"));
        }
        let client = client(pki.as_ref()).build().unwrap();
        let defragd = home.serve(&flags).await.unwrap();
        Self { _home: home, pki, defragd, client }
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.pki.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.defragd.target())
    }

    pub(crate) async fn tcp(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(self.defragd.target()).await?)
    }

    /// Over TLS with HTTP/2 if the arena has it.
    pub(crate) async fn http2(&self) -> Result<Box<dyn Wire>> {
        let roots = roots(self.pki.as_ref().unwrap());
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = self.tcp().await?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into()?, stream).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        stream.write_all(&frame(4, 0, 0, &[])).await?;
        Ok(Box::new(stream))
    }

    /// Lets `CROWD` attackers begin again and again, while others scrape.
    async fn withstands<'a>(&'a self, what: &str, attack: impl Fn(&'a Self, Instant) -> Attack<'a>) {
        let (memory, open) = (memory_kib(&self.defragd), descriptors(&self.defragd));
        let end = Instant::now() + LONG;
        let over = AtomicBool::new(false);
        let (served, attacks) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let attackers = async {
            let one = async |number: usize| {
                // Not all in the same instant.
                sleep(Duration::from_millis(number as u64)).await;
                while Instant::now() < end {
                    // It is refused or cut off, as it should be.
                    let _ = timeout(end.saturating_duration_since(Instant::now()), attack(self, end)).await;
                    attacks.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(20)).await;
                }
            };
            join_all((0..CROWD).map(one)).await;
            over.store(true, Ordering::Relaxed);
        };
        let others = async {
            // Until all attackers are there.
            sleep(Duration::from_secs(1)).await;
            // Once at least: a process that was not scheduled for long finds the attack over.
            loop {
                let answer = self.client.get(self.url("/metrics")).send().await;
                let answer = answer.unwrap_or_else(|error| panic!("{what}: a scrape after {served:?}: {error:?}"));
                assert_eq!(answer.status().as_u16(), 200, "{what}: a scrape");
                assert!(answer.text().await.unwrap().contains("defragd_build_info"), "{what}: the whole page");
                served.fetch_add(1, Ordering::Relaxed);
                if over.load(Ordering::Relaxed) {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::join!(attackers, others);
        self.defragd.ensure_running().unwrap();
        // An assertion of h2's that only debug builds have fails when a connection with open streams is dropped: it ends
        // the task of that connection, which is over anyway.
        let of_h2 = |line: &str| line.contains("/h2-") && line.contains("/proto/streams/counts.rs");
        let log = self.defragd.log().unwrap();
        assert!(!log.lines().any(|line| line.contains("panicked") && !of_h2(line)), "{what}: {log}");
        until("the descriptors to be back", Duration::from_secs(90), || async {
            let now = descriptors(&self.defragd);
            ensure!(now <= open + 8, "{what}: {open} before, {now} now");
            Ok(())
        })
        .await
        .unwrap();
        let grown = memory_kib(&self.defragd).saturating_sub(memory);
        assert!(grown < MOST_GROWTH_KIB, "{what}: {grown} KiB more");
        println!("{what}: {attacks:?} attacks, {served:?} scrapes served, {grown} KiB more");
    }
}

type Attack<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// Reads and discards, until the other side ends.
async fn drain(stream: &mut (impl AsyncRead + Unpin)) -> Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Each byte after a while.
async fn drip(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8], pause: Duration) -> Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        sleep(pause).await;
    }
    Ok(())
}

const POST: &str = "POST /api/v1/alerts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_are_served_while_others_misuse_http() {
    let arena = Arena::new(false).await;
    let pause = Duration::from_millis(200);

    arena
        .withstands("headers byte by byte", |arena, _| {
            Box::pin(async move {
                let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nx-slow: {}\r\n\r\n", "x".repeat(1_000));
                drip(&mut arena.tcp().await?, request.as_bytes(), pause).await
            })
        })
        .await;

    arena
        .withstands("bodies byte by byte, with a good token", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.tcp().await?;
                let head = format!("{POST}authorization: Bearer {TOKEN}\r\ncontent-length: 100000\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                drip(&mut stream, &[b' '; 1_000], pause).await
            })
        })
        .await;

    arena
        .withstands("bodies byte by byte, of strangers", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.tcp().await?;
                stream.write_all(format!("{POST}transfer-encoding: chunked\r\n\r\n").as_bytes()).await?;
                drip(&mut stream, "1\r\n \r\n".repeat(200).as_bytes(), pause).await
            })
        })
        .await;

    arena
        .withstands("bodies without end", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.tcp().await?;
                let head = format!("{POST}authorization: Bearer {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
                loop {
                    stream.write_all(chunk.as_bytes()).await?;
                }
            })
        })
        .await;

    arena
        .withstands("chunks with endless extensions, trailers and headers", |arena, end| {
            Box::pin(async move {
                let mut stream = arena.tcp().await?;
                let heads = [
                    format!("{POST}authorization: Bearer {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n1;"),
                    format!("{POST}authorization: Bearer {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"),
                    "GET /metrics HTTP/1.1\r\n".to_owned(),
                ];
                let which = end.saturating_duration_since(Instant::now()).as_millis() as usize % heads.len();
                stream.write_all(heads[which].as_bytes()).await?;
                let more = if which == 0 { "x=y;".repeat(4_000) } else { "x-a: b\r\n".repeat(2_000) };
                loop {
                    stream.write_all(more.as_bytes()).await?;
                }
            })
        })
        .await;

    arena
        .withstands("many requests at once, and no answer read", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.tcp().await?;
                let requests = "GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n".repeat(500);
                loop {
                    stream.write_all(requests.as_bytes()).await?;
                }
            })
        })
        .await;

    arena
        .withstands("sockets half closed", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.tcp().await?;
                stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await?;
                stream.shutdown().await?;
                drain(&mut stream).await
            })
        })
        .await;

    arena
        .withstands("garbage", |arena, end| {
            Box::pin(async move {
                let mut stream = arena.tcp().await?;
                // Other bytes each time.
                let seed = end.saturating_duration_since(Instant::now()).subsec_nanos() | 1;
                let mut state = u64::from(seed);
                let garbage: Vec<u8> = (0..4_096)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        state.to_be_bytes()[1]
                    })
                    .collect();
                stream.write_all(&garbage).await?;
                drain(&mut stream).await
            })
        })
        .await;
}

/// A frame of HTTP/2.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `GET https://x/` in HPACK's static table.
const GET: [u8; 6] = [0x82, 0x87, 0x84, 0x41, 1, b'x'];
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The numbers of a client's streams.
fn streams() -> impl Iterator<Item = u32> {
    (1..0x7fff_ffff).step_by(2)
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_are_served_while_others_misuse_tls_and_http2() {
    let arena = Arena::new(true).await;

    arena
        .withstands("handshakes that stop halfway", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.tcp().await?;
                // The beginning of a ClientHello of 512 bytes.
                drip(&mut stream, &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], Duration::from_millis(200)).await?;
                drain(&mut stream).await
            })
        })
        .await;

    arena
        .withstands("plain HTTP and garbage where TLS is spoken", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.tcp().await?;
                stream.write_all(&b"GET / HTTP/1.1\r\n\r\n\xff\x00".repeat(100)).await?;
                drain(&mut stream).await
            })
        })
        .await;

    arena
        .withstands("streams that are opened and reset", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.http2().await?;
                for id in streams() {
                    let mut bytes = frame(1, END_HEADERS | END_STREAM, id, &GET);
                    bytes.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
                    stream.write_all(&bytes).await?;
                }
                Ok(())
            })
        })
        .await;

    arena
        .withstands("streams beyond all limits", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.http2().await?;
                for id in streams() {
                    // Each has a body that never comes.
                    stream.write_all(&frame(1, END_HEADERS, id, &GET)).await?;
                }
                Ok(())
            })
        })
        .await;

    arena
        .withstands("headers without end", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.http2().await?;
                stream.write_all(&frame(1, 0, 1, &GET)).await?;
                // `x: yyy…`, not put into the table.
                let mut header = vec![0, 1, b'x', 0x7f, 0xe1, 0x0f];
                header.resize(header.len() + 2_144, b'y');
                loop {
                    stream.write_all(&frame(9, 0, 1, &header)).await?;
                }
            })
        })
        .await;

    arena
        .withstands("pings and settings, and no answer read", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.http2().await?;
                let mut bytes = frame(6, 0, 0, &[0; 8]).repeat(100);
                bytes.extend(frame(4, 0, 0, &[0, 3, 0, 0, 0, 1]).repeat(100));
                loop {
                    stream.write_all(&bytes).await?;
                }
            })
        })
        .await;

    arena
        .withstands("garbage where HTTP/2 is spoken", |arena, _| {
            Box::pin(async move {
                let mut stream = arena.http2().await?;
                for kind in 0..=255 {
                    stream.write_all(&frame(kind, kind, u32::from(kind), &[kind; 300])).await?;
                }
                drain(&mut stream).await
            })
        })
        .await;
}
