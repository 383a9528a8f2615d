//! Who is using the page, and whether a form was sent by it.

use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue, header, request::Parts};
use subtle::ConstantTimeEq;

use crate::adapters::http::{
    auth::{Orders, Proof},
    sessions::{ID_BYTES, new_id},
    site::Site,
};

/// What a visitor may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VisitorAccess {
    Closed,
    /// Actions, after signing in with the token.
    Stranger,
    /// Actions: this browser has signed in.
    LoggedIn,
    /// Actions: the browser sends a password or a certificate.
    Known,
    /// Actions: all visitors may act, because all listeners are on loopback.
    Open,
    /// No actions: there is neither a token nor a password nor a certificate.
    Unknown,
}

impl VisitorAccess {
    /// Whether the visitor may act.
    pub(super) const fn may_order(self) -> bool {
        matches!(self, Self::LoggedIn | Self::Known | Self::Open)
    }
}

/// The client of a page.
pub(super) struct Visitor {
    pub(super) access: VisitorAccess,
    /// As entered before.
    pub(super) name: Option<String>,
    cookie: Option<String>,
}

/// A cookie to set, and the token that its forms must contain.
pub(super) struct FormToken {
    pub(super) token: String,
    pub(super) set_cookie: Option<HeaderValue>,
}

impl Visitor {
    /// From what the request proves.
    pub(super) fn of<S>(site: &Site<S>, parts: &Parts) -> Self {
        let proof = parts.extensions.get::<Proof>().copied().unwrap_or_default();
        let cookie = cookie(&parts.headers, name(site));
        let logged_in = || cookie.as_ref().is_some_and(|id| site.sessions.is_open(id, Instant::now()));
        let access = match site.access.orders(proof) {
            Orders::Closed => VisitorAccess::Closed,
            Orders::Token if logged_in() => VisitorAccess::LoggedIn,
            Orders::Token => VisitorAccess::Stranger,
            Orders::Known => VisitorAccess::Known,
            Orders::Open => VisitorAccess::Open,
            Orders::Unknown => VisitorAccess::Unknown,
        };
        let name = cookie.as_ref().and_then(|id| site.sessions.name(id, Instant::now()));
        Self { access, name, cookie }
    }

    /// For a page with forms. A browser without a cookie gets one; a visitor who may not act gets neither forms nor a
    /// cookie, so that a visit through another site's link, which sends no cookie, ends no session.
    pub(super) fn form<S>(&self, site: &Site<S>) -> Option<FormToken> {
        if !self.access.may_order() {
            return None;
        }
        let sessions = &site.sessions;
        Some(match &self.cookie {
            Some(id) => FormToken { token: sessions.token(id), set_cookie: None },
            None => {
                let id = new_id();
                FormToken { token: sessions.token(&id), set_cookie: set_cookie(site, &id, None) }
            }
        })
    }

    /// Whether the form comes from a page that this browser received.
    pub(super) fn sent<S>(&self, site: &Site<S>, token: &str) -> bool {
        let expected = self.cookie.as_ref().map(|id| site.sessions.token(id));
        expected.is_some_and(|expected| bool::from(expected.as_bytes().ct_eq(token.as_bytes())))
    }

    /// Opens a session under a new number, whatever cookie came with the token. The name may be empty.
    pub(super) fn log_in<S>(site: &Site<S>, name: String) -> Option<HeaderValue> {
        let now = Instant::now();
        let id = site.sessions.open(now);
        if !name.is_empty() {
            site.sessions.remember(&id, name, now);
        }
        set_cookie(site, &id, None)
    }

    /// So that the next form need not ask for it.
    pub(super) fn remember<S>(&self, site: &Site<S>, name: &str) {
        if let Some(id) = &self.cookie {
            site.sessions.remember(id, name.to_owned(), Instant::now());
        }
    }

    /// Ends the session on both sides.
    pub(super) fn log_out<S>(&self, site: &Site<S>) -> Option<HeaderValue> {
        if let Some(id) = &self.cookie {
            site.sessions.close(id);
        }
        set_cookie(site, "", Some(0))
    }
}

/// `__Host-` where possible: another host of the same domain cannot set such a cookie.
fn name<S>(site: &Site<S>) -> &'static str {
    if site.is_https() { "__Host-defragd" } else { "defragd" }
}

fn set_cookie<S>(site: &Site<S>, value: &str, max_age_seconds: Option<u32>) -> Option<HeaderValue> {
    // `__Host-` requires this path.
    let (path, secure) = if site.is_https() { ("/".to_owned(), "; Secure") } else { (site.link("/"), "") };
    let age = max_age_seconds.map_or(String::new(), |seconds| format!("; Max-Age={seconds}"));
    let cookie = format!("{}={value}; Path={path}; HttpOnly; SameSite=Strict{secure}{age}", name(site));
    HeaderValue::from_str(&cookie).ok()
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find(|(its, _)| *its == name)?.1;
    let is_ours = value.len() == 2 * ID_BYTES && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_ours.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_accepted_only_in_the_form_that_is_set() {
        let id = new_id();
        let headers = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, text.parse().expect("a header"));
            headers
        };
        assert_eq!(cookie(&headers(&format!("a=b; defragd={id}; c=d")), "defragd"), Some(id.clone()));
        for bad in ["defragd=", "defragd=short", "other=1", &format!("defragd={id}0"), &format!("xdefragd={id}")] {
            assert_eq!(cookie(&headers(bad), "defragd"), None, "{bad}");
        }
    }
}
