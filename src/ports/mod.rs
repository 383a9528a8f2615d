//! What the application needs from the outside world, as traits with their contracts.
//!
//! The real implementations are in [`crate::adapters`]; tests put fakes here, and nowhere else.

pub mod access;
pub mod clock;
pub mod etcd;
pub mod gate;
pub mod journal;
pub mod lock;
pub mod notifier;
pub mod overview;
pub mod peers;
pub mod progress;
pub mod service;
pub mod web;
