//! The page for a missing object or a refused action.

use axum::{http::StatusCode, response::Response};
use maud::html;

use super::{
    layout::{Links, Page},
    session::Visitor,
};
use crate::adapters::http::site::Site;

/// A page with a sentence and a link back.
pub(super) fn answer<S>(site: &Site<S>, visitor: &Visitor, status: StatusCode, title: &str, what: &str) -> Response {
    let links = Links(&site.options.link_prefix);
    let main = html! {
        h1 { (title) }
        p.problem role="alert" { (what) }
        p { a href=(links.to("/")) { "To the status page" } }
    };
    Page::still(title, status, main).answer(site, visitor)
}
