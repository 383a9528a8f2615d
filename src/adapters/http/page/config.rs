//! `/configuration`: what is in effect, and what differs from the defaults. `/config` is the same as JSON.

use std::sync::Arc;

use axum::{
    extract::{Query, State as Extract},
    http::{StatusCode, request::Parts},
    response::Response,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    layout::{Links, Page, columns},
    select::SMALL_FLEET,
    session::Visitor,
    words,
};
use crate::{
    adapters::http::site::Site,
    ports::service::{ConfigKey, ConfigSection, Service},
};

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    /// A part of the name, in any case.
    q: String,
}

pub(super) async fn page<S: Service>(
    Extract(site): Extract<Arc<Site<S>>>,
    Query(wanted): Query<Wanted>,
    parts: Parts,
) -> Response {
    let links = Links(&site.options.link_prefix);
    let all = site.service.effective_configuration();
    let query = wanted.q.trim().to_lowercase();
    let is_wanted = |section: &&ConfigSection| {
        query.is_empty() || section.name.as_ref().is_some_and(|name| name.to_lowercase().contains(&query))
    };
    let found: Vec<_> = all.iter().filter(is_wanted).collect();
    let main = html! {
        h1 { "Configuration" }
        p {
            "What is in effect now. Keys that differ from their defaults are marked. "
            a href=(links.to("/config")) { "The same as JSON" } "."
        }
        @if let Some(at) = site.service.reload_rejected_at() {
            p.problem role="alert" {
                "The configuration that was read at " (words::at(at)) " was rejected: what follows is the previous one. "
                "The log says what is wrong; " code { "defragd check-config" } " finds what is wrong in the file itself."
            }
        }
        @if all.len() > SMALL_FLEET {
            form.filter method="get" action=(links.to("/configuration")) role="search" aria-label="Sections" {
                label { "Name " input type="search" name="q" value=(wanted.q) autocomplete="off" spellcheck="false"; }
                button type="submit" { "Show" }
            }
        }
        @for section in found.iter().take(SMALL_FLEET) { (show(section)) }
        @if found.is_empty() { p { @if all.is_empty() { "There is no configuration." } @else { "No sections match." } } }
        @if found.len() > SMALL_FLEET {
            p { (SMALL_FLEET) " of " (words::many(found.len(), "section")) " are shown: enter a part of a name." }
        }
    };
    Page::still("Configuration", StatusCode::OK, main).answer(&site, &Visitor::of(&site, &parts))
}

fn show(section: &ConfigSection) -> Markup {
    let kind = words::capital(section.kind.strip_suffix('s').unwrap_or(&section.kind));
    let title = section.name.as_ref().map_or_else(|| kind.clone(), |name| format!("{kind} {name}"));
    html! {
        section aria-label=(title) {
            h2.foreign { (title) }
            table.reflow.keys role="table" {
                caption.visually-hidden { (title) }
                (columns(&[("Key", "name"), ("Value", "rest"), ("Default", "rest")]))
                tbody role="rowgroup" { @for key in &section.keys { (row(key)) } }
            }
        }
    }
}

fn row(key: &ConfigKey) -> Markup {
    html! {
        tr.differs[key.differs] role="row" {
            th.foreign scope="row" role="rowheader" title=(key.description) { code { (key.path) } }
            td.foreign role="cell" data-label="Value" {
                (key.value) @if key.differs { " " span.chip { @if key.default.is_some() { "changed" } @else { "set" } } }
            }
            td.dim.foreign role="cell" data-label="Default" { (key.default.as_deref().unwrap_or("–")) }
        }
    }
}
