//! The status page: the state of the clusters, and the few actions that operators may take from there.
//!
//! It works without scripts; `page.js` only replaces the parts that `/events` reports as changed. Nothing is loaded
//! from elsewhere, and the content security policy forbids it. Everything is escaped by the templates: names, reasons
//! and results of gates are foreign text. Viewing the page changes nothing, and the application decides how often etcd
//! is queried for it ([`crate::ports::overview`]).
//!
//! # Who may act from a browser
//! The rule is that of the API, see [`super::auth`]: what can cause a write to etcd needs authentication, unless every
//! listener is on loopback. A browser has no bearer token, so
//!
//! | the API needs | the page needs |
//! |---|---|
//! | the admin token, or if there is none, the webhook's | that token, entered once at `/login`, which opens a session ([`session`]) |
//! | a password or a client certificate | the same: the browser sends it by itself |
//! | nothing, on loopback | nothing |
//! | there is no receiver | there are no forms |
//!
//! A session never gives more rights than the token: it proves for eight hours that the token was entered, and ends
//! with the process.
//!
//! Everything that a browser sends by itself (cookie, password, certificate, a connection from this machine) it also
//! sends when another site makes it submit a form. So each action must pass three independent checks: the browser says
//! that the request comes from our own page (`Sec-Fetch-Site`, `Origin`; one of them must be there), the cookie is
//! `SameSite=Strict`, and the form contains a token that only our page knows, bound to that cookie. On loopback
//! without a token, a foreign name that points to 127.0.0.1 (DNS rebinding) would make a foreign page "our own", so
//! there the request must have been sent to a loopback name, or to the host of `--web.external-url` ([`super::origin`]).

mod actions;
mod assets;
mod bars;
mod cluster;
mod condition;
mod config;
mod events;
mod forms;
mod layout;
mod live;
mod members;
mod overview;
mod plan;
mod refusal;
mod run;
mod runs;
mod select;
mod session;
mod timeline;
mod words;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};

use self::forms::Order;
use super::site::Site;
use crate::ports::service::Service;

pub(super) fn routes<S: Service>(router: Router<Arc<Site<S>>>, at: impl Fn(&str) -> String) -> Router<Arc<Site<S>>> {
    router
        .route(&at("/"), get(overview::page::<S>))
        .route(&at("/configuration"), get(config::page::<S>))
        .route(&at("/events"), get(events::stream::<S>))
        .route(&at("/assets/{file}"), get(assets::asset))
        .route(&at("/clusters/{name}"), get(cluster::page::<S>))
        .route(&at("/clusters/{name}/pause"), forms::command("pause", Order::pause))
        .route(&at("/clusters/{name}/resume"), forms::command("resume", Order::resume))
        .route(&at("/clusters/{name}/run"), forms::command("run", Order::run))
        .route(&at("/clusters/{name}/cancel"), forms::command("cancel", Order::cancel))
        .route(&at("/runs/{id}"), get(run::page::<S>))
        .route(&at("/runs/{id}/approve"), forms::decision("approve"))
        .route(&at("/runs/{id}/reject"), forms::decision("reject"))
        .route(&at("/login"), get(forms::login_page::<S>).post(forms::login::<S>))
        .route(&at("/logout"), post(forms::logout::<S>))
}
