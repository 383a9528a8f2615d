//! The few numbers that only a member's own `/metrics` page has.

use std::time::Duration;

use bytesize::ByteSize;
use hyper::header::CONNECTION;

use super::error::chain;
use crate::{
    adapters::turn_limiter::TurnLimiter,
    core::cluster::{Fact, Gauges, MemberId, Unknown, UnknownKind},
    ports::etcd::Visit,
};

/// etcd's page has about 100 kB; a longer one does not come from etcd.
const MAX_PAGE_BYTES: usize = 8 << 20;
/// How long a run waits for a page. The page is made from memory: a slower answer counts as none.
const RUN_LIMIT: Duration = Duration::from_secs(5);
/// How long a scrape or a command waits for a page: what the client port reports must not wait long for a port whose
/// packets a firewall drops. A page takes some ten round trips to a member with TLS.
const SCRAPE_LIMIT: Duration = Duration::from_secs(2);

/// No relevant line of etcd is this long.
const MAX_LINE_BYTES: usize = 64 << 10;
/// How many pages of a whole fleet are read at the same time: each takes a connection and its buffers, and all at once
/// on the first scrape would permanently take most of the process's memory. A page that takes longer than its turn no
/// longer delays others: its member hangs.
static PAGES: TurnLimiter = TurnLimiter::new(32, Duration::from_millis(250));

/// Reads the page at this URL, and returns which member it says it belongs to.
pub(super) async fn fetch(client: &reqwest::Client, page: &str, visit: Visit) -> Fact<(Gauges, Option<MemberId>)> {
    PAGES.take(|| read_page(client, page, visit)).await
}

/// The page belongs to another member.
pub(super) fn wrong(page: &str, whose: Option<MemberId>) -> Unknown {
    match whose {
        Some(id) => Unknown::new(UnknownKind::WrongMember, format!("{page} is the page of member {id}")),
        None => {
            Unknown::new(UnknownKind::Other, format!("{page} has no etcd_server_id: it is not a metrics page of etcd"))
        }
    }
}

async fn read_page(client: &reqwest::Client, page: &str, visit: Visit) -> Fact<(Gauges, Option<MemberId>)> {
    let failed = |error: &reqwest::Error| {
        let kind = if error.is_timeout() { UnknownKind::TimedOut } else { UnknownKind::Unreachable };
        Unknown::new(kind, chain(error))
    };
    let request = client.get(page);
    let request = match visit {
        Visit::Repeated => request.timeout(RUN_LIMIT),
        // A kept connection holds buffers as large as the page: for a whole fleet, that is more than all the connections
        // for gRPC.
        Visit::Single => request.timeout(SCRAPE_LIMIT).header(CONNECTION, "close"),
    };
    let mut response = request.send().await.map_err(|error| failed(&error))?;
    if !response.status().is_success() {
        return Err(Unknown::new(UnknownKind::Other, format!("{page} answered {}", response.status())));
    }
    let (mut reader, mut length) = (Reader::default(), 0);
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        length += chunk.len();
        if length > MAX_PAGE_BYTES {
            return Err(Unknown::new(UnknownKind::Other, format!("{page} is longer than {MAX_PAGE_BYTES} bytes")));
        }
        reader.take(&chunk);
    }
    let whose = reader.whose;
    Ok((reader.end(), whose))
}

/// Reads a complete page.
pub fn read(page: &str) -> Gauges {
    let mut reader = Reader::default();
    reader.take(page.as_bytes());
    reader.end()
}

/// Reads the relevant samples while the page arrives, without storing it.
#[derive(Default)]
struct Reader {
    gauges: Gauges,
    snapshots: Snapshots,
    /// Of `etcd_server_id`.
    whose: Option<MemberId>,
    /// An incomplete line at the end of the received data.
    begun: Vec<u8>,
}

impl Reader {
    fn take(&mut self, chunk: &[u8]) {
        let mut lines = chunk.split(|byte| *byte == b'\n');
        let last = lines.next_back().unwrap_or_default();
        for line in lines {
            if self.begun.is_empty() {
                self.line(line);
            } else {
                self.begun.extend_from_slice(line);
                let whole = std::mem::take(&mut self.begun);
                self.line(&whole);
            }
        }
        if self.begun.len() + last.len() <= MAX_LINE_BYTES {
            self.begun.extend_from_slice(last);
        }
    }

    fn end(mut self) -> Gauges {
        let last = std::mem::take(&mut self.begun);
        self.line(&last);
        self.gauges.open_snapshots = self.snapshots.open();
        self.gauges
    }

    fn line(&mut self, line: &[u8]) {
        // Most lines are of other metrics: they are skipped without parsing.
        if !line.starts_with(b"etcd_") && !line.starts_with(b"grpc_server_") {
            return;
        }
        let Some((name, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' ')) else { return };
        if let Some((name, labels)) = name.split_once('{') {
            let is_on = || Some(value.trim() == "1");
            match name {
                "etcd_server_feature_enabled" if labels.contains("name=\"NonBlockingDefrag\"") => {
                    self.gauges.non_blocking_defrag = is_on();
                }
                "etcd_server_feature_enabled" if labels.contains("name=\"StopGRPCServiceOnDefrag\"") => {
                    self.gauges.stop_grpc_on_defrag = is_on();
                }
                "etcd_server_id" => self.whose = member_id(labels).or(self.whose),
                _ => {}
            }
            self.snapshots.take(name, labels, value);
            return;
        }
        let gauges = &mut self.gauges;
        let value = || value.split_whitespace().next().and_then(|value| value.parse::<f64>().ok());
        match name {
            "etcd_disk_defrag_inflight" => gauges.defrag_in_flight = value().map(|value| value > 0.0),
            "etcd_server_quota_backend_bytes" => gauges.quota = value().and_then(bytes),
            "etcd_mvcc_db_total_size_in_bytes" => gauges.db_size = value().and_then(bytes),
            "etcd_mvcc_db_total_size_in_use_in_bytes" => gauges.db_size_in_use = value().and_then(bytes),
            _ => {}
        }
    }
}

/// The counters of snapshots that are being sent.
#[derive(Default)]
struct Snapshots {
    started: Option<u64>,
    handled: u64,
    to_members: u64,
}

impl Snapshots {
    fn take(&mut self, name: &str, labels: &str, value: &str) {
        let to = match name {
            "grpc_server_started_total" if is_snapshot(labels) => self.started.get_or_insert(0),
            // One for each status code.
            "grpc_server_handled_total" if is_snapshot(labels) => &mut self.handled,
            "etcd_network_snapshot_send_inflights_total" => &mut self.to_members,
            _ => return,
        };
        let value = value.split_whitespace().next().and_then(|value| value.parse::<f64>().ok()).and_then(bytes);
        *to = to.saturating_add(value.map_or(0, |value| value.0));
    }

    /// `None` if gRPC's counters are missing.
    fn open(&self) -> Option<u64> {
        Some(self.started?.saturating_sub(self.handled).saturating_add(self.to_members))
    }
}

/// Of `server_id="8e9e05c52164694d"`.
fn member_id(labels: &str) -> Option<MemberId> {
    let id = labels.split("server_id=\"").nth(1)?.split('"').next()?;
    u64::from_str_radix(id, 16).ok().map(MemberId)
}

fn is_snapshot(labels: &str) -> bool {
    labels.contains("grpc_method=\"Snapshot\"")
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be positive and finite")]
fn bytes(value: f64) -> Option<ByteSize> {
    (value.is_finite() && value >= 0.0).then_some(ByteSize(value as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> super::super::Connection {
        let files = super::super::CredentialFiles::default();
        let read = files.read().expect("no files");
        super::super::Connection::new(&files, read, &super::super::Sources::default()).expect("no files")
    }

    #[test]
    fn a_page_is_the_same_however_it_is_cut() {
        let page = "# HELP x y\netcd_disk_defrag_inflight 1\r\n\netcd_mvcc_db_total_size_in_bytes 5\n\
                    etcd_server_quota_backend_bytes 7";
        let whole = read(page);
        assert_eq!(
            (whole.defrag_in_flight, whole.db_size, whole.quota),
            (Some(true), Some(ByteSize(5)), Some(ByteSize(7)))
        );
        for size in 1..page.len() {
            let mut reader = Reader::default();
            page.as_bytes().chunks(size).for_each(|chunk| reader.take(chunk));
            assert_eq!(reader.end(), whole, "in pieces of {size}");
        }
    }

    #[test]
    fn the_page_of_a_busy_member_is_read() {
        let page = "# HELP etcd_disk_defrag_inflight Whether or not defrag is active on the member.\n\
                    # TYPE etcd_disk_defrag_inflight gauge\n\
                    etcd_disk_defrag_inflight 1\n\
                    etcd_server_quota_backend_bytes 2.147483648e+09\n\
                    etcd_mvcc_db_total_size_in_bytes 1.48e+09\n\
                    etcd_mvcc_db_total_size_in_use_in_bytes NaN\n";
        let gauges = read(page);
        assert_eq!(gauges.defrag_in_flight, Some(true));
        assert_eq!(gauges.quota, Some(ByteSize::gib(2)));
        assert_eq!(gauges.db_size, Some(ByteSize(1_480_000_000)));
        assert_eq!(gauges.db_size_in_use, None);
    }

    #[test]
    fn snapshots_that_are_being_sent_are_counted() {
        let started = |count: u32| {
            format!(
                "grpc_server_started_total{{grpc_method=\"Snapshot\",grpc_service=\"etcdserverpb.Maintenance\",\
                 grpc_type=\"server_stream\"}} {count}\n\
                 grpc_server_started_total{{grpc_method=\"Status\",grpc_type=\"unary\"}} 50\n"
            )
        };
        let handled = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Snapshot\"} 2\n\
                       grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Snapshot\"} 1\n\
                       grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Status\"} 49\n";
        let open = |page: &str| read(page).open_snapshots;
        assert_eq!(open(&format!("{}{handled}", started(3))), Some(0));
        assert_eq!(open(&format!("{handled}{}", started(5))), Some(2));
        // A counter that was read before its counterpart rose.
        assert_eq!(open(&format!("{}{handled}", started(2))), Some(0));
        let to_member = "etcd_network_snapshot_send_inflights_total{To=\"8e9e05c52164694d\"} 1\n";
        assert_eq!(open(&format!("{}{handled}{to_member}", started(4))), Some(2));
        assert_eq!(open(to_member), None, "whether a client has one open is not known");
    }

    #[tokio::test]
    async fn a_page_that_leads_elsewhere_is_not_followed() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let bind = || async { tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound") };
        let (member, elsewhere) = (bind().await, bind().await);
        let to = elsewhere.local_addr().expect("an address");
        let url = format!("http://{}/metrics", member.local_addr().expect("an address"));
        let answering = tokio::spawn(async move {
            let (mut stream, _) = member.accept().await.expect("asked");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let answer = format!("HTTP/1.1 302 Found\r\nlocation: http://{to}/metrics\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.expect("sent");
        });
        let connection = connection();
        let answer = fetch(connection.http(&url).expect("plain"), &url, Visit::Single).await.expect_err("not followed");
        assert!(answer.detail.contains("answered 302"), "{}", answer.detail);
        answering.await.expect("no panic");
        let asked = tokio::time::timeout(Duration::from_millis(100), elsewhere.accept()).await;
        assert!(asked.is_err(), "the redirect was followed");
    }

    #[tokio::test]
    async fn a_connection_is_kept_only_where_the_next_visit_is_near() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let member = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/metrics", member.local_addr().expect("an address"));
        let accepted = std::sync::Arc::new(AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = member.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("sent");
                    }
                });
            }
        });
        let connection = connection();
        let visits = [Visit::Repeated, Visit::Repeated, Visit::Single, Visit::Single, Visit::Repeated];
        let mut connections = Vec::new();
        for visit in visits {
            fetch(connection.http(&url).expect("plain"), &url, visit).await.expect("a page");
            connections.push(accepted.load(Ordering::SeqCst));
        }
        assert_eq!(connections, [1, 1, 1, 2, 3], "so many so far, after {visits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_waits_longer_for_a_page_than_a_scrape() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // The kernel accepts connections, and nobody answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let url = format!("http://{}/metrics", silent.local_addr().expect("an address"));
        let connection = connection();
        for (visit, limit) in [(Visit::Single, SCRAPE_LIMIT), (Visit::Repeated, RUN_LIMIT)] {
            let begun = tokio::time::Instant::now();
            let answer = fetch(connection.http(&url).expect("plain"), &url, visit).await;
            assert_eq!(answer.expect_err("no answer").kind, UnknownKind::TimedOut);
            assert_eq!(begun.elapsed().as_secs(), limit.as_secs(), "{visit:?}, in virtual time");
        }
    }

    #[test]
    fn a_page_says_whose_it_is_and_which_gates_are_on() {
        let page = "etcd_server_feature_enabled{name=\"StopGRPCServiceOnDefrag\",stage=\"ALPHA\"} 1\n\
                    etcd_server_feature_enabled{name=\"NonBlockingDefrag\",stage=\"BETA\"} 0\n\
                    etcd_server_id{server_id=\"8e9e05c52164694d\"} 1\n";
        let mut reader = Reader::default();
        reader.take(page.as_bytes());
        assert_eq!(reader.whose, Some(MemberId(0x8e9e_05c5_2164_694d)));
        let gauges = reader.end();
        assert_eq!((gauges.stop_grpc_on_defrag, gauges.non_blocking_defrag), (Some(true), Some(false)));
        for foreign in ["", "server_id=\"\"", "server_id=\"ten\"", "id=\"1\""] {
            assert_eq!(member_id(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn an_old_or_foreign_page_says_nothing() {
        assert_eq!(read("etcd_disk_defrag_inflight{a=\"b\"} 1\ngarbage\n\n"), Gauges::default());
    }
}
