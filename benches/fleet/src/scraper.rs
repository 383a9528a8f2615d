//! Scrapes as Prometheus does.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fleet::Plan;

/// As Prometheus 3 asks, but for its escaping schemes.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;version=0.0.1;\
                      q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
/// Far above every scrape timeout: whatever takes longer is not an answer.
const GIVE_UP_AFTER: Duration = Duration::from_mins(2);

/// Scrapes one address.
#[derive(Clone)]
pub(crate) struct Scraper {
    http: reqwest::Client,
    url: String,
    pub(crate) timeout: Duration,
}

/// One answer.
pub(crate) struct Scrape {
    pub(crate) took: Duration,
    pub(crate) compressed_bytes: usize,
    pub(crate) page: String,
}

impl Scraper {
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(GIVE_UP_AFTER).build()?;
        Ok(Self { http, url: format!("{url}/metrics"), timeout })
    }

    /// One scrape, with `timeout` in its header. The time is until the last byte, still compressed.
    pub(crate) async fn scrape(&self) -> Result<Scrape> {
        let request = self
            .http
            .get(&self.url)
            .header("accept", ACCEPT)
            .header("accept-encoding", "gzip")
            .header("x-prometheus-scrape-timeout-seconds", self.timeout.as_secs_f64().to_string());
        let begun = Instant::now();
        let response = request.send().await?;
        let status = response.status();
        let compressed = response.bytes().await?;
        let took = begun.elapsed();
        ensure!(status.is_success(), "the scrape was answered with {status}");
        let mut page = String::new();
        flate2::read::GzDecoder::new(&compressed[..]).read_to_string(&mut page)?;
        ensure!(page.ends_with("# EOF\n"), "the page has no end");
        Ok(Scrape { took, compressed_bytes: compressed.len(), page })
    }
}

impl Scrape {
    /// How many members are up.
    pub(crate) fn members_up(&self) -> usize {
        self.values("defragd_member_up").filter(|(_, value)| *value > 0.5).count()
    }

    /// How many clusters there are.
    pub(crate) fn clusters(&self) -> usize {
        self.values("defragd_cluster_up").count()
    }

    /// How many members of clusters without a fault are not up.
    pub(crate) fn healthy_members_missing(&self, plan: &Plan) -> usize {
        let expected = (0..plan.clusters).filter(|cluster| plan.is_whole(*cluster)).count() * fleet::plan::MEMBERS;
        let up = self.values("defragd_member_up").filter(|(cluster, value)| {
            *value > 0.5 && cluster_number(cluster).is_some_and(|cluster| plan.is_whole(cluster))
        });
        expected.saturating_sub(up.count())
    }

    /// The longest that a member of a cluster without a fault took, in seconds.
    pub(crate) fn slowest_healthy_probe(&self, plan: &Plan) -> f64 {
        self.values("defragd_member_probe_duration_seconds")
            .filter(|(cluster, _)| cluster_number(cluster).is_some_and(|cluster| plan.is_whole(cluster)))
            .fold(0.0, |slowest, (_, value)| f64::max(slowest, value))
    }

    /// Samples of a family with the name of their cluster.
    fn values<'a>(&'a self, family: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.page.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(family)?.strip_prefix('{')?.rsplit_once("} ")?;
            let (cluster, _) = labels.split_once("etcd_cluster=\"")?.1.split_once('"')?;
            Some((cluster, value.parse().ok()?))
        })
    }
}

fn cluster_number(name: &str) -> Option<usize> {
    name.strip_prefix("simulated-")?.parse().ok()
}
