//! `process_*`, the metrics that every exporter has, read from /proc on scrape.

use std::sync::LazyLock;

use procfs::{CurrentSI, WithCurrentSystemInfo, process::Process};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

static BOOT_TIME_SECONDS: LazyLock<Option<u64>> =
    LazyLock::new(|| procfs::KernelStats::current().ok().map(|stats| stats.btime));

/// Reads this process. Exposes nothing if there is no /proc.
#[derive(Debug)]
pub struct ProcessCollector;

// Seconds and bytes of one process stay far below 2^52, where f64 is exact.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^52")]
impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let Ok(process) = Process::myself() else { return Ok(()) };
        let Ok(stat) = process.stat() else { return Ok(()) };
        let ticks = procfs::ticks_per_second() as f64;
        let cpu = ConstCounter::new((stat.utime + stat.stime) as f64 / ticks);
        let described = encoder.encode_descriptor("process_cpu_seconds", "CPU time used", None, cpu.metric_type())?;
        cpu.encode(described)?;
        let open = process.fd_count().ok().map(|count| count as f64);
        let limit = process.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
            procfs::process::LimitValue::Value(value) => Some(value as f64),
            procfs::process::LimitValue::Unlimited => None,
        });
        let started = BOOT_TIME_SECONDS.map(|boot| boot as f64 + stat.starttime as f64 / ticks);
        let resident = stat.rss_bytes().get();
        for (name, help, value) in [
            ("process_open_fds", "Number of open file descriptors", open),
            ("process_max_fds", "Limit of open file descriptors", limit),
            ("process_virtual_memory_bytes", "Virtual memory size", Some(stat.vsize as f64)),
            ("process_resident_memory_bytes", "Resident memory size", Some(resident as f64)),
            ("process_start_time_seconds", "Start of the process, as Unix time", started),
            ("process_threads", "Number of threads", Some(stat.num_threads as f64)),
        ] {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
