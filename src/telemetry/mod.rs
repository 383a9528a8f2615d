//! Logs and metrics. Metric handles are owned by the code that updates them: there are no globals.

pub mod counters;
pub mod log_limit;
mod log_lines;
pub mod logging;
pub mod members;
pub mod probe;
pub mod process;
pub mod runtime;
pub mod scrapes;
