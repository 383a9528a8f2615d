//! The few numbers that only a member's own `/metrics` page tells.

use std::time::Duration;

use bytesize::ByteSize;

use super::error::chain;
use crate::core::cluster::{Fact, Gauges, Unknown, UnknownKind};

/// etcd's page is about 100 kB; whatever sends more than this is not etcd.
const MAX_PAGE_BYTES: usize = 8 << 20;
/// The page is made from memory: slower than this is not an answer.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Gets and reads the page below a client URL.
pub(super) async fn fetch(client: &reqwest::Client, url: &str) -> Fact<Gauges> {
    let failed = |error: &reqwest::Error| {
        let kind = if error.is_timeout() { UnknownKind::TimedOut } else { UnknownKind::Unreachable };
        Unknown::new(kind, chain(error))
    };
    let page = format!("{}/metrics", url.trim_end_matches('/'));
    let mut response = client.get(&page).timeout(PAGE_TIMEOUT).send().await.map_err(|error| failed(&error))?;
    if !response.status().is_success() {
        return Err(Unknown::new(UnknownKind::Other, format!("{page} answered {}", response.status())));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        if body.len() + chunk.len() > MAX_PAGE_BYTES {
            return Err(Unknown::new(UnknownKind::Other, format!("{page} is longer than {MAX_PAGE_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(read(&String::from_utf8_lossy(&body)))
}

/// Reads the unlabelled samples that matter.
fn read(page: &str) -> Gauges {
    let mut gauges = Gauges::default();
    for line in page.lines() {
        let Some((name, value)) = line.split_once(' ') else { continue };
        let value = || value.split(' ').next().and_then(|value| value.parse::<f64>().ok());
        match name {
            "etcd_disk_defrag_inflight" => gauges.defrag_in_flight = value().map(|value| value > 0.0),
            "etcd_server_quota_backend_bytes" => gauges.quota = value().and_then(bytes),
            "etcd_mvcc_db_total_size_in_bytes" => gauges.db_size = value().and_then(bytes),
            "etcd_mvcc_db_total_size_in_use_in_bytes" => gauges.db_size_in_use = value().and_then(bytes),
            _ => {}
        }
    }
    gauges
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be positive and finite")]
fn bytes(value: f64) -> Option<ByteSize> {
    (value.is_finite() && value >= 0.0).then_some(ByteSize(value as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_old_or_foreign_page_says_nothing() {
        assert_eq!(read("etcd_disk_defrag_inflight{a=\"b\"} 1\ngarbage\n\n"), Gauges::default());
    }
}
