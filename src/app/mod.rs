//! The application: observes clusters, drives runs, serves.
//!
//! [`observer`] gathers facts through the etcd port, [`driver`] performs what a run asks for,
//! [`cluster`] keeps one cluster's requests and the worker that serves them, [`service`] answers the HTTP
//! side, [`serve`] puts the real adapters together and ends them in order.

pub mod claims;
pub mod cluster;
pub mod driver;
pub mod log;
pub mod observer;
pub mod serve;
pub mod service;

#[cfg(test)]
mod fake;
