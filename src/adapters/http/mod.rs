//! The HTTP side: metrics, the webhook receiver, the API, the status page.
//!
//! It knows nothing of etcd: everything comes from [`crate::ports::service::Service`].

mod auth;
mod body;
mod connections;
mod exposition;
mod extract;
mod guard;
mod head;
mod limits;
mod openapi;
mod orders;
mod origin;
mod page;
mod recheck;
mod routes;
mod runs;
mod scrape;
mod scrape_reserve;
mod server;
mod sessions;
mod site;
mod web;
mod webhook;

pub use auth::{AccessPolicy, TokenError};
pub use connections::MAX_CONNECTIONS;
pub use limits::limits;
pub use openapi::document as openapi;
pub use routes::router;
pub use server::{ListenError, Listener};
pub use site::Options;
pub use web::Web;
