//! defragd as its users run it, on real etcd, Prometheus and Alertmanager. The tests judge by what the servers
//! themselves report, never by defragd's output alone.
//!
//! Needs the tools that `tests/testkit/tools` installs; `make test` does both.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alerts;
mod api;
mod auth;
mod beside;
mod cli;
mod compaction;
mod dashboards;
mod deadline;
mod disk_full;
mod dns;
mod events;
mod exposition;
mod faults;
mod fleet;
mod frozen;
mod gated;
mod gates_probes;
mod gates_run;
mod identity;
mod journal;
mod kill;
mod leadership;
mod listeners;
mod lock_stores;
mod logins;
mod logs;
mod metrics_apart;
mod nodes;
mod nospace;
mod oom;
mod own_authority;
mod page_reads;
mod partition;
mod pods;
mod probe;
mod replica_faults;
mod replica_slow;
mod replica_world;
mod replicas;
mod report;
mod report_access;
mod rig;
mod roll;
mod rotation;
mod runbook;
mod schedule;
mod secrets;
mod shards;
mod signals;
mod site;
mod snapshot;
mod standing;
mod terminal;
mod tls_errors;
mod trouble;
mod truth;
mod unblocked;
mod upgrade;
mod verify;
mod webhook;
