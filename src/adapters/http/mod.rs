//! The HTTP side: metrics, the webhook receiver, the API, the status page.
//!
//! It knows nothing of etcd: everything comes from [`crate::ports::service::Service`].

mod auth;
mod body;
mod connections;
mod exposition;
mod guard;
mod orders;
mod page;
mod routes;
mod runs;
mod scrape;
mod server;
mod web;
mod webhook;

pub use auth::{AccessPolicy, TokenError};
pub use routes::{Options, router};
pub use server::{ListenError, Listener};
pub use web::Web;
