//! The gates' probes: each looks at one kind of thing outside etcd.

pub mod kubernetes;
