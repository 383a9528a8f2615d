//! What all pages have in common: the frame, the links, the headers.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    assets::{SCRIPT, STYLE},
    bars,
    session::{FormToken, Visitor, VisitorAccess},
    words::segment,
};
use crate::{adapters::http::site::Site, core::history::RunId};

/// All resources come from this server, and no other page may embed this one.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; img-src 'self' data:";
/// With `no-referrer`, a browser would also hide `Origin` from our own forms.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
/// Inline, so that no file has to be fetched.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
                    %3Crect width='16' height='16' rx='3' fill='%230550ae'/%3E\
                    %3Cpath d='M3 5h6M3 8h10M3 11h4' stroke='white' stroke-width='2'/%3E%3C/svg%3E";

/// The links of the page, with the prefix that clients outside use.
pub(super) struct Links<'a>(pub(super) &'a str);

impl Links<'_> {
    pub(super) fn to(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    pub(super) fn cluster(&self, name: &str) -> String {
        self.to(&format!("/clusters/{}", segment(name)))
    }

    pub(super) fn run(&self, run: RunId) -> String {
        self.to(&format!("/runs/{run}"))
    }
}

pub(super) struct Page<'a> {
    pub(super) title: &'a str,
    pub(super) status: StatusCode,
    /// Whether the script keeps it up to date.
    pub(super) follows: bool,
    pub(super) main: Markup,
    pub(super) form: Option<FormToken>,
}

impl<'a> Page<'a> {
    /// A page that the script keeps up to date.
    pub(super) fn live(title: &'a str, main: Markup) -> Self {
        Self { title, status: StatusCode::OK, follows: true, main, form: None }
    }

    /// A static page.
    pub(super) fn still(title: &'a str, status: StatusCode, main: Markup) -> Self {
        Self { title, status, follows: false, main, form: None }
    }

    pub(super) fn answer<S>(self, site: &Site<S>, visitor: &Visitor) -> Response {
        let links = Links(&site.options.link_prefix);
        let text = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " – defragd" }
                    link rel="icon" href=(PreEscaped(ICON));
                    link rel="stylesheet" href=(links.to(&format!("/assets/{}", STYLE.name)));
                    @if self.follows { script src=(links.to(&format!("/assets/{}", SCRIPT.name))) defer {} }
                }
                body data-events=[self.follows.then(|| links.to("/events"))] {
                    a.skip href="#main" { "Skip to the content" }
                    (head(site, visitor, &links))
                    (bars::patterns())
                    main #main tabindex="-1" { (self.main) }
                    (foot(site, &links))
                    p #say .visually-hidden role="status" {}
                }
            }
        };
        let mut response = (self.status, Html(text.into_string())).into_response();
        decorate(&mut response);
        if let Some(cookie) = self.form.and_then(|form| form.set_cookie) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }
}

/// The head of a table: names of columns, and their classes.
pub(super) fn columns(columns: &[(&str, &str)]) -> Markup {
    html! {
        thead role="rowgroup" {
            tr role="row" {
                @for (name, class) in columns { th class=(class) scope="col" role="columnheader" { (name) } }
            }
        }
    }
}

/// The headers that every answer of the page has.
pub(super) fn decorate(response: &mut Response) {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
}

fn head<S>(site: &Site<S>, visitor: &Visitor, links: &Links) -> Markup {
    html! {
        header.top {
            a.brand href=(links.to("/")) { "defragd" }
            nav aria-label="defragd" {
                a href=(links.to("/")) { "Status" }
                a href=(links.to(&site.options.telemetry_path)) { "Metrics" }
                a href=(links.to("/configuration")) { "Configuration" }
            }
            span #link .dim {}
            @match visitor.access {
                VisitorAccess::Stranger => a.button href=(links.to("/login")) { "Sign in" },
                VisitorAccess::LoggedIn => @if let Some(form) = visitor.form(site) {
                    form method="post" action=(links.to("/logout")) {
                        input type="hidden" name="form" value=(form.token);
                        button type="submit" { "Sign out" }
                    }
                },
                _ => {},
            }
        }
    }
}

fn foot<S>(site: &Site<S>, links: &Links) -> Markup {
    html! {
        footer {
            p {
                "defragd " (env!("CARGO_PKG_VERSION")) " · "
                a href=(links.to("/api/v1/clusters")) { "Clusters" } " and "
                a href=(links.to("/api/v1/runs")) { "runs" } " as JSON · "
                a href=(links.to("/-/healthy")) { "Health" } " · "
                a href=(links.to("/-/ready")) { "Readiness" }
            }
            @if site.access.is_closed() { p { "Exporter only: no webhooks, no runs, no actions." } }
            noscript { p { "Without JavaScript, this page is not updated automatically: reload it to see changes." } }
        }
    }
}
