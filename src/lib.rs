//! x
pub mod core;
pub mod ports;
pub mod adapters;
