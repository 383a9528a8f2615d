//! The application: observes clusters, drives runs, serves.
//!
//! [`observer`] gathers facts through the etcd port, [`driver`] performs what a run asks for,
//! [`gates`] builds a cluster's gates and [`checks`] asks them, [`cluster`] keeps one cluster, [`requests`] takes what is
//! asked of it, [`worker`] serves it one by one, [`ledger`] reads what the journal says of it, [`service`] answers the HTTP
//! side, [`web`] reads its security again and again, [`reconcile`] asks Alertmanager at the start, [`reload`] swaps the rules,
//! [`report`] reviews the past, [`serve`] puts the real adapters together and ends them in order.

pub mod checks;
pub mod claims;
pub mod cluster;
pub mod driver;
pub mod gates;
pub mod ledger;
pub mod log;
pub mod observer;
pub mod reconcile;
pub mod reload;
pub mod report;
pub mod requests;
mod revisions;
pub mod serve;
pub mod service;
pub mod web;
pub mod worker;

#[cfg(test)]
mod fake;
