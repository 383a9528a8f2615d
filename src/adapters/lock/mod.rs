//! Where replicas agree on which of them acts: in an etcd, or in a Lease of Kubernetes.

mod etcd;
mod kubernetes;

pub use etcd::EtcdLock;
pub use kubernetes::KubernetesLock;
