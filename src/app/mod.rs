//! The application: observes clusters, drives runs, serves.
//!
//! [`observer`] gathers facts through the etcd port, [`driver`] performs what a run asks for,
//! [`gates`] builds a cluster's gates and [`checks`] asks them, [`cluster`] keeps one cluster, of its `target` (the
//! etcd), its requests and its `succession` (which replica acts), [`requests`] takes what is
//! asked of it, [`worker`] serves it one by one, [`ledger`] reads what the journal says of it, [`lock`] keeps the lock
//! ([`locks`] builds them) and [`forward`] hands to its holder, [`handover`] tells the next one, [`service`] answers the HTTP
//! side and `overview` the status page, with [`live`] for the run under way, [`web`] reads its security again and again,
//! [`reconcile`] asks Alertmanager at the start, [`fleet`] keeps the clusters and what runs for each, [`reload`] swaps them,
//! [`notify`] tells others of runs, [`probe`] measures clusters that are not configured, [`report`] reviews the past,
//! [`serve`] puts the real adapters together and ends them in order.

pub mod checks;
pub mod claims;
pub mod cluster;
pub mod driver;
pub mod fleet;
pub mod forward;
pub mod gates;
pub mod ledger;
pub mod live;
pub mod lock;
pub mod locks;
pub mod log;
pub mod note;
pub mod notify;
pub mod observer;
mod overview;
pub mod probe;
mod problems;
pub mod reconcile;
pub mod reload;
pub mod report;
pub mod requests;
mod revisions;
mod schedule;
pub mod serve;
pub mod service;
mod succession;
mod target;
pub mod web;
pub mod worker;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_lock;
#[cfg(test)]
mod page_tests;
