//! Thousands of simulated etcd members on loopback, each at an address of its own, for `make bench-fleet` and for
//! tests of many clusters.
//!
//! They implement what defragd uses: `Status`, `MemberList`, `Range` and `Alarm` over gRPC, and the metrics page. They
//! hold no data and elect no leader: [`plan`] decides which member has which fault, [`answers`] what it answers, [`wire`]
//! encodes that in protobuf, and [`members`] listens.

pub mod answers;
pub mod members;
mod pki;
pub mod plan;
mod wire;

pub use members::Fleet;
pub use plan::{Fault, Plan};
