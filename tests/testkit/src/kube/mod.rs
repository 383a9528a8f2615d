//! A real Kubernetes on one machine: a node and its control plane, in namespaces that end with one process.
//!
//! A test asks for [`in_node`], which starts the test program again as the node's own user: network, mounts, processes and
//! host name are the node's. There, [`KubeLab::start`] starts etcd, the API server, controller manager, scheduler, containerd,
//! kubelet, kube-proxy and a controller that enforces network policies. No container registry: [`Image`]s are imported.
//! There is no DNS, no IPv6, and one node.

mod apiserver;
mod clients;
mod image;
mod lab;
mod node;

pub use apiserver::KubeApiserver;
pub use clients::{GoClients, GoSample};
pub use image::Image;
pub use lab::KubeLab;
pub use node::{Placement, in_node, in_node_for};
