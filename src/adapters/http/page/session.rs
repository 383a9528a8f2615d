//! Who is using the page, and whether a form was sent by it.
//!
//! A session is a random number in a cookie; the server keeps only a keyed hash of it, with its end. The key is
//! generated at start and never leaves the process, so a restart ends all sessions. The token that a form must contain
//! is another keyed hash of the same cookie: for visitors who only look, nothing is kept.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aws_lc_rs::{hmac, rand};
use axum::http::{HeaderMap, HeaderValue, header, request::Parts};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use super::words::hex;
use crate::{
    adapters::http::{
        auth::{Orders, Proof},
        routes::Site,
        web::Bucket,
    },
    ports::web::RateLimit,
};

/// A working day.
const LASTS: Duration = Duration::from_hours(8);
/// More than there are operators; beyond that, the session that expires first ends.
const MAX_SESSIONS: usize = 256;
/// Wrong tokens: this many at once, then one per second. A token of 16 bytes or more cannot be guessed at that rate,
/// and a client that keeps the form busy on purpose does not affect the API.
const WRONG_TRIES: RateLimit = RateLimit { interval: Duration::from_secs(1), burst: 10 };
/// Enough bytes that a number cannot be guessed.
const ID_BYTES: usize = 32;

pub(super) struct Sessions {
    key: hmac::Key,
    open: Mutex<BTreeMap<Vec<u8>, Instant>>,
    names: Mutex<BTreeMap<Vec<u8>, OperatorName>>,
    wrong: Bucket,
}

/// The name that an operator entered with the first action of a browser session. It proves nothing.
struct OperatorName {
    ends: Instant,
    name: String,
}

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

impl Default for Sessions {
    fn default() -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &random()),
            open: Mutex::default(),
            names: Mutex::default(),
            wrong: Bucket::new(WRONG_TRIES),
        }
    }
}

impl Sessions {
    /// Whether a wrong token may be tried now. If so, it counts as one.
    pub(super) fn may_try(&self) -> bool {
        self.wrong.allows(Instant::now())
    }

    /// Opens a session and returns its cookie's value.
    pub(super) fn open(&self, now: Instant) -> String {
        let id = hex(&random());
        let mut open = self.open.lock();
        open.retain(|_, ends| *ends > now);
        if open.len() >= MAX_SESSIONS
            && let Some(first) = open.iter().min_by_key(|(_, ends)| **ends).map(|(id, _)| id.clone())
        {
            open.remove(&first);
        }
        open.insert(self.hash("session", &id), now + LASTS);
        id
    }

    fn close(&self, id: &str) {
        self.open.lock().remove(&self.hash("session", id));
        self.names.lock().remove(&self.hash("name", id));
    }

    fn remember(&self, id: &str, name: String, now: Instant) {
        let mut names = self.names.lock();
        names.retain(|_, known| known.ends > now);
        if names.len() >= MAX_SESSIONS
            && let Some(first) = names.iter().min_by_key(|(_, known)| known.ends).map(|(id, _)| id.clone())
        {
            names.remove(&first);
        }
        names.insert(self.hash("name", id), OperatorName { ends: now + LASTS, name });
    }

    fn name(&self, id: &str, now: Instant) -> Option<String> {
        let names = self.names.lock();
        names.get(&self.hash("name", id)).filter(|known| known.ends > now).map(|known| known.name.clone())
    }

    fn is_open(&self, id: &str, now: Instant) -> bool {
        self.open.lock().get(&self.hash("session", id)).is_some_and(|ends| *ends > now)
    }

    fn token(&self, id: &str) -> String {
        hex(&self.hash("form", id))
    }

    fn hash(&self, what: &str, id: &str) -> Vec<u8> {
        hmac::sign(&self.key, format!("{what}:{id}").as_bytes()).as_ref().to_vec()
    }
}

impl Visitor {
    /// From what the request proves.
    pub(super) fn of<S>(site: &Site<S>, parts: &Parts) -> Self {
        let proof = parts.extensions.get::<Proof>().copied().unwrap_or_default();
        let cookie = cookie(&parts.headers, name(site));
        let logged_in = || cookie.as_ref().is_some_and(|id| site.page.sessions.is_open(id, Instant::now()));
        let access = match site.options.access.orders(proof) {
            Orders::Closed => VisitorAccess::Closed,
            Orders::Token if logged_in() => VisitorAccess::LoggedIn,
            Orders::Token => VisitorAccess::Stranger,
            Orders::Known => VisitorAccess::Known,
            Orders::Open => VisitorAccess::Open,
            Orders::Unknown => VisitorAccess::Unknown,
        };
        let name = cookie.as_ref().and_then(|id| site.page.sessions.name(id, Instant::now()));
        Self { access, name, cookie }
    }

    /// For a page with forms. A browser without a cookie gets one; a visitor who may not act gets neither forms nor a
    /// cookie, so that a visit through another site's link, which sends no cookie, ends no session.
    pub(super) fn form<S>(&self, site: &Site<S>) -> Option<FormToken> {
        if !self.access.may_order() {
            return None;
        }
        let sessions = &site.page.sessions;
        Some(match &self.cookie {
            Some(id) => FormToken { token: sessions.token(id), set_cookie: None },
            None => {
                let id = hex(&random());
                FormToken { token: sessions.token(&id), set_cookie: set_cookie(site, &id, None) }
            }
        })
    }

    /// Whether the form comes from a page that this browser received.
    pub(super) fn sent<S>(&self, site: &Site<S>, token: &str) -> bool {
        let expected = self.cookie.as_ref().map(|id| site.page.sessions.token(id));
        expected.is_some_and(|expected| bool::from(expected.as_bytes().ct_eq(token.as_bytes())))
    }

    /// Opens a session under a new number, whatever cookie came with the token. The name may be empty.
    pub(super) fn log_in<S>(site: &Site<S>, name: String) -> Option<HeaderValue> {
        let (sessions, now) = (&site.page.sessions, Instant::now());
        let id = sessions.open(now);
        if !name.is_empty() {
            sessions.remember(&id, name, now);
        }
        set_cookie(site, &id, None)
    }

    /// So that the next form need not ask for it.
    pub(super) fn remember<S>(&self, site: &Site<S>, name: &str) {
        if let Some(id) = &self.cookie {
            site.page.sessions.remember(id, name.to_owned(), Instant::now());
        }
    }

    /// Ends the session on both sides.
    pub(super) fn log_out<S>(&self, site: &Site<S>) -> Option<HeaderValue> {
        if let Some(id) = &self.cookie {
            site.page.sessions.close(id);
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

fn random() -> [u8; ID_BYTES] {
    let mut bytes = [0; ID_BYTES];
    // The generator fails only if the system has no randomness at all; then it is unsafe to continue.
    #[expect(clippy::expect_used, reason = "see above")]
    rand::fill(&mut bytes).expect("the system gives random numbers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_itself_and_their_number_is_bounded() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let first = sessions.open(now);
        assert!(sessions.is_open(&first, now) && !sessions.is_open("00", now));
        assert!(!sessions.is_open(&first, now + LASTS), "eight hours later");
        let others: Vec<_> = (1..=MAX_SESSIONS).map(|n| sessions.open(now + Duration::from_millis(n as u64))).collect();
        assert_eq!(sessions.open.lock().len(), MAX_SESSIONS);
        assert!(!sessions.is_open(&first, now) && others.iter().all(|id| sessions.is_open(id, now)));
    }

    #[test]
    fn a_name_is_remembered_for_one_cookie_ends_by_itself_and_their_number_is_bounded() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        sessions.remember("a", "ann".to_owned(), now);
        assert_eq!((sessions.name("a", now).as_deref(), sessions.name("b", now)), (Some("ann"), None));
        assert_eq!(sessions.name("a", now + LASTS), None, "eight hours later");
        (1..=MAX_SESSIONS)
            .for_each(|n| sessions.remember(&n.to_string(), "x".to_owned(), now + Duration::from_millis(1)));
        assert_eq!(sessions.names.lock().len(), MAX_SESSIONS);
        assert_eq!(sessions.name("a", now), None);
        sessions.close("7");
        assert_eq!(sessions.name("7", now), None, "signing out forgets it");
        assert!(!sessions.is_open("8", now), "a name is not a session");
    }

    #[test]
    fn a_forms_token_is_of_one_cookie_and_one_process() {
        let (one, other) = (Sessions::default(), Sessions::default());
        assert_eq!(one.token("a"), one.token("a"));
        assert_ne!(one.token("a"), one.token("b"));
        assert_ne!(one.token("a"), other.token("a"));
        assert_ne!(one.hash("session", "a"), one.hash("form", "a"), "one does not reveal the other");
    }

    #[test]
    fn a_cookie_is_accepted_only_in_the_form_that_is_set() {
        let id = hex(&random());
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
