//! Real software for defragd's tests and its demo: etcd clusters of several versions, Prometheus,
//! Alertmanager and defragd itself, each a child process on free loopback ports that ends with the test.
//!
//! In reading order: [`Tools`] finds the binaries that `tests/testkit/tools` installed, [`Pki`] makes
//! throw-away certificates, [`EtcdCluster`] starts members and does to them what operators and accidents do,
//! [`fragment`] fills a cluster with reclaimable space, [`Writer`] is client load that must not be disturbed,
//! [`DefragWatch`] reads from the servers' own logs which member was defragmented when, [`Prometheus`],
//! [`Alertmanager`] and [`Defragd`] in its [`Home`] complete the loop, [`KubeApiserver`] is there for gates, [`KubeLab`] is
//! a whole Kubernetes node, [`GoClients`] are clients of both, [`Haproxy`] stands in front of etcd, [`Browser`] opens pages. For faults there are [`HeldDefrags`], [`Island`], [`Lan`],
//! [`SmallDisk`], [`FailingDisk`], [`MemoryLimit`] and [`in_namespaces`]. [`on_each_version`] writes a test for each version,
//! [`skipped`] says that one cannot run here.
//!
//! Nothing here uses defragd's code: the tests judge defragd by what the servers report.

mod alertmanager;
mod browser;
mod defrag_log;
mod defragd;
mod disk;
mod dns;
mod etcd;
mod exposition;
mod fragment;
mod guarded;
mod haproxy;
mod hold;
mod home;
mod http;
mod kube;
mod lan;
mod memory;
mod network;
mod openapi;
mod pki;
mod port;
mod process;
mod prometheus;
mod sandbox;
mod skip;
mod timeline;
mod tools;
mod versions;
mod wait;
mod watch;
mod writer;

pub use alertmanager::{Alertmanager, PostedAlert};
pub use browser::Browser;
pub use defrag_log::DefragLog;
pub use defragd::Defragd;
pub use disk::{FailingDisk, SmallDisk};
pub use dns::Dns;
pub use etcd::{EtcdCluster, EtcdSpec, Member, MemberStatus, Transport};
pub use exposition::Exposition;
pub use fragment::{
    Fragmented, MemberSize, exhaust_quota, exhaust_quota_with_stale_sizes, fragment, overwrite, sizes, version_written,
};
pub use guarded::GuardedPrometheus;
pub use haproxy::Haproxy;
pub use hold::{HeldDefrags, OpenSnapshot};
pub use home::{Home, wrap};
pub use http::Response;
pub use kube::{GoClients, GoSample, Image, KubeApiserver, KubeLab, Placement, in_node, in_node_for};
pub use lan::{Cut, Lan};
pub use memory::MemoryLimit;
pub use network::{Cable, Host, Island};
pub use openapi::OpenApi;
pub use pastey;
pub use pki::{Identity, Pki};
pub use port::Port;
pub use process::{processor_time, tail};
pub use prometheus::{FiringAlert, Prometheus, Sample, shortened_rules};
pub use rcgen;
pub use sandbox::{in_namespaces, in_namespaces_for, is_inside};
pub use skip::skipped;
pub use timeline::{Defrag, Timeline};
pub use tools::{EtcdVersion, Tools};
pub use versions::on_version;
pub use wait::until;
pub use watch::DefragWatch;
pub use writer::{Writer, WriterReport};
