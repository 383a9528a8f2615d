//! The application: observes clusters, drives runs, serves.
//!
//! [`observer`] gathers facts through the etcd port, [`driver`] performs what a run asks for, `rpc` its RPCs, [`gates`]
//! builds a cluster's gates and [`checks`] checks them. [`cluster`] is one cluster, made of its `target` (the etcd),
//! its requests (`request_state`) and its `succession` (which replica acts); [`requests`] accepts requests, [`worker`] serves them one by
//! one, [`ledger`] reads what the journal holds about the cluster. [`lock`] keeps the lock, [`locks`] builds the locks,
//! [`forward`] forwards to the holder, [`note`] keeps the note for the next holder. [`service`] answers the HTTP side,
//! `alerts` its notifications, and `overview` the status page, with [`live`] for the run in progress, [`run_lines`] for
//! its progress as text, and `observations` for what was last observed; [`web`] reloads the web configuration,
//! [`reconcile`] queries Alertmanager at start, [`fleet`] keeps the clusters and what runs for each, [`reload`]
//! replaces them, [`shards`] knows which clusters other processes have, `foreign_alerts` forwards their alerts,
//! [`notify`] sends notifications of runs, [`probe`] measures clusters that are not configured, [`report`] reviews the
//! past, [`serve`] puts the real adapters together and shuts them down in order, and [`supervise`] watches the tasks in
//! between; [`signals`] ends them, and `defragd run`.

mod alerts;
pub mod checks;
pub mod claims;
pub mod cluster;
mod config_changes;
pub mod connect;
mod decisions;
mod descriptors;
mod detached;
pub mod driver;
pub mod fleet;
mod foreign_alerts;
pub mod forward;
pub mod gates;
pub mod ledger;
pub mod live;
pub mod lock;
pub mod locks;
pub mod log;
pub mod note;
pub mod notify;
pub mod observations;
pub mod observer;
mod overview;
mod plans;
pub mod probe;
mod problems;
pub mod reconcile;
pub mod reload;
pub mod report;
mod request_state;
pub mod requests;
mod revisions;
mod rpc;
pub mod run_lines;
mod schedule;
pub mod serve;
pub mod service;
pub mod shards;
pub mod signals;
mod state_progress;
mod succession;
pub mod supervise;
mod target;
pub mod web;
pub mod worker;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_lock;
#[cfg(test)]
mod fake_site;
#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod screenshots;
