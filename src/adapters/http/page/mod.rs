//! The status page: what people look at, and the few orders that they may give from there.
//!
//! It works without scripts; `page.js` only swaps the parts that `/events` says have changed. Nothing is loaded from
//! elsewhere, and the content security policy would not let it. Everything that is shown goes through the template's
//! escaping: names, reasons and what gates saw are other people's text. No page view writes anything, and how often
//! etcd is asked is the application's business ([`crate::ports::overview`]).
//!
//! # Who may give orders from a browser
//! The rule is the API's, see [`super::auth`]: what can cause a write to etcd needs authentication, unless every listener
//! is on loopback. A browser has no bearer token, so
//!
//! | the API needs | the page needs |
//! |---|---|
//! | the admin token, or without one the webhook's | that token, typed once at `/login`, which opens a session ([`session`]) |
//! | a password or a client certificate | the same: the browser shows it by itself |
//! | nothing, on loopback | nothing |
//! | there is no receiver | there are no forms |
//!
//! A session never outranks the token: it stands for having shown it, for eight hours, and ends with the process.
//!
//! Whatever a browser shows by itself (cookie, password, certificate, being on the machine) it also shows when another
//! site makes it send a form. So each order must pass three checks that do not depend on each other: the browser
//! says that the request comes from our own page (`Sec-Fetch-Site`, `Origin`; one of them must be there), the cookie is
//! `SameSite=Strict`, and the form holds a token that only our page could have told, bound to that cookie. On loopback
//! without a token a name that somebody points at 127.0.0.1 (DNS rebinding) would make a foreign page "our own", so
//! there the request must have been sent to a loopback name, or to that of `--web.external-url` ([`origin`]).

mod assets;
mod cluster;
mod condition;
mod events;
mod forms;
mod layout;
mod live;
mod members;
pub(super) mod origin;
mod overview;
mod refusal;
mod run;
mod runs;
mod select;
mod session;
mod words;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};

use self::{events::Streams, session::Sessions};
use super::routes::Site;
use crate::ports::service::Service;

#[derive(Default)]
pub(super) struct PageState {
    sessions: Sessions,
    streams: Streams,
}

/// Its paths, below the root.
pub(super) fn routes<S: Service>(router: Router<Arc<Site<S>>>, at: impl Fn(&str) -> String) -> Router<Arc<Site<S>>> {
    router
        .route(&at("/"), get(overview::page::<S>))
        .route(&at("/events"), get(events::stream::<S>))
        .route(&at("/assets/{file}"), get(assets::asset))
        .route(&at("/clusters/{name}"), get(cluster::page::<S>))
        .route(&at("/clusters/{name}/pause"), post(forms::pause::<S>))
        .route(&at("/clusters/{name}/resume"), post(forms::resume::<S>))
        .route(&at("/runs/{id}"), get(run::page::<S>))
        .route(&at("/runs/{id}/approve"), post(forms::approve::<S>))
        .route(&at("/login"), get(forms::login_page::<S>).post(forms::login::<S>))
        .route(&at("/logout"), post(forms::logout::<S>))
}
