//! The application: observes clusters, drives runs, serves.
//!
//! [`observer`] gathers facts through the etcd port, [`driver`] performs what a run asks for,
//! [`cluster`] keeps one cluster, [`requests`] takes what is asked of it, [`worker`] serves it one by one,
//! [`service`] answers the HTTP side, [`reconcile`] asks Alertmanager at the start, [`serve`] puts the real adapters together and ends them in order.

pub mod claims;
pub mod cluster;
pub mod driver;
pub mod gates;
pub mod log;
pub mod observer;
pub mod reconcile;
pub mod requests;
pub mod serve;
pub mod service;
pub mod worker;

#[cfg(test)]
mod fake;
