//! The page of `/probe`: the series of one cluster that is not configured, and how the probe itself went. It has no
//! metrics of this process: `/metrics` has those.

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{encoding::text, metrics::gauge::Gauge, registry::Registry};

use super::members::{ClusterSample, MemberCollector};

/// The page in the OpenMetrics text format.
pub fn page(cluster: ClusterSample, took: Duration) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("defragd");
    let success: Gauge = Gauge::default();
    success.set(i64::from(cluster.up));
    let duration: Gauge<f64, AtomicU64> = Gauge::default();
    duration.set(took.as_secs_f64());
    registry.register("probe_success", "Whether a target returned the cluster's member list", success);
    registry.register("probe_duration_seconds", "How long the probe took", duration);
    registry.register_collector(Box::new(MemberCollector::new(vec![cluster])));
    let mut page = String::with_capacity(8 << 10);
    text::encode(&mut page, &registry)?;
    Ok(page)
}
