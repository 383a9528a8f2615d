//! The real outside world: the only place for etcd-client, reqwest, axum, sockets and files.

pub mod etcd;
pub mod gates;
pub mod http;
pub mod journal;
pub mod lock;
pub mod outgoing;
pub mod systemd;
mod tls;
pub mod turn_limiter;
