//! `defragd_runtime_*`: what the asynchronous runtime is busy with. A growing queue or number of tasks is visible here
//! first.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use tokio::runtime::Handle;

/// Reads the runtime in which it is called. Exposes nothing outside of one.
#[derive(Debug)]
pub struct RuntimeCollector;

#[expect(clippy::cast_precision_loss, reason = "numbers of threads and tasks are exact far below 2^52")]
impl Collector for RuntimeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let Ok(runtime) = Handle::try_current() else { return Ok(()) };
        let metrics = runtime.metrics();
        let workers = metrics.num_workers();
        for (name, help, value) in [
            ("runtime_workers", "Threads of the asynchronous runtime", workers),
            ("runtime_alive_tasks", "Tasks of the runtime that have not ended", metrics.num_alive_tasks()),
            (
                "runtime_global_queue_depth",
                "Tasks that are ready to run and that no thread has started yet",
                metrics.global_queue_depth(),
            ),
        ] {
            let gauge = ConstGauge::new(value as f64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        #[cfg(target_has_atomic = "64")]
        {
            let busy: std::time::Duration = (0..workers).map(|worker| metrics.worker_total_busy_duration(worker)).sum();
            let counter = ConstCounter::new(busy.as_secs_f64());
            let help = "Time that the runtime's threads spent on tasks, summed over the threads";
            counter.encode(encoder.encode_descriptor("runtime_busy_seconds", help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}
