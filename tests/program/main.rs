//! The program by itself, without etcd: what it takes from clients, files and systemd, and what it reports to them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod check_config;
mod command_line;
mod control;
mod deploy;
mod edge;
mod fleet;
mod flood;
mod load;
mod machine;
mod notify;
mod reload;
mod rig;
mod shards;
mod systemd;
mod web;
