//! Real software for defragd's tests and its demo: etcd clusters of several versions, Prometheus,
//! Alertmanager and defragd itself, each a child process on free loopback ports that ends with the test.
//!
//! In reading order: [`Tools`] finds the binaries that `tests/testkit/tools` installed, [`Pki`] makes
//! throw-away certificates, [`EtcdCluster`] starts members and does to them what operators and accidents do,
//! [`fragment`] fills a cluster with reclaimable space, [`Writer`] is the client load that must not notice,
//! [`DefragWatch`] reads from the servers' own metrics who was defragmented when, and [`Prometheus`],
//! [`Alertmanager`] and [`Defragd`] complete the loop, [`KubeApiserver`] is what a gate looks at. For faults there are [`SlowDefrags`], [`Island`] and
//! [`in_namespaces`].
//!
//! Nothing here knows defragd's code: what it does is judged by what the servers say.

mod alertmanager;
mod defrag_log;
mod defragd;
mod disk;
mod etcd;
mod exposition;
mod fragment;
mod http;
mod kube_apiserver;
mod network;
mod pki;
mod port;
mod process;
mod prometheus;
mod sandbox;
mod slow;
mod timeline;
mod tools;
mod wait;
mod watch;
mod writer;

pub use alertmanager::{Alertmanager, PostedAlert};
pub use defrag_log::DefragLog;
pub use defragd::Defragd;
pub use etcd::{EtcdCluster, EtcdSpec, Member, MemberStatus, Transport};
pub use exposition::Exposition;
pub use fragment::{Fragmented, MemberSize, exhaust_quota, fragment};
pub use http::Response;
pub use kube_apiserver::KubeApiserver;
pub use network::{Cable, Host, Island};
pub use pki::{Identity, Pki};
pub use port::Port;
pub use process::tail;
pub use prometheus::{FiringAlert, Prometheus, Sample};
pub use sandbox::{in_namespaces, is_inside};
pub use slow::SlowDefrags;
pub use timeline::{Defrag, Timeline};
pub use tools::{EtcdVersion, Tools};
pub use wait::until;
pub use watch::DefragWatch;
pub use writer::{Writer, WriterReport};
