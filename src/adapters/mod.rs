//! The real implementations of the ports: the only place for etcd-client, reqwest, axum, sockets and files.

mod causes;
pub mod clock;
pub mod etcd;
pub mod gates;
pub mod http;
pub mod journal;
pub mod kubernetes_event;
pub mod lock;
pub mod outgoing;
pub mod systemd;
mod tls;
