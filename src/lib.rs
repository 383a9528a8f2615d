//! x
pub mod core;
pub mod ports;
pub mod adapters;
pub mod app;
pub mod config;
pub mod telemetry;
