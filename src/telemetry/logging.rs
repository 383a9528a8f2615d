//! Log lines on standard error, as logfmt or JSON.

use std::sync::Arc;

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use super::log_limit::{LimitLayer, LogLimit};

/// Lowest level that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Each RPC.
    Debug,
    /// Each step of a run.
    #[default]
    Info,
    /// What an operator should look at.
    Warn,
    /// What failed.
    Error,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `key=value`.
    #[default]
    Logfmt,
    /// One JSON object per line, with the same keys.
    Json,
}

/// Logging until it is dropped, which reports the lines that were suppressed last.
pub struct Logging(Arc<LogLimit>);

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.report();
    }
}

/// Starts logging for the rest of the process. A second call does nothing.
pub fn init(level: Level, format: Format) -> Logging {
    let level = match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    // Libraries log from `warn` on: their `info` is not about etcd.
    // The Kubernetes client logs each failed request, which the gate reports itself, and sometimes whole answers.
    let filter = EnvFilter::new(format!("warn,kube_client=off,defragd={level}"));
    let limit = Arc::<LogLimit>::default();
    let lines = tracing_subscriber::fmt::layer().event_format(format).with_writer(std::io::stderr);
    if tracing_subscriber::registry().with(filter).with(LimitLayer(Arc::clone(&limit))).with(lines).try_init().is_ok() {
        Arc::clone(&limit).report_always();
    }
    Logging(limit)
}
