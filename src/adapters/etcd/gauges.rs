//! The few numbers that only a member's own `/metrics` page has.

use std::time::Duration;

use bytesize::ByteSize;
use hyper::header::CONNECTION;

use super::error::chain;
use crate::{
    core::cluster::{Fact, Gauges, MemberId, Unknown, UnknownKind},
    ports::etcd::Visit,
    turn_limiter::TurnLimiter,
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
#[path = "gauges_tests.rs"]
mod tests;
